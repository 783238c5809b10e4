"""Cache folders for a user with a home, without one, and without a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deep_piano.infra import caches
from deep_piano.infra.caches import settle_libraries, user_cache

NOWHERE = "/dev/null/home"  # not even root can make it
NAMES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    for name in (*NAMES, "KERAS_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(caches.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(caches.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "made"))
    caches._private_folder.cache_clear()
    yield
    caches._private_folder.cache_clear()


def private(tmp_path):
    return tmp_path / f"deep_piano-{os.getuid()}"


def test_a_home_that_can_be_written_is_used_and_nothing_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert user_cache() == tmp_path / "me" / ".cache" / "deep_piano"
    settle_libraries()
    assert [name for name in NAMES[1:] if name in os.environ] == []
    assert not Path(os.environ["KERAS_HOME"]).parent.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_everything_lies_in_a_private_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", NOWHERE)
    folder = private(tmp_path)
    assert user_cache() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    settle_libraries()
    assert os.environ["HOME"] == NOWHERE  # what it holds can perhaps be read
    assert os.environ["NUMBA_CACHE_DIR"] == str(folder / "numba")
    assert os.environ["MPLCONFIGDIR"] == str(folder / "matplotlib")


def test_a_user_without_a_name(tmp_path, monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.setattr(caches, "user_cache_path", lambda *_, **__: home())
    assert user_cache() == private(tmp_path)
    settle_libraries()
    assert os.environ["HOME"] == str(private(tmp_path))


def test_what_was_fetched_into_a_home_that_is_read_only_is_found(tmp_path, monkeypatch):
    (tmp_path / "me" / ".cache" / "deep_piano").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setattr(caches, "_writable", lambda folder: False)
    assert user_cache() == tmp_path / "me" / ".cache" / "deep_piano"


@pytest.mark.parametrize("kind", ["open to all", "a link", "a file"])
def test_a_folder_that_others_may_have_made_is_not_trusted(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("HOME", NOWHERE)
    folder = private(tmp_path)
    if kind == "a link":
        (tmp_path / "theirs").mkdir()
        folder.symlink_to(tmp_path / "theirs")
    elif kind == "a file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert user_cache() == tmp_path / "made"


def test_what_a_user_has_set_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", NOWHERE)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    settle_libraries()
    assert os.environ["NUMBA_CACHE_DIR"] == "mine"
    assert "MPLCONFIGDIR" not in os.environ
