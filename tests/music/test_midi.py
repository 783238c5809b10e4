"""MIDI files as people have them, written byte by byte; legal ones beside a player of our own."""

from __future__ import annotations

import logging
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano.errors import AudioError, MidiError
from deep_piano.music import audio
from deep_piano.music.midi import (
    MAX_MIDI_BYTES,
    holds_midi,
    read_midi,
    read_midi_and_pedal,
    write_midi,
)
from deep_piano.music.notes import NOTE, fold_pedal, make_notes
from tests.support.fakes import arpeggios
from tests.support.midi import (
    TICKS_PER_SECOND,
    chunk,
    control,
    events,
    header,
    meta,
    midi,
    number,
    off,
    on,
    pedal,
    riff,
    sysex,
    tempo,
    track,
)
from tests.support.midi_player import files, played

ONE = track((0, on(60)), (480, off(60)))
C, E = (0, 480, 60, 80), (0, 480, 64, 80)  # onset and offset in ticks, pitch, velocity
HANDS = (0, on(60)), (480, off(60)), (960, on(64)), (1440, off(64))

# What every legal file means: its bytes, its notes, and the share of the time with pedal.
LEGAL = {
    "one note": (midi(ONE), [C], 0),
    "format 0": (midi(ONE, kind=0), [C], 0),
    "running status": (
        midi(chunk(b"MTrk", b"\0\x90\x3c\x50\0\x40\x50\x83\x60\x3c\0\0\x40\0\0\xff\x2f\0")),
        [C, E],
        0,
    ),
    "velocity 0 releases": (midi(track((0, on(60)), (480, on(60, 0)))), [C], 0),
    "two tracks": (midi(ONE, track((0, on(64)), (480, off(64)))), [C, E], 0),
    "the longest delta": (
        midi(track((0, on(60)), (480, off(60)), (0x0FFFFFFF + 480, on(61)), end=0x0FFFFFFF + 960)),
        [C, (0x0FFFFFFF + 480, 0x0FFFFFFF + 960, 61, 80)],
        0,
    ),
    "tempo in the middle of a note": (
        midi(track((0, on(60)), (240, tempo(1_000_000)), (480, off(60)))),
        [(0, 720, 60, 80)],
        0,
    ),
    "tempo in another track": (
        midi(
            track((0, tempo(1_000_000)), (480, tempo(250_000))), track((0, on(60)), (960, off(60)))
        ),
        [(0, 1200, 60, 80)],
        0,
    ),
    "of two tempi at once the last": (
        midi(track((0, tempo(1)), (0, tempo(1_000_000)), (0, on(60)), (480, off(60)))),
        [(0, 960, 60, 80)],
        0,
    ),
    "pedal in a track of its own": (
        midi(track(*HANDS), track((0, pedal(127)), (1200, pedal(0)))),
        [(0, 1200, 60, 80), (960, 1440, 64, 80)],
        1200 / 1440,
    ),
    "pedal in the tempo track": (
        midi(track((0, tempo(500_000)), (240, pedal(127)), (1200, pedal(0))), track(*HANDS)),
        [(0, 1200, 60, 80), (960, 1440, 64, 80)],
        960 / 1440,
    ),
    "pedal in the other hand's track": (
        midi(
            track((0, on(60)), (480, off(60))),
            track((0, on(64)), (0, pedal(127)), (480, off(64)), (960, pedal(0))),
        ),
        [(0, 960, 60, 80), (0, 960, 64, 80)],
        1,
    ),
    "pedal across programs": (
        midi(track(*HANDS, (0, pedal(127)), (200, b"\xc0\1"), (700, b"\xc0\2"), (1200, pedal(0)))),
        [(0, 1200, 60, 80), (960, 1440, 64, 80)],
        1200 / 1440,
    ),
    "pedal never released": (
        midi(track(*HANDS), track((300, pedal(127))), track(end=2400)),
        [(0, 2400, 60, 80), (960, 2400, 64, 80)],
        2100 / 2400,
    ),
    "pedal released by a reset of controllers": (
        midi(track(*HANDS, (0, pedal(127)), (1200, control(121, 0)))),
        [(0, 1200, 60, 80), (960, 1440, 64, 80)],
        1200 / 1440,
    ),
    "half a pedal": (
        midi(track(*HANDS, (0, pedal(63)), (960, pedal(64)), (1500, pedal(63)))),
        [C, (960, 1500, 64, 80)],
        540 / 1500,
    ),
    "pedal of another channel": (
        midi(track(*HANDS, (0, pedal(127, channel=1)))),
        [C, (960, 1440, 64, 80)],
        0,
    ),
    "each channel its pedal": (
        midi(
            track((0, pedal(127)), (0, on(60)), (480, off(60)), (960, pedal(0))),
            track((0, on(64, channel=1)), (480, off(64, channel=1))),
        ),
        [(0, 960, 60, 80), E],
        1,
    ),
    "a key that is brushed, under the pedal": (
        midi(track((0, pedal(127)), (0, on(64)), (0, off(64)), (480, pedal(0))), ONE),
        [C],
        1,
    ),
    "released, then the pedal": (
        midi(track((0, on(60)), (480, off(60)), (480, pedal(127)), (960, pedal(0)))),
        [C],
        0,
    ),
    "the pedal, then released": (
        midi(track((0, on(60)), (480, pedal(127)), (480, off(60)), (960, pedal(0)))),
        [(0, 960, 60, 80)],
        0.5,
    ),
    "a key struck again takes the next release": (
        midi(track((0, on(60, 70)), (480, on(60, 90)), (720, off(60)), (960, off(60)))),
        [(0, 480, 60, 70), (480, 720, 60, 90)],
        0,
    ),
    "one lost release": (
        midi(track((0, on(60)), *[(480 * n, on(60)) for n in (1, 2)], (720, off(60)), end=2000)),
        [(0, 480, 60, 80), (480, 720, 60, 80), (960, 2000, 60, 80)],
        0,
    ),
    "no release at all": (
        midi(track((0, on(60)), (480, on(64)), end=960), track(end=5000)),
        [(0, 960, 60, 80), (480, 960, 64, 80)],
        0,
    ),
    "struck before it is released, at one tick": (
        midi(track((0, on(60)), (480, on(60)), (480, off(60)), (960, off(60)))),
        [C, (480, 960, 60, 80)],
        0,
    ),
    "hands that share a key": (
        midi(track((0, on(60)), (960, off(60))), track((480, on(60)), (1440, off(60)))),
        [C, (480, 1440, 60, 80)],
        0,
    ),
    "tracks that double one another": (
        midi(track((0, on(60, 50)), (480, off(60))), track((0, on(60, 99)), (240, off(60)))),
        [(0, 480, 60, 50)],
        0,
    ),
    "tracks that double one another, and end together": (
        midi(track((0, on(60, 99)), (480, off(60))), track((0, on(60, 50)), (480, off(60)))),
        [(0, 480, 60, 99)],
        0,
    ),
    "all notes off, from another track": (
        midi(track((0, on(60)), (960, on(60)), end=1920), track((480, control(123, 0)))),
        [C, (960, 1920, 60, 80)],
        0,
    ),
    "all notes off leaves them to the pedal": (
        midi(track((0, pedal(127)), (0, on(60)), (240, control(123, 0)), (480, pedal(0)))),
        [C],
        1,
    ),
    "all sound off ends them under the pedal": (
        midi(track((0, pedal(127)), (0, on(60)), (480, control(120, 0)), (960, pedal(0)))),
        [C],
        1,
    ),
    "a mode turns notes off": (
        midi(track((0, on(60)), (480, control(126, 1)), end=960)),
        [C],
        0,
    ),
    "local control does not": (
        midi(track((0, on(60)), (240, control(122, 0)), (480, off(60)))),
        [C],
        0,
    ),
    "an escape": (
        midi(track((0, on(60)), (480, sysex(b"\x43\x12\xf7", first=0xF7)), (480, off(60)))),
        [C],
        0,
    ),
    "a system exclusive in packets": (
        midi(
            track(
                (0, on(60)),
                (100, sysex(b"\x43\x12\x00")),
                (200, sysex(b"\x43" * 200, first=0xF7)),
                (300, sysex(b"\x00\xf7", first=0xF7)),
                (480, off(60)),
            )
        ),
        [C],
        0,
    ),
    "metas of all kinds": (
        midi(
            track(
                *[(10 * kind, meta(kind, b"MTrk" * kind)) for kind in (1, 3, 5, 33, 88, 127)],
                (0, on(60)),
                (480, off(60)),
            )
        ),
        [C],
        0,
    ),
    "messages of all kinds": (
        midi(
            track(
                *[(0, on(60)), (1, b"\xa0\x3c\x20"), (2, b"\xc0\5"), (3, b"\xd0\x20")],
                *[(4, b"\xe0\0\x50"), (5, control(7, 100)), (480, off(60))],
            )
        ),
        [C],
        0,
    ),
    "drums": (midi(track((0, on(60, channel=9)), end=480), ONE), [C], 0),
    "keys that no piano has": (midi(track((0, on(20)), (0, on(109)), end=480), ONE), [C], 0),
    "chunks of other kinds": (
        header(2)
        + chunk(b"XFIH", b"MTrk")
        + ONE
        + chunk(b"XFKM", b"\1\2\3")
        + ONE
        + chunk(b"a1  ", b""),
        [C],
        0,
    ),
    "RIFF": (riff((b"data", midi(ONE))), [C], 0),
    "RIFF with chunks before": (
        riff((b"LIST", b"INFOdata\4\0\0\0MThd"), (b"DISP", b"odd"), (b"data", midi(ONE))),
        [C],
        0,
    ),
    "RIFF with chunks behind": (riff((b"data", midi(ONE) + b""), (b"DLS ", b"MTrk" * 9)), [C], 0),
    "25 frames, whatever the tempo": (
        midi(track((0, tempo(0)), (0, on(60)), (500, off(60))), division=0xE728),
        [C],
        0,
    ),
    "24 frames": (midi(track((0, on(60)), (480, off(60))), division=0xE828), [C], 0),
    "30 frames": (midi(track((0, on(60)), (600, off(60))), division=0xE228), [C], 0),
    "29.97 frames": (
        midi(track((0, on(60)), (300_000, off(60))), division=0xE364),
        [(0, 100.1 * TICKS_PER_SECOND, 60, 80)],
        0,
    ),
    "no note": (midi(track(end=480)), [], 0),
}

