from __future__ import annotations

import errno
import os
import subprocess
import sys

import numba
import pytest
from numba.core import caching

from deep_piano.infra.compiling import compiler

SCRIPT = """
import sys
from deep_piano.infra.compiling import compiler
sys.path.insert(0, sys.argv[1])
import constants, work
print(getattr(work, sys.argv[2])())
"""
WORK = """
import constants
from deep_piano.infra.compiling import compiler
from constants import ANSWER

@compiler(__file__, constants.__file__, inner=True)
def known():
    return ANSWER

@compiler(__file__, constants.__file__)
def answer():
    return known()

@compiler(__file__, constants.__file__)
def more():
    return known() + 1
"""


def answer(folder, home, monkeypatch, name="answer"):
    monkeypatch.setenv("DEEP_PIANO_HOME", str(home))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    command = [sys.executable, "-c", SCRIPT, str(folder), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_machine_code_is_kept_and_made_anew_when_a_constant_changes(tmp_path, monkeypatch):
    """Numba alone looks at the file of the function, not at the one that has its constants."""
    home = tmp_path / "home"
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "constants.py").write_text("ANSWER = 41\n")
    assert answer(tmp_path, home, monkeypatch) == 41
    kept = sorted(home.rglob("*.nbc"))
    assert len(kept) == 2
    assert answer(tmp_path, home, monkeypatch) == 41
    assert sorted(home.rglob("*.nbc")) == kept
    assert answer(tmp_path, home, monkeypatch, "more") == 42  # calls what another process compiled
    (tmp_path / "constants.py").write_text("ANSWER = 42  # another\n")
    assert answer(tmp_path, home, monkeypatch) == 42


def test_without_a_place_to_keep_it_it_is_compiled_each_time(tmp_path, monkeypatch):
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "constants.py").write_text("ANSWER = 41\n")
    home = tmp_path / "home"
    home.write_text("a file")
    assert answer(tmp_path, home, monkeypatch) == 41


def test_processes_that_compile_for_other_types_at_once_do_not_take_each_others_code(tmp_path):
    """Numba alone numbers its files: both write number 1, and one index is left of two."""
    files = caching.IndexDataCacheFile(str(tmp_path), "work", source_stamp=(1, 2))
    files.save("float32", "code for float32")
    (index,) = tmp_path.glob("*.nbi")
    before = index.read_bytes()
    index.unlink()  # the other process looked before it was there
    files.save("float64", "code for float64")
    index.write_bytes(before)
    assert files.load("float32") == "code for float32"
    assert files.load("float64") is None
    files.save("float64", "code for float64")
    assert [files.load(key) for key in ("float32", "float64")] == [
        "code for float32",
        "code for float64",
    ]


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """A function that is the same each time: compiled, or read from the cache."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def anew():
        def double(number):
            return 2 * number

        return compiler(__file__)(double)

    return anew


def is_read(function):
    """Return whether a function's machine code came from the cache."""
    assert function(21) == 42
    return sum(function.stats.cache_hits.values()) == 1


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", ["empty", "cut short", "zeros", "other bytes"])
def test_a_damaged_file_is_made_anew(tmp_path, compiled, suffix, damage):
    assert not is_read(compiled())
    assert is_read(compiled())
    [file] = tmp_path.rglob(f"*.{suffix}")
    whole = file.read_bytes()
    bad = {"empty": b"", "cut short": whole[: len(whole) // 2], "zeros": bytes(len(whole))}
    file.write_bytes(bad.get(damage, b"not what it was"))
    assert not is_read(compiled())
    assert is_read(compiled())


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_file_that_can_be_neither_read_nor_written_is_done_without(tmp_path, compiled, suffix):
    assert not is_read(compiled())
    [file] = tmp_path.rglob(f"*.{suffix}")
    file.unlink()
    file.mkdir()
    assert not is_read(compiled())


@pytest.mark.parametrize("full", ["tempfile.TemporaryFile", "os.replace"])
def test_a_disk_that_fills_up_costs_no_more_than_time(tmp_path, compiled, monkeypatch, full):
    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    function = compiled()
    monkeypatch.setattr(full, no_room)
    assert not is_read(function)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
