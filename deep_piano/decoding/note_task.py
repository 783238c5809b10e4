"""A piece that is to be decoded, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deep_piano.analysis.originality import Index
from deep_piano.codecs.notes import Sequence
from deep_piano.decoding.given import Given
from deep_piano.decoding.sections import Section
from deep_piano.music.notes import Notes


@dataclass(frozen=True)
class NoteTask:
    """A piece to be decoded.

    Attributes
    ----------
    seed : ndarray, dtype `NOTE`
        At least one note; the first onset is the piece's zero.
    seed_seconds : float
        When the seed ends; the continuation begins there or later.
    seconds : float
        When the piece ends.
    rng : numpy.random.Generator
        For this piece alone.
    manner_seconds : float, optional
        The piece is to be like so much of the seed, from its beginning; like all of it unless
        given.
    sections : tuple of Section
        Its course, one after another; none: it goes where it goes.
    given : Given, optional
        What is given of its notes. Such a piece has no last chord: it ends with the last of them.
    corpus : Index, optional
        What it is kept apart from.
    most_shared : int
        Notes of a run that it may share with that.
    """

    seed: Notes
    seed_seconds: float
    seconds: float
    rng: np.random.Generator
    manner_seconds: float | None = None
    sections: tuple[Section, ...] = ()
    given: Given | None = None
    corpus: Index | None = None
    most_shared: int = 0

    @property
    def manner(self) -> Notes:
        """The notes that the piece is to be like; at least one."""
        if self.manner_seconds is None:
            return self.seed
        return self.seed[: max(1, int((self.seed["onset"] < self.manner_seconds).sum()))]

    @property
    def manner_density(self) -> float:
        """Notes a second of `manner`."""
        seconds = self.seed_seconds if self.manner_seconds is None else self.manner_seconds
        return len(self.manner) / max(min(seconds, self.seed_seconds), 1.0)


class NoteContinuation(NamedTuple):
    """What was decoded after a seed.

    Attributes
    ----------
    notes : ndarray, dtype `NOTE`
        On the seed's clock.
    nats : float
        The mean loss of a note under the network itself, in nats on the grid of 10 ms and 32
        velocities.
    steps : ndarray of int, shape (n, 4)
        The notes as they were chosen, one after another; `notes` are sorted, and end where their
        keys are struck again.
    nats_after : float or None
        The same of the notes that are given after a span.
    """

    notes: Notes
    nats: float
    steps: Sequence
    nats_after: float | None = None
