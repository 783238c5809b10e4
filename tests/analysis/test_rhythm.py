from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.analysis.rhythm import snap, written_in_one


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_exact_times_are_written_exactly(parts):
    exact = [Fraction(k, parts) for k in range(8 * parts)]
    assert snap(np.array([float(where) for where in exact]), np.arange(len(exact))) == exact


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_fingers_stray_and_the_rhythm_does_not(rng, parts):
    exact = [Fraction(k, parts) for k in range(16 * parts)]
    quarter = np.array([float(where) for where in exact]) + rng.uniform(-0.03, 0.03, len(exact))
    assert snap(quarter, np.arange(len(exact))) == exact


@given(st.lists(st.floats(0, 50), min_size=1, max_size=60))
def test_nothing_moves_far(quarters):
    quarter = np.array(quarters)
    found = np.array([float(where) for where in snap(quarter, np.arange(len(quarter)))])
    assert (found >= 0).all()
    assert np.abs(found - quarter).max() <= 0.5 + 1e-9


def test_repeated_notes_stay_apart():
    quarter = np.array([0.9, 1.05, 1.2, 1.3])
    assert len(set(snap(quarter, np.full(4, 60)))) == 4


@given(st.integers(0, 100), st.integers(1, 100), st.sampled_from([3, 4, 6, 8]))
def test_pieces_follow_one_another(start, length, parts):
    begin, end = Fraction(start, parts), Fraction(start + length, parts)
    pieces = written_in_one(begin, end)
    assert pieces[0][0] == begin
    assert pieces[-1][1] == end
    assert all(before[1] == after[0] for before, after in pairwise(pieces))
    assert all(first < last for first, last in pieces)
    for first, last in pieces:  # no piece of a triplet reaches beyond its beat
        if first.denominator % 3 == 0 or last.denominator % 3 == 0:
            assert last <= int(first) + 1
