"""The note array, and MIDI files in and out.

A *note array* is a one-dimensional NumPy array of dtype `NOTE`, sorted by onset, then pitch.
This module knows MIDI files; it knows nothing of audio, codecs or models.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deep_piano.errors import MidiError, one_line
from deep_piano.infra.storage.atomic import atomic_path

NOTE = np.dtype([("onset", "f8"), ("offset", "f8"), ("pitch", "u1"), ("velocity", "u1")])
"""One note: onset and offset in seconds, pitch 21-108 (MIDI), velocity 1-127."""

Notes = NDArray[np.void]
LOWEST_PITCH, HIGHEST_PITCH = 21, 108
MIDI_SUFFIXES = frozenset({".mid", ".midi"})
MAX_MIDI_BYTES = 16 * 2**20

_TICKS_PER_QUARTER = 480  # at 120 quarters a minute: 960 ticks a second
_TICKS_PER_SECOND = 960


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

    Examples
    --------
    >>> make_notes([1.0, 0.0], [1.5, 2.0], [64, 60], [80, 70])["pitch"].tolist()
    [60, 64]
    """
    onset, offset = np.asarray(onset, "f8"), np.asarray(offset, "f8")
    pitch, velocity = np.asarray(pitch, "i8"), np.asarray(velocity, "i8")
    keep = (pitch >= LOWEST_PITCH) & (pitch <= HIGHEST_PITCH) & (offset > onset)
    notes = np.empty(int(keep.sum()), NOTE)
    notes["onset"], notes["offset"] = onset[keep], offset[keep]
    notes["pitch"], notes["velocity"] = pitch[keep], np.clip(velocity[keep], 1, 127)
    return notes[np.lexsort((notes["pitch"], notes["onset"]))]


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
    by_key = np.lexsort((notes["onset"], notes["pitch"]))
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
    return float(held.sum() / (end - begin))


def read_midi(source: Path | bytes) -> Notes:
    """Return the notes of a MIDI file as they sound; see `read_midi_and_pedal`."""
    return read_midi_and_pedal(source)[0]


def read_midi_and_pedal(source: Path | bytes) -> tuple[Notes, float]:
    """Read a MIDI file, all its tracks but the drums, with the sustain pedal folded in.

    Parameters
    ----------
    source : Path or bytes
        A Standard MIDI File, or its content.

    Returns
    -------
    notes : ndarray, dtype `NOTE`
        Empty when the file holds no note of the piano's range.
    pedal : float
        The share of the time that a sustain pedal is down.

    Raises
    ------
    MidiError
        When it is not a MIDI file, or is longer than 16 MiB.
    """
    from symusic import Score

    name = "the MIDI data" if isinstance(source, bytes) else one_line(source)
    length = len(source) if isinstance(source, bytes) else source.stat().st_size
    if length > MAX_MIDI_BYTES:
        raise MidiError(f"{name} has {length} bytes; a MIDI file may have {MAX_MIDI_BYTES}.")
    data = source if isinstance(source, bytes) else source.read_bytes()
    if not data.startswith(b"MThd"):
        raise MidiError(f"{name} is not a MIDI file: it does not begin with 'MThd'.")
    try:
        score = Score.from_midi(data, ttype="second")
    except Exception as error:  # symusic raises whatever its parser threw
        raise MidiError(f"{name} is a broken MIDI file: {error}") from error
    parts, pedal_down, pedal_up = [], [], []
    for track in score.tracks:
        if track.is_drum or not len(track.notes):
            continue
        columns = track.notes.numpy()
        # symusic keeps times as float32; rounding hides that (it writes 0.1 as 0.10000000149).
        onset = np.round(columns["time"].astype("f8"), 6)
        offset = np.round(onset + columns["duration"].astype("f8"), 6)
        pedals = track.pedals.numpy()
        down = pedals["time"].astype("f8")
        up = down + pedals["duration"].astype("f8")
        keys = make_notes(onset, offset, columns["pitch"], columns["velocity"])
        parts.append(fold_pedal(keys, down, up))
        pedal_down.append(down)
        pedal_up.append(up)
    if not parts:
        return np.empty(0, NOTE), 0.0
    notes = fold_pedal(np.sort(np.concatenate(parts), order=["onset", "pitch"]), [], [])
    return notes, pedal_share(notes, np.concatenate(pedal_down), np.concatenate(pedal_up))


def write_midi(path: Path, notes: Notes) -> None:
    """Write a note array as a one-track MIDI file (120 quarters a minute, 960 ticks a second).

    The file appears whole or not at all.
    """
    from symusic import Note, Score, Tempo, Track

    score = Score(_TICKS_PER_QUARTER)
    score.tempos.append(Tempo(0, qpm=120.0))
    track = Track(name="Piano", program=0)
    onset = np.rint(notes["onset"] * _TICKS_PER_SECOND).astype(int)
    offset = np.rint(notes["offset"] * _TICKS_PER_SECOND).astype(int)
    for start, end, note in zip(onset, offset, notes, strict=True):
        track.notes.append(
            Note(int(start), max(1, int(end - start)), int(note["pitch"]), int(note["velocity"]))
        )
    score.tracks.append(track)
    with atomic_path(path) as temporary:
        score.dump_midi(temporary)


def excerpt(notes: Notes, start_s: float, end_s: float) -> Notes:
    """Return the notes that begin in [start_s, end_s), with start_s as their new zero."""
    cut = notes[(notes["onset"] >= start_s) & (notes["onset"] < end_s)].copy()
    cut["onset"] -= start_s
    cut["offset"] -= start_s
    return cut
