from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano.codecs.base import nats
from deep_piano.codecs.note_context import FEATURES, NoteContext, with_and_without_seed
from deep_piano.codecs.notes import (
    CANDIDATES,
    COPIES,
    DURATION,
    DURATION_CLASSES,
    DURATIONS,
    LOG_WIDTHS,
    LONGEST_DURATION,
    ONSET_CLASSES,
    ONSETS,
    PITCHES,
    SPEC,
    STEP_FEATURES,
    classes,
    decode,
    encode,
)
from deep_piano.decoding.notes import Engine
from deep_piano.music.notes import make_notes
from tests.support.fakes import arpeggios, random_checkpoint

FIRST = np.zeros(1, np.int64)


def started(**told):
    context = NoteContext(1)
    context.start(0, **{"seed_seconds": None} | told)
    return context


def after(context, notes):
    """Return the features and classes after each of some notes."""
    known = []
    for step in encode(notes):
        part = context.advance(step[None])
        known.append((part.features[0].copy(), part.classes[0].copy()))
    return tuple(np.stack(rows) for rows in zip(*known, strict=True))


def features(context, notes):
    return after(context, notes)[0]


def test_what_sounds_is_known_and_until_when():
    rows = features(started(), make_notes([0, 1], [0.5, 3], [60, 64], [64, 64]))
    assert rows.shape == (2, STEP_FEATURES + ONSETS)
    assert rows[0, 88:176].nonzero()[0].tolist() == [39]
    assert rows[1, 88:176].nonzero()[0].tolist() == [43]
    assert rows[1, 39] == pytest.approx(np.exp(-1))
    assert rows[0, STEP_FEATURES:].nonzero()[0].tolist() == [50]
    assert rows[1, STEP_FEATURES:].nonzero()[0].tolist() == [ONSET_CLASSES[200]]


def test_the_seed_is_not_known_before_it_has_ended(rng):
    notes = arpeggios(20, rng=rng)
    rows = features(started(seed_seconds=10), notes)
    ended = decode(encode(notes))["onset"] >= 10
    of_seed = np.r_[FEATURES["seed"], FEATURES["seed_texture"]]
    assert not rows[~ended][:, of_seed].any()
    assert (rows[ended, 203] == 1).all()
    assert rows[ended, 188:200].sum(1) == pytest.approx(1, abs=1e-5)
    assert (rows[ended][:, of_seed] == rows[-1, of_seed]).all()


def test_what_is_not_told_of_the_seed_is_zero(rng):
    notes = arpeggios(20, rng=rng)
    whole = features(started(seed_seconds=10), notes)[-1]
    for group in range(5):
        told = [float(other != group) for other in range(5)]
        rows = features(started(seed_seconds=10, told=told), notes)[-1]
        changed = (rows != whole).nonzero()[0]
        assert len(changed) > 1
        assert not rows[changed].any()


def test_the_end_is_counted_down_to(rng):
    notes = arpeggios(20, rng=rng)
    rows = features(started(end_seconds=20), notes)
    assert (np.diff(rows[:, 205:208], axis=0) >= 0).all()
    assert not features(started(), notes)[:, 205:209].any()


def test_streams_do_not_hear_one_another(rng):
    first, second = arpeggios(8, rng=rng), arpeggios(8, rng=rng, tonic=50)
    together = NoteContext(2)
    for slot in range(2):
        together.start(slot)
    pairs = np.stack([encode(first), encode(second)], 1)
    both = np.stack([together.advance(steps).features.copy() for steps in pairs], 1)
    for index, notes in enumerate((first, second)):
        np.testing.assert_array_equal(both[index], features(started(seed_seconds=10.0), notes))


