"""Connecting to Ray: what is wrong with an address or a folder is said within seconds."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from deep_piano.errors import DeepPianoError, InputError
from deep_piano.infra.cluster import connection
from deep_piano.infra.cluster.connection import connected
from tests.support.bucket import free_port


@pytest.fixture
def ray(monkeypatch):
    """A Ray that is never started; yields what it was asked for."""
    asked = []
    fake = SimpleNamespace(
        is_initialized=lambda: False,
        LoggingConfig=lambda *_: None,
        init=lambda **given: asked.append(given["address"]),
        shutdown=lambda: asked.append("shutdown"),
        asked=asked,
    )
    job = SimpleNamespace(JobConfig=lambda: SimpleNamespace(set_py_logging_config=lambda _: None))
    monkeypatch.setitem(__import__("sys").modules, "ray", fake)
    monkeypatch.setitem(__import__("sys").modules, "ray.job_config", job)
    monkeypatch.setattr(connection, "_ANSWER_S", 0.1)
    return fake


def connect():
    with connected():
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_stale_address_is_said_at_once(ray, monkeypatch, scheme):
    address = f"{scheme}127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"RAY_ADDRESS={address} .*Unset RAY_ADDRESS"):
        connect()
    assert ray.asked == []


@pytest.mark.parametrize("address", ["nowhere.invalid:6379", "nonsense", "127.0.0.1:", "::1:99999"])
def test_an_address_that_is_none_is_said(ray, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match="Unset RAY_ADDRESS"):
        connect()


def test_a_job_servers_address_leads_to_submit(ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(InputError, match="put `submit` before this command, or unset RAY_ADDRESS"):
        connect()


def test_an_address_that_answers_is_used(ray, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        connect()
    assert ray.asked == [address, "shutdown"]


@pytest.mark.parametrize("address", ["", "local", "auto"])
def test_without_an_address_nothing_is_asked(ray, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    connect()
    assert ray.asked == [address or "local", "shutdown"]


def test_temporary_files_too_deep_for_sockets(ray, monkeypatch):
    def init(**_):
        raise OSError(
            "validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes"
        )

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.init = init
    with pytest.raises(InputError, match=r"too long for the sockets.*RAY_TMPDIR=/tmp"):
        connect()


def test_what_ray_says_else_is_a_failed_run(ray, monkeypatch):
    def init(**_):
        raise ConnectionError("nothing found.")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    ray.init = init
    with pytest.raises(DeepPianoError, match=r"nothing found\. Unset RAY_ADDRESS") as caught:
        connect()
    assert not isinstance(caught.value, InputError)


def test_a_home_that_cannot_be_written_needs_no_token_in_it(ray, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    connect()
    assert "RAY_AUTH_TOKEN" not in connection.os.environ
    monkeypatch.setattr(connection, "home_is_writable", lambda: False)
    connect()
    assert len(connection.os.environ["RAY_AUTH_TOKEN"]) == 64
