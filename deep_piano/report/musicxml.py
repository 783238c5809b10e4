"""A piece as a score: MusicXML for notation programs, two staves, snapped to the beats.

It shows what is struck, and for how long keys are held; the pedal is left to the player. music21
writes it, and is not installed by default. This module decides what stands where; `rhythm` where a
note belongs, and `hands` who plays it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.hands import left_hand
from deep_piano.analysis.keys import key_of
from deep_piano.analysis.rhythm import snap, written_in_one
from deep_piano.analysis.signature import Signature, signature_of
from deep_piano.errors import InputError
from deep_piano.infra.storage.atomic import atomic_path
from deep_piano.music.meter import Meter
from deep_piano.music.notes import Notes, fold_pedal
from deep_piano.music.pedalling import play

_CHORD_S: Final = 0.04  # of onsets that are written below one another
_BROKEN_CHORD_S: Final = 0.08  # from the first of them to the last
_SLACK: Final = 0.1  # of a quarter: a key released so little after the beat ends on it
_TICKS: Final = 960
_STEPS: Final = "FCGDAEB"
_FLATS_BELOW: Final = 3  # of the twelve names on the line of fifths, how many lie before the key
# What XML 1.0 cannot hold, not even escaped: https://www.w3.org/TR/xml/#charsets.
_NOT_IN_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Event:
    """A chord of one hand, or a rest: beginning and end in quarters, and pitches."""

    start: Fraction
    end: Fraction
    pitches: tuple[int, ...] = ()


def require_music21() -> None:
    """Raise `InputError` where scores cannot be written."""
    if find_spec("music21") is None:
        raise InputError(
            "a score needs the package music21. Run `pip install 'deep-piano[score]'`, or leave "
            "the score out."
        )


def write_score(
    path: Path,
    notes: Notes,
    *,
    meter: Meter,
    title: str,
    signature: Signature | None = None,
    continuation_s: float | None = None,
) -> None:
    """Write notes as MusicXML; the same notes give the same bytes.

    The file appears whole or not at all.

    Parameters
    ----------
    path : Path
    notes : ndarray, dtype `NOTE`
        As they sound, from time zero on.
    meter : Meter
    title : str
        Characters that XML cannot hold are replaced.
    signature : Signature, optional
        By default that of the likeliest key.
    continuation_s : float, optional
        Where "Continuation" is to stand.

    Raises
    ------
    InputError
        Without music21.
    """
    require_music21()
    key = key_of(notes)
    signature = signature or (signature_of(key) if key else Signature(0, False))
    right, left = staves(notes, meter)
    begins = None if continuation_s is None else float(meter.quarters(continuation_s))
    text = _musicxml(right, left, meter, signature, title, begins)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def staves(notes: Notes, meter: Meter) -> tuple[list[Event], list[Event]]:
    """Return what stands on the upper and on the lower staff, without a gap, in whole bars.

    A chord lasts until its hand plays the next. Where all its keys were let go a quarter or more
    before that, it lasts to the next beat, and a rest follows.
    """
    notes = fold_pedal(notes, [], [])
    onset = np.rint(meter.quarters(notes["onset"]) * _TICKS).astype(np.int64)
    offset = np.rint(meter.quarters(notes["offset"]) * _TICKS).astype(np.int64)
    offset = np.maximum(offset, onset + 1)
    release = play(onset, offset, notes["pitch"], ticks_per_second=_TICKS * meter.bpm / 60).release
    quarter = meter.quarters(notes["onset"])
    if len(notes):
        chord = _chords(notes)
        quarter = (np.bincount(chord, quarter) / np.bincount(chord))[chord]
    written: dict[Fraction, dict[int, float]] = {}
    for where, pitch, until in zip(
        snap(quarter, notes["pitch"]), notes["pitch"].tolist(), release / _TICKS, strict=True
    ):
        keys = written.setdefault(where, {})
        keys[pitch] = max(keys.get(pitch, 0.0), float(until))
    moments = sorted(written)
    chords = [sorted(written[moment]) for moment in moments]
    counts = left_hand([np.array(chord) for chord in chords])
    end = _next_bar(max([*moments, Fraction(0)]), meter)
    hands = []
    for slices in ([slice(count, None) for count in counts], [slice(count) for count in counts]):
        struck = [
            (moment, {pitch: written[moment][pitch] for pitch in chord[part]})
            for moment, chord, part in zip(moments, chords, slices, strict=True)
            if chord[part]
        ]
        hands.append(list(_without_gaps(struck, end)))
    return hands[0], hands[1]


def _chords(notes: Notes) -> NDArray[np.int64]:
    """Return which chord each note belongs to: struck together, and no key twice."""
    chord = np.zeros(len(notes), np.int64)
    keys: set[int] = set()
    began_s, last_s = -np.inf, -np.inf
    for place, (onset_s, pitch) in enumerate(zip(notes["onset"], notes["pitch"], strict=True)):
        apart = onset_s - last_s > _CHORD_S or onset_s - began_s > _BROKEN_CHORD_S
        if apart or int(pitch) in keys:
            keys, began_s = set(), onset_s
            chord[place:] += 1
        keys.add(int(pitch))
        last_s = onset_s
    return chord - chord[:1]


def _without_gaps(
    struck: Sequence[tuple[Fraction, dict[int, float]]], end: Fraction
) -> Iterator[Event]:
    """Yield a hand's chords and the rests between them."""
    starts = [start for start, _ in struck]
    if not starts:
        yield Event(Fraction(0), end)
        return
    if starts[0] > 0:
        yield Event(Fraction(0), starts[0])
    for (start, keys), following in zip(struck, [*starts[1:], end], strict=True):
        released = Fraction(int(np.ceil(max(keys.values()) - _SLACK)))
        stops = max(released, Fraction(int(start) + 1))
        stops = stops if following - stops >= 1 else following
        yield Event(start, stops, tuple(sorted(keys)))
        if stops < following:
            yield Event(stops, following)