def test_without_its_seed_a_stream_is_one_that_was_told_of_none(rng):
    told, untold = NoteContext(2), NoteContext(2)
    for slot in range(2):
        told.start(slot, seed_seconds=4)
        untold.start(slot, seed_seconds=None)
    pairs = [encode(arpeggios(20, rng=rng, tonic=tonic)) for tonic in (50, 60)]
    for steps in np.stack(pairs, 1):
        known, other = told.advance(steps), untold.advance(steps)
        both = with_and_without_seed(known)
        np.testing.assert_array_equal(both.features[::2], known.features)
        np.testing.assert_array_equal(both.features[1::2], other.features)
        np.testing.assert_array_equal(both.classes[1::2], other.classes)
    assert (both.features[::2] != both.features[1::2]).any(1).all()


def test_a_slot_starts_anew(rng):
    notes = arpeggios(8, rng=rng)
    context = started(seed_seconds=4)
    fresh = after(context, notes)
    context.start(0, seed_seconds=4)
    for one, other in zip(fresh, after(context, notes), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_window_is_what_single_notes_are(rng):
    """Also in company, and when a part of it was skipped."""
    sequences = [encode(arpeggios(20, rng=rng, tonic=tonic)) for tonic in (50, 60)]
    steps = np.stack(sequences)
    contexts = [NoteContext(2) for _ in range(2)]
    for context in contexts:
        for slot in range(2):
            context.start(slot)
    contexts[0].window(steps[:, :40], steps[:, 1:41])
    contexts[1].skip(steps[:, :40])
    one, other = (context.window(steps[:, 40:80], steps[:, 41:81]) for context in contexts)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def recalled(context, notes):
    """Return the keys that the memory predicts after each note, -1 where there is none."""
    found = after(context, notes)[1][:, :CANDIDATES].astype(int)
    return np.where(found == PITCHES, -1, found + 21)


def test_the_memory_promises_what_came_after_last_time_moved_to_here():
    pitch = np.array([60, 62, 64, 69, 40, 65, 67, 69])  # the first three again, a fourth higher
    onset = np.arange(8) / 2
    found = recalled(started(), make_notes(onset, onset + 0.1, pitch, [64] * 8))
    assert found[:6, 0].tolist() == [-1, -1, 64 + 2, -1, -1, -1]
    assert found[6, 0] == 67 + 5  # the latest whole step was followed by a fourth
    assert found[7, 0] == 69 + 5  # two whole steps were, too
    assert found[6, 1] == 67 + 2  # and an earlier one by a whole step


def test_the_memory_prefers_the_longest_run_and_then_the_latest():
    figure = [60, 62, 64, 65]
    pitch = [*figure, 50, 62, 64, 70, 40, 60, 62, 64]
    onset = np.arange(len(pitch)) / 2
    found = recalled(started(), make_notes(onset, onset + 0.1, pitch, [64] * len(pitch)))
    assert found[-1].tolist() == [65, 66]  # the tone before was followed by a tone


def promised(context, chords):
    """Return the keys of the next chord, and those that the last one lacks, after each note."""
    onset = [
        index / 2 + 0.01 * place for index, keys in enumerate(chords) for place in range(len(keys))
    ]
    pitch = np.concatenate(chords)
    rows = features(context, make_notes(onset, np.array(onset) + 0.1, pitch, [64] * len(pitch)))
    return tuple(
        [(row.nonzero()[0] + 21).tolist() for row in rows[:, FEATURES[name]]]
        for name in ("next_chord", "rest_of_chord")
    )


def test_chords_are_recalled_whatever_the_order_of_their_notes():
    figure = [[60, 64, 67], [59, 65], [57, 60, 65], [36]]
    octave_higher = [[76, 72, 79], [77, 71], [77, 69, 72]]
    following, lacking = promised(started(), [[36], *figure, *octave_higher])
    # The first three notes are another chord than before: another interval leads to it.
    assert following[10:] == [[], [], [], [], [69, 72, 77], [], [], [48]]
    assert lacking[10:] == [[], [], [], [], [], [69, 72], [72], []]


def test_what_a_chord_still_lacks_is_promised_while_it_keeps_the_promise():
    phrase = [[48], [60, 64, 67], [59, 62, 67], [60, 64, 67]]
    higher = [[50], [62, 66, 69], [61, 65, 69]]
    following, lacking = promised(started(), [*phrase, [40], *higher])
    assert following[11:] == [[], [], [], [61, 64, 69], [], [], []]
    assert lacking[11:] == [[], [], [], [], [64, 69], [], []]


def test_a_memory_that_is_switched_off_promises_nothing(rng):
    notes = arpeggios(20, rng=rng)
    of_chords = np.r_[FEATURES["next_chord"], FEATURES["rest_of_chord"]]
    assert (recalled(started(), notes)[30:, 0] > 0).all()
    assert features(started(), notes)[30:, of_chords].any()
    assert (recalled(started(remembers=False), notes) == -1).all()
    assert not features(started(remembers=False), notes)[:, of_chords].any()


def test_the_last_struck_distinct_ends_are_candidates():
    # Two end together; one has ended; one ends beyond the longest duration.
    notes = make_notes(
        [0, 0.1, 0.2, 0.3, 0.4], [2, 0.5, 2, 1.5, 100], [60, 61, 62, 63, 64], [64] * 5
    )
    context = started()
    after(context, notes)
    known, ends = context.of_field(FIRST, np.array([[60, 40, 16]]))  # at 1.0 s
    assert ends.tolist() == [[1940, 50, 100, 0]]
    assert known.classes[0, 2:].tolist() == [*DURATION_CLASSES[[1940, 50, 100]], DURATIONS]
    assert known.features[0].nonzero()[0].tolist() == sorted(DURATION_CLASSES[[50, 100, 1940]])
    assert len(ends[0]) == COPIES


NOTE_ROWS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 300), st.integers(21, 108), st.integers(1, 127)),
    min_size=1,
    max_size=30,
)


