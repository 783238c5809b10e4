from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano.music.notes import fold_pedal, make_notes
from deep_piano.music.pedalling import play

TICKS_PER_SECOND = 1920


def sounding(rows, ends):
    """Return notes in ticks, many of which end at the same moments."""
    onset, length, pitch, together = (np.array(column) for column in zip(*rows, strict=True))
    offset = onset + length
    ends = np.sort(np.array(ends))
    place = np.minimum(np.searchsorted(ends, onset, side="right"), len(ends) - 1)
    offset = np.where(together & (ends[place] > onset), ends[place], offset)
    return fold_pedal(make_notes(onset, offset, pitch, np.full(len(onset), 64)), [], [])


def played(notes):
    onset, offset = notes["onset"].astype(np.int64), notes["offset"].astype(np.int64)
    return play(onset, offset, notes["pitch"], ticks_per_second=TICKS_PER_SECOND)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 20_000), st.integers(1, 4_000), st.integers(40, 70), st.booleans()
        ),
        min_size=1,
        max_size=60,
    ),
    st.lists(st.integers(1, 24_000), min_size=1, max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_folded_again_it_sounds_the_same(rows, ends):
    notes = sounding(rows, ends)
    hands = played(notes)
    keys = notes.copy()
    keys["offset"] = hands.release
    again = fold_pedal(keys, hands.down, hands.up)
    assert (again == notes).all()
    assert (hands.release > notes["onset"]).all()
    assert (hands.down < hands.up).all()
    assert (hands.up[:-1] < hands.down[1:]).all()


@pytest.fixture
def pedalled():
    """Two bars of broken chords, each held to its end by a pedal."""
    onset = np.arange(16) * 480
    offset = (onset // 3840 + 1) * 3840
    return make_notes(onset, offset, [48, 55, 60, 64] * 4, [64] * 16)


def test_a_pedal_holds_what_a_hand_lets_go(pedalled):
    hands = played(fold_pedal(pedalled, [], []))
    assert hands.up.tolist() == [3840, 7680]
    held_s = (hands.release - pedalled["onset"]) / TICKS_PER_SECOND
    assert np.median(held_s) == pytest.approx(0.25, abs=0.05)  # until the next note


def test_the_pedal_is_changed_after_the_notes_before_it_ended(pedalled):
    hands = played(fold_pedal(pedalled, [], []))
    assert hands.up[0] < hands.down[1] < hands.up[0] + 0.1 * TICKS_PER_SECOND


def test_what_ends_alone_is_held_by_its_key():
    notes = make_notes([0, 500, 1000], [400, 900, 2900], [60, 62, 64], [64] * 3)
    hands = played(notes)
    assert hands.release.tolist() == [400, 900, 2900]
    assert not len(hands.down)


def test_a_chord_that_is_let_go_needs_no_pedal():
    notes = make_notes([0, 0, 0, 1000], [3000, 3000, 3000, 2000], [60, 64, 67, 72], [64] * 4)
    assert not len(played(notes).down)


def test_no_notes():
    hands = played(make_notes([], [], [], []))
    assert len(hands.release) == len(hands.down) == len(hands.up) == 0
