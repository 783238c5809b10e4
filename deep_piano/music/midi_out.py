"""MIDI files for other programs: key presses and a pedal, tempi, bars, a key and a marker.

What is read back sounds as the notes did, to half a tick. This module knows notes and MIDI files;
where the beats are and what the key is, it is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.infra.storage.atomic import atomic_path
from deep_piano.music.meter import Meter
from deep_piano.music.notes import Notes, fold_pedal
from deep_piano.music.pedalling import play

if TYPE_CHECKING:
    from symusic import Score

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
    from symusic import KeySignature, Score, Tempo, TextMeta

    meter = meter or Meter()
    score = Score(TICKS_PER_QUARTER)
    last_us = 0
    for beat, beat_us in enumerate(meter.beat_us):
        if beat_us != last_us:
            score.tempos.append(Tempo(beat * TICKS_PER_QUARTER, mspq=beat_us))
        last_us = beat_us
    _put_bars(score, meter)
    if signature is not None:
        fifths, minor = signature
        score.key_signatures.append(KeySignature(0, fifths, int(minor)))
    if continuation_s is not None:
        score.markers.append(TextMeta(int(_ticks(meter, [continuation_s])[0]), "Continuation"))
    notes = fold_pedal(notes, [], [])
    if two_tracks and continuation_s is not None:
        old = notes["onset"] < continuation_s
        _put_track(score, "Seed", notes[old], meter)
        _put_track(score, "Continuation", notes[~old], meter)
    else:
        _put_track(score, "Piano", notes, meter)
    with atomic_path(path) as temporary:
        score.dump_midi(temporary)


def _put_bars(score: Score, meter: Meter) -> None:
    from symusic import TimeSignature

    if meter.pickup:
        score.time_signatures.append(TimeSignature(0, meter.pickup, 4))
    begin = meter.pickup * TICKS_PER_QUARTER
    score.time_signatures.append(TimeSignature(begin, meter.beats_a_bar, 4))


def _put_track(score: Score, name: str, notes: Notes, meter: Meter) -> None:
    """Add a track; the writer gives each a channel of its own, and so its own pedal."""
    from symusic import ControlChange, Note, Track

    track = Track(name=name, program=0)
    in_ticks = notes.copy()
    in_ticks["onset"] = _ticks(meter, notes["onset"])
    in_ticks["offset"] = np.maximum(_ticks(meter, notes["offset"]), in_ticks["onset"] + 1)
    in_ticks = fold_pedal(in_ticks, [], [])  # of two that fell on one tick the second stays
    onset, offset = (in_ticks[field].astype(np.int64) for field in ("onset", "offset"))
    played = play(
        onset,
        offset,
        in_ticks["pitch"],
        ticks_per_second=TICKS_PER_QUARTER * meter.bpm / 60,
    )
    for begin, end, note in zip(onset, played.release, in_ticks, strict=True):
        pitch, velocity = int(note["pitch"]), int(note["velocity"])
        track.notes.append(Note(int(begin), int(end - begin), pitch, velocity))
    # Up at first: symusic, a reader among others, otherwise takes it for down from the beginning.
    track.controls.append(ControlChange(0, _SUSTAIN, 0))
    for down, up in zip(played.down, played.up, strict=True):
        track.controls.append(ControlChange(int(down), _SUSTAIN, 127))
        track.controls.append(ControlChange(int(up), _SUSTAIN, 0))
    score.tracks.append(track)


def _ticks(meter: Meter, seconds: NDArray[np.float64] | list[float]) -> NDArray[np.float64]:
    ticks: NDArray[np.float64] = np.rint(meter.quarters(seconds) * TICKS_PER_QUARTER)
    return ticks