@settings(deadline=None)
@given(NOTE_ROWS, st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_the_probabilities_of_all_durations_add_up_to_one(rows, onset, seed):
    gap, duration, pitch, velocity = np.array(rows).T
    begins = np.cumsum(gap) / 100
    context = started()
    after(context, make_notes(begins, begins + duration / 100, pitch, velocity))
    rng = np.random.default_rng(seed)
    engine = Engine(random_checkpoint(seed=seed % 100, scale=1.0))
    hidden = rng.normal(size=(1, 4 * engine.config.head_units)).astype(np.float32)
    chosen = np.array([[onset, rng.integers(88), rng.integers(32)]], np.int32)
    known, ends = context.of_field(FIRST, chosen)
    [logits] = engine.logits(hidden, classes(chosen), known)
    every = np.arange(1, LONGEST_DURATION + 1)
    field, widths = SPEC.fields[DURATION], LOG_WIDTHS[DURATION]
    wide = np.tile(logits.astype(np.float64), (len(every), 1))
    losses = nats(field, widths, wide, DURATION_CLASSES[every], ends == every[:, None])
    assert np.exp(-losses).sum() == pytest.approx(1, abs=1e-6)


def test_a_stream_to_train_on_may_know_its_seed_and_its_end(rng):
    sequence = encode(make_notes(np.arange(60) / 2, np.arange(60) / 2 + 1, [60] * 60, [64] * 60))
    ends, seeds = set(), set()
    for _ in range(60):
        context = NoteContext(1)
        context.begin(0, sequence, rng)
        features = context.window(sequence[None], sequence[None]).features[0]
        ends.add(bool(features[-1, 208]))
        seeds.add(bool(features[-1, 203]))
        if features[-1, 208]:
            left_s = -2 * np.log(features[-1, 205])
            assert left_s == pytest.approx(1.0, abs=0.02)  # the last note is held so long
    assert ends == seeds == {True, False}
    context = NoteContext(1)
    context.begin(0, sequence)
    assert not context.window(sequence[None], sequence[None]).features[0, :, 208].any()
