"""Programs start while other threads change the environment."""

from __future__ import annotations

import ast
import os
import threading
from pathlib import Path

import pytest

from deep_piano.infra.programs import environment
from deep_piano.music import ffmpeg

PACKAGE = Path(__file__).parents[2] / "deep_piano"
STARTERS = {"run", "Popen", "call", "check_call", "check_output"}


@pytest.fixture
def changing():
    """Set and remove variables in another thread."""
    names = [f"DEEP_PIANO_TEST_{n}" for n in range(3000)]
    done = threading.Event()

    def change():
        while not done.is_set():
            for length, name in enumerate(names):
                os.environ[name] = "x" * (length % 500)
                os.environ.pop(names[length * 7 % len(names)], None)

    thread = threading.Thread(target=change)
    thread.start()
    yield
    done.set()
    thread.join()
    for name in names:
        os.environ.pop(name, None)


def test_a_copy_holds_what_is_set(monkeypatch):
    monkeypatch.setenv("DEEP_PIANO_HOME", "here")
    assert environment() == dict(os.environ)
    assert environment()["DEEP_PIANO_HOME"] == "here"


@pytest.mark.usefixtures("changing")
def test_a_copy_is_made_while_variables_come_and_go():
    for _ in range(300):
        assert "PATH" in environment()


@pytest.mark.usefixtures("changing")
def test_programs_start_while_variables_come_and_go(monkeypatch):
    monkeypatch.setattr(ffmpeg, "ffmpeg_binary", lambda: Path("/bin/true"))
    for _ in range(150):
        assert ffmpeg.run_ffmpeg("-version", subject="nothing", timeout_s=60).code == 0


def test_every_program_is_given_its_environment():
    starts = [
        (path.name, {keyword.arg for keyword in node.keywords})
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in STARTERS
        and ast.unparse(node.func.value) == "subprocess"
    ]
    assert len(starts) >= 4
    assert [name for name, keywords in starts if "env" not in keywords] == []
