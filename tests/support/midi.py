"""MIDI files, written byte by byte as the specification has them."""

from __future__ import annotations

TICKS_PER_SECOND = 960
"""With the default tempo and 480 ticks a quarter."""


def number(value: int) -> bytes:
    """Return a number of seven bits a byte."""
    return (number(value >> 7)[:-1] + bytes([value >> 7 & 127 | 128]) if value > 127 else b"") + (
        bytes([value & 127])
    )


def on(pitch: int, velocity: int = 80, *, channel: int = 0) -> bytes:
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch: int, *, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 64])


def control(number: int, value: int, *, channel: int = 0) -> bytes:
    return bytes([0xB0 | channel, number, value])


def pedal(value: int, *, channel: int = 0) -> bytes:
    return control(64, value, channel=channel)


def meta(kind: int, data: bytes = b"") -> bytes:
    return bytes([0xFF, kind]) + number(len(data)) + data


def tempo(microseconds: int) -> bytes:
    return meta(0x51, microseconds.to_bytes(3, "big"))


def sysex(data: bytes, *, first: int = 0xF0) -> bytes:
    """Return a system exclusive or, with 0xF7 first, a packet that continues one, or an escape."""
    return bytes([first]) + number(len(data)) + data


def chunk(name: bytes, data: bytes, *, length: int | None = None) -> bytes:
    return name + (len(data) if length is None else length).to_bytes(4, "big") + data


def events(*timed: tuple[int, bytes], end: int | None = None) -> bytes:
    """Return the events of a track, given with their ticks; its end is at `end`, if any."""
    data, now = b"", 0
    for tick, message in sorted(timed, key=lambda one: one[0]):
        data += number(tick - now) + message
        now = tick
    return data if end is None else data + number(max(0, end - now)) + meta(0x2F)


def track(*timed: tuple[int, bytes], end: int = 0, length: int | None = None) -> bytes:
    """Return a track that ends at a tick, or with its last event where that is later."""
    return chunk(b"MTrk", events(*timed, end=end), length=length)


def header(count: int, *, kind: int = 1, division: int = 480, more: bytes = b"") -> bytes:
    numbers = b"".join(value.to_bytes(2, "big") for value in (kind, count, division))
    return chunk(b"MThd", numbers + more)


def midi(*tracks: bytes, division: int = 480, kind: int | None = None) -> bytes:
    """Return a MIDI file of whole tracks."""
    kind = int(len(tracks) > 1) if kind is None else kind
    return header(len(tracks), kind=kind, division=division) + b"".join(tracks)


def riff(*chunks: tuple[bytes, bytes], pad: bytes = b"\0") -> bytes:
    """Return a RIFF file of MIDI, of the chunks that are given."""
    data = b"RMID"
    for name, content in chunks:
        data += name + len(content).to_bytes(4, "little") + content + pad * (len(content) % 2)
    return b"RIFF" + len(data).to_bytes(4, "little") + data
