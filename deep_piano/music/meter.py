"""Where the beats of a performance lie: seconds to quarters, and back.

Pure NumPy; knows nothing of notes or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

DEFAULT_BPM: Final = 120.0
_MICRO: Final = 1_000_000


@dataclass(frozen=True)
class Meter:
    """A steady or a breathing beat, and its bars.

    Attributes
    ----------
    beat_us : tuple of int
        How long each quarter lasts, from time zero on, in microseconds, as MIDI counts them. The
        last goes on for ever.
    beats_a_bar : int
        Quarters.
    pickup : int
        Quarters before the first whole bar; less than `beats_a_bar`.
    """

    beat_us: tuple[int, ...] = (round(60 * _MICRO / DEFAULT_BPM),)
    beats_a_bar: int = 4
    pickup: int = 0

    @classmethod
    def of_beats(cls, beat_s: ArrayLike) -> Meter:
        """Return the meter whose beats are at these seconds, of which the first is zero.

        They are met to a microsecond: what rounding leaves over is given to the next beat.
        """
        at_us = np.rint(np.asarray(beat_s, "f8") * _MICRO).astype(np.int64)
        return cls(tuple(np.diff(at_us).tolist()))

    @classmethod
    def steady(cls, period_s: float, *, first_s: float | None = None) -> Meter:
        """Return a meter whose quarters are equally long but, where that is given, the first."""
        beat_us = round(period_s * _MICRO)
        return cls((beat_us,) if first_s is None else (round(first_s * _MICRO), beat_us))

    @property
    def bpm(self) -> float:
        """Its middle tempo, in quarters a minute; the first beat, which leads in, aside."""
        return 60 * _MICRO / float(np.median(self.beat_us[1:] or self.beat_us))

    def quarters(self, seconds: ArrayLike) -> NDArray[np.float64]:
        """Return how many quarters from time zero each of these times is."""
        seconds = np.asarray(seconds, "f8")
        at_s, beat_s = self._grid()
        place = np.clip(np.searchsorted(at_s, seconds, side="right") - 1, 0, len(beat_s) - 1)
        found: NDArray[np.float64] = place + (seconds - at_s[place]) / beat_s[place]
        return found

    def seconds(self, quarters: ArrayLike) -> NDArray[np.float64]:
        """Return when each of these quarters from time zero is."""
        quarters = np.asarray(quarters, "f8")
        at_s, beat_s = self._grid()
        place = np.clip(np.floor(quarters).astype(int), 0, len(beat_s) - 1)
        found: NDArray[np.float64] = at_s[place] + (quarters - place) * beat_s[place]
        return found

    def _grid(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return when each beat begins, and how long it is."""
        beat_s = np.array(self.beat_us) / _MICRO
        return np.r_[0.0, np.cumsum(beat_s[:-1])], beat_s
