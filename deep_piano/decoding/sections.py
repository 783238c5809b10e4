"""Sections of a piece: what each wishes for, as additions to the logits of the next note.

A wish makes classes likelier and forbids none, so it holds beside the rules and whatever network
there is. A section that recalls a passage wishes for the notes of that passage, each at its time; a
key wishes for its pitch classes; register and loudness are pulled back where they lately were
elsewhere. This module knows notes and their classes; it knows nothing of networks.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.keys import ALBRECHT_SHANAHAN, Key
from deep_piano.codecs.notes import (
    ONSET,
    ONSET_CLASSES,
    ONSETS,
    PITCH,
    PITCHES,
    VELOCITIES,
    VELOCITY,
)
from deep_piano.music.notes import LOWEST_PITCH

HEARD_RUN: Final = 5
"""So many notes in a row that stood before are a passage that was heard, and no chance."""
THEME_NOTES: Final = 1024
"""As many notes of a passage are recalled, its first ones."""
NEAR_STEPS: Final = 6  # a note this far from its time is still the passage's
NEAR_CLASSES: Final = 4  # of onsets, over which a wish for one fades
CHORD_STEPS: Final = 6  # a chord that is late keeps its spread
LATEST_GAP: Final = 200  # steps: notes that are due later than that are not waited for
ONSET_SHARE: Final = 1.5  # of the strength: for the time of a note, without which no key helps
CHORD_STRENGTH: Final = 1.0  # nats
REGISTER_PULL: Final = 3.0  # nats an octave, for a piece that is an octave away
KEY_SHARE: Final = 0.5  # with the whole, no note of a piece is outside the key's scale
LOUDNESS_PULL: Final = 3.0  # the same for a quarter of the velocities
KEYS_APART: Final = ((np.arange(PITCHES) - PITCHES // 2) / 12).astype(np.float32)
VELOCITIES_APART: Final = ((np.arange(VELOCITIES) - VELOCITIES // 2) / (VELOCITIES // 4)).astype(
    np.float32
)

KEYS: Final = np.arange(PITCHES)
CLASSES: Final = (KEYS + LOWEST_PITCH) % 12
FREE_DENSITY: Final = 1.5
"""The factor by which a piece may leave its seed's density before it is pulled back."""
LOG_FREE: Final = math.log(FREE_DENSITY)
DENSITY_PULL: Final = 2.0
"""How much stronger the pull is where a density e times the seed's is asked for."""

