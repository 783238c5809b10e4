"""The beats of a performance: a tempo that is found in the notes, and followed where it breathes.

Pure NumPy on note arrays; knows nothing of audio, models or files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.music.meter import Meter
from deep_piano.music.notes import Notes

_STEPS_PER_S: Final = 100
_SLOWEST_BPM, _FASTEST_BPM, _LIKELIEST_BPM = 40, 200, 95
_SPREAD_OCTAVES = 0.9
_MULTIPLES = ((1, 1.0), (2, 0.7), (3, 0.3), (4, 0.5))
_TIGHTNESS = 300.0  # a tempo may bend by a twentieth; less, and it follows fingers
_CHORD_S = 0.04
_SMEAR_S = 0.02
_AT_ONCE_S = 0.01
_FEWEST_BEATS = 8

LEAST_SHARPNESS: Final = 0.4
"""Beats are followed from here on: onsets at random reach 0.2, played to a click 0.9 and more."""
STEADY_S: Final = 0.03
"""Beats that stray no farther from one tempo are of one tempo."""


class Onsets(NamedTuple):
    """Moments at which notes begin, chords taken together.

    Attributes
    ----------
    time_s, weight, bass : ndarray, shape (n,)
        When, how much like a beat each is, and how much of that is in the bass.
    """

    time_s: NDArray[np.float64]
    weight: NDArray[np.float64]
    bass: NDArray[np.float64]


def meter_of(notes: Notes) -> Meter:
    """Return the meter of a performance: beats that are followed, or one tempo where none is sure.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`
        Sorted by onset, from time zero on.

    Returns
    -------
    Meter
        Bars of three or of four quarters.

    Examples
    --------
    >>> from deep_piano.music.notes import make_notes
    >>> beat = np.arange(32) * 0.75
    >>> round(meter_of(make_notes(beat, beat + 0.7, [60, 64, 67, 64] * 8, [80] * 32)).bpm)
    80
    """
    if len(notes) < _FEWEST_BEATS:
        return Meter()
    onsets = onsets_of(notes)
    tracked_s = track(onsets)
    if tracked_s is None:
        return Meter()
    beat_s = _smooth(tracked_s)
    period_s, start_s = np.polyfit(np.arange(len(beat_s)), beat_s, 1)
    if sharpness(onsets, beat_s) < LEAST_SHARPNESS:
        return Meter.steady(period_s)
    line_s = start_s + period_s * np.arange(len(beat_s))
    if np.abs(beat_s - line_s).max() <= STEADY_S:
        first_s = (start_s - period_s / 4) % period_s + period_s / 4
        at_zero = abs(first_s - period_s) < _AT_ONCE_S
        meter = Meter.steady(period_s, first_s=None if at_zero else first_s)
    else:
        meter = Meter.of_beats(_from_zero(beat_s, period_s))
    beats = np.arange(int(np.ceil(meter.quarters(notes["onset"][-1]))) + 1)
    beats_a_bar, pickup = _bars(onsets, meter.seconds(beats))
    return replace(meter, beats_a_bar=beats_a_bar, pickup=pickup)


def onsets_of(notes: Notes) -> Onsets:
    """Take the notes of each chord together and weigh it.

    What is loud, low, full, or followed by a rest is taken for a beat.
    """
    onset = notes["onset"]
    chord = np.cumsum(np.diff(onset, prepend=onset[0]) > _CHORD_S)
    count = np.bincount(chord)
    time_s = np.bincount(chord, onset) / count
    fullness = np.bincount(chord, np.sqrt(notes["velocity"] / 64)) ** 0.7
    lowest = np.full(len(count), 127)
    np.minimum.at(lowest, chord, notes["pitch"])
    bass = np.clip((60 - lowest) / 24, 0, 1)
    rest = np.clip(np.diff(time_s, append=time_s[-1] + 1) / 0.5, 0, 1.5)
    return Onsets(time_s, fullness * (1 + bass) * (0.5 + rest), fullness * bass)


def track(onsets: Onsets) -> NDArray[np.float64] | None:
    """Follow the beat by dynamic programming; return seconds, or None with too few onsets.

    D. Ellis, "Beat tracking by dynamic programming", JNMR 36, 2007, on notes in place of sound.
    """
    envelope = _envelope(onsets)
    period = _period(envelope)
    if period is None or len(envelope) < _FEWEST_BEATS * period:
        return None
    steps = _best_path(envelope / envelope.std(), period)
    return np.array(steps) / _STEPS_PER_S if len(steps) >= _FEWEST_BEATS else None


def sharpness(onsets: Onsets, beat_s: NDArray[np.float64]) -> float:
    """Return how sharply onsets keep to beats or to their halves, thirds or quarters, 0 to 1.

    It is the length of the mean of the onsets' phases, each weighted; the longest of the four.
    """
    inside = (onsets.time_s >= beat_s[0]) & (onsets.time_s <= beat_s[-1])
    turns = np.interp(onsets.time_s[inside], beat_s, np.arange(len(beat_s)))
    weight = onsets.weight[inside] / onsets.weight[inside].sum()
    return max(abs(complex(weight @ np.exp(2j * np.pi * parts * turns))) for parts in (1, 2, 3, 4))


def _envelope(onsets: Onsets) -> NDArray[np.float64]:
    envelope = np.zeros(int(onsets.time_s[-1] * _STEPS_PER_S) + _STEPS_PER_S // 2)
    np.add.at(envelope, np.rint(onsets.time_s * _STEPS_PER_S).astype(int), onsets.weight)
    reach = np.arange(-8, 9) / _STEPS_PER_S
    return np.convolve(envelope, np.exp(-0.5 * (reach / _SMEAR_S) ** 2), "same")


def _period(envelope: NDArray[np.float64]) -> int | None:
    """Return the period with the most support from itself and its multiples, in steps."""
    centred = envelope - envelope.mean()
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    alike = np.fft.irfft(np.abs(spectrum) ** 2)[: len(centred)]
    slowest = 60 * _STEPS_PER_S // _SLOWEST_BPM
    most = slowest * _MULTIPLES[-1][0] + 2
    alike = np.pad(alike, (0, max(0, most - len(alike))))
    near = np.convolve(alike, np.ones(3), "same")  # a multiple may lie between two steps
    period = np.arange(60 * _STEPS_PER_S // _FASTEST_BPM, slowest + 1)
    support = sum(weight * near[period * times] for times, weight in _MULTIPLES)
    octaves = np.log2(60 * _STEPS_PER_S / period / _LIKELIEST_BPM)
    weighted = support * np.exp(-0.5 * (octaves / _SPREAD_OCTAVES) ** 2)
    best = int(np.argmax(weighted))
    return int(period[best]) if weighted[best] > 0 else None


def _best_path(envelope: NDArray[np.float64], period: int) -> list[int]:
    """Return the steps that meet the most of the envelope at nearly even distances."""
    lags = np.arange(period // 2, 2 * period + 1)
    penalty = _TIGHTNESS * np.log(lags / period) ** 2
    pad = int(lags[-1])
    score = np.zeros(pad + len(envelope))  # nothing before the beginning costs nothing
    before = np.full(len(envelope), -1)
    for step, value in enumerate(envelope):
        reached = score[step + pad - lags] - penalty
        best = int(np.argmax(reached))
        score[step + pad] = value + max(reached[best], 0.0)
        if reached[best] > 0:
            before[step] = step - lags[best]
    here = len(envelope) - 2 * period + int(np.argmax(score[-2 * period :]))
    path = []
    while here >= 0:
        path.append(here)
        here = int(before[here])
    return path[::-1]


def _smooth(beat_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lay a line through each beat and its neighbours: tempo bends over bars, fingers stray."""
    reach = 4
    place = np.arange(len(beat_s))
    smooth = np.empty(len(beat_s))
    for k in range(len(beat_s)):
        first = min(max(0, k - reach), max(0, len(beat_s) - 2 * reach - 1))
        near = slice(first, first + 2 * reach + 1)
        slope, start = np.polyfit(place[near], beat_s[near], 1)
        smooth[k] = start + slope * k
    return np.maximum.accumulate(smooth)


def _from_zero(beat_s: NDArray[np.float64], period_s: float) -> NDArray[np.float64]:
    """Let the beats begin at time zero."""
    beat_s = beat_s[beat_s > -period_s / 4]
    ahead = round(beat_s[0] / period_s)
    lead = np.linspace(0, beat_s[0], ahead, endpoint=False)
    beat_s = np.r_[lead, beat_s] if ahead else np.r_[0.0, beat_s[1:]]
    return beat_s[np.r_[True, np.diff(beat_s) > period_s / 4]]


def nearest(
    time_s: NDArray[np.float64], beat_s: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return which of ascending beats each moment is nearest to, and how far that is.

    Of two that are as near it is the earlier one.
    """
    after = np.searchsorted(beat_s, time_s)
    either = np.stack([after - 1, after]).clip(0, len(beat_s) - 1)
    distance = np.abs(time_s - beat_s[either])
    later = distance.argmin(axis=0)[None]
    place, least = (np.take_along_axis(of, later, 0)[0] for of in (either, distance))
    return place, least


def _bars(onsets: Onsets, beat_s: NDArray[np.float64]) -> tuple[int, int]:
    """Return how many beats a bar has, three or four, and how many there are before the first.

    Bars begin where the bass is. Three only where it is plain.
    """
    place, distance = nearest(onsets.time_s, beat_s)
    met = distance <= _CHORD_S * 1.5
    accent = np.bincount(place[met], (onsets.bass + onsets.weight / 4)[met], len(beat_s))

    def contrast(beats: int) -> tuple[float, int]:
        means = [accent[first::beats].mean() for first in range(beats)]
        first = int(np.argmax(means))
        return float(means[first] - accent.mean()), first

    (three, first_of_three), (four, first_of_four) = contrast(3), contrast(4)
    if three > 1.25 * max(four, contrast(2)[0]):
        return 3, first_of_three
    return 4, first_of_four
