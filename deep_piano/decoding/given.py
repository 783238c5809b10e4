"""Notes of which some fields are given, and the others are composed.

A remix keeps the rhythm of notes, or their pitches. After a span that is filled the notes are given
altogether: what they cost the network says how well the fill leads to them. What is given is put
where a draw would be, so that network, context and losses are those of any other piece. This module
knows notes and their classes; it knows nothing of networks.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
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
from deep_piano.decoding.loops import Mask
from deep_piano.music.notes import LOWEST_PITCH, Notes

FREE: Final = -1
"""Stands for a field that is composed."""
FOLLOWING_NOTES: Final = 32
"""As many notes after a span say how well a fill leads to them."""
CLEAR_STEPS: Final = 10  # a key that is struck so soon after a span is not struck at its end


@dataclass(frozen=True)
class Given:
    """What is given of the notes of a continuation, on the seed's clock.

    Attributes
    ----------
    steps : ndarray of int64, shape (n, 4)
        Of the codec; `FREE` where a field is composed. The first onset is counted from time zero.
    spans : ndarray of float64, shape (n, 2)
        When each note begins and ends, in steps but not rounded; not a number where it is composed.
    from_s : float, optional
        Other notes are composed before this moment, and the given ones come after it; unless given
        they begin the continuation.
    sounds_until, struck_at : ndarray of float64, shape (88,)
        For each key when the last note before those that are composed ends, and when the first one
        after them is struck, in steps but not rounded.
    """

    steps: NDArray[np.int64]
    spans: NDArray[np.float64]
    from_s: float | None = None
    sounds_until: NDArray[np.float64] = field(default_factory=lambda: np.full(PITCHES, -np.inf))
    struck_at: NDArray[np.float64] = field(default_factory=lambda: np.full(PITCHES, np.inf))

    @classmethod
    def rhythm(cls, notes: Notes, at_s: float) -> Given:
        """Return onsets, durations and velocities of notes, whose zero is at `at_s`."""
        steps = _steps(notes, at_s)
        steps[:, PITCH] = FREE
        return cls(steps, STEPS_PER_SECOND * np.stack([notes["onset"], notes["offset"]], 1))

    @classmethod
    def pitches(cls, notes: Notes) -> Given:
        """Return the pitches of notes, in their order."""
        steps = _steps(notes)
        steps[:, [ONSET, VELOCITY, DURATION]] = FREE
        return cls(steps, np.full((len(steps), 2), np.nan))

    @classmethod
    def following(cls, before: Notes, after: Notes, from_s: float) -> Given:
        """Return the notes after a span that ends at `from_s`, at least one."""
        steps = _steps(after[:FOLLOWING_NOTES])
        given = cls(steps, np.full((len(steps), 2), np.nan), from_s)
        keys = [notes["pitch"].astype(int) - LOWEST_PITCH for notes in (before, after)]
        np.maximum.at(given.sounds_until, keys[0], before["offset"] * STEPS_PER_SECOND)
        np.minimum.at(given.struck_at, keys[1], after["onset"] * STEPS_PER_SECOND)
        return given


def _steps(notes: Notes, at_s: float = 0.0) -> NDArray[np.int64]:
    steps = encode(notes).astype(np.int64)
    # The codec's longest onset is no bound here.
    steps[0, ONSET] = round((float(notes["onset"][0]) + at_s) * STEPS_PER_SECOND)
    return steps


class Giving:
    """How far the given notes of a piece have come.

    Attributes
    ----------
    given : Given
    first : int or None
        The piece's note that is the first given one; None before.
    next : int
        Which given note comes next.
    sounds_until : ndarray of float64, shape (88,)
    """

    def __init__(self, given: Given) -> None:
        self.given, self.next = given, 0
        self.sounds_until = given.sounds_until.copy()
        self.first: int | None = None if given.from_s is not None else 0
        keys = given.steps[:, PITCH]
        # A note whose key is given and not above the last one would come before it in a chord.
        self.waits = np.append(False, (keys[1:] != FREE) & (keys[1:] <= keys[:-1]))

    def copy(self) -> Giving:
        """Return the same for another piece."""
        twin = copy.copy(self)
        twin.sounds_until = self.sounds_until.copy()
        return twin

    @property
    def left(self) -> int:
        """How many given notes are to come."""
        return len(self.given.steps) - self.next

    def coming(self, most: int, now: int) -> NDArray[np.int64]:
        """Return the next given notes, so many at most; `now` is the last onset."""
        steps = self.given.steps[self.next : self.next + most].copy()
        if self.next == 0 and steps[0, ONSET] != FREE:
            steps[0, ONSET] = min(max(steps[0, ONSET] - now, 0), LONGEST_ONSET)
        return steps

    def of(self, index: int, now: int) -> int:
        """Return the value of a field of the next note, or `FREE`."""
        return FREE if self.first is None else int(self.coming(1, now)[0, index])

    @property
    def must_wait(self) -> bool:
        """Whether the next note may not be struck together with the last one."""
        return self.first is not None and bool(self.waits[self.next])

    def free_keys(self, at: int) -> Mask:
        """Return the keys that neither sound at a step nor are struck soon after it."""
        exactly = self.given.spans[self.next, 0] if self.first is not None else np.nan
        when = at if np.isnan(exactly) else exactly
        return (self.sounds_until <= when) & (self.given.struck_at > when + CLEAR_STEPS)

    def take(self, key: int) -> None:
        """Take note that the next given note is there."""
        until = self.given.spans[self.next, 1]
        if not np.isnan(until):
            self.sounds_until[key] = until
        self.next += 1
