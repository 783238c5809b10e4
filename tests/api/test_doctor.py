from __future__ import annotations

import os
import shutil
import sys
from collections import namedtuple

import pytest

from deep_piano.api import doctor
from deep_piano.errors import CheckpointError, DeepPianoError
from deep_piano.infra.assets import cache, catalogue
from tests.support.recordings import write_ffmpeg


def one(name, **options):
    options = {"frameworks": False} | options
    return next(check for check in doctor.checks(**options) if check.name == name)


def program(folder, name, script):
    """Put a stand-in for a program into a folder."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    return path


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Make the PATH a folder of our own, and return what puts a program there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return lambda name, script: program(folder, name, script)


def test_every_part_is_looked_at_and_whatever_is_wrong_comes_with_advice():
    found = doctor.checks(frameworks=False)
    names = [check.name for check in found]
    assert len(names) == len(set(names))
    assert {"Python", "packages", "ffmpeg", "cores", "memory", "disk", "checkpoint"} <= set(names)
    assert {f"asset {name}" for name in catalogue.ASSETS} <= set(names)
    for check in found:
        assert check.status in {"ok", "warn", "missing"}
        assert check.found
        assert bool(check.advice) == (check.status != "ok")
        assert "\n" not in check.found + check.advice


def test_a_probe_that_breaks_is_a_finding_and_the_others_go_on(monkeypatch):
    def broken():
        raise OSError("two\nlines")

    monkeypatch.setattr(doctor, "_check_cores", broken)
    found = {check.name: check for check in doctor.checks(frameworks=False)}
    assert found["cores"].status == "warn"
    assert found["cores"].found == "cannot be checked: two lines"
    assert "memory" in found


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10, 9), "warn"), ((3, 11, 0), "ok"), ((3, 12, 9), "ok"), ((3, 13, 0), "warn")],
)
def test_python(monkeypatch, version, status):
    monkeypatch.setattr(sys, "version_info", version)
    assert one("Python").status == status


def test_packages_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr(doctor, "_PACKAGES", ("numpy", "tensorflow", "no-such-package"))
    check = one("packages")
    assert check.status == "missing"
    assert "numpy 2" in check.found
    assert check.advice.endswith("-m pip install no-such-package")


def test_ffmpeg_says_which_one(tmp_path, monkeypatch):
    script = 'case "$*" in *-version*) echo "ffmpeg version 7.1 Copyright"; exit ;; esac'
    binary = write_ffmpeg(tmp_path / "bin" / "ffmpeg", script)
    monkeypatch.setenv("PATH", str(binary.parent), prepend=os.pathsep)
    check = one("ffmpeg")
    assert check.status == "ok"
    assert check.found == f"7.1, on PATH ({binary})"


@pytest.mark.parametrize("script", ["raise SystemExit(3)", "print('something else')"])
def test_an_ffmpeg_that_does_not_work_is_named_and_passed_over(on_path, script):
    binary = on_path("ffmpeg", script)
    check = one("ffmpeg")
    assert (check.status, "from imageio-ffmpeg" in check.found) == ("warn", True)
    assert check.advice == f"{binary} does not work: mend it or remove it."


def test_no_ffmpeg(monkeypatch):
    def nowhere():
        raise DeepPianoError("no ffmpeg was found. Install it.")

    monkeypatch.setattr("deep_piano.music.ffmpeg.ffmpeg_binary", nowhere)
    check = one("ffmpeg")
    assert (check.status, check.advice) == ("missing", "no ffmpeg was found. Install it.")


@pytest.mark.parametrize(
    ("memory_gb", "status", "found"),
    [
        ((16.0, 8.0), "ok", "8.0 GB free of 16.0 GB"),
        ((16.0, 1.0), "warn", "1.0 GB free of 16.0 GB"),
        ((2.0, None), "warn", "2.0 GB"),
        ((None, None), "ok", "not known on this system"),
    ],
)
def test_memory(monkeypatch, memory_gb, status, found):
    monkeypatch.setattr(doctor, "_memory_gb", lambda: memory_gb)
    assert (one("memory").status, one("memory").found) == (status, found)


@pytest.mark.parametrize(("free", "status"), [(5e9, "ok"), (2e8, "warn")])
def test_disk_at_the_cache_that_may_not_exist_yet(monkeypatch, tmp_path, free, status):
    monkeypatch.setenv("DEEP_PIANO_HOME", str(tmp_path / "not" / "there"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(9e9, 0, free))
    check = one("disk")
    assert check.status == status
    assert str(tmp_path / "not" / "there") in check.found


def test_a_cache_that_cannot_be_written_to(monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda *arguments: False)
    assert one("disk").status == "missing"
    assert "DEEP_PIANO_HOME" in one("disk").advice


def test_no_gpu_is_fine(on_path):
    check = one("GPU, by nvidia-smi")
    assert (check.status, check.found) == ("ok", "none; the CPU is enough")


def test_a_gpu_that_tensorflow_cannot_use(on_path, monkeypatch):
    on_path("nvidia-smi", "print('NVIDIA A100, 81920 MiB')")
    monkeypatch.setattr(
        doctor,
        "_GPU_PROBES",
        {"tensorflow": "pass", "numpy": "print('device 0')", "no_such_library": "pass"},
    )
    found = {check.name: check for check in doctor.checks()}
    assert found["GPU, by nvidia-smi"].found == "NVIDIA A100, 81920 MiB"
    assert found["GPU, by tensorflow"].status == "warn"
    assert "[gpu]" in found["GPU, by tensorflow"].advice
    assert found["GPU, by numpy"].found == "device 0"
    assert "GPU, by no_such_library" not in found


def test_libraries_that_cannot_be_loaded(on_path, monkeypatch):
    broken = "import sys; sys.exit('first line\\nlibcuda is broken')"
    monkeypatch.setattr(doctor, "_GPU_PROBES", {"tensorflow": broken, "json": broken})
    found = {check.name: check for check in doctor.checks()}
    assert found["GPU, by tensorflow"].status == "warn"
    assert found["GPU, by json"].status == "warn"
    assert "json cannot be loaded: libcuda is broken" in found["GPU, by json"].found


def test_a_probe_that_hangs_is_ended(on_path, monkeypatch):
    monkeypatch.setattr(doctor, "PROBE_TIME_LIMIT_S", 0.3)
    monkeypatch.setattr(doctor, "_GPU_PROBES", {"json": "import time; time.sleep(60)"})
    assert "no answer in" in one("GPU, by json", frameworks=True).found


def test_broken_nvidia_smi_counts_as_none(on_path):
    on_path("nvidia-smi", "print('NVIDIA-SMI has failed'); raise SystemExit(9)")
    assert one("GPU, by nvidia-smi").found.startswith("none")


@pytest.mark.tf
def test_tensorflow_answers(monkeypatch):
    monkeypatch.setattr(doctor, "PROBE_TIME_LIMIT_S", 500)  # a busy machine loads it for minutes
    check = one("GPU, by tensorflow", frameworks=True)
    assert check.status in {"ok", "warn"}
    assert "cannot be loaded" not in check.found


def states(monkeypatch, *fetched):
    def listed():
        return [
            cache.AssetState(asset, cache.cache_dir() / name if name in fetched else None)
            for name, asset in catalogue.ASSETS.items()
        ]

    monkeypatch.setattr(cache, "list_assets", listed)
    return {
        check.name.removeprefix("asset "): check.status
        for check in doctor.checks(frameworks=False)
        if check.name.startswith("asset ")
    }


def test_one_sound_is_enough(monkeypatch):
    none = states(monkeypatch)
    assert none == dict.fromkeys(catalogue.ASSETS, "warn")
    some = {"transkun": "ok", "salamander": "ok"}
    assert states(monkeypatch, *some) == none | some


def test_the_first_use_fetches_a_sound_only_where_there_is_none(monkeypatch):
    assert "first use" in one("asset steinway").advice
    states(monkeypatch, "salamander")
    assert "first use" not in one("asset steinway").advice
    assert "first use" in one("asset transkun").advice


def test_missing_assets_say_how_to_get_them(on_path):
    check = one("asset salamander")
    assert "deep-piano assets fetch salamander (needs npm" in check.advice
    on_path("npm", "")
    assert one("asset salamander").advice.endswith("assets fetch salamander")


def test_a_checkpoint_that_is_not_there(tmp_path):
    check = one("checkpoint", checkpoint=str(tmp_path))
    assert check.status == "missing"
    assert str(tmp_path) in check.found
    assert "--checkpoint" in check.advice


def test_a_damaged_checkpoint(monkeypatch):
    def damaged(name, *, codec):
        raise CheckpointError("the checkpoint x is damaged: y")

    monkeypatch.setattr("deep_piano.models.checkpoint.load", damaged)
    assert one("checkpoint").found == "the checkpoint x is damaged: y"