BROKEN_OFF = events(*HANDS, end=1440)[:-1]
# Files that depart from the specification a little: bytes, notes, and what is said of them.
DAMAGED = {
    "the last byte is missing": (midi(ONE)[:-1], [C], "track 1 breaks off 4 bytes before its end"),
    "the end is missing": (
        midi(chunk(b"MTrk", events((0, on(60)), (480, off(60))))),
        [C],
        "its track 1 has no end",
    ),
    "the end is missing, and a track follows": (
        midi(chunk(b"MTrk", events((0, on(64)), (480, off(64)))), ONE),
        [C, E],
        "its track 1 has no end",
    ),
    "a track says too much": (
        midi(track(*HANDS[:2], length=19), track((0, on(64)), (480, off(64)))),
        [C, E],
        "its track 1 says 19 bytes and has 13",
    ),
    "a track says too little": (
        midi(track(*HANDS[:2], length=9), track((0, on(64)), (480, off(64)))),
        [C, E],
        "its track 1 says 9 bytes and has 13",
    ),
    "a track says nothing": (midi(track(*HANDS[:2], length=0)), [C], "says 0 bytes and has 13"),
    "a track says 4 GB": (
        midi(track(*HANDS[:2], length=2**32 - 1)),
        [C],
        "says 4294967295 bytes and has 13",
    ),
    "a longer header": (header(1, more=b"\1\2\3") + ONE, [C], "its header has 9 bytes, not 6"),
    "a header that says it is longer": (
        midi(ONE).replace(b"\0\0\0\6", b"\0\0\0\x66", 1),
        [C],
        "its header has 102 bytes, not 6",
    ),
    "a controller of 255": (
        midi(track((0, on(60)), (0, control(7, 255)), (480, off(60)))),
        [C],
        "1 event against the specification",
    ),
    "a velocity of 200": (
        midi(track((0, on(60, 200)), (480, off(60)))),
        [(0, 480, 60, 127)],
        "1 event against the specification",
    ),
    "a clock": (
        midi(track((0, on(60)), (0, b"\xf8"), (480, off(60)))),
        [C],
        "1 event against the specification",
    ),
    "a tempo of two bytes": (
        midi(track((0, meta(0x51, b"\1\2")), *HANDS[:2])),
        [C],
        "1 event against the specification",
    ),
    "a gap": (
        header(2) + ONE + bytes(5) + track((0, on(64)), (480, off(64))),
        [C, E],
        "5 stray bytes before its track 2",
    ),
    "a gap behind the header": (header(1) + b"\xff" + ONE, [C], "1 stray byte before its track 1"),
    "padding": (midi(ONE) + bytes(100), [C], "100 bytes behind its last track left out"),
    "another file behind": (
        midi(ONE) + midi(track((0, on(64)), end=480)),
        [C],
        "bytes behind its last track left out",
    ),
    "fewer tracks": (header(3) + ONE, [C], "its header says 3 tracks and it has 1"),
    "more tracks": (
        header(1) + ONE + track((0, on(64)), (480, off(64))),
        [C, E],
        "its header says 1 track and it has 2",
    ),
    "a RIFF that says too little": (
        riff((b"LIST", b"1234"), (b"data", midi(ONE))).replace(b"\4\0\0\x001", b"\1\0\0\x001"),
        [C],
        "the lengths of its RIFF chunks are wrong",
    ),
    "a RIFF that says too much": (
        riff((b"data", midi(ONE)))[:16] + b"\xff\0\0\0" + midi(ONE),
        [C],
        "its RIFF says 255 bytes and has 35",
    ),
    "patterns": (
        midi(
            track((0, tempo(1_000_000)), (0, on(60)), (480, off(60))),
            track((0, on(64)), (480, off(64))),
            kind=2,
        ),
        [(0, 960, 60, 80), (960, 1440, 64, 80)],
        "patterns (format 2), read one after another",
    ),
}

