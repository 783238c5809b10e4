from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano.analysis.beats import meter_of, nearest, onsets_of, sharpness, track
from deep_piano.music.notes import make_notes


def waltz(bpm, *, bars=40, rng=None, stray_s=0.0, start_s=0.0):
    """Return a bass note and two chords a bar, with human timing if asked for."""
    beat = np.repeat(np.arange(3 * bars), [1, 2, 2] * bars)
    onset = start_s + beat * 60 / bpm
    if rng is not None:
        onset = onset + rng.normal(0, stray_s, len(onset))
    pitch = np.resize([43, 67, 71, 67, 71], len(onset))
    onset = onset - onset.min() + start_s
    return make_notes(onset, onset + 30 / bpm, pitch, np.full(len(onset), 70))


@pytest.mark.parametrize("bpm", [58, 84, 100, 116])
def test_a_steady_tempo_is_one_tempo(bpm):
    meter = meter_of(waltz(bpm))
    assert len(set(meter.beat_us)) == 1
    assert meter.bpm == pytest.approx(bpm, rel=2e-3)
    assert (meter.beats_a_bar, meter.pickup) == (3, 0)


def test_fingers_stray_and_the_tempo_does_not(rng):
    meter = meter_of(waltz(96, rng=rng, stray_s=0.012))
    assert len(meter.beat_us) <= 2
    assert meter.bpm == pytest.approx(96, rel=2e-3)


def test_a_tempo_that_bends_is_followed():
    truth_s = np.cumsum(np.r_[0, 0.6 + 0.03 * np.sin(np.arange(120) / 12)])
    eighth_s = (truth_s[:-1] + truth_s[1:]) / 2
    onset = np.r_[truth_s, eighth_s]
    pitch = np.r_[np.full(len(truth_s), 43), np.full(len(eighth_s), 72)]
    notes = make_notes(onset, onset + 0.25, pitch, np.full(len(onset), 70))
    meter = meter_of(notes)
    assert len(set(meter.beat_us)) > 1
    place = meter.quarters(truth_s[10:110])
    assert np.abs(place - np.rint(place)).max() < 0.12
    assert np.diff(np.rint(place)).tolist() == [1] * 99


def test_without_a_beat_the_tempo_is_constant(rng):
    onset = np.cumsum(rng.exponential(0.15, 600))
    notes = make_notes(onset, onset + 0.3, rng.integers(40, 80, 600), rng.integers(30, 90, 600))
    onsets = onsets_of(notes)
    beat_s = track(onsets)
    assert beat_s is not None
    assert sharpness(onsets, beat_s) < 0.3
    assert len(meter_of(notes).beat_us) == 1


def test_the_nearest_beat_is_found_and_of_two_the_earlier_one():
    time_s = np.array([-1, 0, 0.25, 0.5, 0.75, 1.5, 2.5, 9])
    place, distance = nearest(time_s, np.array([0.0, 1, 2, 3]))
    assert place.tolist() == [0, 0, 0, 0, 1, 1, 2, 3]
    assert distance.tolist() == [1, 0, 0.25, 0.5, 0.25, 0.5, 0.5, 6]
    assert nearest(time_s, np.array([1.0]))[0].tolist() == [0] * len(time_s)


def test_the_beats_of_an_hour_take_little_memory():
    time_s, beat_s = np.arange(0, 3600, 0.125), np.arange(0, 3600, 0.5)
    tracemalloc.start()
    try:
        nearest(time_s, beat_s)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_too_few_notes_have_the_default():
    assert meter_of(make_notes([], [], [], [])).bpm == 120
    assert meter_of(waltz(90, bars=1)).bpm == 120


@given(st.integers(0, 2**32 - 1), st.integers(8, 300), st.floats(0.5, 120), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_whatever_is_played_has_tempi_that_a_file_can_hold(seed, count, seconds, regular):
    rng = np.random.default_rng(seed)
    onset = np.sort(rng.uniform(0, seconds, count))
    onset = np.where(rng.random(count) < regular, np.round(onset * 2) / 2, onset)
    onset -= onset.min()
    pitch = rng.integers(21, 109, count)
    meter = meter_of(make_notes(onset, onset + 0.3, pitch, rng.integers(1, 128, count)))
    assert all(0 < beat_us < 2**24 for beat_us in meter.beat_us)
    assert meter.beats_a_bar in (3, 4)
    assert 0 <= meter.pickup < meter.beats_a_bar
