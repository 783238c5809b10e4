"""Seeds of pianos that are out of tune."""

from __future__ import annotations

import pytest

from deep_piano.generate import seeds
from deep_piano.infra.progress import no_progress
from deep_piano.music import transcription
from deep_piano.music.tuning import retuned
from tests.support.hostile import improvised, played
from tests.support.recordings import SR, write_sound

MUSIC = improvised(10, random_state=4)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Return the seed of a recording of a piano that is so many cents out of tune."""
    monkeypatch.setattr(transcription, "transcribe", lambda samples, **_: MUSIC.copy())
    monkeypatch.setattr(seeds.cache, "ensure", lambda *_, **__: None)

    def call(cents):
        path = tmp_path / "take.wav"
        write_sound(path, retuned(played(MUSIC, sr=SR), sr=SR, cents=-cents), sr=SR)
        return seeds.read_seed(path, start_s=0, seconds=10, progress=no_progress)

    return call


@pytest.mark.parametrize("cents", [-42, 30])
def test_it_is_said_and_kept_how_far_a_piano_is_out_of_tune(read, cents, caplog):
    assert read(cents).tuning_cents == pytest.approx(cents, abs=1)
    assert f"take.wav is {read(cents).tuning_cents:+d} cents from A = 440 Hz" in caplog.text


@pytest.mark.parametrize("cents", [-101.3, 0, 15])
def test_a_piano_that_is_in_tune_or_in_another_key_is_left_alone(read, cents, caplog):
    assert read(cents).tuning_cents == 0
    assert "cents" not in caplog.text
