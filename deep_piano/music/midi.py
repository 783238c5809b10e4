"""MIDI files in and out.

This module knows files; `midi_events` knows their bytes, and `midi_notes` what sounds.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import numpy as np

from deep_piano.errors import MidiError, one_line
from deep_piano.infra.storage.atomic import atomic_path
from deep_piano.music.notes import Notes, fold_pedal, make_notes
from deep_piano.music.recordings import is_midi

logger = logging.getLogger(__name__)

MAX_MIDI_BYTES: Final = 16 * 2**20

_TICKS_PER_QUARTER = 480  # at 120 quarters a minute: 960 ticks a second
_TICKS_PER_SECOND = 960
_TOLD = 3


def holds_midi(path: Path, name: str = "") -> bool:
    """Tell whether a file is to be read as MIDI.

    Its first bytes tell, whatever its name. Where its name says MIDI and its bytes do not, it is
    MIDI too, for `read_midi` to refuse.

    Parameters
    ----------
    path : Path
        It need not exist.
    name : str, optional
        Of the file, where `path` is but a copy of it.
    """
    return is_midi(name or path.name) or begins_as_midi(path)


def begins_as_midi(path: Path) -> bool:
    """Tell by its first bytes whether a file is MIDI, by itself or in a RIFF file."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return _is_midi(file.read(12))
    except OSError:  # whoever reads it says what is wrong
        return False


def _is_midi(data: bytes) -> bool:
    return data.startswith(b"MThd") or (data.startswith(b"RIFF") and data[8:12] == b"RMID")


def read_midi(source: Path | bytes) -> Notes:
    """Return the notes of a MIDI file as they sound; see `read_midi_and_pedal`."""
    return read_midi_and_pedal(source)[0]


def read_midi_and_pedal(source: Path | bytes) -> tuple[Notes, float]:
    """Read a MIDI file, all its tracks but the drums, with the sustain pedal folded in.

    The pedal is its channel's, in whatever tracks and programs the notes are. What departs from
    the standard a little is read, with a warning.

    Parameters
    ----------
    source : Path or bytes
        A Standard MIDI File, by itself or in a RIFF file, or its content.

    Returns
    -------
    notes : ndarray, dtype `NOTE`
        Empty when the file holds no note of the piano's range.
    pedal : float
        The share of the time that a sustain pedal is down.

    Raises
    ------
    MidiError
        When it is not a MIDI file, is broken, cannot be timed, or is longer than 16 MiB.
    """
    name = "the MIDI data" if isinstance(source, bytes) else one_line(source)
    length = len(source) if isinstance(source, bytes) else source.stat().st_size
    if length > MAX_MIDI_BYTES:
        raise MidiError(f"{name} has {length} bytes; a MIDI file may have {MAX_MIDI_BYTES}.")
    data = source if isinstance(source, bytes) else source.read_bytes()
    if not _is_midi(data):
        raise MidiError(f"{name} is not a MIDI file: it does not begin with 'MThd'.")
    from deep_piano.music import midi_events, midi_notes  # they load Numba

    try:
        events = midi_events.read_events(data)
    except MidiError as error:
        raise MidiError(f"{name} {error}") from None
    if events.complaints:
        what = "; ".join(events.complaints[:_TOLD])
        more = len(events.complaints) - _TOLD
        what += f"; and {more} more" * (more > 0)
        logger.warning("%s is damaged, what can be read is used: %s", name, what)
    return midi_notes.as_they_sound(events)


def write_midi(path: Path, notes: Notes) -> None:
    """Write a note array as a one-track MIDI file (120 quarters a minute, 960 ticks a second).

    A key that is struck again is released first. The file appears whole or not at all.
    """
    onset, offset = (np.rint(notes[at] * _TICKS_PER_SECOND) for at in ("onset", "offset"))
    offset = np.maximum(offset, onset + 1)
    keys = fold_pedal(make_notes(onset, offset, notes["pitch"], notes["velocity"]), [], [])
    # At one tick, keys are released before others are struck.
    messages = [(round(off), 0x80, n) for n, off in enumerate(keys["offset"])]
    messages += [(round(on), 0x90, n) for n, on in enumerate(keys["onset"])]
    data = keys[["pitch", "velocity"]].tolist()
    track = bytearray(b"\0\xff\x51\3\7\xa1\x20\0\xff\3\5Piano\0\xc0\0")
    now, running = 0, 0
    for tick, status, n in sorted(messages):
        track += _number(tick - now)
        track += bytes(data[n] if status == running else (status, *data[n]))
        now, running = tick, status
    track += b"\1\xff\x2f\0"
    header = b"MThd\0\0\0\6\0\1\0\1" + _TICKS_PER_QUARTER.to_bytes(2, "big")
    with atomic_path(path) as temporary:
        temporary.write_bytes(header + b"MTrk" + len(track).to_bytes(4, "big") + track)


def _number(value: int) -> bytes:
    """Return a number as MIDI files have it: seven bits a byte, the last one below 128."""
    digits = [value & 127]
    while value := value >> 7:
        digits.append(value & 127 | 128)
    return bytes(reversed(digits))
