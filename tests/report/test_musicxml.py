"""Scores, written with music21 and read back with it."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from deep_piano.analysis.signature import Signature
from deep_piano.errors import InputError
from deep_piano.music.meter import Meter
from deep_piano.music.notes import make_notes
from deep_piano.report import musicxml
from deep_piano.report.musicxml import spelled, staves, write_score
from tests.support.fakes import arpeggios

BEAT_S = 0.6


@pytest.fixture
def minuet():
    """Eight bars of three: quarters in the left hand, and eighths and triplets in the right."""
    beat = np.arange(24)
    bass = beat * BEAT_S
    eighths = np.arange(24) * BEAT_S / 2
    thirds = 12 * BEAT_S + np.arange(36) * BEAT_S / 3
    onset = np.r_[bass, eighths, thirds]
    length = np.r_[np.full(24, BEAT_S), np.full(24, BEAT_S / 2), np.full(36, BEAT_S / 3)]
    pitch = np.r_[np.resize([41, 45, 48], 24), np.resize([72, 74, 76, 77, 79], 60)]
    return make_notes(onset, onset + length, pitch, np.full(len(onset), 70))


def three_four():
    return Meter(Meter.steady(BEAT_S).beat_us, beats_a_bar=3)


def test_readable_beats_are_exact(minuet):
    right, left = staves(minuet, three_four())
    assert [event.start for event in left] == [Fraction(k) for k in range(24)]
    starts = [Fraction(k, 2) for k in range(24)] + [12 + Fraction(k, 3) for k in range(36)]
    assert [event.start for event in right] == starts
    assert {event.end - event.start for event in right} == {Fraction(1, 2), Fraction(1, 3)}


@pytest.mark.parametrize("pickup", [0, 2])
def test_no_staff_has_a_gap_and_no_note_is_lost(rng, pickup):
    notes = arpeggios(30, rng=rng)
    meter = Meter(Meter.steady(BEAT_S).beat_us, pickup=pickup)
    parts = staves(notes, meter)
    ends = set()
    for events in parts:
        assert events[0].start == 0
        assert all(before.end == after.start for before, after in pairwise(events))
        assert all(event.start < event.end for event in events)
        ends.add(events[-1].end)
    [end] = ends
    assert (end - pickup) % 4 == 0
    assert sum(len(event.pitches) for events in parts for event in events) == len(notes)


def test_no_notes():
    right, left = staves(make_notes([], [], [], []), Meter())
    assert right == left == [musicxml.Event(Fraction(0), Fraction(4))]


@pytest.mark.parametrize(
    ("pitch", "fifths", "name"),
    [
        (61, -4, "D-1"),
        (61, 2, "C+1"),
        (66, 0, "F+1"),
        (70, 0, "B-1"),
        (71, -6, "C-1"),
        (60, 7, "B+1"),
    ],
)
def test_notes_are_spelled_as_the_signature_has_them(pitch, fifths, name):
    step, alter, octave = spelled(pitch, fifths)
    assert f"{step}{alter:+d}" == name
    naturals = dict(C=0, D=2, E=4, F=5, G=7, A=9, B=11)
    assert 12 * (octave + 1) + naturals[step] + alter == pitch


def test_read_back_it_has_the_same_notes_in_full_bars(tmp_path, minuet):
    music21 = pytest.importorskip("music21")
    path = tmp_path / "minuet.musicxml"
    meter = Meter(three_four().beat_us, beats_a_bar=3, pickup=1)
    write_score(
        path,
        minuet,
        meter=meter,
        title="Minuet",
        signature=Signature(-1, False),
        continuation_s=6 * BEAT_S,
    )
    score = music21.converter.parse(path, forceSource=True)
    assert score.metadata.bestTitle == "Minuet"
    right, left = score.parts
    assert [type(part).__name__ for part in (right, left)] == ["PartStaff"] * 2
    struck = []
    for part in (right, left):
        bars = list(part.getElementsByClass("Measure"))
        assert [float(bar.duration.quarterLength) for bar in bars] == [1.0] + [3.0] * 8
        for note in part.flatten().notes:
            if note.tie is None or note.tie.type == "start":
                for pitch in note.pitches:
                    struck.append((round(float(note.offset), 3), pitch.midi))
    assert len(struck) == len(minuet)
    quarters = np.round(meter.quarters(minuet["onset"]), 3).tolist()
    assert sorted(struck) == sorted(zip(quarters, minuet["pitch"].tolist(), strict=True))
    assert [key.sharps for key in right.recurse().getElementsByClass("KeySignature")] == [-1]
    assert "Continuation" in path.read_text()


def test_the_same_notes_give_the_same_bytes(tmp_path, minuet):
    pytest.importorskip("music21")
    for name in ("a", "b"):
        write_score(tmp_path / f"{name}.musicxml", minuet, meter=three_four(), title="Minuet")
    text = (tmp_path / "a.musicxml").read_bytes()
    assert text == (tmp_path / "b.musicxml").read_bytes()
    assert b"encoding-date" not in text


def test_without_music21_it_says_what_to_install(tmp_path, minuet, monkeypatch):
    monkeypatch.setattr(musicxml, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'deep-piano\[score\]'"):
        write_score(tmp_path / "x.musicxml", minuet, meter=Meter(), title="x")
    assert not list(tmp_path.iterdir())


def test_a_key_struck_again_in_a_triplet_is_no_tie(tmp_path):
    music21 = pytest.importorskip("music21")
    third = BEAT_S / 3
    onset = np.array([*range(9), 9.5, 10, 11, 12]) * third
    notes = make_notes(onset, onset + third / 2, [68] * 13, [70] * 13)
    write_score(tmp_path / "a.musicxml", notes, meter=Meter.steady(BEAT_S), title="a")
    score = music21.converter.parse(tmp_path / "a.musicxml", forceSource=True)
    begun = [note for note in score.recurse().notes if note.tie is None or note.tie.type == "start"]
    assert len(begun) == len(notes)


@pytest.mark.parametrize(
    ("title", "written"),
    [
        ('<Étude> & "one" \U0001f3b9 \x85', None),
        ("a\x00\x08\x0b\x1f\x1bb", "a" + 5 * "\N{REPLACEMENT CHARACTER}" + "b"),
        ("a\ud800\udcff\ufffe\uffffb", "a" + 4 * "\N{REPLACEMENT CHARACTER}" + "b"),
        ("two\nlines\tand a tab", None),
    ],
)
def test_a_title_of_any_characters_is_written(tmp_path, minuet, title, written):
    pytest.importorskip("music21")
    write_score(tmp_path / "a.musicxml", minuet[:4], meter=three_four(), title=title)
    root = ElementTree.parse(tmp_path / "a.musicxml").getroot()
    assert [found.text for found in root.iter("movement-title")] == [written or title]
