"""The bytes of a Standard MIDI File: its chunks, and the events of its tracks, in ticks.

Follows "Standard MIDI Files 1.0" (MIDI Manufacturers Association, RP-001) and, for the RIFF
around it, RP-029. Files that depart from them a little are read, and how they do is noted. This
module knows bytes and ticks; it knows neither files nor seconds. It loads Numba when imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.errors import MidiError
from deep_piano.music.midi_kernels import (
    CONTROL_COLUMNS,
    CONTROLS,
    EVENT_BITS,
    EVENTS,
    NOTE_COLUMNS,
    NOTES,
    ODD,
    TEMPI,
    TEMPO_COLUMNS,
    read_track,
)

_MOST_TRACKS: Final = 0xFFFF
_DEFAULT_TEMPO: Final = 500_000
_FRAMES_PER_SECOND: Final = {24: 24.0, 25: 25.0, 29: 30_000 / 1001, 30: 30.0}
_SMALL_LOSS = 16
"""Bytes that any track may lack at its end; a long one may lack a tenth."""
_MOST_TICKS: Final = 1 << 39  # so that moments are numbers of 63 bits


@dataclass
class Events:
    """What a MIDI file holds.

    Attributes
    ----------
    notes : ndarray of int64, shape (n, 5)
        The moments of onset and offset, channel, pitch, velocity: the keys, without the pedal.
        Track after track; drums are left out. A moment shifted right by `EVENT_BITS` is a tick.
    controls : ndarray of int64, shape (n, 4)
        Moment, channel, number, value of the sustain pedal and the channel modes, by moments.
    tempi : ndarray of int64, shape (n, 2)
        Tick, and the microseconds a quarter from it on; ascending, the first at 0.
    end : int
        The moment at which the last track ends.
    complaints : list of str
        How the file departs from the standard.
    ticks_per_quarter, ticks_per_second : int, float
        One of them is 0: time is measured in quarters, or in seconds.
    """

    notes: NDArray[np.int64]
    controls: NDArray[np.int64]
    tempi: NDArray[np.int64]
    end: int
    complaints: list[str]
    ticks_per_quarter: int = 0
    ticks_per_second: float = 0.0


def read_events(data: bytes) -> Events:
    """Read the events of a MIDI file.

    Parameters
    ----------
    data : bytes
        It begins as MIDI, or RIFF, files do.

    Raises
    ------
    MidiError
        When it is broken; the message is meant to follow the file's name.
    """
    complaints: list[str] = []
    if data.startswith(b"RIFF"):
        data = _unwrapped(data, complaints)
    if len(data) < 14:
        raise MidiError(f"is a broken MIDI file: its header has {len(data)} of 14 bytes.")
    header, kind, count, division = (
        int.from_bytes(data[a:b], "big") for a, b in ((4, 8), (8, 10), (10, 12), (12, 14))
    )
    if header != 6:
        complaints.append(f"its header has {_count(header, 'byte')}, not 6")
    per_quarter, per_second = _division(division)
    events = _Tracks(data, complaints).read(
        8 + header if data[8 + header : 12 + header] == b"MTrk" else 14,
        count=count,
        one_after_another=kind == 2,
    )
    events.ticks_per_quarter, events.ticks_per_second = per_quarter, per_second
    if per_quarter and not events.tempi[:, 1].all():
        raise MidiError(
            "cannot be timed: it has a tempo of 0 microseconds a quarter. Set its tempo, and "
            "export it again."
        )
    return events


def _unwrapped(data: bytes, complaints: list[str]) -> bytes:
    """Return the MIDI file in a RIFF file."""
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        inner = data[at + 8 : at + 8 + length]
        if data[at : at + 4] == b"data" and inner.startswith(b"MThd"):
            if len(inner) < length:
                complaints.append(f"its RIFF says {_count(length, 'byte')} and has {len(inner)}")
            return inner
        at += 8 + length + length % 2
    begin = data.find(b"MThd", 12)
    if begin < 0:
        raise MidiError("is a broken MIDI file: its RIFF holds no 'MThd'.")
    complaints.append("the lengths of its RIFF chunks are wrong")
    return data[begin:]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _division(division: int) -> tuple[int, float]:
    """Return the ticks a quarter, or those a second; the other one is 0."""
    if division < 0x8000:
        if not division:
            raise MidiError("cannot be timed: it has 0 ticks a quarter. Export it again.")
        return division, 0.0
    frames, ticks = 0x100 - (division >> 8), division & 0xFF
    if frames not in _FRAMES_PER_SECOND or not ticks:
        raise MidiError(
            f"cannot be timed: it has {ticks} ticks a frame and {frames} frames a second; there "
            "are 24, 25, 29 (29.97) and 30. Export it again."
        )
    return 0, _FRAMES_PER_SECOND[frames] * ticks


class _Tracks:
    """The tracks of a file, one read after the other."""

    def __init__(self, data: bytes, complaints: list[str]) -> None:
        self._data, self._complaints = data, complaints
        self._bytes = np.frombuffer(data, np.uint8)
        # An event takes three bytes or more, a tempo seven.
        most = len(data) // 3 + 1
        self._notes = np.empty((most, NOTE_COLUMNS), np.int64)
        self._controls = np.empty((most, CONTROL_COLUMNS), np.int64)
        self._tempi = np.empty((most // 2 + 2, TEMPO_COLUMNS), np.int64)
        self._counts = np.zeros(5, np.int64)

    def read(self, at: int, *, count: int, one_after_another: bool) -> Events:
        """Read the tracks from a place on; the header says that there are `count`."""
        begin = end = number = 0
        while number < _MOST_TRACKS and (start := self._next(at, number + 1)) >= 0:
            number += 1
            if begin:
                self._add_tempo(begin)
            at, tick = self._track(start, number, begin)
            end = max(end, tick)
            begin = end if one_after_another else 0
        if not number:
            raise MidiError("is a broken MIDI file: it holds no track.")
        if number != count:
            self._complaints.append(f"its header says {_count(count, 'track')} and it has {number}")
        if one_after_another and number > 1:
            self._complaints.append("its tracks are patterns (format 2), read one after another")
        if end >= _MOST_TICKS:
            raise MidiError(f"cannot be timed: it lasts {end} ticks. Export it again.")
        counts = self._counts
        if counts[ODD]:
            self._complaints.append(f"{_count(counts[ODD], 'event')} against the specification")
        if counts[ODD] > 1 + counts[EVENTS] // 4:
            raise MidiError(
                f"is a broken MIDI file: {counts[ODD]} of its {counts[EVENTS]} events are against "
                "the specification."
            )
        controls, tempi = self._controls[: counts[CONTROLS]], self._tempi[: counts[TEMPI]]
        return Events(
            self._notes[: counts[NOTES]],
            controls[np.argsort(controls[:, 0], kind="stable")],
            np.r_[[(0, _DEFAULT_TEMPO)], tempi[np.argsort(tempi[:, 0], kind="stable")]],
            (end + 1 << EVENT_BITS) - 1,
            self._complaints,
        )

    def _add_tempo(self, tick: int) -> None:
        """Let a pattern begin at the tempo of a file that sets none."""
        self._tempi[self._counts[TEMPI]] = tick, _DEFAULT_TEMPO
        self._counts[TEMPI] += 1

    def _next(self, at: int, number: int) -> int:
        """Return where the next track begins, at a place or behind it; -1: there is none."""
        data, place = self._data, at
        while self._is_chunk(place) and data[place : place + 4] not in (b"MTrk", b"MThd"):
            place += 8 + int.from_bytes(data[place + 4 : place + 8], "big")
        if data[place : place + 4] == b"MTrk" and place + 8 <= len(data):
            return place
        if place >= len(data):
            return -1
        found = data.find(b"MTrk", place)
        another = data.find(b"MThd", place, max(found, 0)) >= 0  # file, one behind the other
        if found < 0 or another or found + 8 > len(data):
            left = _count(len(data) - place, "byte")
            self._complaints.append(f"{left} behind its last track left out")
            return -1
        self._complaints.append(f"{_count(found - place, 'stray byte')} before its track {number}")
        return found

    def _is_chunk(self, at: int) -> bool:
        """Say whether a chunk of some kind begins at a place, and is whole."""
        name, length = self._data[at : at + 4], self._data[at + 4 : at + 8]
        whole = at + 8 + int.from_bytes(length, "big") <= len(self._data)
        return len(length) == 4 and name.replace(b" ", b"").isalnum() and whole

    def _track(self, start: int, number: int, begin: int) -> tuple[int, int]:
        """Read the track at a place; return the place behind it, and the tick at which it ends."""
        data, first = self._data, start + 8
        length = int.from_bytes(data[start + 4 : first], "big")
        said = first + length
        # Where a track's length leads to no other chunk it is wrong, and events go on until their
        # end; but never into the next track.
        credible = said == len(data) or self._is_chunk(said) or data[said : said + 4] == b"MTrk"
        limit = said if credible else data.find(b"MTrk", first)
        limit = len(data) if limit < 0 else limit
        at, tick, ended = read_track(
            *(self._bytes, first, limit, begin),
            *(self._notes, self._controls, self._tempi, self._counts),
        )
        if not ended:
            lost = max(said, limit) - at
            if lost > max(_SMALL_LOSS, length // 10):
                raise MidiError(
                    f"is a broken MIDI file: of the {length} bytes of its track {number}, those "
                    f"from {at - first} on cannot be read."
                )
            how = f"breaks off {_count(lost, 'byte')} before its end" if lost else "has no end"
            self._complaints.append(f"its track {number} {how}")
            return limit, tick
        if not credible and at != said:
            self._complaints.append(
                f"its track {number} says {_count(length, 'byte')} and has {at - first}"
            )
            return at, tick
        return said, tick
