"""Jobs of a cluster: what is packed and sent, what is shown, and which exit code comes back."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import aiohttp
import pytest

from deep_piano.errors import DeepPianoError, InputError
from deep_piano.infra.cluster import jobs
from tests.support.commands import made, refused, run

ADDRESS = "http://127.0.0.1:1"


@pytest.fixture
def checkout(desk):
    for name in ("deep_piano/cli.py", "deep_piano/checkpoints/notes/weights-1.safetensors"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("here")
    for name in ("jobs/train.py", ".git/objects/a", ".venv/lib/b", "out/c.yaml", "shared/d"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("here")
    Path("deep_piano/__pycache__").mkdir()
    Path("deep_piano/__pycache__/cli.pyc").write_text("stale")
    Path("ray_config.yaml").write_text("profiles: {few: {bulk: {workers: 1}}}")
    for name in ("README.md", ".hidden.yaml"):
        Path(name).write_text("not needed")
    return Path.cwd()


class Server:
    """A job server that ran a job already; its log comes in two parts, and breaks off once."""

    def __init__(self, status="SUCCEEDED", code=0, message="", broken=None):
        self.info = SimpleNamespace(status=status, driver_exit_code=code, message=message)
        self.submitted, self.broken = None, broken or RuntimeError("closed")
        self.statuses = ["RUNNING", status]

    def submit_job(self, **given):
        self.submitted = given
        return "raysubmit_1"

    async def tail_job_logs(self, job):
        assert job == "raysubmit_1"
        yield "one\n"
        if len(self.statuses) > 1:
            raise self.broken
        yield "two\n"

    def get_job_status(self, job):
        status = self.statuses.pop(0)
        if isinstance(status, Exception):
            raise status
        return status

    def get_job_info(self, job):
        return self.info


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(jobs, "_PAUSE_S", 0)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is undone as well
        monkeypatch.delenv(name)


def submitted(server, checkout):
    shown = []
    code = jobs.submit(
        ADDRESS,
        "train",
        ["s3://b/set", "-o", "a b"],
        folder=checkout,
        show=shown.append,
        client=lambda address: server,
    )
    return code, "".join(shown)


@pytest.mark.parametrize(
    "broken",
    [
        RuntimeError("WebSocket connection closed unexpectedly"),
        ConnectionResetError("cut"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.WSServerHandshakeError(None, (), status=502, message="Bad Gateway"),
    ],
)
def test_the_log_is_shown_once_though_the_connection_breaks(checkout, broken):
    server = Server(broken=broken)
    assert submitted(server, checkout) == (0, "job raysubmit_1\none\ntwo\n")
    assert server.submitted["entrypoint"] == "python -m jobs.train s3://b/set -o 'a b'"
    assert set(server.submitted["runtime_env"]) == {"working_dir", "excludes"}


def test_a_job_server_that_is_away_for_a_moment_is_waited_for(checkout, monkeypatch):
    server = Server()
    server.statuses.insert(0, ConnectionError("Failed to connect"))
    assert submitted(server, checkout) == (0, "job raysubmit_1\none\ntwo\n")
    server = Server()
    server.statuses.insert(0, ConnectionError("Failed to connect"))
    monkeypatch.setattr(jobs, "_PATIENCE_S", -1)
    with pytest.raises(DeepPianoError, match=r"Failed to connect. .* --follow raysubmit_1`"):
        submitted(server, checkout)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("FAILED", 2, 2), ("FAILED", None, 1), ("STOPPED", None, 1), ("SUCCEEDED", 0, 0)],
)
def test_the_exit_code_is_the_jobs(checkout, status, code, expected):
    found, shown = submitted(Server(status, code, "why\nso"), checkout)
    assert found == expected
    assert shown.endswith("why\\nso\n" if code is None else "two\n")


def test_only_code_and_settings_are_packed(checkout):
    from ray._private.runtime_env.packaging import create_package

    package = checkout.with_name("package.zip")
    create_package(str(checkout), package, include_gitignore=True, excludes=list(jobs.EXCLUDES))
    with ZipFile(package) as packed:
        assert {name for name in packed.namelist() if not name.endswith("/")} == {
            "deep_piano/cli.py",
            "deep_piano/checkpoints/notes/weights-1.safetensors",
            "jobs/train.py",
            "ray_config.yaml",
        }


def test_a_dry_run_needs_no_address(checkout):
    words = shlex.split(made(run("submit", "--dry-run", "train", "s3://b/set", "-o", "s3://b/run")))
    assert words[:5] == ["ray", "job", "submit", "--working-dir", "."]
    assert words[-4:] == ["jobs.train", "s3://b/set", "-o", "s3://b/run"]
    refused(run("submit", "train", "s3://b/set"), "no address of a job server")
    refused(run("submit", "--dry-run", "--address", "host:1", "train"), "no address of a job")


def test_a_dry_run_prints_the_same_command(checkout):
    settings = ("--config", "ray_config.yaml", "--profile", "few")
    job = ("train", "s3://b/set", "-o", "a b", "--workers", "2")
    words = shlex.split(made(run(*settings, "submit", "--address", ADDRESS, "--dry-run", *job)))
    assert words[:7] == ["ray", "job", "submit", "--address", ADDRESS, "--working-dir", "."]
    assert json.loads(words[8]) == {"excludes": list(jobs.EXCLUDES)}
    assert words[9:] == ["--", "python", "-m", "jobs.train", *settings, *job[1:]]
    elsewhere = ("--config", Path("ray_config.yaml").absolute(), "--profile", "few")
    again = made(run(*elsewhere, "submit", "--address", ADDRESS, "--dry-run", *job))
    assert shlex.split(again) == words


def test_what_cannot_be_submitted(checkout):
    refused(run("submit", "train", "x"), "no address of a job server", "RAY_ADDRESS")
    refused(run("submit", "--address", "auto", "train"), "'auto'")
    refused(run("submit", "--address", ADDRESS, "sing"), "'sing' is not one of the stages prepare")
    at = ("submit", "--address", ADDRESS, "train", "x")
    refused(run("--config", "out/c.yaml", *at), "out/c.yaml", "group of settings")
    Path("out/c.yaml").write_text("")
    refused(run("--config", "out/c.yaml", *at), "is not in the working folder")
    for name in ("mine.yml", "mine.json", ".mine.yaml", "mine.YAML"):
        Path(name).write_text("")
        refused(run("--config", name, *at), f"{name!r} is not sent", "*.yaml")
    refused(run("--config", "ray_config.yaml", "--profile", "many", *at), "no profile 'many'")
    refused(run(*at), ADDRESS, "Failed to connect", "port forwarded", code=1)
    Path("jobs/train.py").unlink()
    Path("jobs").rmdir()
    refused(run(*at), "has no folder jobs/")


@pytest.mark.parametrize(("token", "state"), [(None, "not set"), ("wrong", "another one")])
def test_a_token_that_is_missing_or_wrong(checkout, monkeypatch, token, state):
    from ray.exceptions import AuthenticationError

    if token:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)

    def refuse(address):
        raise AuthenticationError("401")

    with pytest.raises(DeepPianoError, match=f"RAY_AUTH_TOKEN is {state}") as caught:
        jobs.submit(ADDRESS, "train", [], folder=checkout, show=print, client=refuse)
    assert not isinstance(caught.value, InputError)
    assert "wrong" not in str(caught.value)
