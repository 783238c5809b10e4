"""The sample player, on pianos that are synthesised here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano.errors import InputError
from deep_piano.infra.assets import cache
from deep_piano.infra.assets.catalogue import SOUND_NAMES
from deep_piano.music import synth
from deep_piano.music.notes import NOTE, make_notes
from tests.support.playing import SR, level_db, loudest_hz, many_notes, one_note, play
from tests.support.recordings import key_hz, struck


@pytest.mark.parametrize("seconds", [0, 0.5, 2.0, 3.00001])
@pytest.mark.parametrize("notes", [np.empty(0, NOTE), one_note()])
def test_shape_and_length_are_as_asked(piano, notes, seconds):
    samples = play(piano, notes, seconds=seconds)
    assert samples.shape == (round(seconds * SR), 2)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()


@pytest.mark.parametrize("velocity", [10, 60, 120])
@pytest.mark.parametrize("pitch", [40, 60, 85])
@pytest.mark.parametrize("sound", ["piano", "one_layer"])
def test_onsets_are_within_two_milliseconds(request, sound, pitch, velocity):
    folder = request.getfixturevalue(sound)
    samples = np.abs(play(folder, one_note(pitch, velocity))).max(axis=1)
    first = np.argmax(samples > 0.1 * samples.max()) / SR
    assert 0.4999 <= first < 0.502
    assert not samples[: round(0.5 * SR) - 1].any()


@pytest.mark.parametrize("sound", ["piano", "one_layer"])
def test_loudness_grows_with_velocity_and_only_by_it(request, sound):
    folder = request.getfixturevalue(sound)
    velocities = np.arange(1, 128, 6)
    onset = np.arange(len(velocities)) * 1.0
    notes = make_notes(onset, onset + 0.7, np.full(len(velocities), 60), velocities)
    samples = play(folder, notes, seconds=len(velocities) + 1)
    levels = [level_db(samples[round(t * SR) :][: SR // 2]) for t in onset]
    asked = synth.velocity_db(velocities)
    np.testing.assert_allclose(levels - levels[-1], asked - asked[-1], atol=0.1)
    assert (np.diff(levels) > 0).all()


@pytest.mark.parametrize("pitch", [30, 60, 88])
def test_dampers_silence_a_note_without_a_click(piano, pitch):
    samples = play(piano, one_note(pitch, offset=1.5))
    released = round(1.5 * SR)
    jumps = np.abs(np.diff(samples, axis=0)).max(axis=1)
    assert jumps[released - 10 :].max() <= 1.05 * jumps[released - 2000 : released].max()
    end = released + round(synth.release_s(pitch) * SR) + 2
    assert samples[end - 100 : end - 50].any()
    assert not samples[end:].any()


def test_the_bass_is_damped_more_slowly():
    lengths = [synth.release_s(pitch) for pitch in range(21, 89)]
    assert (np.diff(lengths) < 0).all()
    assert lengths[0] == pytest.approx(0.4)
    assert lengths[-1] == pytest.approx(0.15)


def test_the_highest_keys_have_no_dampers(piano):
    assert synth.release_s(89) == np.inf
    short, long = (play(piano, one_note(90, offset=end)) for end in (0.6, 2.9))
    np.testing.assert_array_equal(short, long)
    assert np.abs(short[round(1.5 * SR) : round(1.6 * SR)]).max() > 1e-4


@pytest.mark.parametrize("pitch", [60, 95])
def test_striking_a_key_again_damps_its_last_note(piano, pitch):
    overlapping = np.sort(np.concatenate([one_note(pitch, 100, 0.5, 3), one_note(pitch, 1, 1, 3)]))
    loud = play(piano, one_note(pitch, 100, 0.5, 3))
    both = play(piano, overlapping)
    np.testing.assert_array_equal(both[:SR], loud[:SR])
    after = slice(round((1 + synth.RESTRIKE_S) * SR) + 1, round(1.6 * SR))
    assert level_db(both[after]) < level_db(loud[after]) - 20


def test_the_end_of_the_piece_is_faded(piano):
    samples = play(piano, one_note(60, 120, 0.1, 9), seconds=1)
    assert np.abs(samples[-2:]).max() < 1e-3
    assert np.abs(samples[-3000:-2000]).max() > 0.05


def test_notes_outside_of_the_piece_are_left_out(piano):
    notes = np.concatenate([one_note(onset=-1.0), one_note(), one_note(onset=30, offset=31)])
    np.testing.assert_array_equal(play(piano, notes), play(piano, one_note()))


def test_notes_add_up(piano):
    first, second = one_note(60, 70, 0.2, 1.0), one_note(67, 90, 0.6, 2.0)
    both = play(piano, np.concatenate([first, second]))
    np.testing.assert_allclose(both, play(piano, first) + play(piano, second), atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_any_notes_give_finite_samples(piano, count, seed):
    samples = play(piano, many_notes(count, seed), seconds=2)
    assert np.isfinite(samples).all()
    assert samples.any()


def test_progress_counts_the_notes(piano):
    told = []
    play(piano, many_notes(30, seed=4), progress=lambda now: told.append((now.done, now.total)))
    assert told[-1] == (30, 30)
    assert told == sorted(told)


# SoundFonts


@pytest.fixture
def font(tmp_path):
    path = tmp_path / "grand.SF2"
    path.write_bytes(b"RIFF")
    return path


def test_a_soundfont_is_played_by_midirenderer(font, monkeypatch, tmp_path):
    asked = []

    def render_wave_from(soundfont, midi):
        asked.append((soundfont, midi[:4]))
        path = tmp_path / "rendered.wav"
        soundfile.write(path, struck(60, sr=48_000), 48_000)
        return path.read_bytes()

    fake = SimpleNamespace(render_wave_from=render_wave_from)
    monkeypatch.setitem(sys.modules, "midirenderer", fake)
    samples = play(font, one_note(60, 3), seconds=2.5)
    assert asked == [(b"RIFF", b"MThd")]
    assert samples.shape == (round(2.5 * SR), 2)
    assert loudest_hz(samples) == pytest.approx(key_hz(60), rel=0.002)


def test_a_soundfont_without_midirenderer(font, monkeypatch):
    monkeypatch.setitem(sys.modules, "midirenderer", None)
    with pytest.raises(InputError, match=r"pip install 'deep-piano\[sf2\]'"):
        play(font, one_note())


def test_a_broken_or_missing_soundfont(font, monkeypatch):
    def render_wave_from(soundfont, midi):
        raise ValueError("not a SoundFont")

    fake = SimpleNamespace(render_wave_from=render_wave_from)
    monkeypatch.setitem(sys.modules, "midirenderer", fake)
    with pytest.raises(InputError, match=r"grand\.SF2 cannot be played: not a SoundFont"):
        play(font, one_note())
    with pytest.raises(InputError, match=r"no such file: .*none\.sf2"):
        play(font.with_name("none.sf2"), one_note())


# The real sounds, where they are fetched


@pytest.fixture
def fetched(request):
    folder = cache.path(request.param)
    if folder is None:
        pytest.skip(f"{request.param} is not fetched")
    return request.param


@pytest.mark.assets
@pytest.mark.parametrize("fetched", SOUND_NAMES, indirect=True)
def test_real_pianos_are_in_tune_on_time_and_even(fetched):
    pitches = np.arange(28, 97, 4)
    onset = 0.1 + np.arange(len(pitches)) * 1.5
    notes = make_notes(onset, onset + 0.9, pitches, np.full(len(pitches), 80))
    samples = synth.render(notes, sound=fetched, seconds=onset[-1] + 2, sr=SR)
    levels = []
    for start_s, pitch in zip(onset, pitches, strict=True):
        played = samples[round(start_s * SR) :][: round(1.0 * SR)]
        peak = np.abs(played).max(axis=1)
        assert np.argmax(peak > 0.1 * peak.max()) / SR < 0.002
        levels.append(level_db(played[: SR // 2]))
        spectrum = np.abs(np.fft.rfft(played.mean(axis=1) * np.hanning(len(played)), 2**19))
        hz = np.arange(len(spectrum)) * SR / 2**19
        partial = 2 if pitch < 41 else 1  # the lowest strings hardly sound at their own frequency
        near = np.abs(1200 * np.log2(np.maximum(hz, 1) / (partial * key_hz(pitch)))) < 90
        cents = 1200 * np.log2(hz[near][np.argmax(spectrum[near])] / (partial * key_hz(pitch)))
        # Real pianos are stretched: flat in the bass, sharp in the treble.
        assert abs(cents - 0.3 * (pitch - 62)) < 20
    assert np.abs(np.diff(levels)).max() < 4
