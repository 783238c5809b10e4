"""Which part of a recording is the seed, and seeds of pianos that are out of tune."""

from __future__ import annotations

import numpy as np
import pytest

from deep_piano.config.sections import GenerateConfig
from deep_piano.errors import AudioError, InputError, MidiError
from deep_piano.generate import seeds
from deep_piano.generate.seeds import Stretch, find_stretch
from deep_piano.infra.progress import no_progress
from deep_piano.music import transcription
from deep_piano.music.midi import write_midi
from deep_piano.music.notes import make_notes
from deep_piano.music.tuning import retuned
from tests.support.hostile import improvised, played
from tests.support.recordings import SR, write_half, write_sound, write_tone

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


@pytest.mark.parametrize(
    ("settings", "start_s", "seconds"),
    [
        ({}, 4, 10),
        ({"seed_seconds": 3.0}, 11, 3),
        ({"seed_seconds": 20.0}, 0, 20),
        ({"seed_start": 0.0}, 0, 10),
        ({"seed_start": 12.0}, 12, 10),
        ({"seed_end": 12.5}, 2.5, 10),
        ({"seed_end": 7.0}, 0, 7),
        ({"seed_end": 14.4}, 4.4, 10),  # said a little too late
        ({"seed_start": 1.0, "seed_end": 13.0}, 1, 12),
        ({"keep_until": 12.0}, 0, 12),
        ({"keep_until": 14.4}, 0, 14.4),
        ({"seed_start": 3.0, "keep_until": 12.0}, 3, 9),
    ],
)
def test_which_part_of_fourteen_seconds_is_the_seed(tmp_path, settings, start_s, seconds):
    write_tone(tmp_path / "a.wav", seconds=14)
    onset = [0, 1, 2, 13]
    write_midi(tmp_path / "a.mid", make_notes(onset, [1, 2, 3, 14], [60] * 4, [60] * 4))
    for name in ("a.wav", "a.mid"):
        found = find_stretch(tmp_path / name, GenerateConfig(**settings))
        assert (found.start_s, found.seconds) == pytest.approx((start_s, seconds), abs=2e-3)
        assert found.of_s == pytest.approx(14, abs=2e-3)


def test_a_midi_file_ends_where_its_last_note_is_struck_and_not_where_it_has_died_away(tmp_path):
    write_midi(tmp_path / "a.mid", make_notes([0, 15, 20], [1, 16, 60], [60, 62, 64], [60] * 3))
    found = find_stretch(tmp_path / "a.mid", GenerateConfig())
    assert found.start_s + found.seconds == pytest.approx(22, abs=2e-3)
    assert found.of_s == pytest.approx(60, abs=2e-3)


@pytest.mark.parametrize(
    ("after", "end_s"),
    [
        (0.0, 14),
        (1.5, 15.5),
        (20.0, 16),  # with two seconds of the silence
        (200.0, 214),  # longer than is looked at: `check_seed` refuses it
    ],
)
def test_a_recorder_may_run_on_after_the_playing(tmp_path, rng, after, end_s):
    t = np.arange(14 * SR) / SR
    hiss = 1e-4 * rng.standard_normal(round((14 + after) * SR))
    hiss[: len(t)] += 0.5 * np.sin(2 * np.pi * 440 * t)
    write_sound(tmp_path / "a.wav", hiss)
    found = find_stretch(tmp_path / "a.wav", GenerateConfig())
    assert found.start_s + found.seconds == pytest.approx(end_s, abs=0.11)
    assert found.of_s == pytest.approx(14 + after, abs=2e-3)


def test_a_soft_end_is_no_silence(tmp_path):
    t = np.arange(14 * SR) / SR
    write_sound(tmp_path / "a.wav", 0.5 * np.where(t < 5, 1, 0.01) * np.sin(2 * np.pi * 440 * t))
    found = find_stretch(tmp_path / "a.wav", GenerateConfig())
    assert found.start_s + found.seconds == pytest.approx(14, abs=2e-3)


@pytest.mark.parametrize(
    ("keep_silence", "seconds", "lasts_s"),
    [(False, 12, 3), (True, 8.5, 8.5), (True, 40, 20), (True, 2.5, 2.5)],
)
def test_silence_at_the_end_is_kept_where_a_piece_is(tmp_path, keep_silence, seconds, lasts_s):
    onset = [0.0, 0.5, 1.0, 1.5, 2.0, 19.0]
    path = tmp_path / "a.mid"
    write_midi(path, make_notes(onset, [*onset[1:5], 3.0, 20.0], [60] * 6, [60] * 6))
    seed = seeds.read_seed(
        path,
        start_s=0,
        seconds=seconds,
        keep_silence=keep_silence,
        of_s=20.0,
        progress=no_progress,
    )
    assert seed.seconds == pytest.approx(lasts_s)


def test_a_piece_does_not_go_on_after_a_long_rest(tmp_path):
    path = tmp_path / "a.mid"
    write_midi(
        path, make_notes([0.0, 0.5, 1.0, 1.5, 40.0], [0.5, 1.0, 1.5, 2.0, 41.0], [60] * 5, [60] * 5)
    )
    options = dict(start_s=0, seconds=30, of_s=41.0, progress=no_progress)
    with pytest.raises(InputError, match=r"struck in the 28.5 s of .*a.mid before --keep-until"):
        seeds.read_seed(path, keep_silence=True, **options)
    assert seeds.read_seed(path, **options).seconds == pytest.approx(2.0)


@pytest.mark.parametrize("setting", ["seed_end", "keep_until"])
def test_a_seed_cannot_end_beyond_its_recording(tmp_path, setting):
    settings = GenerateConfig.model_validate({setting: 15.0})
    write_tone(tmp_path / "a.wav", seconds=14)
    with pytest.raises(AudioError, match=r"a.wav is 14.0 s long: a seed cannot end at 15 s"):
        find_stretch(tmp_path / "a.wav", settings)
    write_midi(tmp_path / "a.mid", make_notes([0], [14], [60], [60]))
    with pytest.raises(MidiError, match=r"a.mid is 14.0 s long: a seed cannot end at 15 s"):
        find_stretch(tmp_path / "a.mid", settings)


def test_the_end_of_a_download_that_broke_off_is_not_where_one_stopped(tmp_path):
    write_half(tmp_path / "a.flac")
    with pytest.raises(AudioError, match=r"a\.flac is damaged"):
        find_stretch(tmp_path / "a.flac", GenerateConfig())
    assert find_stretch(tmp_path / "a.flac", GenerateConfig(seed_start=1.0)) == Stretch(1.0, 10.0)


def test_the_facts_say_which_part_is_continued(read):
    assert Stretch(3.994, 10.0, 13.994).facts == {"from_s": 3.99, "to_s": 13.99, "of_s": 13.99}
    told = read(0).facts
    assert (told["from_s"], told["to_s"], told["of_s"]) == (0, 10, None)
