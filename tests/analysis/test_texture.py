from __future__ import annotations

import numpy as np
import pytest

from deep_piano.analysis.texture import (
    EXCERPT_S,
    FEWEST_NOTES,
    TEXTURES,
    common_ends,
    excerpts,
    pulse,
    texture,
)
from deep_piano.music.notes import NOTE, make_notes
from tests.support.fakes import arpeggios


def figures(onset, duration, pitch, velocity):
    onset, duration = np.array(onset, float), np.array(duration, float)
    notes = make_notes(onset, onset + duration, pitch, velocity)
    return dict(zip(TEXTURES, texture(notes), strict=True))


def test_the_figures_are_those_of_their_definitions():
    pitch = [48, 60, 64, 67, 60, 64, 67, 72]
    found = figures(np.arange(8) / 2, [0.4] * 8, pitch, [40, 50, 60, 70, 50, 60, 70, 80])
    assert found["density"] == pytest.approx(8 / 3.5)
    assert found["gap, median"] == pytest.approx(np.log(0.501))
    assert found["gap, spread"] == pytest.approx(np.log(0.001))
    share = np.array([4, 2, 2]) / 8
    assert found["pitch-class entropy"] == pytest.approx(-(share * np.log2(share)).sum())
    assert (found["pitch, mean"], found["pitch, spread"]) == (np.mean(pitch), np.std(pitch))
    assert found["velocity, mean"] == 60
    assert found["duration, median"] == pytest.approx(np.log(0.4))
    assert found["chord size"] == 1
    assert found["repeated figures"] == 0  # 12 4 3, 4 3 -7, 3 -7 4, -7 4 3, 4 3 5
    assert found["share of low notes"] == 1 / 8
    assert 0.9 < found["pitch with velocity"] < 1


def test_chords_and_repetition_are_seen():
    chords = figures(np.repeat(np.arange(4.0), 3), [0.5] * 12, [60, 64, 67] * 4, [64] * 12)
    assert chords["chord size"] == 3
    assert chords["repeated figures"] == pytest.approx(1 - 3 / 9)
    assert chords["pitch with velocity"] == 0
    together = figures([1.0] * 8, [0.5] * 8, range(60, 68), [64] * 8)
    assert np.isfinite(list(together.values())).all()


def test_a_few_notes_are_too_few():
    notes = make_notes(np.arange(FEWEST_NOTES - 1), np.arange(1, FEWEST_NOTES), [60] * 7, [64] * 7)
    assert np.isnan(texture(notes)).all()


def test_excerpts_are_whole_and_hold_every_note_once(rng):
    notes = arpeggios(50, rng=rng)
    parts = list(excerpts(notes))
    assert len(parts) == 3
    np.testing.assert_array_equal(np.concatenate(parts), notes[: sum(map(len, parts))])
    assert all(np.ptp(part["onset"]) < EXCERPT_S for part in parts)
    assert list(excerpts(np.empty(0, NOTE))) == []


def test_notes_that_end_together_are_counted():
    assert common_ends(np.empty(0, NOTE)) == 0
    notes = make_notes([0, 1, 2, 3], [4, 4.002, 3.5, 5], [60, 62, 64, 65], [64] * 4)
    assert common_ends(notes) == 0.5


def test_the_pulse_tells_a_beat_from_chance(rng):
    beat = np.repeat(np.arange(30) * 0.5, 2)
    steady, astray, chance = (
        pulse(make_notes(onset, onset + 0.4, np.tile([50, 62], 30), [80] * 60))
        for onset in (
            beat,
            np.maximum.accumulate(beat + np.abs(rng.normal(0, 0.02, 60))),
            np.sort(rng.uniform(0, 15, 60)),
        )
    )
    assert steady > astray > 0.5
    assert chance < 0.4


def test_no_notes_and_the_shortest_have_no_pulse():
    assert pulse(np.empty(0, NOTE)) == 0
    assert pulse(make_notes([0, 0.5], [1, 1], [60, 62], [80, 80])) == 0
