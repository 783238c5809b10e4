"""The texture of an excerpt of piano music: fourteen figures, how notes end, and its pulse.

`bench.continuations` compares pieces with pianists' playing by them. This module knows note
arrays; it knows nothing of audio, models or files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.music.notes import Notes

TEXTURES: Final = (
    "density",
    "gap, median",
    "gap, spread",
    "pitch-class entropy",
    "pitch, mean",
    "pitch, spread",
    "velocity, mean",
    "velocity, spread",
    "duration, median",
    "duration, spread",
    "chord size",
    "repeated figures",
    "share of low notes",
    "pitch with velocity",
)
FEWEST_NOTES: Final = 8
EXCERPT_S: Final = 15.0

_TOGETHER_S = 0.05  # onsets this close are one chord
_LONGEST_S = 2.0  # of a note, in a pitch-class histogram
_MIDDLE_C = 60
_STEPS_PER_S = 100
_BARS = slice(130, 420)  # steps
_SMEAR = np.exp(-0.5 * (np.arange(-8, 9) / 2) ** 2)  # 20 ms, by which onsets may miss each other


def texture(notes: Notes) -> NDArray[np.float64]:
    """Return the figures of an excerpt.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`, sorted by onset

    Returns
    -------
    ndarray of float64, shape (14,)
        In the order of `TEXTURES`: notes a second; median and spread (standard deviation) of the
        gaps between onsets, in log seconds; entropy of the pitch classes, in bits; mean and spread
        of pitch and of velocity; median and spread of durations, in log seconds; notes a chord;
        the share of runs of three intervals that have come before; the share of notes below middle
        C; and the correlation of pitch and velocity. NaN with fewer than `FEWEST_NOTES` notes.
    """
    if len(notes) < FEWEST_NOTES:
        return np.full(len(TEXTURES), np.nan)
    onset, pitch = notes["onset"], notes["pitch"].astype(float)
    velocity, duration = notes["velocity"].astype(float), notes["offset"] - onset
    gaps = np.diff(np.unique(np.round(onset, 2)))
    gaps = gaps if len(gaps) else np.zeros(1)
    weights = np.minimum(duration, _LONGEST_S) + 1e-3
    share = np.bincount(notes["pitch"] % 12, weights=weights, minlength=12)
    share = share[share > 0] / share.sum()
    interval = np.diff(notes["pitch"].astype(int))
    figures = np.lib.stride_tricks.sliding_window_view(interval, 3)
    varied = pitch.std() > 0 and velocity.std() > 0
    return np.array(
        [
            len(notes) / max(onset[-1] - onset[0], 1.0),
            np.log(np.median(gaps) + 1e-3),
            np.log(gaps.std() + 1e-3),
            -(share * np.log2(share)).sum(),
            pitch.mean(),
            pitch.std(),
            velocity.mean(),
            velocity.std(),
            np.log(max(np.median(duration), 1e-3)),
            np.log(duration.std() + 1e-3),
            len(notes) / len(np.unique(np.round(onset / _TOGETHER_S))),
            1 - len(np.unique(figures, axis=0)) / len(figures),
            (notes["pitch"] < _MIDDLE_C).mean(),
            np.corrcoef(pitch, velocity)[0, 1] if varied else 0.0,
        ]
    )


def excerpts(notes: Notes) -> Iterator[Notes]:
    """Yield a part in excerpts of `EXCERPT_S`, as many as are whole."""
    if not len(notes):
        return
    onset = notes["onset"]
    for begin in np.arange(onset[0], onset[-1] - EXCERPT_S, EXCERPT_S):
        yield notes[(onset >= begin) & (onset < begin + EXCERPT_S)]


def common_ends(notes: Notes) -> float:
    """Return the share of notes that end exactly when another does, on a grid of 10 ms.

    High where a pedal is changed; 0 without notes.

    Examples
    --------
    >>> from deep_piano.music.notes import make_notes
    >>> common_ends(make_notes([0, 0.5, 1], [2, 2, 1.5], [60, 64, 67], [80, 80, 80]))
    0.6666666666666666
    """
    ends = np.rint(notes["offset"] * _STEPS_PER_S).astype(np.int64)
    _, place, count = np.unique(ends, return_inverse=True, return_counts=True)
    return float((count[place] > 1).mean()) if len(notes) else 0.0


def pulse(notes: Notes) -> float:
    """Return how regular an excerpt is from bar to bar.

    Returns
    -------
    float
        The highest autocorrelation of its onsets, weighted by the root of their velocities, at
        1.3 to 4.2 s, and no more than half its length: about 1 if all came again after that time;
        chance alone exceeds it in a few notes. 0 where it is too short for that.

    Examples
    --------
    >>> from deep_piano.music.notes import make_notes
    >>> beat = np.arange(30) * 0.5
    >>> round(pulse(make_notes(beat, beat + 0.4, [60] * 30, [80] * 30)), 1)
    1.0
    """
    if not len(notes):
        return 0.0
    place = np.rint((notes["onset"] - notes["onset"][0]) * _STEPS_PER_S).astype(np.int64)
    strength = np.convolve(np.sqrt(np.bincount(place, notes["velocity"])), _SMEAR)
    strength -= strength.mean()
    steps = len(strength)
    spectrum = np.fft.rfft(strength, 1 << (2 * steps).bit_length())  # fast for any length
    alike = np.fft.irfft(np.abs(spectrum) ** 2)[:steps]
    alike = (alike / (1 - np.arange(steps) / steps))[: steps // 2]
    return float(alike[_BARS].max() / alike[0]) if len(alike) > _BARS.start else 0.0
