"""What keeps a piece apart from a corpus: no run of notes that both have is longer than asked.

Before a key is struck it is known what runs it would complete, so those that would be too long are
left out of what may be drawn. Notes that are struck at once count from the lowest to the highest,
whatever order they come in: a key may change the ways between the others of its chord. This module
knows keys and indices; it knows nothing of networks.
"""

from __future__ import annotations

import copy
from bisect import insort
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.originality import Index, wait_of, way
from deep_piano.decoding.loops import Mask


class Apart:
    """The runs of a continuation that a corpus may have as well.

    Parameters
    ----------
    index : Index
    most : int
        Notes of a run that may be shared.
    """

    def __init__(self, index: Index, most: int) -> None:
        self._index, self._most = index, most
        self._ways: list[int] = []  # up to the chord that was struck last
        self._top: int | None = None  # the highest key before that
        self._chord: list[int] = []
        self._wait = 0

    def copy(self) -> Apart:
        """Return the same for another piece."""
        twin = copy.copy(self)
        twin._ways, twin._chord = list(self._ways), list(self._chord)
        return twin

    def take(self, onset: int, key: int) -> None:
        """Take note that a key was struck, so many steps after the note before."""
        if onset and self._chord:
            self._ways = [*self._ways, *self._through(self._chord)][-self._most :]
            self._top, self._chord, self._wait = self._chord[-1], [], wait_of(onset)
        insort(self._chord, key)

    def without_copies(self, choices: list[Mask], onset: int) -> Mask:
        """Return the keys of the first choice that has any which keeps the piece apart.

        Where none has, which takes a corpus that goes on with every key, all of the first.
        """
        if not self._near(onset):
            return choices[0]
        for free in choices:
            left = free.copy()
            left[free] = self._keeps(np.flatnonzero(free), onset)
            if left.any():
                return left
        return choices[0]

    def _through(self, chord: list[int]) -> list[int]:
        """Return the ways to and through a chord that is struck at the present moment."""
        inner = [way(low, high, 0) for low, high in pairwise(chord)]
        return inner if self._top is None else [way(self._top, chord[0], self._wait), *inner]

    def _after(self, key: int, onset: int) -> tuple[list[int], list[int]]:
        """Return the ways that stay and those that are new when a key is struck."""
        if onset:
            new = [way(self._chord[-1], key, wait_of(onset))]
            return [*self._ways, *self._through(self._chord)], new
        return self._ways, self._through(sorted([*self._chord, key]))

    def _near(self, onset: int) -> bool:
        """Say whether any key might complete a run: all before it is there already."""
        if not self._chord:
            return False
        old, new = self._after(self._chord[-1], onset)
        if len(old) + len(new) < self._most:
            return False
        common = self._most - len(new)
        if common < self._index.gram:
            return True
        return bool(self._index.holds(np.array([old[-common:]], np.uint16))[0])

    def _keeps(self, keys: NDArray[np.int64], onset: int) -> Mask:
        """Say of keys whether they keep the piece apart."""
        most, runs, of = self._most, [], []
        for place, key in enumerate(keys.tolist()):
            old, new = self._after(key, onset)
            ways = [*old[-most:], *new]
            ends = range(max(most, len(ways) - len(new) + 1), len(ways) + 1)
            runs += [ways[end - most : end] for end in ends]
            of += [place] * len(ends)
        keeps = np.ones(len(keys), bool)
        if runs:
            held = self._index.holds(np.array(runs, np.uint16))
            keeps[np.array(of)[held]] = False
        return keeps
