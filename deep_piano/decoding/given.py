"""Notes of which some fields are given, and the others are composed.

A remix keeps the rhythm of notes, or their pitches. After a span that is filled the notes are given
altogether: what they cost the network says how well the fill leads to them. What is given is put
where a draw would be, so that network, context and losses are those of any other piece. This module
knows notes and their classes; it knows nothing of networks.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.notes import (
    DURATION,
    LONGEST_ONSET,
    ONSET,
    PITCH,
    PITCHES,
    STEPS_PER_SECOND,
    VELOCITY,
    encode,
)
from deep_piano.music.notes import LOWEST_PITCH, Notes

FREE: Final = -1
"""Stands for a field that is composed."""
FOLLOWING_NOTES: Final = 32
"""As many notes after a span say how well a fill leads to them."""
CLEAR_S: Final = 0.1  # a key that is struck so soon after a span is not struck at its end

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Given:
    """What is given of the notes of a continuation, on the seed's clock.

    Attributes
    ----------
    steps : ndarray of int64, shape (n, 4)
        Of the codec; `FREE` where a field is composed. The first onset is counted from time zero.
    spans_s : ndarray of float64, shape (n, 2)
        When each note begins and ends, where that is given; no rows where it is composed.
    from_s : float, optional
        Other notes are composed before this moment, and the given ones come after it; unless given
        they begin the continuation.
    sounds_until_s, struck_at_s : ndarray of float64, shape (88,)
        For each key when the last note before those that are composed ends, and when the first one
        after them is struck.
    """

    steps: NDArray[np.int64]
    spans_s: NDArray[np.float64]
    from_s: float | None
    sounds_until_s: NDArray[np.float64]
    struck_at_s: NDArray[np.float64]

    @classmethod
    def rhythm(cls, notes: Notes, at_s: float) -> Given:
        """Return onsets, durations and velocities of notes, whose zero is at `at_s`."""
        steps = _steps(notes, at_s)
        steps[:, PITCH] = FREE
        return cls(steps, np.stack([notes["onset"], notes["offset"]], 1), None, *_no_keys())

    @classmethod
    def pitches(cls, notes: Notes) -> Given:
        """Return the pitches of notes, in their order."""
        steps = _steps(notes)
        steps[:, [ONSET, VELOCITY, DURATION]] = FREE
        return cls(steps, np.empty((0, 2)), None, *_no_keys())

    @classmethod
    def following(cls, before: Notes, after: Notes, from_s: float) -> Given:
        """Return the notes after a span that ends at `from_s`, at least one."""
        until, struck = _no_keys()
        keys = before["pitch"].astype(int) - LOWEST_PITCH
        np.maximum.at(until, keys, before["offset"])
        np.minimum.at(struck, after["pitch"].astype(int) - LOWEST_PITCH, after["onset"])
        steps = _steps(after[:FOLLOWING_NOTES])
        return cls(steps, np.empty((0, 2)), from_s, until, struck)


def _steps(notes: Notes, at_s: float = 0.0) -> NDArray[np.int64]:
    steps = encode(notes).astype(np.int64)
    # The codec's longest onset is no bound here.
    steps[0, ONSET] = round((float(notes["onset"][0]) + at_s) * STEPS_PER_SECOND)
    return steps


def _no_keys() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.full(PITCHES, -np.inf), np.full(PITCHES, np.inf)


class Giving:
    """How far the given notes of a piece have come.

    Attributes
    ----------
    first : int or None
        The piece's note that is the first given one; None before.
    """

    def __init__(self, given: Given) -> None:
        self._given, self._next = given, 0
        self._sounds_until_s = given.sounds_until_s.copy()
        self.first: int | None = None if given.from_s is not None else 0

    def copy(self) -> Giving:
        """Return the same for another piece."""
        twin = copy.copy(self)
        twin._sounds_until_s = self._sounds_until_s.copy()
        return twin

    @property
    def is_over(self) -> bool:
        """Whether all given notes are there."""
        return self._next == len(self._given.steps)

    def of(self, index: int, now: int) -> int:
        """Return the value of a field of the next note, or `FREE`; `now` is the last onset."""
        if self.first is None:
            return FREE
        value = int(self._given.steps[self._next, index])
        if index == ONSET and self._next == 0 and value != FREE:
            return min(max(value - now, 0), LONGEST_ONSET)
        return value

    @property
    def must_wait(self) -> bool:
        """Say whether the next note may not be struck together with the last one.

        Its key is given and not above the last one: in a chord it would come before it.
        """
        keys = self._given.steps[:, PITCH]
        return self._next > 0 and keys[self._next] <= keys[self._next - 1]

    def free_keys(self, at: int) -> Mask:
        """Return the keys that neither sound at a step nor are struck soon after it."""
        at_s = at / STEPS_PER_SECOND
        if self.first is not None and len(self._given.spans_s):
            at_s = self._given.spans_s[self._next, 0]
        return (self._sounds_until_s <= at_s) & (self._given.struck_at_s > at_s + CLEAR_S)

    def take(self, key: int) -> None:
        """Take note that the next given note is there."""
        if len(self._given.spans_s):
            self._sounds_until_s[key] = self._given.spans_s[self._next, 1]
        self._next += 1
