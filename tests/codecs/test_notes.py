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
    LONGEST_DURATION,
    LONGEST_ONSET,
    ONSET,
    ONSET_STEPS,
    PITCH,
    SPEC,
    VELOCITY,
    bend,
    classes,
    decode,
    encode,
    excerpt,
    garble,
)
from deep_piano.music.notes import NOTE, make_notes

NOTE_ROWS = st.lists(
    st.tuples(st.integers(0, 120), st.integers(1, 127), st.integers(21, 108), st.integers(1, 127)),
    min_size=1,
    max_size=50,
)


def test_spec_survives_json():
    assert SequenceSpec.from_json(SPEC.to_json()) == SPEC


def test_notes_become_the_steps_that_the_grid_says():
    notes = make_notes([0.0, 0.5, 0.5], [1.0, 0.51, 1.7], [21, 108, 60], [1, 127, 64])
    assert encode(notes).tolist() == [[0, 0, 0, 100], [50, 39, 16, 120], [0, 87, 31, 1]]


def test_an_empty_array_round_trips():
    assert encode(np.empty(0, NOTE)).shape == (0, 4)
    assert len(decode(np.empty((0, 4), np.int32))) == 0


@given(NOTE_ROWS)
def test_notes_on_the_grid_round_trip_exactly(rows):
    gap, duration, pitch, velocity = np.array(rows).T
    onset = np.cumsum(gap) / 100
    notes = make_notes(onset, onset + duration / 100, pitch, velocity)
    again = decode(encode(notes))
    np.testing.assert_allclose(again["onset"], notes["onset"], atol=1e-9)
    np.testing.assert_allclose(again["offset"], notes["offset"], atol=1e-9)
    assert (again["pitch"] == notes["pitch"]).all()
    assert np.abs(again["velocity"].astype(int) - notes["velocity"]).max() <= 2


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_what_a_class_stands_for_is_near_all_that_is_in_it(gap, duration):
    notes = make_notes([gap / 100], [(gap + duration) / 100], [60], [64])
    sequence = encode(notes)
    step, found = sequence[0], classes(sequence)[0]
    assert step[ONSET] == min(gap, LONGEST_ONSET)
    assert step[DURATION] == min(duration, LONGEST_DURATION)
    for steps, asked in (
        (ONSET_STEPS[found[ONSET]], step[ONSET]),
        (DURATION_STEPS[found[DURATION]], step[DURATION]),
    ):
        assert abs(steps - asked) <= max(1, 0.035 * asked)


def test_what_a_class_stands_for_is_in_it():
    for field, steps in ((ONSET, ONSET_STEPS), (DURATION, DURATION_STEPS)):
        sequence = np.ones((len(steps), 4), np.int32)
        sequence[:, field] = steps
        np.testing.assert_array_equal(classes(sequence)[:, field], np.arange(len(steps)))


@given(NOTE_ROWS, st.integers(0, 2**32 - 1))
def test_notes_that_end_together_still_do_when_they_are_hurried(rows, seed):
    gap, _, pitch, velocity = np.array(rows).T
    onset = np.cumsum(gap) / 100
    notes = make_notes(onset, np.full(len(onset), onset[-1] + 0.5), pitch, velocity)
    sequence = encode(notes)
    bent = bend(sequence, Augmentation(tempo_range=0.1), np.random.default_rng(seed))
    ends = np.cumsum(bent[:, ONSET]) + bent[:, DURATION]
    # A note that was as long as the codec can say may have ended before the others already.
    reached = (sequence[:, DURATION] < LONGEST_DURATION) & (bent[:, DURATION] < LONGEST_DURATION)
    assert len(set(ends[reached])) <= 1


def test_widths_count_every_cell_of_the_grid_once():
    assert [len(w) for w in LOG_WIDTHS] == [field.size for field in SPEC.fields]
    assert np.exp(LOG_WIDTHS[ONSET]).sum() == pytest.approx(801)
    assert np.exp(LOG_WIDTHS[DURATION]).sum() == pytest.approx(2000)


@given(NOTE_ROWS, st.integers(0, 2**32 - 1))
def test_bending_keeps_notes_in_order_and_on_the_keyboard(rows, seed):
    gap, duration, pitch, velocity = np.array(rows).T
    onset = np.cumsum(gap) / 100
    sequence = encode(make_notes(onset, onset + duration / 100, pitch, velocity))
    bent = bend(sequence, Augmentation(6, 0.1, 0.1), np.random.default_rng(seed))
    assert bent.shape == sequence.shape
    for column, field in zip(bent.T, SPEC.fields, strict=True):
        assert ((column >= 0) & (column < field.values)).all()
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
    gaps = [int(one[1, ONSET]) for one in bent]
    assert 91 <= min(gaps) < 93
    assert 108 < max(gaps) <= 110
    louder = {int(one[0, VELOCITY] - sequence[0, VELOCITY]) for one in bent}
    assert louder == set(range(-3, 4))


