"""The events of a MIDI file become notes as they sound: seconds, and the sustain pedal folded in.

This module knows events and notes; it knows no bytes. It loads Numba when it is imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.music.midi_events import Events
from deep_piano.music.midi_kernels import EVENT_BITS, SUSTAIN
from deep_piano.music.notes import NOTE, Notes, fold_pedal, make_notes, pedal_share

_SOUND_OFF, _RESET, _NOTES_OFF = 120, 121, 123
"""Channel modes. 124 to 127 choose one, and turn all notes off as 123 does."""
_DOWN = 64

Moments = NDArray[np.int64]


def as_they_sound(events: Events) -> tuple[Notes, float]:
    """Return the notes of a MIDI file as they sound, and the share of the time with pedal.

    A channel's pedal and modes are its own over the whole file, whatever tracks they are in. At
    one tick, what comes first in the file comes first.

    Returns
    -------
    notes : ndarray, dtype `NOTE`
    pedal : float
        0 to 1.
    """
    parts, pedal_down, pedal_up = [], [], []
    for channel in np.flatnonzero(np.bincount(events.notes[:, 2])):
        keys = events.notes[events.notes[:, 2] == channel]
        controls = events.controls[events.controls[:, 1] == channel]
        onset, released, _, pitch, velocity = np.ascontiguousarray(keys.T)
        moment, number = controls[:, 0], controls[:, 2]
        all_off = moment[(number == _SOUND_OFF) | (number >= _NOTES_OFF)]
        if len(all_off):
            released = np.minimum(released, _next(all_off, onset, events.end))
        down, up = _pedal(controls, events.end)
        ended = _held(released, down, up)
        sound_off = moment[number == _SOUND_OFF]
        if len(sound_off):
            ended = np.minimum(ended, _next(sound_off, onset, events.end))
        # A key that is released at once was brushed at most: players' pianos record such touches.
        lasting = np.flatnonzero(onset >> EVENT_BITS < released >> EVENT_BITS)
        order = lasting[
            _in_order(onset[lasting], pitch[lasting], ended[lasting], velocity[lasting])
        ]
        times = np.concatenate((onset[order], ended[order], down, up))
        begins = np.cumsum((len(order), len(order), len(down)))
        onset_s, ended_s, down_s, up_s = np.split(seconds(events, times), begins)
        parts.append(make_notes(onset_s, ended_s, pitch[order], velocity[order]))
        pedal_down.append(down_s)
        pedal_up.append(up_s)
    if not parts:
        return np.empty(0, NOTE), 0.0
    notes = parts[0]
    if len(parts) > 1:
        notes = np.concatenate(parts)
        columns = ("velocity", "offset", "pitch", "onset")
        notes = notes[np.lexsort([notes[name] for name in columns])]
    notes = fold_pedal(notes, [], [])  # a key struck again ends its note
    return notes, pedal_share(notes, np.concatenate(pedal_down), np.concatenate(pedal_up))


def _in_order(onset: Moments, pitch: Moments, ended: Moments, velocity: Moments) -> Moments:
    """Return the order of notes by tick and pitch.

    Of notes that begin together on a key, tracks doubling one another, the longest stays, and of
    those that end together the loudest: the last one.
    """
    begun = onset >> EVENT_BITS << 7 | pitch
    order = np.argsort(begun, kind="stable")
    doubled = np.any(np.diff(begun[order]) == 0)
    return np.lexsort((velocity, ended >> EVENT_BITS, begun)) if doubled else order


def seconds(events: Events, moments: Moments) -> NDArray[np.float64]:
    """Return moments in seconds."""
    ticks = moments >> EVENT_BITS
    if events.ticks_per_second:
        return ticks / events.ticks_per_second
    since, microseconds = events.tempi.T.astype("f8")
    # Microseconds times ticks a quarter: whole numbers, exact up to 2**53, rounded once.
    elapsed = np.concatenate(((0.0,), np.cumsum(np.diff(since) * microseconds[:-1])))
    tempo = np.searchsorted(since, ticks, side="right") - 1
    exact = elapsed[tempo] + (ticks - since[tempo]) * microseconds[tempo]
    return exact / (events.ticks_per_quarter * 1e6)


def _pedal(controls: Moments, end: int) -> tuple[Moments, Moments]:
    """Return when the sustain pedal of a channel goes down and comes up."""
    number = controls[:, 2]
    moves = controls[(number == SUSTAIN) | (number == _RESET)]
    down = (moves[:, 2] == SUSTAIN) & (moves[:, 3] >= _DOWN)
    changes = moves[down != np.concatenate(((False,), down[:-1])), 0] if len(moves) else moves[:, 0]
    if len(changes) % 2:  # never released
        changes = np.append(changes, end)
    return changes[::2], changes[1::2]


def _held(released: Moments, down: Moments, up: Moments) -> Moments:
    """Return when notes end whose keys are released, and which the pedal may hold."""
    if not len(down):
        return released
    last = np.searchsorted(down, released) - 1
    return np.where(last < 0, released, np.maximum(released, up[last]))


def _next(times: NDArray[Any], after: NDArray[Any], end: int) -> NDArray[Any]:
    """Return for each time the first of some others that is after it, `end` where none is."""
    return np.append(times, end)[np.searchsorted(times, after, side="right")]