REFUSED = {
    "empty": (b"", "is not a MIDI file: it does not begin with 'MThd'"),
    "text": (b"just text", "is not a MIDI file: it does not begin with 'MThd'"),
    "sound": (b"RIFF\0\0\0\0WAVEfmt ", "is not a MIDI file"),
    "half a header": (midi(ONE)[:13], "broken MIDI file: its header has 13 of 14 bytes"),
    "no track": (header(0), "broken MIDI file: it holds no track"),
    "no track, though it says so": (header(1), "broken MIDI file: it holds no track"),
    "the beginning of a track": (header(1) + b"MTrk\0\0", "broken MIDI file: it holds no track"),
    "RIFF without MIDI": (riff((b"data", b"1234")), "broken MIDI file: its RIFF holds no 'MThd'"),
    "0 ticks a quarter": (midi(ONE, division=0), "cannot be timed: it has 0 ticks a quarter"),
    "23 frames": (midi(ONE, division=0xE928), "cannot be timed: it has 40 ticks a frame and 23"),
    "0 ticks a frame": (midi(ONE, division=0xE700), "cannot be timed: it has 0 ticks a frame"),
    "a tempo of 0": (midi(track((0, tempo(0)), *HANDS)), "cannot be timed: it has a tempo of 0"),
    "centuries": (
        midi(track(*[(0x0FFFFFFF * n, on(60)) for n in range(2200)])),
        "cannot be timed: it lasts",
    ),
    "half of it": (
        midi(track(*[(240 * n, on(40 + n)) for n in range(30)]))[:100],
        "of the 153 bytes of its track 1, those from 74 on cannot be read",
    ),
    "a track of 64 KB": (header(1) + b"MTrk\0\0\xff\xff\x90", "of the 65535 bytes of its track 1"),
    "data without an event": (midi(chunk(b"MTrk", bytes(99))), "from 0 on cannot be read"),
    "a delta of five bytes": (
        midi(chunk(b"MTrk", b"\x81\x81\x81\x81\1" + events(*HANDS, end=0))),
        "from 0 on cannot be read",
    ),
    "noise": (
        midi(chunk(b"MTrk", b"\0\x90" + np.random.default_rng(0).bytes(500))),
        "broken MIDI file: ",
    ),
    "a velocity of 200 in every note": (
        midi(track(*[(n, on(60, 200)) for n in range(99)])),
        "99 of its 100 events are against the specification",
    ),
}


