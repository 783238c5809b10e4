"""The course of a piece: one section after another, and how it closes before its last chord.

A section may lead to the next one: what it wishes for becomes what that one wishes for, and the
dominant seventh of that one's key is wished for on the way. The same way a piece becomes slower and
softer before its last chord. This module knows notes and their classes; it knows nothing of
networks.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.keys import Key, estimate_of_weights
from deep_piano.codecs.notes import PITCH, STEPS_PER_SECOND
from deep_piano.decoding.ending import CLOSING_DENSITY, CLOSING_LOUDNESS, CLOSING_S
from deep_piano.decoding.sections import (
    PULLS,
    Aims,
    Ramp,
    Section,
    Wishes,
    dominant_of,
    wish_for_key,
)
from deep_piano.music.notes import LOWEST_PITCH


@dataclass(frozen=True)
class Heard:
    """What is known of a piece when it turns to what comes next.

    Attributes
    ----------
    steps : ndarray of int, shape (n, 4)
        All notes, the seed's first.
    when : ndarray of int64, shape (n,)
        Their onsets. A rest of the seed may be longer than the steps can say.
    made : int
        How many of them were composed.
    now : int
        The last onset.
    density : float
        Of the last seconds, beside the seed's.
    levels : ndarray of float64, shape (2,)
        Mean key and velocity of the last seconds.
    key : Key or None
    """

    steps: NDArray[np.int32]
    when: NDArray[np.int64]
    made: int
    now: int
    density: float
    levels: NDArray[np.float64]
    key: Key | None


class Course:
    """Where a piece is in its course; times are in steps of the grid.

    Parameters
    ----------
    sections : tuple of Section
        None: the piece goes where it goes.
    manner : ndarray of int, shape (n, 4)
        The notes that the piece is to be like.
    end_s : float
        When the piece ends.
    seed_end : int
    final : int
        The latest onset before the last chord, or before the notes after a span that is filled.
    closes : bool
        Whether there is a last chord.

    Attributes
    ----------
    section : Section
    wishes : Wishes or None
        None: there are none.
    stop : int
        The latest onset before what comes next.
    first : int
        How many notes were made when the section began.
    """

    def __init__(
        self,
        sections: tuple[Section, ...],
        manner: NDArray[np.int32],
        *,
        end_s: float,
        seed_end: int,
        final: int,
        closes: bool,
    ) -> None:
        self._sections, self._manner = sections or (Section(),), manner
        self._led, self._closes = bool(sections), closes
        self._end_s, self._seed_end, self._final = end_s, seed_end, final
        self._closing = False
        # A section that ends within the seed is over before the piece begins.
        last = len(self._sections) - 1
        self._next = next((n for n in range(last) if self._end_of(n) > seed_end), last)
        self.section, self.first, self.stop = self._sections[self._next], 0, final
        self.wishes: Wishes | None = None

    def copy(self) -> Course:
        """Return the same for another piece."""
        twin = copy.copy(self)
        twin.wishes = self.wishes.copy() if self.wishes is not None else None
        return twin

    @property
    def is_over(self) -> bool:
        """Whether what comes next is the last chord, or what is given after a span."""
        return self._closing if self._closes else self._next == len(self._sections)

    def turn(self, heard: Heard) -> None:
        """Begin the next section, or the closing of the last one."""
        self.first = heard.made
        if self._next == len(self._sections):
            self._close(heard)
            return
        self.section = self._sections[self._next]
        self.stop = min(max(self._end_of(self._next), self._seed_end), self._final)
        self._next += 1
        if self._led:
            self.wishes = self._wishes(heard)

    def _end_of(self, place: int) -> int:
        """Return when a section ends: none later than the last one, whatever was planned."""
        last = self._final - _steps(CLOSING_S) if self._closes else self._final
        if place == len(self._sections) - 1:
            return last
        return min(_steps(min(self._sections[place].end_s, self._end_s)), last)

    def _wishes(self, heard: Heard) -> Wishes:
        """Return what the section that begins wishes for, once all before it is there."""
        section = self.section
        when, keys = _recalled(section, heard)
        return Wishes(
            Aims.of(section, self._manner),
            PULLS * self._held,
            self._bridge(heard),
            theme=(when + _steps(section.start_s), keys),
            strength=section.strength,
            vary=section.vary,
        )

    @property
    def _held(self) -> tuple[bool, bool]:
        """Whether register and loudness are held: where any section asks for one."""
        every = self._sections
        return any(one.register for one in every), any(one.loudness != 1 for one in every)

    def _bridge(self, heard: Heard) -> Ramp | None:
        """Return how the section leads to the next one; None: it does not."""
        ahead = next(iter(self._sections[self._next :]), Section())
        if not ahead.bridge_s:
            return None
        key = ahead.key or _key_of(_recalled(ahead, heard)[1])
        begins = max(self.stop - _steps(ahead.bridge_s), heard.now)
        led = replace(ahead, key=key, chord=dominant_of(key))
        return Ramp(begins, max(self.stop, begins + 1), Aims.of(led, self._manner))

    def _close(self, heard: Heard) -> None:
        """Become slower and softer from here on, and come to the dominant of the key."""
        begins, self.stop, self._closing = self.stop, self._final, True
        key = self.section.key or heard.key
        self.section = Section(key=key)
        led = self.wishes.at(heard.now) if self.wishes else Aims.of(Section(), self._manner)
        aims = led._replace(levels=np.where(self._held, led.levels, heard.levels))
        ahead = Aims(
            np.array([math.log(heard.density * CLOSING_DENSITY), 0.0, 1.0]),
            aims.levels * (1.0, CLOSING_LOUDNESS),
            wish_for_key(key, dominant_of(key)),
        )
        pulls = PULLS * (self._held[0], True)
        self.wishes = Wishes(aims, pulls, Ramp(begins, max(self.stop, begins + 1), ahead))


def _steps(seconds: float) -> int:
    return round(seconds * STEPS_PER_SECOND)


def _recalled(section: Section, heard: Heard) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the notes of the passage that a section recalls, as far as it is there.

    When each is struck, from the beginning of the passage on, and its key in the section.
    """
    begins, ends = map(_steps, section.recalled or (0.0, 0.0))
    old = (heard.when >= begins) & (heard.when < ends)
    return heard.when[old] - begins, heard.steps[old, PITCH].astype(np.int64) + section.semitones


def _key_of(keys: NDArray[np.int64]) -> Key | None:
    """Return the musical key that keys of the piano are in; None without any."""
    classes = np.bincount((keys + LOWEST_PITCH) % 12, minlength=12)
    return estimate_of_weights(classes.astype(float)).key
