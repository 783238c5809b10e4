from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.errors import InputError
from deep_piano.music.notes import excerpt, fold_pedal, make_notes, pedal_share
from tests.support.fakes import arpeggios


def test_make_notes_sorts_and_drops_what_no_piano_plays():
    notes = make_notes([1, 0, 0, 2], [2, 1, 1, 2], [60, 64, 20, 70], [0, 200, 64, 64])
    assert notes["pitch"].tolist() == [64, 60]
    assert notes["velocity"].tolist() == [127, 1]


def test_every_note_needs_all_that_a_note_has():
    with pytest.raises(InputError, match=r"Received: arrays of the shapes \(2,\), \(2,\), \(1,\)"):
        make_notes([0, 1], [1, 2], [60], [80, 80])


def test_notes_that_begin_together_go_by_pitch_and_those_of_a_key_stay_in_turn():
    notes = make_notes([1, 0, 0, 0], [2, 1, 3, 2], [50, 64, 60, 60], [1, 2, 3, 4])
    assert notes["velocity"].tolist() == [3, 4, 2, 1]
    again = make_notes(*(notes[name] for name in ("onset", "offset", "pitch", "velocity")))
    assert again.tobytes() == notes.tobytes()


def test_pedal_holds_a_note_until_it_lifts():
    notes = make_notes([0, 1], [0.5, 1.2], [60, 64], [64, 64])
    folded = fold_pedal(notes, [0.4], [1.1])
    assert folded["offset"].tolist() == [1.1, 1.2]


def test_pedal_that_went_down_later_holds_nothing():
    notes = make_notes([0], [0.5], [60], [64])
    assert fold_pedal(notes, [0.6], [2.0])["offset"].tolist() == [0.5]


def test_a_key_struck_again_ends_its_note():
    notes = make_notes([0, 1, 1.5], [0.5, 1.2, 3], [60, 60, 62], [64, 64, 64])
    folded = fold_pedal(notes, [0.2], [4.0])
    assert folded["offset"].tolist() == [1.0, 4.0, 4.0]


def test_the_share_of_the_pedal_is_never_more_than_all_of_it():
    moves = np.arange(1, 26) / 10  # as numbers are rounded, 24 tenths are more than 2.4
    notes = make_notes([moves[0]], [moves[-1]], [60], [64])
    assert pedal_share(notes, moves[:-1], moves[1:]) == 1.0


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5000), st.integers(1, 900), st.integers(21, 108), st.integers(1, 127)
        ),
        min_size=1,
        max_size=60,
    )
)
def test_no_two_notes_of_a_key_overlap_after_folding(rows):
    onset, length, pitch, velocity = np.array(rows, float).T
    notes = make_notes(onset / 100, (onset + length) / 100, pitch, velocity)
    folded = fold_pedal(notes, [0.0, 20.0], [10.0, 30.0])
    for key in np.unique(folded["pitch"]):
        mine = folded[folded["pitch"] == key]
        assert (mine["offset"][:-1] <= mine["onset"][1:]).all()


def test_excerpt_begins_at_its_own_zero(rng):
    notes = arpeggios(20, rng=rng)
    cut = excerpt(notes, 5, 10)
    assert 0 <= cut["onset"][0] < 0.3
    assert cut["onset"][-1] < 5
    assert (notes["onset"] >= 0).all()  # the original is left as it was