def rows(notes):
    return np.array([tuple(note) for note in notes.tolist()]).reshape(-1, 4)


def expected(notes):
    return np.array(notes, float).reshape(-1, 4) / [TICKS_PER_SECOND, TICKS_PER_SECOND, 1, 1]


@pytest.mark.parametrize(("data", "notes", "share"), LEGAL.values(), ids=LEGAL)
def test_what_a_legal_file_means(data, notes, share, caplog):
    heard, pedal_share = read_midi_and_pedal(data)
    np.testing.assert_allclose(rows(heard), expected(notes), rtol=1e-12)
    assert pedal_share == pytest.approx(share)
    assert not caplog.records


@pytest.mark.parametrize(("data", "notes", "said"), DAMAGED.values(), ids=DAMAGED)
def test_what_can_be_read_is_read_with_one_warning(data, notes, said, caplog):
    heard, _ = read_midi_and_pedal(data)
    np.testing.assert_allclose(rows(heard), expected(notes), rtol=1e-12)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert said in record.getMessage()
    assert record.getMessage().isprintable()


@pytest.mark.parametrize(("data", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_said_in_one_line(data, said, tmp_path, caplog):
    path = tmp_path / "two\nlines.mid"
    path.write_bytes(data)
    with pytest.raises(MidiError, match=rf"two\\nlines.mid .*{said}") as raised:
        read_midi(path)
    assert str(raised.value).isprintable()
    assert not caplog.records


def test_a_file_that_is_too_long_is_refused(tmp_path):
    path = tmp_path / "long.mid"
    with path.open("wb") as file:
        file.truncate(MAX_MIDI_BYTES + 1)
    with pytest.raises(MidiError, match="has 16777217 bytes; a MIDI file may have 16777216"):
        read_midi(path)


def test_of_many_complaints_three_are_told(caplog):
    read_midi(header(9, more=b"1") + b"".join(b"\0" + ONE for _ in range(4)))
    assert caplog.records[0].getMessage().endswith("; and 3 more")


@settings(max_examples=300, deadline=None)
@given(files())
def test_any_legal_file_is_read_as_a_player_plays_it(file):
    heard, share = read_midi_and_pedal(file.data)
    notes, pedal_share = played(file)
    assert heard[["pitch", "velocity"]].tolist() == [(note.pitch, note.velocity) for note in notes]
    np.testing.assert_allclose(heard["onset"], [float(note.onset) for note in notes], rtol=1e-12)
    np.testing.assert_allclose(heard["offset"], [float(note.offset) for note in notes], rtol=1e-12)
    assert share == pytest.approx(float(pedal_share), abs=1e-9)


def test_times_are_right_to_the_tick_after_hours_of_changing_tempi():
    tempi = [(480 * n, tempo(300_001 + n)) for n in range(20_000)]
    last = 480 * 20_000
    exact = Fraction(sum(300_001 + n for n in range(20_000)), 10**6)
    notes = read_midi(midi(track(*tempi), track((last, on(60)), end=last + 1)))
    assert notes["onset"].tolist() == [float(exact)]
    assert notes["offset"].tolist() == [float(exact + Fraction(320_000, 480 * 10**6))]


WHOLE = midi(
    track((0, meta(3, b"a song")), (0, tempo(400_000)), (960, tempo(600_000))),
    track(*HANDS, *HANDS, (0, pedal(127)), (700, sysex(b"\1\2\xf7")), (1200, pedal(0)), end=2000),
    track(*[(100 * n, message) for n in range(20) for message in (on(40 + n), off(40 + n))]),
)


@pytest.mark.parametrize(
    "wrap", [bytes, lambda data: riff((b"data", data), pad=b"")], ids=["MThd", "RIFF"]
)
def test_a_file_that_is_cut_is_refused_or_warned_of(wrap, caplog):
    data = wrap(WHOLE)
    read_midi(data)
    assert not caplog.records
    for length in range(len(data)):
        caplog.clear()
        try:
            read_midi(data[:length])
        except MidiError:
            continue
        assert len(caplog.records) == 1


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=12
    ),
    st.integers(0, len(WHOLE)),
    st.binary(max_size=9),
)
def test_whatever_bytes_change_there_are_notes_or_a_refusal(changes, place, more):
    data = bytearray(WHOLE)
    for where, value in changes:
        data[where] = value
    data[place:place] = more
    try:
        notes, share = read_midi_and_pedal(bytes(data))
    except MidiError:
        return
    assert notes.dtype == NOTE
    assert np.isfinite(notes["offset"]).all()
    assert (notes["offset"] > notes["onset"]).all()
    assert 0 <= share <= 1