def _next_bar(quarter: Fraction, meter: Meter) -> Fraction:
    """Return where the bar of this moment ends."""
    bars = (quarter - meter.pickup) // meter.beats_a_bar + 1
    return Fraction(meter.pickup + bars * meter.beats_a_bar)


def spelled(pitch: int, fifths: int) -> tuple[str, int, int]:
    """Return step, alteration and octave of a pitch where a signature has so many sharps.

    Notes of the scale are as the signature has them; of the others the flattened third and seventh
    of the major key are flats, the rest sharps: the leading note of the minor key is one.

    Examples
    --------
    >>> spelled(61, -4), spelled(61, 2), spelled(68, 0)
    (('D', -1, 4), ('C', 1, 4), ('G', 1, 4))
    """
    lowest = fifths - _FLATS_BELOW
    place = lowest + (7 * pitch - lowest) % 12 + 1  # on the line of fifths, from F
    alter = place // 7
    return _STEPS[place % 7], alter, (pitch - alter) // 12 - 1


def _musicxml(
    right: list[Event],
    left: list[Event],
    meter: Meter,
    signature: Signature,
    title: str,
    continuation: float | None,
) -> str:
    from music21 import clef, layout, metadata, stream, tempo
    from music21.musicxml.m21ToXml import GeneralObjectExporter

    score = stream.Score()
    title = _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", title)
    score.metadata = metadata.Metadata(title=title, composer="deep_piano")
    parts, bpm = [], round(meter.bpm)
    for name, events, sign in (("R", right, clef.TrebleClef()), ("L", left, clef.BassClef())):
        part = stream.PartStaff(id=name)
        for bar in _bars(events, meter, signature, continuation if name == "R" else None):
            part.append(bar)
        if name == "R":
            part.getElementsByClass("Measure")[0].insert(0, tempo.MetronomeMark(number=bpm))
        part.getElementsByClass("Measure")[0].insert(0, sign)
        part.partName = "Piano"
        _finish(part)
        parts.append(part)
        score.insert(0, part)
    score.insert(0, layout.StaffGroup(parts, symbol="brace"))
    exporter = GeneralObjectExporter()
    exporter.makeNotation = False
    text: str = exporter.parse(score).decode("utf-8")
    # The day, and an identity by chance, are no part of it.
    text = re.sub(r"\s*<encoding-date>.*?</encoding-date>", "", text)
    return re.sub(r'(<(?:score-)?part id=)"\w+"', r'\1"P1"', text)


