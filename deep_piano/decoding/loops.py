"""The patterns that a piece repeats, and the keys that would repeat one too often."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.note_figures import LONGEST_PATTERN_NOTES, LOOP_GRID_S, MOST_REPETITIONS
from deep_piano.codecs.notes import LONGEST_ONSET, ONSET, PITCH, STEPS_PER_SECOND

WAITS = np.rint(np.arange(LONGEST_ONSET + 1) / round(LOOP_GRID_S * STEPS_PER_SECOND)).astype(int)
"""Shape (`LONGEST_ONSET` + 1,): the time from a note of a pattern to the next, in its own steps."""

Mask = NDArray[np.bool_]


class Loops:
    """The patterns that a piece repeats: for each length, how long it has done so."""

    def __init__(self) -> None:
        self._pitches: deque[int] = deque(maxlen=LONGEST_PATTERN_NOTES)  # the last one first
        self._waits: deque[int] = deque(maxlen=LONGEST_PATTERN_NOTES)
        self._runs = [0] * LONGEST_PATTERN_NOTES
        self._longest = 0

    def take(self, step: list[int]) -> None:
        """Take in a note."""
        pitch, wait = step[PITCH], int(WAITS[step[ONSET]])
        before = zip(self._pitches, self._waits, self._runs, strict=False)
        runs = [run + 1 if (p, w) == (pitch, wait) else 0 for p, w, run in before]
        self._runs[: len(runs)] = runs
        self._longest = max(runs, default=0)
        self._pitches.appendleft(pitch)
        self._waits.appendleft(wait)

    def as_rows(self) -> NDArray[np.int64]:
        """Return an array of shape (3, `LONGEST_PATTERN_NOTES`).

        The last pitches and waits, the last one first, -1 where there was none; and for each length
        how many notes in a row have repeated the one so many before.
        """
        rows = np.full((3, LONGEST_PATTERN_NOTES), -1)
        rows[0, : len(self._pitches)] = self._pitches
        rows[1, : len(self._waits)] = self._waits
        rows[2] = self._runs
        return rows

    def without_one_more(self, free: Mask) -> Mask:
        """Return the keys that may be struck without repeating a pattern too often."""
        if self._longest < MOST_REPETITIONS - 2:
            return free
        # A run of n notes, and the one before them, repeat a pattern of m notes 1 + (n + 1) // m
        # times.
        barred = [
            pitch
            for length, (pitch, run) in enumerate(zip(self._pitches, self._runs, strict=False), 1)
            if (run + 2) // length >= MOST_REPETITIONS
        ]
        left = free.copy()
        left[barred] = False
        return left if left.any() else free