Floats = NDArray[np.float32]
PULLS: Final = np.array([REGISTER_PULL / 12, LOUDNESS_PULL / (VELOCITIES // 4)])
"""What a key and a velocity class that a piece is away from its mean ones weigh, in nats."""
_CLASS = np.arange(ONSETS)
_NOTHING = np.zeros(0, np.int64)
_NEVER = 2**40


@dataclass(frozen=True)
class Section:
    """A stretch of a piece, and what it is to be like; times on the seed's clock.

    Attributes
    ----------
    start_s, end_s : float
    recalled : (float, float), optional
        From when to when the passage lasts that comes again at the section's beginning.
    semitones : int
        How far above it.
    strength : float
        Of the wish for its notes, in nats.
    vary : float
        Of the wish, in nats, against the key that follows where the memory finds the last notes
        before this section; not where a note of the passage is due.
    density, loudness : float
        Factors of the seed's notes a second, and of its mean velocity.
    register : float
        Semitones above the seed's mean pitch.
    key : Key, optional
    chord : tuple of int
        Pitch classes to be struck rather than others.
    bridge_s : float
        So long before it begins the section before it leads to it.
    """

    start_s: float = 0.0
    end_s: float = np.inf
    recalled: tuple[float, float] | None = None
    semitones: int = 0
    strength: float = 0.0
    vary: float = 0.0
    density: float = 1.0
    register: float = 0.0
    loudness: float = 1.0
    key: Key | None = None
    chord: tuple[int, ...] = ()
    bridge_s: float = 0.0


def wish_for_key(key: Key | None, chord: tuple[int, ...] = ()) -> Floats:
    """Return what a key and a chord add to the logits of the 88 keys.

    A key adds how often it has their pitch classes: Albrecht and Shanahan's profile, in nats beside
    a profile of equal shares, times `KEY_SHARE`.
    """
    wish = CHORD_STRENGTH * np.isin(np.arange(12), chord)
    if key is not None:
        wish += KEY_SHARE * np.log(12 * np.roll(ALBRECHT_SHANAHAN[key.mode], key.tonic))
    return wish[CLASSES].astype(np.float32)


def dominant_of(key: Key | None) -> tuple[int, ...]:
    """Return the pitch classes of a key's dominant seventh; none without a key."""
    return tuple((key.tonic + step) % 12 for step in (7, 11, 2, 5)) if key is not None else ()


class Aims(NamedTuple):
    """What a piece is led to at a moment.

    Attributes
    ----------
    density : ndarray of float64, shape (3,)
        The log of its notes a second beside the seed's, how far it may leave that, and how strongly
        it is pulled back.
    levels : ndarray of float64, shape (2,)
        Its mean key and velocity.
    of_key : ndarray of float32, shape (88,)
        What is added to the logits of the keys.
    """

    density: NDArray[np.float64]
    levels: NDArray[np.float64]
    of_key: Floats

    @classmethod
    def of(cls, section: Section, manner: NDArray[np.int32]) -> Aims:
        """Return those of a section.

        The more it asks for another density, the closer and the more strongly it is held to it.

        Parameters
        ----------
        section : Section
        manner : ndarray of int, shape (n, 4)
            The notes that the piece is to be like.
        """
        density = math.log(section.density)
        register = np.clip(manner[:, PITCH].mean() + section.register, 6, PITCHES - 7)
        loudness = np.clip((manner[:, VELOCITY].mean() + 0.5) * section.loudness - 0.5, 1, 30)
        return cls(
            np.array([density, max(0.0, LOG_FREE - abs(density)), 1 + DENSITY_PULL * abs(density)]),
            np.array([register, loudness]),
            wish_for_key(section.key, section.chord),
        )


class Ramp(NamedTuple):
    """From when to when other aims are come to, in steps, and these."""

    begins: int
    ends: int
    aims: Aims


class Wishes:
    """What is wished for while a section is composed; times are in steps of the grid.

    Parameters
    ----------
    aims : Aims
    pulls : ndarray of float64, shape (2,)
        How strongly register and loudness are pulled to theirs.
    ramp : Ramp, optional
    theme : (ndarray of int, ndarray of int), shape (notes,)
        When and on which keys the passage is to come again that the section recalls.
    strength, vary : float
        As in `Section`.

    Attributes
    ----------
    when, keys : ndarray of int64, shape (`THEME_NOTES`,)
    left : ndarray of bool, shape (`THEME_NOTES`,)
        Notes of the passage that were not played yet.
    last, lag : int
        When the last of them that was played was due, and how late it was.
    """

    def __init__(
        self,
        aims: Aims,
        pulls: NDArray[np.float64],
        ramp: Ramp | None = None,
        *,
        theme: tuple[NDArray[np.int64], NDArray[np.int64]] = (_NOTHING, _NOTHING),
        strength: float = 0.0,
        vary: float = 0.0,
    ) -> None:
        self.aims, self.pulls = aims, pulls
        self.ramp = ramp or Ramp(_NEVER, _NEVER + 1, aims)
        self.strength, self.vary = np.float32(strength), np.float32(vary)
        when, keys = theme
        kept = np.flatnonzero((keys >= 0) & (keys < PITCHES))[:THEME_NOTES]
        self.when, self.keys = np.zeros(THEME_NOTES, np.int64), np.zeros(THEME_NOTES, np.int64)
        self.when[: len(kept)], self.keys[: len(kept)] = when[kept], keys[kept]
        self.left = np.arange(THEME_NOTES) < len(kept)
        self.last, self.lag = -_NEVER, 0

    @classmethod
    def none(cls) -> Wishes:
        """Return the wishes of a piece that has none."""
        return cls(Aims.of(Section(), np.zeros((1, 4), np.int32)), np.zeros(2))

    def copy(self) -> Wishes:
        """Return the same for another piece."""
        twin = copy.copy(self)
        twin.left = self.left.copy()
        return twin

    def at(self, now: int) -> Aims:
        """Return the aims at a step, between the section's own and those that it leads to."""
        begins, ends, ahead = self.ramp
        share = min(max((now - begins) / (ends - begins), 0.0), 1.0)
        if share == 0:
            return self.aims
        own, weight = self.aims, np.float32(share)
        return Aims(
            own.density + share * (ahead.density - own.density),
            own.levels + share * (ahead.levels - own.levels),
            own.of_key + weight * (ahead.of_key - own.of_key),
        )

    def of(
        self, step: list[int], now: int, levels: NDArray[np.float64], heard: int
    ) -> Floats | None:
        """Return what is added to the logits of the field after those in `step`.

        Parameters
        ----------
        step : list of int
        now : int
            The onset of the note before.
        levels : ndarray of float64, shape (3,)
            Weight of the last notes; the sums of their keys and of their velocities.
        heard : int
            The key that followed before this section, where the last notes stood there; -1: none.
        """
        index = len(step)
        if index == ONSET:
            return self._onset(now)
        aims = self.at(now)
        register, loudness = self.pulls * (aims.levels - levels[1:] / levels[0])
        if index == PITCH:
            onset = now + step[ONSET]
            due = self.left & (np.abs(self.when - onset) <= NEAR_STEPS)
            wish = aims.of_key + np.float32(register) * KEYS_APART
            if due.any():
                when, keys = self.when[due], self.keys[due]
                apart = np.abs(when + self._late(when) - onset)
                weight = np.zeros(PITCHES, np.float32)
                weight[keys] = self.strength / 2
                weight[keys[apart == apart.min()]] = self.strength
                wish += weight
            elif heard >= 0:
                wish[heard] -= self.vary
            return wish
        return np.float32(loudness) * VELOCITIES_APART if index == VELOCITY else None

    def due_in(self, now: int) -> int | None:
        """Return when the passage's next note is due, in steps after the note before.

        None: none is due within `LATEST_GAP`.
        """
        due = self.left & (self.when >= now - NEAR_STEPS)
        if not due.any():
            return None
        first = self.when[due].min()
        gap = max(0, int(first + self._late(first)) - now)
        return gap if gap <= LATEST_GAP else None

    def _onset(self, now: int) -> Floats | None:
        gap = self.due_in(now)
        if gap is None:
            return None
        apart = _CLASS - ONSET_CLASSES[gap]
        near = np.maximum(1 - np.abs(apart) / NEAR_CLASSES, 0)
        return self.strength * (ONSET_SHARE * near).astype(np.float32)

    def _late(self, when: NDArray[np.int64] | np.int64) -> NDArray[np.int64]:
        """Return how late notes are that are due then: a chord keeps its spread."""
        return np.where(when - self.last <= CHORD_STEPS, self.lag, 0)

    def take(self, now: int, key: int) -> None:
        """Take note that a key was struck.

        Where it is none that is due, the first that is due is given up: otherwise notes would pile
        up at its time for as long as a rule forbids its key.
        """
        due = self.left & (np.abs(self.when - now) <= NEAR_STEPS)
        played = due & (self.keys == key)
        self.left &= ~played
        if played.any():
            self.last = int(self.when[played.argmax()])
            self.lag = now - self.last
        elif due.any():
            self.left[due.argmax()] = False
