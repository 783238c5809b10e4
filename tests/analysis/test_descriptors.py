"""Figures of recordings and note arrays: right where they are known, finite everywhere."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from deep_piano.analysis import descriptors, keys
from deep_piano.analysis.tempo import tempo_of
from deep_piano.analysis.tempo_kernels import distances
from deep_piano.music.notes import NOTE, make_notes
from tests.support.recordings import SR as SPEECH_SR
from tests.support.recordings import key_hz, speech_like, white_noise

SR = 16_000


def sine(hz, *, seconds=4.0, level=0.5, sr=SR):
    t = np.arange(round(seconds * sr)) / sr
    return (level * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def piece(pitches, *, beat_s=0.5, sr=SR, detuned=0.0):
    """Struck tones, one a beat."""
    samples = np.zeros(round((len(pitches) + 2) * beat_s * sr))
    t = np.arange(round(2 * beat_s * sr)) / sr
    for beat, pitch in enumerate(pitches):
        hz = key_hz(pitch + detuned)
        tone = sum(np.sin(2 * np.pi * k * hz * t) / k**2 for k in (1, 2, 3, 4))
        begin = round(beat * beat_s * sr)
        samples[begin : begin + len(t)] += np.exp(-4 * t) * tone
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


G_MAJOR = [55, 59, 62, 67, 71, 74, 66, 62, 60, 64, 67, 72, 69, 66, 62, 57, 55, 62, 67, 71]


def all_numbers(described):
    for value in dataclasses.asdict(described).values():
        yield from value if isinstance(value, tuple) else [value]


def test_a_tone_is_described_as_what_it_is():
    found = descriptors.describe_audio(sine(1000, seconds=5), sr=SR)
    assert found.duration_s == 5
    assert found.peak_dbfs == pytest.approx(-6.02, abs=0.01)
    # Full scale, 997 Hz, one channel is -3.01 LUFS by the standard.
    assert found.loudness_lufs == pytest.approx(-9.03, abs=0.1)
    assert found.clipping_share == found.silence_share == 0
    assert found.spectral_centroid_hz == pytest.approx(1000, rel=0.02)
    assert found.spectral_rolloff_hz == pytest.approx(1000, abs=20)
    assert found.zero_crossing_rate == pytest.approx(2000 / SR, rel=0.01)
    assert len(found.mfcc) == descriptors.MFCC
    assert sum(found.chroma) == pytest.approx(1)
    assert np.argmax(found.chroma) == 11  # 1,000 Hz is B5, 21 cents sharp


def test_a_piece_has_its_tempo_and_key():
    found = descriptors.describe_audio(piece(G_MAJOR * 2), sr=SR)
    assert found.tempo_bpm == pytest.approx(120, rel=0.02)
    assert found.key == "G major"
    assert found.tuning_strength > 0.8


@pytest.mark.parametrize("detuned", [-0.4, 0.2, 0.45])
def test_a_piano_out_of_pitch_is_still_in_tune(detuned):
    found = descriptors.describe_audio(piece(G_MAJOR, detuned=detuned), sr=SR)
    assert found.tuning_strength > 0.8
    assert found.key == "G major"


@pytest.mark.parametrize("sr", [4_000, 8_000, 22_050, 48_000])
def test_figures_hardly_depend_on_the_rate(sr):
    found = descriptors.describe_audio(piece(G_MAJOR, sr=sr), sr=sr)
    assert found.key == "G major"
    assert found.tempo_bpm == pytest.approx(120, rel=0.03)
    assert found.tuning_strength > 0.8
    assert 200 < found.spectral_centroid_hz < 900


def test_noise_is_in_no_tuning():
    found = descriptors.describe_audio(white_noise(6)[::2].copy(), sr=SPEECH_SR // 2)
    assert found.tuning_strength < 0.1


def test_speech_is_in_no_tuning():
    found = descriptors.describe_audio(speech_like(12)[::2].copy(), sr=SPEECH_SR // 2)
    assert found.tuning_strength < 0.15


@pytest.mark.parametrize("gain", [1e-3, 0.3, 1.9])
def test_a_gain_changes_the_level_alone(gain):
    samples = piece(G_MAJOR)
    one = dataclasses.asdict(descriptors.describe_audio(samples, sr=SR))
    two = dataclasses.asdict(descriptors.describe_audio(samples * np.float32(gain), sr=SR))
    change_db = 20 * math.log10(gain)
    for name in ("peak_dbfs", "loudness_lufs"):
        assert two.pop(name) - one.pop(name) == pytest.approx(change_db, abs=1e-3)
    del one["silence_share"], two["silence_share"]
    del one["clipping_share"], two["clipping_share"]
    for name, value in one.items():
        expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-2, abs=1e-2)
        assert two[name] == expected, name


def test_the_same_samples_give_the_same_figures():
    samples = piece(G_MAJOR)
    assert descriptors.describe_audio(samples, sr=SR) == descriptors.describe_audio(
        samples.copy(), sr=SR
    )


def test_the_spectrum_is_that_of_the_middle():
    samples = np.concatenate([sine(300), sine(2000), sine(300)])
    middle = descriptors.describe_audio(samples, sr=SR, excerpt_s=2)
    whole = descriptors.describe_audio(samples, sr=SR, excerpt_s=0)
    assert middle.spectral_centroid_hz == pytest.approx(2000, rel=0.02)
    assert 500 < whole.spectral_centroid_hz < 1500
    assert middle.duration_s == whole.duration_s == 12
    assert middle.zero_crossing_rate == whole.zero_crossing_rate


def test_clipped_samples_are_counted():
    samples = sine(100, seconds=2, level=2.0)
    expected = np.mean(np.abs(samples) >= 0.99)
    found = descriptors.describe_audio(np.clip(samples, -1, 1), sr=SR).clipping_share
    assert found == pytest.approx(expected)
    assert found > 0.6


def test_peaks_that_only_touch_full_scale_are_not_clipped():
    samples = sine(100, seconds=2, level=0.3)
    samples[::500], samples[1::500] = 1.0, -1.0  # runs of two
    assert descriptors.describe_audio(samples, sr=SR).clipping_share == 0
    assert descriptors.describe_audio(sine(1000, level=1.0), sr=SR).clipping_share == 0


def test_silence_is_counted():
    samples = np.concatenate([np.zeros(SR), sine(440, seconds=3)]).astype(np.float32)
    assert descriptors.describe_audio(samples, sr=SR).silence_share == 0.25


@pytest.mark.parametrize(
    "samples",
    [np.zeros(0), np.zeros(1), np.zeros(3 * SR), np.full(3 * SR, 1e-7)],
    ids=["nothing", "one sample", "silence", "next to silence"],
)
def test_silence_has_no_spectrum(samples):
    found = descriptors.describe_audio(samples.astype(np.float32), sr=SR)
    assert found.silence_share == 1
    assert found.duration_s == len(samples) / SR
    assert found.key == "none"
    assert found.tuning_strength == 0
    for name in ("loudness_lufs", "spectral_centroid_hz", "mfcc", "chroma", "tempo_bpm"):
        assert getattr(found, name) is None
    json.dumps(dataclasses.asdict(found), allow_nan=False)


@pytest.mark.parametrize("count", [1, 2, 500, 6399, 6401])
def test_short_recordings_are_described(count):
    found = descriptors.describe_audio(sine(440)[100 : 100 + count], sr=SR)
    assert (found.loudness_lufs is None) == (count < 0.4 * SR)
    assert found.spectral_centroid_hz is not None


FINITE = st.floats(-(2.0**127), 2.0**127, width=32)


@settings(max_examples=40)
@given(
    samples=npst.arrays(np.float32, st.integers(0, 3000), elements=FINITE),
    sr=st.sampled_from([4_000, 16_000, 44_100]),
    excerpt_s=st.sampled_from([0, 0.05, 30]),
)
def test_figures_of_any_samples_are_finite(samples, sr, excerpt_s):
    found = descriptors.describe_audio(samples, sr=sr, excerpt_s=excerpt_s)
    json.dumps(dataclasses.asdict(found), allow_nan=False)
    for value in all_numbers(found):
        assert value is None or type(value) in (int, float, str)
    for share in (found.clipping_share, found.silence_share, found.zero_crossing_rate):
        assert 0 <= share <= 1
    assert 0 <= found.tuning_strength <= 1


def test_notes_are_described_as_what_they_are():
    notes = make_notes([1, 2, 3, 4], [2, 3, 4, 6], [60, 64, 67, 72], [60, 70, 80, 90])
    assert descriptors.describe_notes(notes, pedal_share=0.25) == descriptors.NoteFeatures(
        notes=4,
        density_per_s=0.8,
        lowest_pitch=60,
        highest_pitch=72,
        velocity_mean=75.0,
        velocity_sd=pytest.approx(math.sqrt(125)),
        pedal_share=0.25,
        tempo_bpm=pytest.approx(60, rel=0.01),
        key="C major",
        duration_s=5.0,
    )


def test_no_notes_are_described():
    found = descriptors.describe_notes(np.empty(0, NOTE))
    assert (found.notes, found.density_per_s, found.duration_s, found.key) == (0, 0, 0, "none")
    for name in ("lowest_pitch", "highest_pitch", "velocity_mean", "velocity_sd", "tempo_bpm"):
        assert getattr(found, name) is None
    json.dumps(dataclasses.asdict(found), allow_nan=False)


@pytest.mark.parametrize("bpm", [63, 97, 120, 151])
def test_the_tempo_of_notes_is_that_of_their_beats(bpm, rng):
    beat = np.repeat(np.arange(120), 2)  # two hands
    onset = beat * 60 / bpm + rng.normal(0, 0.01, len(beat)) + 1
    onset = np.concatenate([onset, onset[::5] + 30 / bpm])  # an eighth at times
    pitch = rng.integers(40, 80, len(onset))
    notes = make_notes(onset, onset + 0.2, pitch, np.full(len(onset), 64))
    assert descriptors.describe_notes(notes).tempo_bpm == pytest.approx(bpm, rel=0.02)


def test_a_million_notes_at_once_have_no_tempo():
    count = 1_000_000
    notes = np.zeros(count, NOTE)
    notes["offset"], notes["pitch"], notes["velocity"] = 1, 60, 64
    found = descriptors.describe_notes(notes)
    assert (found.notes, found.tempo_bpm) == (count, None)


@given(
    columns=st.lists(
        st.tuples(
            st.floats(0, 1e5), st.floats(0.01, 100), st.integers(21, 108), st.integers(1, 127)
        )
    )
)
def test_figures_of_any_notes_are_finite(columns):
    onset, lasts, pitch, velocity = np.array(columns or [(0, 0, 0, 0)]).T
    notes = make_notes(onset, onset + lasts, pitch, velocity)
    found = descriptors.describe_notes(notes)
    json.dumps(dataclasses.asdict(found), allow_nan=False)
    for value in all_numbers(found):
        assert value is None or type(value) in (int, float, str)
    assert found.tempo_bpm is None or 28 < found.tempo_bpm < 320


def test_distances_are_those_of_the_plain_definition(rng):
    time_s = np.sort(rng.integers(0, 40, 60) / 4)
    expected = np.zeros(10, int)
    for start in time_s:
        apart = [end - start for end in time_s if 1 <= end - start < 2.5]
        for distance in apart[:5]:
            expected[round(4 * distance)] += 1
    assert distances(time_s, 1, 2.5, 5, 0.25).tolist() == np.trim_zeros(expected, "b").tolist()
    assert distances(time_s[:0], 1, 2.5, 5, 0.25).tolist() == [0]


def test_flat_weights_have_no_key():
    assert keys.estimate_of_weights(np.full(12, 1 / 12)) == (None, "none")


def test_a_beat_is_told_from_free_playing(rng):
    beats = np.arange(200) * 0.5
    even = beats + rng.normal(0, 0.01, 200)
    assert tempo_of(np.sort(even)) == (pytest.approx(120, rel=0.02), "sure")
    free = np.sort(rng.uniform(0, 100, 300))
    assert tempo_of(free).certainty == "unclear"
    assert tempo_of(beats[:8]).certainty == "unclear"  # too few to tell
    assert tempo_of(np.array([])) == (None, "none")


def test_certainties_are_those_of_what_is_described(rng):
    onsets = np.arange(200) * 0.5
    pitches = np.resize([60, 64, 67, 72], 200)
    notes = make_notes(onsets, onsets + 0.4, pitches, [80] * 200)
    found = descriptors.certainties(notes)
    assert found["tempo"] == "sure"
    assert found["key"] == keys.estimate_key(notes).certainty
    assert descriptors.describe_notes(notes).key == keys.estimate_key(notes).name
