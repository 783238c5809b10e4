from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from deep_piano.analysis.note_figures import figures
from deep_piano.music.midi import read_midi

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def make_seed():
    spec = importlib.util.spec_from_file_location("make_seed", EXAMPLES / "make_seed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_midi_file_is_what_the_script_plays(make_seed):
    played, written = make_seed.play(), read_midi(EXAMPLES / "seed.mid")
    assert written["pitch"].tolist() == played["pitch"].tolist()
    assert written["velocity"].tolist() == played["velocity"].tolist()
    assert written["onset"] == pytest.approx(played["onset"], abs=1e-3)
    assert written["offset"] == pytest.approx(played["offset"], abs=2e-3)


def test_the_seed_is_ten_seconds_of_music_and_a_little_more(make_seed):
    found = figures(make_seed.play(), make_seed.play())
    assert found["seed_key"] == "A minor"
    assert found["longest_silence_s"] < 0.5
    assert 11 < make_seed.play()["onset"][-1] < 13


def test_the_scores_bars_are_full(make_seed):
    right, left = make_seed.RIGHT_HAND.split(), make_seed.LEFT_HAND.split()
    assert len(right) == len(left) == 2 + 8 * 6 + 3


def test_the_recording_is_small():
    recording = EXAMPLES / "seed.mp3"
    assert 50_000 < recording.stat().st_size <= 250_000
