"""Intervals of sounding keys and pedals: choosing the best ones, and joining overlapping segments.

This module knows the segments and intervals of the transcription network; it knows nothing of
audio, weights or TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.music.notes import NOTE, Notes, fold_pedal, make_notes, pedal_share

SAMPLE_RATE = 44_100
SEGMENT_S, SEGMENT_HOP_S = 16, 12
SEGMENT_SAMPLES = SEGMENT_S * SAMPLE_RATE
SUSTAIN, SOFT = -64, -67
SYMBOLS = (SUSTAIN, SOFT, *range(21, 109))
"""What the network detects: two pedals, by minus their MIDI controller, and the 88 keys."""

_SAME_ONSET_S = 0.05
_CUT_SLACK_S = 0.025  # the last frame of a segment lies this near to its end


@dataclass(frozen=True)
class Intervals:
    """The intervals found in one segment; every array has shape (n,).

    `pitch` is one of `SYMBOLS`; `begin_s` and `end_s` are seconds; `velocity` is 0-127;
    `has_begin` and `has_end` are false where the segment's edge cuts the interval.
    """

    pitch: NDArray[np.int64]
    begin_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    velocity: NDArray[np.int64]
    has_begin: NDArray[np.bool_]
    has_end: NDArray[np.bool_]


class Performance(NamedTuple):
    """Key presses without the pedal, and the times when the sustain pedal goes down and up."""

    keys: Notes
    pedal_down_s: NDArray[np.float64]
    pedal_up_s: NDArray[np.float64]

    def sounding(self) -> Notes:
        """Return the notes as they sound, lengthened by the pedal."""
        return fold_pedal(self.keys, self.pedal_down_s, self.pedal_up_s)

    def notes_and_pedal(self) -> tuple[Notes, float]:
        """Return the notes as they sound, and the share of their time with the pedal down."""
        notes = self.sounding()
        return notes, pedal_share(notes, self.pedal_down_s, self.pedal_up_s)

    def faster(self, factor: float) -> Performance:
        """Return the same, played faster by a factor."""
        keys = self.keys.copy()
        keys["onset"] /= factor
        keys["offset"] /= factor
        return Performance(keys, self.pedal_down_s / factor, self.pedal_up_s / factor)


def best_intervals(
    score: NDArray[np.float32], single: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find, for every symbol, the set of intervals with the highest sum of scores.

    The Viterbi algorithm of a semi-Markov random field (Yan et al., NeurIPS 2021). Intervals of one
    symbol may touch in a frame but not overlap. An interval scores its entry times its length in
    frames; a single frame scores its own entry, and is chosen when that is above zero; frames
    between intervals score zero.

    Parameters
    ----------
    score : ndarray, shape (symbols, T, T), float32
        Score a frame of the interval from `begin` (axis 1) to `end` (axis 2); only begin < end
        is read.
    single : ndarray, shape (symbols, T), float32

    Returns
    -------
    symbol, begin, end : ndarray, shape (n,), int64
        Sorted by symbol, then begin, then end; begin <= end.
    """
    symbols, frames = single.shape
    every = np.arange(symbols)
    lengths = np.arange(frames, dtype=np.float32)
    best = np.maximum(single, 0)  # of the frames from this one to the last
    jump = np.zeros((symbols, frames), np.int64)  # length of the interval from here, or 0
    for begin in range(frames - 2, -1, -1):
        totals = score[:, begin, begin + 1 :] * lengths[1 : frames - begin]
        totals += best[:, begin + 1 :]
        nearest = totals.argmax(axis=1)
        total, skipping = totals[every, nearest], best[:, begin + 1]
        jump[:, begin] = np.where(total > skipping, nearest + 1, 0)
        best[:, begin] += np.maximum(total, skipping)
    chosen = []
    for symbol, (jumps, alone) in enumerate(zip(jump.tolist(), (single > 0).tolist(), strict=True)):
        begin = 0
        while begin < frames:
            if alone[begin]:
                chosen.append((symbol, begin, begin))
            if jumps[begin]:
                chosen.append((symbol, begin, begin + jumps[begin]))
            begin += jumps[begin] or 1
    columns = np.array(chosen, np.int64).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2]


