"""MIDI files in and out.

This module knows files; `midi_events` knows their bytes, and `midi_notes` what sounds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from deep_piano.errors import MidiError, one_line
from deep_piano.infra.storage.atomic import atomic_path
from deep_piano.music.notes import Notes, fold_pedal, make_notes
from deep_piano.music.recordings import is_midi

logger = logging.getLogger(__name__)

MAX_MIDI_BYTES: Final = 16 * 2**20
NOTE_OFF, NOTE_ON, CONTROL, PROGRAM = 0x80, 0x90, 0xB0, 0xC0
TRACK_NAME, MARKER = 0x03, 0x06

Message = tuple[int, bytes]
"""When, in ticks from the beginning, and what: a status byte and its data."""

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
    track = [tempo(0, 500_000), text(0, TRACK_NAME, "Piano"), (0, bytes((PROGRAM, 0)))]
    write_tracks(path, [[*track, *presses(keys)]], ticks_per_quarter=_TICKS_PER_QUARTER)


def presses(keys: Notes, *, channel: int = 0) -> list[Message]:
    """Return the messages of keys whose times are in ticks, in order.

    At one tick, keys are released before others are struck.
    """
    struck = [
        (round(key[at]), status, n)
        for n, key in enumerate(keys)
        for at, status in (("onset", NOTE_ON), ("offset", NOTE_OFF))
    ]
    data = keys[["pitch", "velocity"]].tolist()
    return [(tick, bytes((status | channel, *data[n]))) for tick, status, n in sorted(struck)]


def tempo(tick: int, us: int) -> Message:
    """Return the message that a quarter lasts so many microseconds from here on."""
    return tick, b"\xff\x51\3" + us.to_bytes(3, "big")


def text(tick: int, kind: int, words: str) -> Message:
    """Return a text, such as a `MARKER`."""
    encoded = words.encode()
    return tick, bytes((0xFF, kind)) + _number(len(encoded)) + encoded


def write_tracks(
    path: Path, tracks: Sequence[Sequence[Message]], *, ticks_per_quarter: int
) -> None:
    """Write a MIDI file (Standard MIDI Files 1.0, format 1), whole or not at all.

    Parameters
    ----------
    path : Path
    tracks : sequence of sequence of Message
        Those of one tick stay in their order.
    ticks_per_quarter : int
    """
    data = b"MThd\0\0\0\6\0\1" + len(tracks).to_bytes(2, "big")
    data += ticks_per_quarter.to_bytes(2, "big")
    for messages in tracks:
        track = bytearray()
        now, running = 0, 0
        for tick, message in sorted(messages, key=lambda one: one[0]):
            track += _number(tick - now)
            # A status that is the same as before is left out, but for those beyond channels.
            track += message[1:] if message[0] == running else message
            now, running = tick, message[0] if message[0] < 0xF0 else 0
        track += b"\1\xff\x2f\0"
        data += b"MTrk" + len(track).to_bytes(4, "big") + track
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _number(value: int) -> bytes:
    """Return a number as MIDI files have it: seven bits a byte, the last one below 128."""
    if value < 0:
        raise ValueError(f"a MIDI file holds no negative number: {value}")
    digits = [value & 127]
    while value := value >> 7:
        digits.append(value & 127 | 128)
    return bytes(reversed(digits))
