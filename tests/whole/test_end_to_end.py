"""The main job as a user runs it: the example seed, the shipped checkpoint, a real piano."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deep_piano.analysis import note_figures
from deep_piano.errors import CheckpointError
from deep_piano.infra.assets import cache
from deep_piano.models import checkpoint
from deep_piano.music import audio
from deep_piano.music.ffmpeg import ffmpeg_binary
from deep_piano.music.loudness import integrated_lufs
from deep_piano.music.midi import read_midi
from tests.support.commands import beside_progress

pytestmark = [pytest.mark.e2e, pytest.mark.assets]

ROOT = Path(__file__).parents[2]
SR = 44_100


@pytest.fixture(scope="session")
def trained():
    """The shipped checkpoint, or the one that DEEP_PIANO_TEST_CHECKPOINT names."""
    name = os.environ.get("DEEP_PIANO_TEST_CHECKPOINT", "notes")
    try:
        checkpoint.find(name)
    except CheckpointError as error:
        pytest.skip(str(error))
    if cache.path("transkun") is None or not any(map(cache.path, ("salamander", "steinway"))):
        pytest.skip("run `deep-piano assets fetch` first")
    return name


def run(*arguments):
    return subprocess.run(
        [*map(str, arguments)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


@pytest.fixture(scope="session")
def made(trained, tmp_path_factory):
    """Return the piece that the example seed becomes, and what the command said."""
    out = tmp_path_factory.mktemp("made") / "piece.mp3"
    command = [sys.executable, "-m", "deep_piano", "generate", "examples/seed.mp3", "-o", out]
    return out, run(*command, "--checkpoint", trained)


def test_it_works_and_says_so_in_its_last_line(made):
    out, result = made
    assert result.returncode == 0, result.stderr
    last = result.stdout.splitlines()[-1]
    assert last.startswith(f"{out}: 3:00.0, ")
    assert re.fullmatch(r".* notes, continuing 0:04.0:14 of 0:14, made in [\d.]+ s", last)


def test_where_there_is_no_terminal_it_says_how_far_it_is_and_nothing_else(made):
    _, result = made
    assert beside_progress(result.stderr) == []
    assert len(result.stdout.splitlines()) == 1


def test_the_piece_is_three_minutes_loud_enough_and_not_clipped(made):
    out, _ = made
    samples = audio.decode(out, sr=SR)
    assert len(samples) / SR == pytest.approx(180, abs=1)
    stereo = run_ffmpeg_to_stereo(out)
    assert integrated_lufs(stereo, sr=SR) == pytest.approx(-16, abs=2)
    assert np.abs(stereo).max() < 1.0


def run_ffmpeg_to_stereo(path):
    command = [ffmpeg_binary(), "-loglevel", "error", "-i", path, "-f", "f32le", "-"]
    raw = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True).stdout
    return np.frombuffer(raw, "<f4").reshape(-1, 2)


def test_the_music_keeps_the_rules(made):
    out, _ = made
    notes = read_midi(out.with_suffix(".mid"))
    assert 179 <= notes["offset"].max() <= 180
    assert note_figures.longest_silence_s(notes) <= 4
    assert (notes["offset"] - notes["onset"]).max() <= 20
    assert note_figures.longest_loop(notes) <= 16


def test_the_facts_are_those_of_the_piece(made):
    out, _ = made
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts["seed"]["sha256"] == audio.content_hash(ROOT / "examples" / "seed.mp3")
    assert 30 <= facts["seed"]["notes"] <= 70  # the example has 47 in its first ten seconds
    assert facts["sound"]["loudness_lufs"] == pytest.approx(-16, abs=2)
    for name, digest in facts["files"].items():
        assert audio.content_hash(out.with_name(name)) == digest


def test_a_recording_becomes_a_piece_without_what_the_extras_bring(trained, tmp_path):
    script = (
        "import sys\n"
        "extras = ('ray', 'pyarrow', 'keras', 'tensorflow', 'torch', 'jax')\n"
        "class Missing:\n"  # an import of one of them fails, and nothing stands in its place
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in extras:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from deep_piano.cli.main import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print('LOADED', *[name for name in extras if name in sys.modules])\n"
    )
    made = run(
        *(sys.executable, "-c", script, "generate", "examples/seed.mp3", "--seconds", "20"),
        *("-o", tmp_path / "piece.wav", "--checkpoint", trained),
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == "LOADED"
    assert len(read_midi(tmp_path / "piece.mid")) > 30


@pytest.mark.slow
def test_after_assets_fetch_a_piece_compiles_nothing(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))

    def compiled():
        return {path.relative_to(tmp_path) for path in (tmp_path / "numba").rglob("*.nbc")}

    fetched = run(sys.executable, "-m", "deep_piano", "assets", "fetch")
    assert fetched.returncode == 0, fetched.stderr
    before = compiled()
    command = [sys.executable, "-m", "deep_piano", "generate", "examples/seed.mp3"]
    made = run(*command, "-o", tmp_path / "piece.mp3", "--checkpoint", trained)
    assert made.returncode == 0, made.stderr
    assert len(before) > 20
    assert compiled() == before


@pytest.mark.slow
def test_the_installed_command_does_the_same_with_the_same_bytes(made, trained, tmp_path):
    command = [Path(sys.executable).with_name("deep-piano")]
    if not command[0].is_file():  # not installed, only on the path: what the command consists of
        command = [sys.executable, "-c", "from deep_piano.cli.main import main; main()"]
    out, _ = made
    again = tmp_path / "piece.mp3"
    result = run(*command, "generate", "examples/seed.mp3", "-o", again, "--checkpoint", trained)
    assert result.returncode == 0
    assert beside_progress(result.stderr) == []
    for suffix in (".mp3", ".mid", ".png", ".json"):
        assert again.with_suffix(suffix).read_bytes() == out.with_suffix(suffix).read_bytes()
