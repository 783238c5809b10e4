"""Sounding notes as a pianist plays them: key presses, and a sustain pedal that holds the rest.

The opposite of `notes.fold_pedal`, and exact: folded again, the key presses sound as the notes did.
This module knows notes in whole ticks; it knows nothing of files, tempi or bars.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ticks = NDArray[np.int64]

_MARGIN: Final = 4  # ticks between any two events whose order matters: readers round
_FEWEST_HELD: Final = 2  # notes that a pedal must free a hand of
_OCTAVE: Final = 12


class Played(NamedTuple):
    """What a pianist does.

    Attributes
    ----------
    release : ndarray of int, shape (n,)
        When each note's key comes up, in ticks; never later than the note ends.
    down, up : ndarray of int, shape (k,)
        When the pedal goes down and comes up, ascending and apart.
    """

    release: Ticks
    down: Ticks
    up: Ticks


def play(
    onset: Ticks, offset: Ticks, pitch: NDArray[np.integer], *, ticks_per_second: float
) -> Played:
    """Find a pedal under which notes sound as they do, and how long their keys are held.

    Notes that end together were let go by a pedal. It came up there, and went down after
    the last end before: between two ends nothing else may stop. A key under it is held until its
    hand is needed elsewhere, which is when the next note within an octave begins. Where no such
    pedal exists, the key is held as long as the note sounds.

    Parameters
    ----------
    onset, offset : ndarray of int, shape (n,)
        In ticks; sorted by onset; notes of one pitch do not overlap.
    pitch : ndarray of int, shape (n,)
    ticks_per_second : float
        Roughly: what is short, and what is at once, depends on it.

    Returns
    -------
    Played
    """
    chord, shortest, change = (
        max(_MARGIN, round(seconds * ticks_per_second)) for seconds in (0.04, 0.08, 0.06)
    )
    struck_again = _ends_where_struck_again(onset, offset, pitch)
    ends = np.unique(offset[~struck_again])
    release = offset.copy()
    down, up = [], []
    span = np.searchsorted(ends, offset)  # the pedal that a note may be under, by when it comes up
    wanted = np.maximum(_next_in_hand(onset, offset, pitch, apart=chord), onset + shortest)
    for place, notes in _groups(span):
        end = int(ends[place])
        last_end = int(ends[place - 1]) if place else 0
        begin = max(last_end + min(change, (end - last_end) // 4), int(onset[notes].min()))
        if begin - last_end < _MARGIN:
            continue
        let_go = np.maximum(wanted[notes], begin + _MARGIN)
        held = let_go <= offset[notes] - _MARGIN
        let_go_at_end = held & ~struck_again[notes]
        if let_go_at_end.sum() < _FEWEST_HELD or _one_chord(onset[notes[let_go_at_end]], chord):
            continue
        release[notes[held]] = let_go[held]
        down.append(begin)
        up.append(end)
    return Played(release, np.array(down, np.int64), np.array(up, np.int64))


def _ends_where_struck_again(
    onset: Ticks, offset: Ticks, pitch: NDArray[np.integer]
) -> NDArray[np.bool_]:
    by_key = np.lexsort((onset, pitch))
    ends = np.zeros(len(onset), np.bool_)
    same_key = pitch[by_key][1:] == pitch[by_key][:-1]
    ends[by_key[:-1]] = same_key & (offset[by_key[:-1]] == onset[by_key[1:]])
    return ends


def _next_in_hand(onset: Ticks, offset: Ticks, pitch: NDArray[np.integer], *, apart: int) -> Ticks:
    """Return when the next note within an octave begins, at the latest when the note ends.

    Notes less than `apart` ticks later belong to its chord.
    """
    found = offset.copy()
    pitches = pitch.astype(np.int64)
    first = np.searchsorted(onset, onset + apart, side="right")
    last = np.searchsorted(onset, offset)
    for note, later in enumerate(map(slice, first, last)):
        near = np.abs(pitches[later] - pitches[note]) <= _OCTAVE
        if near.any():
            found[note] = onset[later][near.argmax()]
    return found


def _groups(place: Ticks) -> list[tuple[int, Ticks]]:
    """Return each place and the notes that are there, in the order of places."""
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    parts = np.split(order, starts[1:])
    return [(int(place[part[0]]), part) for part in parts if len(part)]


def _one_chord(onset: Ticks, within: int) -> bool:
    return int(np.ptp(onset)) <= within
