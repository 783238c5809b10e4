"""The command as users have it: run it, and say what they must see of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from deep_piano.cli.main import main

_started: list[subprocess.Popen] = []


def run(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def in_a_process(*arguments, module="deep_piano", env=None, **options):
    """Start a command, or another module, as a process of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | (env or {}),
        **options,
    )
    _started.append(process)
    return process


def end_all():
    """Kill the processes of `in_a_process` that have not ended."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
            process.wait()


def everything():
    """Return every file and folder below the working folder, and its content."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in sorted(Path.cwd().rglob("*"))
    }


def refused(result, *fragments, code=2):
    """Require one line that holds these fragments, and this exit code; return the line."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("deep-piano: ")
    assert result.stderr.endswith("\n")
    line = result.stderr[:-1]
    assert line.isprintable()  # hence one line
    assert "Traceback" not in line
    for fragment in fragments:
        assert fragment in line
    return line


def beside_progress(text):
    """Return what a command says besides how far it is, which it says where it takes long."""
    lines = text.splitlines()
    return [line for line in lines if not re.fullmatch(r"\w+(: [\d,]+( of |%).*)?", line)]


def made(result):
    """Require that a command did what it was told; return what it says."""
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout
