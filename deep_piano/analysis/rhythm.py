"""Performed times on a grid that can be written: each beat in as few equal parts as will do.

Pure NumPy; knows nothing of files or notation programs.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

_PARTS: Final = ((1, 0.0), (2, 0.004), (4, 0.01), (3, 0.02), (6, 0.06), (8, 0.08), (16, 0.12))
"""In how many parts a beat may be, and how much worse than one part that is to read, in beats."""
_EARLY: Final = 1 / 12  # a note so little before a beat is meant for it
_MERGED, _LOST = 0.15, 1.0  # the cost of two chords that become one, and of a note that vanishes
_APART: Final = 0.12


def snap(quarter: NDArray[np.float64], pitch: NDArray[np.integer]) -> list[Fraction]:
    """Return where each note is to be written.

    Parameters
    ----------
    quarter : ndarray, shape (n,)
        Where it was played, in quarters from the beginning; the notes of a chord alike.
    pitch : ndarray, shape (n,)
        Two of the same pitch stay apart, unless they are less than a 32nd from each other.

    Returns
    -------
    list of Fraction
        Not below zero.

    Examples
    --------
    >>> [str(where) for where in snap(np.array([0.02, 0.49, 1.01, 1.35]), np.arange(4))]
    ['0', '1/2', '1', '4/3']
    """
    beat = np.maximum(np.floor(quarter + _EARLY), 0).astype(int)
    found: list[Fraction] = [Fraction(0)] * len(quarter)
    before: list[int] = []
    for here in np.unique(beat):
        notes = np.flatnonzero(beat == here)
        notes = notes[np.argsort(quarter[notes], kind="stable")]
        within = quarter[notes] - here
        # Rounded up, the last notes of a beat have taken places in this one.
        taken = {int(pitch[note]) for note in before if found[note] == here}

        def cost(
            each: tuple[int, float],
            within: NDArray[np.float64] = within,
            notes: NDArray[np.intp] = notes,
            taken: set[int] = taken,
        ) -> float:
            return _cost(within, pitch[notes], *each, taken)

        parts = min(_PARTS, key=cost)[0]
        before = notes.tolist()
        for note, part in zip(notes, np.rint(within * parts).astype(int), strict=True):
            found[note] = max(Fraction(0), int(here) + Fraction(int(part), parts))
    return found


def _cost(
    within: NDArray[np.float64],
    pitch: NDArray[np.integer],
    parts: int,
    hard_to_read: float,
    taken: set[int],
) -> float:
    """Return how far notes are moved on average, in beats, and what else is against it."""
    place = np.rint(within * parts)
    moved = float(np.abs(within - place / parts).mean()) / 2
    merged = (np.diff(within) > _APART) & (np.diff(place) == 0)
    lost = len(place) - len(np.unique(np.c_[place, pitch], axis=0))
    lost += len(taken.intersection(pitch[place <= 0].tolist()))
    return moved + hard_to_read + _MERGED * int(merged.sum()) + _LOST * lost


def written_in_one(start: Fraction, end: Fraction) -> list[tuple[Fraction, Fraction]]:
    """Split a note or a rest where a triplet meets another beat; pieces follow one another.

    Examples
    --------
    >>> third = Fraction(1, 3)
    >>> [(str(a), str(b)) for a, b in written_in_one(2 * third, Fraction(2))]
    [('2/3', '1'), ('1', '2')]
    """
    cuts = [start]
    after, before = Fraction(int(start) + 1), Fraction(-int(-end // 1) - 1)
    if _is_triplet(start) and after < end:
        cuts.append(after)
    if _is_triplet(end) and cuts[-1] < before:
        cuts.append(before)
    return list(zip(cuts, [*cuts[1:], end], strict=True))


def _is_triplet(where: Fraction) -> bool:
    return where.denominator % 3 == 0
