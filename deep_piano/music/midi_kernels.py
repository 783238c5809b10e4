"""The events of a MIDI track, byte after byte, compiled: a corpus holds tens of millions of them.

A *moment* is a tick and, in its lowest bits, the number of an event: moments have the order in
which a player that merges the tracks comes to the events. This module knows neither seconds nor
what the pedal makes of the keys. It loads Numba when it is imported, and compiles on first use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.infra.compiling import compiler

Ints = NDArray[np.int64]

NOTE_COLUMNS = 5
"""Of a note: the moments of onset and offset, channel, pitch, velocity."""
CONTROL_COLUMNS = 4
"""Of a controller: moment, channel, number, value."""
TEMPO_COLUMNS = 2
"""Of a tempo: tick, microseconds a quarter."""
NOTES, CONTROLS, TEMPI, EVENTS, ODD = range(5)
"""What is counted: rows filled, events read, and what does not belong into a file."""

EVENT_BITS = 24
DRUMS, SUSTAIN, CHANNEL_MODES = 9, 64, 120
_END_OF_TRACK, _TEMPO = 0x2F, 0x51

compiled = compiler(__file__)


@compiled
def read_track(
    data: NDArray[np.uint8],
    at: int,
    limit: int,
    tick: int,
    notes: Ints,
    controls: Ints,
    tempi: Ints,
    counts: Ints,
) -> Any:
    """Read the events of a track.

    A note lasts until its key is released or struck again, or until the track ends. Drums are
    left out.

    Parameters
    ----------
    data : ndarray of uint8
        The file.
    at, limit : int
        Where the events begin, and where they must have ended.
    tick : int
        When the track begins.
    notes : ndarray, shape (n, 5)
        Gets the notes.
    controls : ndarray, shape (n, 4)
        Gets the sustain pedal and the channel modes.
    tempi : ndarray, shape (n, 2)
        Gets the tempi.
    counts : ndarray, shape (5,)
        How much of each there is, kept up to date.

    Returns
    -------
    at : int
        Behind the track's end; where it has none, the first byte that could not be read.
    tick : int
        When the track ends.
    ended : bool
        Whether it ends as tracks must.
    """
    down = np.full(2048, -1)  # by channel and key, the note that holds it down
    owed = np.zeros(2048, np.bool_)  # struck again at this tick, before its older note's release
    status, ended = 0, False
    while at < limit and not ended:
        delta, then = _number(data, at, limit)
        if then < 0 or then == limit:
            break
        tick += delta
        moment = tick << EVENT_BITS | counts[EVENTS]
        kind = int(data[then])
        if kind < 0x80:  # another event of the same kind
            kind = status
        else:
            then += 1
        if kind >= 0xF0:
            then, ended = _skip(data, kind, then, limit, tick, tempi, counts)
        elif kind >= 0x80:
            status = kind
            then += 1 if 0xC0 <= kind < 0xE0 else 2
            if then <= limit:
                first, second = int(data[then - 2]), int(data[then - 1])
                if 0xC0 <= kind < 0xE0:
                    first = 0
                if first > 127 or second > 127:
                    counts[ODD] += 1
                    first, second = min(first, 127), min(second, 127)
                if kind < 0xA0:
                    velocity = second if kind >= 0x90 else 0
                    _key(kind & 15, first, velocity, moment, notes, counts, down, owed)
                elif 0xB0 <= kind < 0xC0 and (first == SUSTAIN or first >= CHANNEL_MODES):
                    row = counts[CONTROLS]
                    controls[row, 0], controls[row, 1] = moment, kind & 15
                    controls[row, 2], controls[row, 3] = first, second
                    counts[CONTROLS] += 1
        else:
            then = -1  # data that belongs to no event
        if then < 0 or then > limit:
            break
        at = then
        counts[EVENTS] += 1
    for note in down:
        if note >= 0:
            notes[note, 1] = tick << EVENT_BITS | counts[EVENTS]
    return at, tick, ended


@compiled
def _number(data: NDArray[np.uint8], at: int, limit: int) -> Any:
    """Return a number of up to four bytes, seven bits in each, and where it ends; -1: nowhere."""
    value = 0
    for place in range(at, min(at + 4, limit)):
        value = value << 7 | int(data[place]) & 127
        if data[place] < 0x80:
            return value, place + 1
    return value, -1


@compiled
def _skip(
    data: NDArray[np.uint8], kind: int, at: int, limit: int, tick: int, tempi: Ints, counts: Ints
) -> Any:
    """Return where an event of the system ends, and whether it ends the track; take its tempo."""
    if kind not in (0xF0, 0xF7, 0xFF):  # for wires, not for files
        counts[ODD] += 1
        return at + (2 if kind == 0xF2 else 1 if kind in (0xF1, 0xF3) else 0), False
    meta = -1
    if kind == 0xFF:
        if at == limit:
            return -1, False
        meta = int(data[at])
        at += 1
    length, at = _number(data, at, limit)
    if at < 0 or at + length > limit:
        return -1, False
    if meta == _TEMPO and length == 3:
        row = counts[TEMPI]
        tempi[row, 0] = tick
        tempi[row, 1] = int(data[at]) << 16 | int(data[at + 1]) << 8 | int(data[at + 2])
        counts[TEMPI] += 1
    elif meta == _TEMPO:
        counts[ODD] += 1
    return at + length, meta == _END_OF_TRACK


@compiled
def _key(
    channel: int,
    pitch: int,
    velocity: int,
    moment: int,
    notes: Ints,
    counts: Ints,
    down: Ints,
    owed: NDArray[np.bool_],
) -> None:
    """Strike a key or, without velocity, release it."""
    if channel == DRUMS:
        return
    key = channel << 7 | pitch
    note = down[key]
    if velocity:
        if note < 0:
            owed[key] = False
        else:
            owed[key] = owed[key] or notes[note, 0] >> EVENT_BITS < moment >> EVENT_BITS
            notes[note, 1] = moment
        note = counts[NOTES]
        notes[note, 0], notes[note, 1] = moment, moment
        notes[note, 2], notes[note, 3], notes[note, 4] = channel, pitch, velocity
        counts[NOTES] += 1
        down[key] = note
    elif note >= 0 and owed[key] and notes[note, 0] >> EVENT_BITS == moment >> EVENT_BITS:
        # Struck before it was released, at one tick: files are not particular about the order.
        owed[key] = False
    elif note >= 0:
        notes[note, 1] = moment
        down[key] = -1
