"""MIDI files for other programs: key presses and a pedal, tempi, bars, a key and a marker.

What is read back sounds as the notes did, to half a tick. This module knows notes and MIDI files;
where the beats are and what the key is, it is told.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.music import midi
from deep_piano.music.meter import Meter
from deep_piano.music.notes import Notes, fold_pedal
from deep_piano.music.pedalling import play

TICKS_PER_QUARTER: Final = 960
_SUSTAIN: Final = 64  # the controller's number


def write_performance(
    path: Path,
    notes: Notes,
    *,
    meter: Meter | None = None,
    signature: tuple[int, bool] | None = None,
    continuation_s: float | None = None,
    two_tracks: bool = False,
) -> None:
    """Write notes as they are played: keys held as long as a hand would, and a sustain pedal.

    The file appears whole or not at all.

    Parameters
    ----------
    path : Path
    notes : ndarray, dtype `NOTE`
        As they sound, from time zero on.
    meter : Meter, optional
        Where its beats are; by default 120 quarters a minute.
    signature : tuple of int and bool, optional
        Sharps, or as a negative number flats, -7 to 7, and whether the key is minor.
    continuation_s : float, optional
        Where to put the marker "Continuation".
    two_tracks : bool
        Put what begins before `continuation_s` into a track of its own.
    """
    meter = meter or Meter()
    first = [*_tempi(meter), *_bars(meter)]
    if signature is not None:
        fifths, minor = signature
        first.append((0, b"\xff\x59\2" + fifths.to_bytes(1, "big", signed=True) + bytes((minor,))))
    if continuation_s is not None:
        tick = int(_ticks(meter, [continuation_s])[0])
        first.append(midi.text(tick, midi.MARKER, "Continuation"))
    notes = fold_pedal(notes, [], [])
    parts = {"Piano": notes}
    if two_tracks and continuation_s is not None:
        old = notes["onset"] < continuation_s
        parts = {"Seed": notes[old], "Continuation": notes[~old]}
    # Each has a channel of its own, and so its own pedal.
    tracks = [_track(name, part, meter, channel=n) for n, (name, part) in enumerate(parts.items())]
    midi.write_tracks(path, [first, *tracks], ticks_per_quarter=TICKS_PER_QUARTER)


def _tempi(meter: Meter) -> list[midi.Message]:
    lengths = list(enumerate(meter.beat_us))
    changes = [lengths[0], *(now for last, now in pairwise(lengths) if now[1] != last[1])]
    return [midi.tempo(beat * TICKS_PER_QUARTER, beat_us) for beat, beat_us in changes]


def _bars(meter: Meter) -> list[midi.Message]:
    """Return the time signatures: quarters a bar, and before them those of a pickup."""
    begins = [(0, meter.pickup)] if meter.pickup else []
    begins.append((meter.pickup * TICKS_PER_QUARTER, meter.beats_a_bar))
    return [(tick, bytes((0xFF, 0x58, 4, beats, 2, 24, 8))) for tick, beats in begins]


def _track(name: str, notes: Notes, meter: Meter, *, channel: int) -> list[midi.Message]:
    in_ticks = notes.copy()
    in_ticks["onset"] = _ticks(meter, notes["onset"])
    in_ticks["offset"] = np.maximum(_ticks(meter, notes["offset"]), in_ticks["onset"] + 1)
    in_ticks = fold_pedal(in_ticks, [], [])  # of two that fell on one tick the second stays
    onset, offset = (in_ticks[field].astype(np.int64) for field in ("onset", "offset"))
    ticks_per_second = TICKS_PER_QUARTER * meter.bpm / 60
    played = play(onset, offset, in_ticks["pitch"], ticks_per_second=ticks_per_second)
    in_ticks["offset"] = played.release

    def pedal(tick: int, value: int) -> midi.Message:
        return int(tick), bytes((midi.CONTROL | channel, _SUSTAIN, value))

    return [
        midi.text(0, midi.TRACK_NAME, name),
        (0, bytes((midi.PROGRAM | channel, 0))),
        pedal(0, 0),  # up at first: some readers take it for down otherwise
        *(pedal(tick, 0) for tick in played.up),
        *(pedal(tick, 127) for tick in played.down),
        *midi.presses(in_ticks, channel=channel),
    ]


def _ticks(meter: Meter, seconds: NDArray[np.float64] | list[float]) -> NDArray[np.float64]:
    ticks: NDArray[np.float64] = np.rint(meter.quarters(seconds) * TICKS_PER_QUARTER)
    return ticks
