"""The beat of a piece in the making: how far each next onset falls on it.

A network that draws each onset from the last one loses the beat: a note that comes a little late
makes all that follow it late. Here the onsets so far say when the next one is expected: as long
after one of them as onsets have lately come after one another. That is a histogram of the intervals
between onsets, with which beat trackers begin (S. Dixon, "Automatic extraction of tempo and beat
from expressive performances", JNMR 30, 2001), that forgets. What is expected and what the network
says are multiplied (a product of experts: Hinton 2002), the more, the steadier the seed.
`notes_xla_beat` has the same in TensorFlow. This module knows onsets; it knows nothing of networks.
"""

from __future__ import annotations

import copy
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import Floats, log_sum
from deep_piano.codecs.notes import CHORD_STEPS, ONSETS, STEPS_PER_SECOND, fading

REACH: Final = 5 * STEPS_PER_SECOND  # slow bars of four, and more than a bar of all others
SHORTEST: Final = 15  # steps: a semiquaver at 100; shorter intervals say nothing of a beat
LATER: Final = CHORD_STEPS + 1
"""The shortest onset that does not belong to the chord of the last, in steps."""
EXPECTED: Final = slice(LATER, 128)
"""The onsets that can be expected, in steps; each of them is a class of its own."""
FLOOR: Final = 0.1  # what nothing speaks for is expected as a tenth of the mean
LEAST: Final = 0.05  # of what is expected now: where the mean is less, the beat is slower than that
NOISE: Final = 1e-3  # of the most frequent interval: so little is the rounding of a compiled loop
SETTLED: Final = 3 * STEPS_PER_SECOND  # what is expected before this is of too few onsets
PRIOR: Final = (5.0, 2.5)  # what a steadiness begins with: see `Beat.kept`
CORRECTION: Final = 2.0  # of the pull, for each nat that a piece is less steady than its seed
MOST_PULL: Final = 2.0
INTERVALS_FADE: Final = fading(8)
KEPT_FADES: Final = fading(15)
SMEAR: Final = np.exp(-0.5 * (np.arange(7) / 2) ** 2)  # 20 ms: fingers stray by as much
OF_NOW: Final = np.exp(-((np.arange(EXPECTED.start, EXPECTED.stop) / 4) ** 2))
"""How much of what is expected now, smeared twice, is left at each onset of `EXPECTED`."""


class Beat:
    """The onsets of a piece so far; times are in steps of the grid.

    Attributes
    ----------
    near : ndarray of float64, shape (REACH,)
        How many onsets there were so many steps ago, smeared to earlier times.
    intervals : ndarray of float64, shape (REACH,)
        How many onsets came so many steps after another, faded by `INTERVALS_FADE`; as those are
        smeared to earlier times, these are to longer ones.
    together : float
        The notes of the last chord. A chord of n counts as the root of n.
    now : int
        The last onset.
    kept : ndarray of float64, shape (2,)
        How many onsets have come, and the sum of how much they were expected; faded by
        `KEPT_FADES`.
    of_seed : float
        The steadiness of the seed.
    """

    def __init__(self) -> None:
        self.near, self.intervals = np.zeros(REACH), np.zeros(REACH)
        self.together, self.now = 0.0, 0
        self.kept, self.of_seed = np.array(PRIOR), 0.0
        self._expected: Floats | None = None

    def copy(self) -> Beat:
        """Return one that goes on from here."""
        twin = copy.copy(self)
        twin.near, twin.intervals = self.near.copy(), self.intervals.copy()
        twin.kept = self.kept.copy()
        return twin

    def take(self, gap: int) -> None:
        """Note an onset so many steps after the last."""
        self.kept *= KEPT_FADES[gap]
        if self.now >= SETTLED and EXPECTED.start <= gap < EXPECTED.stop:
            self.kept += 1, self.expected()[gap]
        self.now += gap
        if gap >= LATER:
            self.together = 0.0
        weight = math.sqrt(self.together + 1) - math.sqrt(self.together)
        self.together += 1
        if gap:
            self.near = np.concatenate([np.zeros(gap), self.near])[:REACH]
        self.intervals *= INTERVALS_FADE[gap]
        self.intervals[SHORTEST:] += weight * self.near[SHORTEST:]
        self.near[: len(SMEAR)] += weight * SMEAR
        self._expected = None

    def settle(self) -> None:
        """Let the seed end here: the piece is to be as steady."""
        self.of_seed = self.steadiness

    @property
    def steadiness(self) -> float:
        """How much the last onsets were expected beyond the mean of all times, in nats.

        About 0.4 in the concert recordings of MAESTRO, 1.2 in Pop1K7 and 1.8 in POP909.
        """
        count, total = self.kept.tolist()
        return float(total / count)

    def expected(self) -> Floats:
        """Return how much each next onset is expected beyond the mean of `EXPECTED`.

        What is expected now has come. Where the beat is slower than `EXPECTED`, nothing in it is.

        Returns
        -------
        ndarray of float64, shape (ONSETS,)
            By class, in nats; 0 outside `EXPECTED`, and everywhere as long as nothing is.
        """
        if self._expected is None:
            self._expected = np.zeros(ONSETS)
            often = np.maximum(self.intervals - self.intervals[SHORTEST:].mean(), 0.0) ** 2
            coming = np.concatenate([often, np.zeros(EXPECTED.stop - 1)])
            now = often @ self.near
            support = np.correlate(coming[EXPECTED.start :], self.near, "valid") - now * OF_NOW
            support = np.maximum(support, 0.0)
            mean = max(support.mean(), LEAST * now)
            if mean > NOISE * often.max():
                self._expected[EXPECTED] = np.log((support / mean + FLOOR) / (1 + FLOOR))
        return self._expected

    def pull(self) -> float:
        """Return the power of what is expected: more after a steady seed, and where it is lost."""
        missing = self.of_seed - self.steadiness
        return min(MOST_PULL, max(0.0, self.of_seed + CORRECTION * missing))


def to_the_beat(logits: NDArray[np.float32], tilt: Floats) -> NDArray[np.float32]:
    """Tilt the logits of onsets; a chord's next note stays as likely as it was.

    Parameters
    ----------
    logits : ndarray of float32, shape (pieces, ONSETS)
    tilt : ndarray of float64, shape (pieces, ONSETS)
        0 for the onsets before `LATER`.

    Returns
    -------
    ndarray of float32, shape (pieces, ONSETS)
    """
    plain = logits.astype(np.float64)
    tilted = plain + tilt
    before, after = (log_sum(some[:, LATER:]) for some in (plain, tilted))
    tilted[:, LATER:] += (before - after)[:, None]
    return tilted.astype(np.float32)