def _finish(part: Any) -> None:
    """Add what readers see and players do not: ties, beams, brackets and accidentals.

    Not by music21's `makeNotation`, which takes a key struck again in a triplet for a tie.
    """
    from music21.stream.makeNotation import makeTupletBrackets

    part.splitAtDurations(recurse=True)
    part.makeAccidentals(inPlace=True)
    with redirect_stderr(io.StringIO()):  # it tells there of beams that it mends
        part.makeBeams(inPlace=True)
    for bar in part.getElementsByClass("Measure"):
        makeTupletBrackets(bar, inPlace=True)


def _bars(
    events: list[Event], meter: Meter, signature: Signature, continuation: float | None
) -> Iterator[Any]:
    """Yield measures, each filled exactly."""
    from music21 import expressions, key, stream
    from music21.meter import TimeSignature
    from music21.stream.enums import ShowNumber

    lines = [Fraction(0), *([Fraction(meter.pickup)] if meter.pickup else [])]
    while lines[-1] < events[-1].end:
        lines.append(lines[-1] + meter.beats_a_bar)
    pieces = [piece for event in events for piece in _printed(event, lines)]
    for number, (begin, end) in enumerate(pairwise(lines), 0 if meter.pickup else 1):
        bar = stream.Measure(number=number)
        if begin == 0:
            bar.insert(0, key.KeySignature(signature.fifths))
            bar.insert(0, TimeSignature(f"{meter.beats_a_bar}/4"))
        if end - begin < meter.beats_a_bar:
            bar.paddingLeft = float(meter.beats_a_bar - (end - begin))
            bar.showNumber = ShowNumber.NEVER
        while pieces and pieces[0][0].start < end:
            event, tied = pieces.pop(0)
            if continuation is not None and event.start >= continuation and event.pitches:
                bar.insert(event.start - begin, expressions.TextExpression("Continuation"))
                continuation = None
            bar.insert(event.start - begin, _symbol(event, tied, signature))
        yield bar


def _printed(event: Event, lines: list[Fraction]) -> list[tuple[Event, str | None]]:
    """Return an event in the pieces that are printed, each with its tie."""
    cuts = [event.start, *(line for line in lines if event.start < line < event.end), event.end]
    spans = [span for begin, end in pairwise(cuts) for span in written_in_one(begin, end)]
    ties = ["start", *["continue"] * (len(spans) - 2), "stop"] if len(spans) > 1 else [None]
    return [
        (Event(*span, event.pitches), tied if event.pitches else None)
        for span, tied in zip(spans, ties, strict=True)
    ]


def _symbol(event: Event, tied: str | None, signature: Signature) -> Any:
    from music21 import chord, note, pitch, tie

    symbol: Any
    if event.pitches:
        names = []
        for midi in event.pitches:
            step, alter, octave = spelled(midi, signature.fifths)
            names.append(pitch.Pitch(step=step, accidental=alter or None, octave=octave))
        symbol = note.Note(names[0]) if len(names) == 1 else chord.Chord(names)
    else:
        symbol = note.Rest()
    symbol.quarterLength = event.end - event.start
    if tied:
        symbol.tie = tie.Tie(tied)
    return symbol