def join_segments(segments: Sequence[Intervals], *, duration_s: float) -> Performance:
    """Join the intervals of overlapping segments into one performance.

    Onsets and pedal are taken from the middle of a segment, where the network has context on both
    sides (and from the outer parts of the first and last segment). A note that is cut at the end of
    its segment continues in the next one.

    Parameters
    ----------
    segments : sequence of Intervals
        In seconds from the beginning of each segment; segment i begins at i * `SEGMENT_HOP_S`.
    duration_s : float
        Length of the recording; nothing begins or ends after it.
    """
    shifts = [index * SEGMENT_HOP_S for index in range(len(segments))]
    borders = [shift + (SEGMENT_S - SEGMENT_HOP_S) / 2 for shift in shifts[1:]]
    edges = [0.0, *borders, duration_s]
    keys = np.empty(0, NOTE)
    downs, ups = [np.empty(0)], [np.empty(0)]
    for index, found in enumerate(segments):
        first, last = edges[index], edges[index + 1]
        onset, offset = found.begin_s + shifts[index], found.end_s + shifts[index]
        pedal = found.pitch == SUSTAIN
        down, up = np.clip(onset[pedal], first, last), np.clip(offset[pedal], first, last)
        downs.append(down[up > down])
        ups.append(up[up > down])

        # From a little before the border, then without duplicates: no onset may be lost there.
        early = first - _SAME_ONSET_S / 2 if index else first
        mine = (found.pitch > 0) & found.has_begin & (onset >= early) & (onset < last)
        for i in np.flatnonzero(mine & ~found.has_end):
            offset[i] = _end_of_cut(segments, index, int(found.pitch[i]))
        mine &= offset > onset
        fresh = make_notes(onset[mine], offset[mine], found.pitch[mine], found.velocity[mine])
        keys = np.concatenate([keys, _without_twins(fresh, of=keys, until=early + _SAME_ONSET_S)])
    keys["offset"] = np.minimum(keys["offset"], duration_s)
    keys = fold_pedal(make_notes(*(keys[name] for name in NOTE.names or ())), [], [])
    return Performance(keys, *_merge_touching(np.concatenate(downs), np.concatenate(ups)))


def _end_of_cut(segments: Sequence[Intervals], index: int, pitch: int) -> float:
    """Return when a note ends that sounds at the end of segment `index`, in seconds."""
    end_s = float(index * SEGMENT_HOP_S + SEGMENT_S)
    for later in range(index + 1, len(segments)):
        found, shift = segments[later], later * SEGMENT_HOP_S
        cut_s = SEGMENT_S - SEGMENT_HOP_S - _CUT_SLACK_S  # the cut, in this segment's time
        same = (found.pitch == pitch) & (found.begin_s <= cut_s) & (found.end_s > cut_s)
        if not same.any():
            break
        first = int(np.flatnonzero(same)[0])
        end_s = shift + float(found.end_s[first])
        if found.has_end[first]:
            break
    return end_s


def _without_twins(fresh: Notes, *, of: Notes, until: float) -> Notes:
    """Leave out notes that begin before `until` and are already in `of`."""
    recent = of[of["onset"] > until - 2 * _SAME_ONSET_S]
    twin = (fresh["pitch"][:, None] == recent["pitch"]) & (
        np.abs(fresh["onset"][:, None] - recent["onset"]) < _SAME_ONSET_S
    )
    return fresh[~(twin.any(axis=1) & (fresh["onset"] < until))]


def _merge_touching(
    begin: NDArray[np.float64], end: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Merge ascending spans that touch."""
    apart = begin[1:] > end[:-1]
    keep_begin = np.concatenate([np.ones(min(1, begin.size), bool), apart])
    keep_end = np.concatenate([apart, np.ones(min(1, end.size), bool)])
    return begin[keep_begin], end[keep_end]