@given(NOTE_ROWS, st.integers(0, 2**32 - 1))
def test_transcription_errors_remove_notes(rows, seed):
    gap, duration, pitch, velocity = np.array(rows).T
    onset = np.cumsum(gap) / 100
    sequence = encode(make_notes(onset, onset + duration / 100, pitch, velocity))
    noise = Augmentation(transcription_noise=1.0)
    bent = bend(sequence, noise, np.random.default_rng(seed))
    assert 1 <= len(bent) <= len(sequence)
    for column, field in zip(bent.T, SPEC.fields, strict=True):
        assert ((column >= 0) & (column < field.values)).all()


def test_only_the_beginning_is_misheard_as_badly_as_was_measured(rng):
    onset = np.arange(600) / 10  # a minute
    sequence = encode(make_notes(onset, onset + 1, np.full(600, 60), np.full(600, 64)))
    noisy = [bend(sequence, Augmentation(transcription_noise=1.0), rng) for _ in range(300)]
    assert all(np.array_equal(bent[-440:], sequence[-440:]) for bent in noisy)
    begun = 90.0  # notes in a seed of 9 s, the mean
    lost = np.mean([len(sequence) - len(bent) for bent in noisy])
    assert 0.05 * begun < lost < 0.09 * begun
    beginnings = np.concatenate([bent[:28] for bent in noisy])  # 3 s, whatever was lost
    assert -0.35 < np.log(beginnings[:, DURATION] / 100).mean() < -0.1
    assert 1 < np.std(beginnings[:, VELOCITY]) < 4
    half = [bend(sequence, Augmentation(transcription_noise=0.5), rng) for _ in range(100)]
    assert 30 < sum(np.array_equal(bent, sequence) for bent in half) < 70


def test_an_excerpt_begins_at_zero():
    sequence = encode(make_notes([0.5, 1.0, 2.0], [1.0, 2.0, 3.0], [60, 62, 64], [64] * 3))
    np.testing.assert_array_equal(excerpt(sequence, 1)[:, ONSET], [0, sequence[2, ONSET]])
    assert sequence[0, ONSET] != 0
    assert excerpt(sequence, 0)[0, ONSET] == 0


def test_garbled_values_are_other_notes_values(rng):
    sequence = np.stack(
        [rng.integers(field * 100, field * 100 + 50, 4000) for field in range(4)], 1
    )
    garbled, targets = garble(sequence, 0.2, rng)
    wrong = (garbled != sequence).mean(0)[[PITCH, VELOCITY]]
    assert (wrong > 0.15).all()
    assert (wrong < 0.25).all()
    for field in (PITCH, VELOCITY):
        assert set(garbled[:, field]) <= set(sequence[:, field])
    np.testing.assert_array_equal(garbled[0], sequence[0])
    np.testing.assert_array_equal(targets[:, PITCH:], sequence[:, PITCH:])
    for unchanged in garble(sequence, 0.0, rng):
        np.testing.assert_array_equal(unchanged, sequence)


def test_after_a_garbled_onset_the_beat_goes_on(rng):
    beat = np.arange(400) * 0.5
    sequence = encode(make_notes(beat, beat + 1.0, rng.integers(40, 80, 400), [64] * 400))
    garbled, targets = garble(sequence, 0.2, rng)
    right, onset = np.cumsum(sequence[:, ONSET]), np.cumsum(garbled[:, ONSET])
    assert 0.06 < (onset != right).mean() < 0.2  # half come after the gap of another: as it was
    np.testing.assert_array_equal(onset[:-1] + targets[1:, ONSET], right[1:])
    assert (onset[1:-1] >= right[:-2]).all()  # no note passes another
    assert (onset[1:-1] <= right[2:]).all()
    moved = (onset != right) & (garbled[:, DURATION] != 100)
    ends = onset[moved] + garbled[moved, DURATION] == right[moved] + 100
    assert ends.mean() > 0.7  # of the others, the duration is garbled too


def test_a_garbled_onset_makes_and_leaves_no_chord(rng):
    chords = np.repeat(np.arange(400) * 0.07, 2)
    pitch = np.tile([50, 70], 400) + np.repeat(rng.integers(0, 12, 400), 2)
    sequence = encode(make_notes(chords, chords + 0.5, pitch, [64] * 800))
    garbled, targets = garble(sequence, 0.5, rng)
    apart = sequence[1:-1, ONSET] > 0
    assert (garbled[1:-1, ONSET][apart] > 0).all()
    assert (targets[1:-1, ONSET][apart] > 0).all()
    assert (garbled[1:, ONSET] != sequence[1:, ONSET]).mean() > 0.1
