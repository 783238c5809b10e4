from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.codecs.base import Augmentation, SequenceSpec
from deep_piano.codecs.notes import (
    DURATION,
    DURATION_STEPS,
    LOG_WIDTHS,
    ONSET,
    ONSET_STEPS,
    PITCH,
    SPEC,
    VELOCITY,
    NoteContext,
    bend,
    decode,
    encode,
    excerpt,
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


@given(NOTE_ROWS, st.integers(0, 2**32 - 1))
def test_bending_keeps_notes_in_order_and_on_the_keyboard(rows, seed):
    gap, duration, pitch, velocity = np.array(rows).T
    onset = np.cumsum(gap) / 100
    sequence = encode(make_notes(onset, onset + duration / 100, pitch, velocity))
    bent = bend(sequence, Augmentation(6, 0.1, 0.1), np.random.default_rng(seed))
    assert bent.shape == sequence.shape
    for column, field in zip(bent.T, SPEC.fields, strict=True):
        assert ((column >= 0) & (column < field.size)).all()
    intervals = np.diff(sequence[:, PITCH])
    np.testing.assert_array_equal(np.diff(bent[:, PITCH]), intervals)


def test_bending_by_nothing_changes_nothing(rng):
    sequence = encode(make_notes([0.0, 0.5, 0.5], [0.9, 3.0, 0.7], [21, 60, 108], [1, 64, 127]))
    np.testing.assert_array_equal(bend(sequence, Augmentation(), rng), sequence)


def test_bending_reaches_as_far_as_it_may(rng):
    sequence = encode(make_notes([0.0, 1.0], [0.5, 2.0], [60, 64], [64, 64]))
    augmentation = Augmentation(transpose_semitones=2, tempo_range=0.1, velocity_range=0.1)
    bent = [bend(sequence, augmentation, rng) for _ in range(300)]
    moved = {int(one[0, PITCH] - sequence[0, PITCH]) for one in bent}
    assert moved == {-2, -1, 0, 1, 2}
    gaps = [int(ONSET_STEPS[one[1, ONSET]]) for one in bent]
    assert 91 <= min(gaps) < 93
    assert 108 < max(gaps) <= 110
    louder = {int(one[0, VELOCITY] - sequence[0, VELOCITY]) for one in bent}
    assert louder == set(range(-3, 4))


@given(NOTE_ROWS, st.integers(0, 2**32 - 1))
def test_a_misheard_sequence_is_one_with_fewer_notes(rows, seed):
    gap, duration, pitch, velocity = np.array(rows).T
    onset = np.cumsum(gap) / 100
    sequence = encode(make_notes(onset, onset + duration / 100, pitch, velocity))
    noise = Augmentation(transcription_noise=1.0)
    heard = bend(sequence, noise, np.random.default_rng(seed))
    assert 1 <= len(heard) <= len(sequence)
    for column, field in zip(heard.T, SPEC.fields, strict=True):
        assert ((column >= 0) & (column < field.size)).all()


def test_only_the_beginning_is_misheard_as_badly_as_was_measured(rng):
    onset = np.arange(600) / 10  # a minute
    sequence = encode(make_notes(onset, onset + 1, np.full(600, 60), np.full(600, 64)))
    misheard = [bend(sequence, Augmentation(transcription_noise=1.0), rng) for _ in range(300)]
    assert all(np.array_equal(heard[-440:], sequence[-440:]) for heard in misheard)
    begun = 90.0  # notes in a seed of 9 s, the mean
    lost = np.mean([len(sequence) - len(heard) for heard in misheard])
    assert 0.05 * begun < lost < 0.09 * begun
    beginnings = np.concatenate([heard[:28] for heard in misheard])  # 3 s, whatever was lost
    assert -0.35 < np.log(DURATION_STEPS[beginnings[:, DURATION]] / 100).mean() < -0.1
    assert 1 < np.std(beginnings[:, VELOCITY]) < 4
    half = [bend(sequence, Augmentation(transcription_noise=0.5), rng) for _ in range(100)]
    assert 30 < sum(np.array_equal(heard, sequence) for heard in half) < 70


def test_an_excerpt_begins_at_zero():
    sequence = encode(make_notes([0.5, 1.0, 2.0], [1.0, 2.0, 3.0], [60, 62, 64], [64] * 3))
    np.testing.assert_array_equal(excerpt(sequence, 1)[:, ONSET], [0, sequence[2, ONSET]])
    assert sequence[0, ONSET] != 0
    assert excerpt(sequence, 0)[0, ONSET] == 0


def test_a_stream_to_train_on_may_know_its_seed_and_its_end(rng):
    sequence = encode(make_notes(np.arange(60) / 2, np.arange(60) / 2 + 1, [60] * 60, [64] * 60))
    ends, seeds = set(), set()
    for _ in range(60):
        context = NoteContext(1)
        context.begin(0, sequence, rng)
        features = context.window(sequence[None])[0]
        ends.add(bool(features[-1, 208]))
        seeds.add(bool(features[-1, 203]))
        if features[-1, 208]:
            left_s = -2 * np.log(features[-1, 205])
            assert left_s == pytest.approx(1.0, abs=0.02)  # the last note is held so long
    assert ends == seeds == {True, False}
    context = NoteContext(1)
    context.begin(0, sequence)
    assert not context.window(sequence[None])[0, :, 208].any()
