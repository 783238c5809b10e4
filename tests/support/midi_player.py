"""Any legal MIDI file, and a player that says in exact fractions what sounds when it is played.

The player merges the tracks and goes from event to event, as an instrument does. It shares nothing
with the reader, which never goes through the events of a file in their order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from tests.support.midi import chunk, header, meta, number, sysex, tempo

DRUMS = 9
FRAMES = {24: Fraction(24), 25: Fraction(25), 29: Fraction(30_000, 1001), 30: Fraction(30)}


@dataclass
class File:
    """A file as it was written: of each track its events with their ticks, and when it ends."""

    tracks: list[list[tuple[int, Any]]]
    ends: list[int]
    division: int
    data: bytes


@dataclass
class Voice:
    """A note that was struck; the onset and the offset are ticks first, and seconds in the end."""

    channel: int
    pitch: int
    velocity: int
    onset: Any
    released: int | None = None
    offset: Any = None


@dataclass
class Player:
    """An instrument of sixteen channels."""

    voices: list[Voice] = field(default_factory=list)
    down: dict[tuple[int, int, int], Voice] = field(default_factory=dict)
    pedals: set[int] = field(default_factory=set)
    held: list[tuple[int, int, int]] = field(default_factory=list)
    """Channel, and the ticks from which and until which its pedal is down."""

    def strike(self, tick, track, channel, pitch, velocity):
        self.release(tick, track, channel, pitch)
        voice = Voice(channel, pitch, velocity, tick)
        self.voices.append(voice)
        self.down[track, channel, pitch] = voice

    def release(self, tick, track, channel, pitch):
        voice = self.down.pop((track, channel, pitch), None)
        if voice is not None:
            voice.released = tick
            if channel not in self.pedals and voice.offset is None:
                voice.offset = tick

    def release_all(self, tick, *, channel=None, track=None):
        for key in list(self.down):
            if channel in (None, key[1]) and track in (None, key[0]):
                self.release(tick, *key)

    def silence(self, tick, channel, *, also_down):
        for voice in self.voices:
            sounds = voice.channel == channel and voice.offset is None
            if sounds and (also_down or voice.released is not None):
                voice.offset = tick

    def control(self, tick, channel, number, value):
        if number == 64 and value >= 64 and channel not in self.pedals:
            self.pedals.add(channel)
            self.held.append((channel, tick, -1))
        elif (number == 64 and value < 64) or number == 121:
            self.lift(tick, channel)
        elif number == 120 or number >= 123:
            self.release_all(tick, channel=channel)
            if number == 120:
                self.silence(tick, channel, also_down=True)

    def lift(self, tick, channel):
        if channel in self.pedals:
            self.pedals.remove(channel)
            self.silence(tick, channel, also_down=False)
            self.held = [
                (one, begin, tick if one == channel and end < 0 else end)
                for one, begin, end in self.held
            ]


def played(file: File) -> tuple[list[Voice], Fraction]:
    """Return the notes that sound, in seconds, and the share of the time with pedal."""
    merged = [
        (tick, track, place, event)
        for track, timed in enumerate(file.tracks)
        for place, (tick, event) in enumerate([*_in_order(timed), (file.ends[track], ("end",))])
    ]
    player, tempi = Player(), [(0, 500_000)]
    for tick, track, _, event in sorted(merged, key=lambda one: one[:3]):
        match event:
            case ("on", channel, pitch, velocity) if channel != DRUMS:
                player.strike(tick, track, channel, pitch, velocity)
            case ("off", channel, pitch, *_):
                player.release(tick, track, channel, pitch)
            case ("control", channel, number, value):
                player.control(tick, channel, number, value)
            case ("tempo", microseconds):
                tempi.append((tick, microseconds))
            case ("end",):
                player.release_all(tick, track=track)
    for channel in list(player.pedals):
        player.lift(max(file.ends), channel)
    notes = _cut_by_the_next([v for v in player.voices if 21 <= v.pitch <= 108], file, tempi)
    channels = {voice.channel for voice in player.voices}
    spans = [
        (_seconds(begin, file, tempi), _seconds(end, file, tempi))
        for channel, begin, end in player.held
        if channel in channels
    ]
    return notes, _share(notes, spans)


def _in_order(timed):
    """Return the events of a track; what releases an older note comes before what strikes anew."""
    result, down = [], {}
    for tick, event in timed:
        key = event[1:3]
        if event[0] == "on":
            down.setdefault(key, tick)
            result.append((tick, event))
        elif event[0] == "off" and down.get(key, tick) < tick:
            strikes = [n for n, one in enumerate(result) if one[0] == tick and one[1][0] == "on"]
            again = [n for n in strikes if result[n][1][1:3] == key]
            result.insert(again[0] if again else len(result), (tick, event))
            del down[key]
            if again:
                down[key] = tick
        else:
            down.pop(key, None)
            result.append((tick, event))
    return result


def _cut_by_the_next(voices, file, tempi):
    lasting = [voice for voice in voices if voice.released > voice.onset]
    for voice in lasting:
        voice.onset = _seconds(voice.onset, file, tempi)
        voice.offset = _seconds(voice.offset, file, tempi)
    lasting.sort(key=lambda one: (one.onset, one.pitch, one.offset, one.velocity))
    for place, voice in enumerate(lasting):
        later = [one.onset for one in lasting[place + 1 :] if one.pitch == voice.pitch]
        voice.offset = min(voice.offset, *later[:1]) if later else voice.offset
    return [voice for voice in lasting if voice.offset > voice.onset]


def _seconds(tick, file, tempi):
    if file.division >= 0x8000:
        return tick / FRAMES[0x100 - (file.division >> 8)] / (file.division & 0xFF)
    total = Fraction(0)
    tempi = sorted(tempi, key=lambda one: one[0])
    for (begin, microseconds), (end, _) in zip(tempi, [*tempi[1:], (tick, 0)], strict=True):
        total += max(0, min(end, tick) - begin) * Fraction(microseconds, 10**6 * file.division)
    return total


def _share(notes, spans):
    if not notes:
        return Fraction(0)
    begin, end = notes[0].onset, max(note.offset for note in notes)
    places = sorted({begin, end, *(min(max(x, begin), end) for span in spans for x in span)})
    total = sum(
        later - place
        for place, later in pairwise(places)
        if any(down <= place and later <= up for down, up in spans)
    )
    return Fraction(total) / (end - begin)


CHANNELS, PITCHES = st.sampled_from([0, 0, 0, 1, DRUMS]), st.sampled_from([60, 60, 60, 64, 20, 109])
VALUES = st.integers(0, 127)
DELTAS = st.sampled_from([0, 0, 1, 1, 2, 3, 127, 128, 500, 20_000, 3_000_000])
EVENTS = st.one_of(
    st.tuples(st.just("on"), CHANNELS, PITCHES, st.integers(1, 127)),
    st.tuples(st.just("off"), CHANNELS, PITCHES, st.booleans()),
    st.tuples(st.just("on"), CHANNELS, PITCHES, st.integers(1, 127)),
    st.tuples(st.just("control"), CHANNELS, st.just(64), st.sampled_from([0, 63, 64, 127])),
    st.tuples(st.just("control"), CHANNELS, st.integers(120, 127), VALUES),
    st.tuples(st.just("control"), CHANNELS, st.sampled_from([1, 7, 63, 65, 119]), VALUES),
    st.tuples(st.just("tempo"), st.integers(1, 2**24 - 1)),
    st.tuples(st.just("two"), st.sampled_from([0xA0, 0xE5]), VALUES, VALUES),
    st.tuples(st.just("one"), st.sampled_from([0xC0, 0xD3]), VALUES),
    st.tuples(st.just("sysex"), st.sampled_from([0xF0, 0xF7]), st.binary(max_size=200)),
    st.tuples(st.just("meta"), st.sampled_from([0, 1, 3, 32, 84, 88, 89, 127]), st.binary()),
)
DIVISIONS = st.one_of(
    st.sampled_from([1, 24, 480, 0x7FFF]),
    st.builds(lambda f, t: 0x100 - f << 8 | t, st.sampled_from([*FRAMES]), st.integers(1, 255)),
)


@st.composite
def files(draw: Any) -> File:
    """Draw a legal file."""
    tracks, ends, chunks = [], [], []
    for _ in range(draw(st.integers(1, 3))):
        timed, tick = [], 0
        for delta, event in draw(st.lists(st.tuples(DELTAS, EVENTS), max_size=25)):
            tick += delta
            timed.append((tick, event))
        tracks.append(timed)
        ends.append(tick + draw(DELTAS))
        if draw(st.integers(0, 4)) == 0:
            chunks.append(chunk(b"XFIH", draw(st.binary(max_size=20))))
        chunks.append(chunk(b"MTrk", _written(timed, ends[-1], running=draw(st.booleans()))))
    division = draw(DIVISIONS)
    kind = draw(st.sampled_from([0, 1])) if len(tracks) == 1 else 1
    data = header(len(tracks), kind=kind, division=division) + b"".join(chunks)
    return File(tracks, ends, division, data)


def _written(timed, end, *, running):
    data, now, status = b"", 0, 0
    for tick, event in timed:
        message = _message(event)
        data += number(tick - now)
        now = tick
        data += message[1:] if running and message[0] == status else message
        # Metas and system exclusives end a running status.
        status = message[0] if message[0] < 0xF0 else 0
    return data + number(end - now) + meta(0x2F)


def _message(event):
    match event:
        case ("on", channel, pitch, velocity):
            return bytes([0x90 | channel, pitch, velocity])
        case ("off", channel, pitch, as_velocity_0):
            return bytes([(0x90 if as_velocity_0 else 0x80) | channel, pitch, 0])
        case ("control", channel, *values):
            return bytes([0xB0 | channel, *values])
        case ("tempo", microseconds):
            return tempo(microseconds)
        case ("sysex", first, content):
            return sysex(content, first=first)
        case ("meta", kind, content):
            return meta(kind, content)
    return bytes(event[1:])
