"""The note array.

A *note array* is a one-dimensional NumPy array of dtype `NOTE`, sorted by onset, then pitch.
This module knows nothing of files, audio, codecs or models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deep_piano.errors import InputError

NOTE = np.dtype([("onset", "f8"), ("offset", "f8"), ("pitch", "u1"), ("velocity", "u1")])
"""One note: onset and offset in seconds, pitch 21-108 (MIDI), velocity 1-127."""

Notes = NDArray[np.void]
LOWEST_PITCH, HIGHEST_PITCH = 21, 108


def make_notes(onset: ArrayLike, offset: ArrayLike, pitch: ArrayLike, velocity: ArrayLike) -> Notes:
    """Build a note array from its columns.

    Notes that the piano has no key for, or that do not last, are left out.

    Parameters
    ----------
    onset, offset : array_like, shape (n,)
        Seconds.
    pitch, velocity : array_like, shape (n,)
        MIDI numbers; velocity is clipped to 1-127.

    Returns
    -------
    ndarray, shape (m,), dtype `NOTE`
        Sorted by onset, then pitch; m <= n.

    Raises
    ------
    InputError
        When the columns are not equally long.

    Examples
    --------
    >>> make_notes([1.0, 0.0], [1.5, 2.0], [64, 60], [80, 70])["pitch"].tolist()
    [60, 64]
    """
    onset, offset = np.asarray(onset, "f8"), np.asarray(offset, "f8")
    pitch, velocity = np.asarray(pitch, "i8"), np.asarray(velocity, "i8")
    if not onset.shape == offset.shape == pitch.shape == velocity.shape == (onset.size,):
        raise InputError(
            "notes need an onset, an offset, a pitch and a velocity each. Received: arrays of the "
            f"shapes {onset.shape}, {offset.shape}, {pitch.shape} and {velocity.shape}."
        )
    order = np.flatnonzero((pitch >= LOWEST_PITCH) & (pitch <= HIGHEST_PITCH) & (offset > onset))
    at, key = onset[order], pitch[order]
    if not np.all((at[1:] > at[:-1]) | ((at[1:] == at[:-1]) & (key[1:] >= key[:-1]))):
        order = order[np.lexsort((key, at))]  # which takes ten times as long as to look
    notes = np.empty(len(order), NOTE)
    notes["onset"], notes["offset"] = onset[order], offset[order]
    notes["pitch"], notes["velocity"] = pitch[order], np.clip(velocity[order], 1, 127)
    return notes


def fold_pedal(notes: Notes, pedal_down_s: ArrayLike, pedal_up_s: ArrayLike) -> Notes:
    """Fold the sustain pedal into the offsets.

    A note sounds until its key and the pedal are both up, or until its key is struck again.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`
        Key presses.
    pedal_down_s, pedal_up_s : array_like, shape (k,)
        When the pedal goes down and comes up, in seconds, ascending and not overlapping.

    Returns
    -------
    ndarray, dtype `NOTE`
        A copy, without notes of the same pitch that overlap.
    """
    down, up = np.asarray(pedal_down_s, "f8"), np.asarray(pedal_up_s, "f8")
    offset = notes["offset"].copy()
    if down.size:
        last = np.searchsorted(down, offset, side="right") - 1
        held = (last >= 0) & (offset < up[last])
        offset[held] = up[last[held]]
    by_key = np.argsort(notes["pitch"], kind="stable")
    same_key = notes["pitch"][by_key][1:] == notes["pitch"][by_key][:-1]
    struck_again = np.full(len(notes), np.inf)
    struck_again[by_key[:-1][same_key]] = notes["onset"][by_key[1:][same_key]]
    return make_notes(
        notes["onset"], np.minimum(offset, struck_again), notes["pitch"], notes["velocity"]
    )


def pedal_share(notes: Notes, pedal_down_s: ArrayLike, pedal_up_s: ArrayLike) -> float:
    """Return the share of the time, first onset to last offset, with the sustain pedal down.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`
    pedal_down_s, pedal_up_s : array_like, shape (k,)
        When the pedal goes down and comes up, in seconds; several pedals may overlap.

    Returns
    -------
    float
        0 to 1; 0 without notes.
    """
    if not len(notes):
        return 0.0
    begin, end = float(notes["onset"].min()), float(notes["offset"].max())
    down = np.clip(np.asarray(pedal_down_s, "f8"), begin, end)
    up = np.clip(np.asarray(pedal_up_s, "f8"), begin, end)
    order = np.argsort(down, kind="stable")
    # What of each stretch lies behind everything before it.
    before = np.maximum.accumulate(np.r_[begin, up[order]])[:-1]
    held = np.maximum(0, up[order] - np.maximum(down[order], before))
    return min(1.0, float(held.sum() / (end - begin)))  # a sum of parts may be rounded up


def excerpt(notes: Notes, start_s: float, end_s: float) -> Notes:
    """Return the notes that begin in [start_s, end_s), with start_s as their new zero."""
    cut = notes[(notes["onset"] >= start_s) & (notes["onset"] < end_s)].copy()
    cut["onset"] -= start_s
    cut["offset"] -= start_s
    return cut
