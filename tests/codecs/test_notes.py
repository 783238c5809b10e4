from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.codecs.base import SequenceSpec
from deep_piano.codecs.notes import (
    DURATION,
    DURATION_STEPS,
    LOG_WIDTHS,
    ONSET,
    ONSET_STEPS,
    SPEC,
    NoteContext,
    decode,
    encode,
)
from deep_piano.notes import NOTE, make_notes
from tests.fakes import arpeggios

NOTE_ROWS = st.lists(
    st.tuples(st.integers(0, 120), st.integers(1, 127), st.integers(21, 108), st.integers(1, 127)),
    min_size=1,
    max_size=50,
)


def test_spec_survives_json():
    assert SequenceSpec.from_json(SPEC.to_json()) == SPEC


def test_notes_become_the_classes_that_the_grid_says():
    notes = make_notes([0.0, 0.5, 0.5], [1.0, 0.51, 1.7], [21, 108, 60], [1, 127, 64])
    assert encode(notes).tolist() == [[0, 0, 0, 99], [50, 39, 16, 119], [0, 87, 31, 0]]


def test_an_empty_array_round_trips():
    assert encode(np.empty(0, NOTE)).shape == (0, 4)
    assert len(decode(np.empty((0, 4), np.int32))) == 0


@given(NOTE_ROWS)
def test_short_values_round_trip_exactly(rows):
    gap, duration, pitch, velocity = np.array(rows).T
    onset = np.cumsum(gap) / 100
    notes = make_notes(onset, onset + duration / 100, pitch, velocity)
    again = decode(encode(notes))
    np.testing.assert_allclose(again["onset"], notes["onset"], atol=1e-9)
    np.testing.assert_allclose(again["offset"], notes["offset"], atol=1e-9)
    assert (again["pitch"] == notes["pitch"]).all()
    assert np.abs(again["velocity"].astype(int) - notes["velocity"]).max() <= 2


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_long_values_keep_within_their_class(gap, duration):
    notes = make_notes([gap / 100], [(gap + duration) / 100], [60], [64])
    step = encode(notes)[0]
    for steps, asked, at_least in (
        (ONSET_STEPS[step[ONSET]], min(gap, 800), 1),
        (DURATION_STEPS[step[DURATION]], min(duration, 2000), 1),
    ):
        assert abs(steps - asked) <= max(at_least, 0.035 * asked)


def test_every_class_decodes_to_itself():
    for index, steps in enumerate(ONSET_STEPS):
        assert encode(make_notes([steps / 100], [steps / 100 + 1], [60], [64]))[0, ONSET] == index
    for index, steps in enumerate(DURATION_STEPS):
        assert encode(make_notes([0], [steps / 100], [60], [64]))[0, DURATION] == index


def test_widths_count_every_cell_of_the_grid_once():
    assert [len(w) for w in LOG_WIDTHS] == [field.size for field in SPEC.fields]
    assert np.exp(LOG_WIDTHS[ONSET]).sum() == pytest.approx(801)
    assert np.exp(LOG_WIDTHS[DURATION]).sum() == pytest.approx(2000)


def features(context: NoteContext, notes: np.ndarray) -> np.ndarray:
    return np.stack([context.advance(step[None])[0].copy() for step in encode(notes)])


def test_context_knows_what_sounds():
    context = NoteContext(1)
    context.start(0, seed_seconds=None)
    rows = features(context, make_notes([0, 1], [0.5, 3], [60, 64], [64, 64]))
    assert rows.shape == (2, NoteContext.size)
    assert rows[0, 88:176].nonzero()[0].tolist() == [39]
    assert rows[1, 88:176].nonzero()[0].tolist() == [43]
    assert rows[1, 39] == pytest.approx(np.exp(-1))


def test_context_does_not_know_the_seed_before_it_has_ended(rng):
    notes = arpeggios(20, rng=rng)
    context = NoteContext(1)
    context.start(0, seed_seconds=10)
    rows = features(context, notes)
    ended = decode(encode(notes))["onset"] >= 10
    assert not rows[~ended, 188:204].any()
    assert (rows[ended, 203] == 1).all()
    assert rows[ended, 188:200].sum(1) == pytest.approx(1, abs=1e-5)
    assert (rows[ended, 188:204] == rows[-1, 188:204]).all()


def test_context_counts_down_to_the_end(rng):
    notes = arpeggios(20, rng=rng)
    context = NoteContext(1)
    context.start(0, seed_seconds=None, end_seconds=20)
    rows = features(context, notes)
    assert (np.diff(rows[:, 205:208], axis=0) >= 0).all()
    context.start(0, seed_seconds=None)
    assert not features(context, notes)[:, 205:209].any()


def test_streams_do_not_hear_one_another(rng):
    first, second = arpeggios(8, rng=rng), arpeggios(8, rng=rng, tonic=50)
    together = NoteContext(2)
    for slot in range(2):
        together.start(slot)
    pairs = np.stack([encode(first), encode(second)], 1)
    both = np.stack([together.advance(steps).copy() for steps in pairs], 1)
    for index, notes in enumerate((first, second)):
        alone = NoteContext(1)
        alone.start(0)
        np.testing.assert_array_equal(both[index], features(alone, notes))


def test_a_slot_starts_anew(rng):
    notes = arpeggios(8, rng=rng)
    context = NoteContext(1)
    context.start(0, seed_seconds=4)
    fresh = features(context, notes)
    context.start(0, seed_seconds=4)
    np.testing.assert_array_equal(features(context, notes), fresh)
