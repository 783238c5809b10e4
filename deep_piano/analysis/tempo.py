"""Tempi, of onsets and of anything periodic.

This module knows times; it knows nothing of audio, models or files.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_SLOWEST_BPM, _LIKELIEST_BPM, _FASTEST_BPM = 30.0, 120.0, 300.0
_IOI_STEP_S = 0.01
_MOST_NOTES, _MOST_BEATS = 1000, 64
# By how much the best period is above the mean of all. Of machines' and accompanists' even beats
# it is 5 to 20 times, of pianists who play freely 2 to 4: see `bench.keys`.
_SURE, _FAIRLY_SURE = 10.0, 5.0
_FEWEST_NOTES = 32  # of fewer the best is above the others by chance


class TempoEstimate(NamedTuple):
    """The likeliest tempo of some music, and how likely it is.

    Attributes
    ----------
    bpm : float or None
        Quarters a minute; None where nothing recurs.
    certainty : str
        "sure", "fairly sure" or "unclear", always but for an octave: what is written as quarters
        may be half as fast or twice. "none" without a tempo.
    """

    bpm: float | None
    certainty: str


def tempo_of(onset_s: NDArray[np.float64]) -> TempoEstimate:
    """Return the tempo whose quarter separates the most onsets.

    Parameters
    ----------
    onset_s : ndarray, shape (n,), ascending
        Of notes; the middle thousand count.
    """
    from deep_piano.analysis.tempo_kernels import distances  # it loads Numba

    first = max(0, len(onset_s) - _MOST_NOTES) // 2
    onset_s = onset_s[first : first + _MOST_NOTES]
    apart = distances(
        np.ascontiguousarray(onset_s),
        60 / _FASTEST_BPM,
        60 / _SLOWEST_BPM,
        _MOST_BEATS,
        _IOI_STEP_S,
    )
    # Two notes that belong together are up to 30 ms apart.
    found = tempo_of_periods(np.convolve(apart, (1, 2, 3, 2, 1))[2:], step_s=_IOI_STEP_S)
    few = len(onset_s) < _FEWEST_NOTES and found.bpm is not None
    return TempoEstimate(found.bpm, "unclear") if few else found


def tempo_of_periods(support: NDArray[Any], *, step_s: float) -> TempoEstimate:
    """Return the tempo whose period has the most support, weighted by its prior.

    `support[k]` is that of `k * step_s`. Tempi are likely by their distance from 120 in octaves,
    a normal distribution with a deviation of one, as in Ellis 2007.
    """
    period_s = np.arange(1, len(support)) * step_s
    allowed = (period_s >= 60 / _FASTEST_BPM) & (period_s <= 60 / _SLOWEST_BPM)
    octaves = np.log2(60 / period_s / _LIKELIEST_BPM)
    weighted = np.where(allowed, support[1:] * np.exp(-0.5 * octaves**2), 0.0)
    if not weighted.max(initial=0.0) > 0:
        return TempoEstimate(None, "none")
    best = int(np.argmax(weighted))
    around = weighted[max(0, best - 1) : best + 2]
    # The vertex of a parabola through the three, so that the step does not show.
    curve = np.diff(around, 2)
    shift = -0.5 * (around[2] - around[0]) / curve[0] if len(curve) and curve[0] < 0 else 0.0
    bpm = float(60 / (period_s[best] + np.clip(shift, -0.5, 0.5) * step_s))
    above = weighted[best] / np.clip(weighted[allowed], 0, None).mean()
    words = {"sure": _SURE, "fairly sure": _FAIRLY_SURE}
    return TempoEstimate(bpm, next((w for w, least in words.items() if above >= least), "unclear"))