@pytest.mark.parametrize("name", ["a.mid", "a.KAR", "a.smf", "a.rmi", "a", "a.mp3", "a.txt"])
@pytest.mark.parametrize("data", [midi(ONE), riff((b"data", midi(ONE)))], ids=["MThd", "RIFF"])
def test_midi_is_told_by_its_content_whatever_its_name(name, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    assert holds_midi(path)
    assert len(read_midi(path)) == 1
    with pytest.raises(AudioError, match=r"is MIDI: it holds notes, and sound is needed"):
        audio.decode(path, sr=16_000)


def test_what_is_not_midi_is_taken_for_it_by_its_name_alone(tmp_path):
    (tmp_path / "letter").write_bytes(b"RIFF, and text")
    assert not holds_midi(tmp_path / "letter")
    assert holds_midi(tmp_path / "letter", "letter.mid")
    assert not holds_midi(tmp_path)
    assert not holds_midi(tmp_path / "gone.mp3")
    assert not holds_midi(tmp_path / ("x" * 300))
    assert holds_midi(tmp_path / "gone.mid")


def test_midi_round_trip(tmp_path, rng):
    notes = arpeggios(20, rng=rng)
    notes = fold_pedal(notes, [], [])
    write_midi(tmp_path / "a.mid", notes)
    again = read_midi(tmp_path / "a.mid")
    assert again["pitch"].tolist() == notes["pitch"].tolist()
    assert again["velocity"].tolist() == notes["velocity"].tolist()
    np.testing.assert_allclose(again["onset"], notes["onset"], atol=6e-4)
    np.testing.assert_allclose(again["offset"], notes["offset"], atol=1.1e-3)


def test_what_is_written_follows_the_specification(tmp_path):
    notes = make_notes(
        [0, 0.5, 0.5, 1, 1], [0.5, 1, 1, 1.0001, 30], [60, 60, 64, 60, 64], range(1, 6)
    )
    write_midi(tmp_path / "a.mid", notes)
    timed = (
        *[(0, tempo(500_000)), (0, meta(3, b"Piano")), (0, b"\xc0\0"), (0, on(60, 1))],
        *[(480, b"\x80\x3c\1"), (480, on(60, 2)), (480, b"\x40\3")],
        *[(960, b"\x80\x3c\2"), (960, b"\x40\3"), (960, on(60, 4)), (960, b"\x40\5")],
        *[(961, b"\x80\x3c\4"), (28_800, b"\x40\5")],
    )
    assert (tmp_path / "a.mid").read_bytes() == midi(track(*timed, end=28_801), kind=1)


def test_overlapping_notes_of_a_key_are_written_as_they_sound(tmp_path):
    notes = make_notes([0, 0.5, 1, 1.0001], [0.8, 3, 2, 1.5], [60, 60, 64, 64], [80, 81, 82, 83])
    write_midi(tmp_path / "a.mid", notes)
    assert read_midi(tmp_path / "a.mid").tolist() == [
        *((0.0, 0.5, 60, 80), (0.5, 3.0, 60, 81), (1.0, 1.5, 64, 83))
    ]


def test_the_same_notes_give_the_same_bytes(tmp_path, rng):
    notes = arpeggios(5, rng=rng)
    write_midi(tmp_path / "a.mid", notes)
    write_midi(tmp_path / "b.mid", notes)
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()


def test_a_midi_file_without_notes_is_empty(tmp_path):
    write_midi(tmp_path / "empty.mid", np.empty(0, NOTE))
    assert len(read_midi(tmp_path / "empty.mid")) == 0


def test_no_note_is_written_before_time_zero(tmp_path):
    with pytest.raises(ValueError, match="no negative number: -960"):
        write_midi(tmp_path / "a.mid", make_notes([-1, 0], [0, 1], [60, 61], [60, 60]))
    assert list(tmp_path.iterdir()) == []


def test_numbers_have_seven_bits_a_byte():
    assert [number(value) for value in (0, 127, 128, 0x3FFF, 0x0FFFFFFF)] == [
        *(b"\0", b"\x7f", b"\x81\0", b"\xff\x7f", b"\xff\xff\xff\x7f")
    ]
