from __future__ import annotations

import numpy as np
import pytest

from deep_piano.analysis.keys import Key, key_of
from deep_piano.decoding import sections
from deep_piano.decoding.ending import FINAL_CHORD_NOTES, RING_S, RINGING_S
from deep_piano.decoding.notes import Engine
from deep_piano.decoding.sections import Section
from tests.support.decoding import composed, task
from tests.support.fakes import random_checkpoint


def struck_last(notes):
    """Return the notes of the last chord, the last that are struck at one moment."""
    return notes[notes["onset"] > notes["onset"].max() - 0.035]


@pytest.mark.parametrize("number", range(6))
def test_it_ends_in_its_key_and_rings_out(number):
    [new] = composed(task(number=number))
    chord = struck_last(new)
    assert 1 <= len(chord) <= FINAL_CHORD_NOTES
    assert (chord["offset"] == new["offset"].max()).all()
    rings_s = chord["offset"][0] - chord["onset"][0]
    assert RINGING_S[0] / 2 - 0.05 <= rings_s <= RINGING_S[-1] + 0.05
    bass = int(chord["pitch"].min())
    steps = {(int(pitch) - bass) % 12 for pitch in chord["pitch"]}
    assert steps <= {0, 4, 7} or steps <= {0, 3, 7}
    leaves = ~np.isin((new["pitch"].astype(int) - bass) % 12, (0, 3, 4, 7))
    assert (new["offset"][leaves] <= chord["onset"][0] + 0.051).all()


def test_endings_differ_from_piece_to_piece():
    checkpoint = random_checkpoint(seed=4, scale=0.3)
    checkpoint.weights["onset/bias"][0] += 4  # it likes chords
    pieces = composed(*(task(number=n) for n in range(16)), engine=Engine(checkpoint))
    chords = [struck_last(new) for new in pieces]
    assert np.ptp([chord["offset"][0] - chord["onset"][0] for chord in chords]) > 2
    assert len({len(chord) for chord in chords}) > 2


def test_the_shortest_piece_is_the_last_chord():
    [new] = composed(task(seconds=11.0))
    assert new["offset"].max() == pytest.approx(11.0 - RING_S, abs=0.006)
    assert new["onset"][0] >= 8.0 - 0.005


def test_a_short_continuation_is_more_than_its_last_chord():
    pieces = composed(*(task(seconds=13.0, number=n) for n in range(16)))
    assert min(np.ptp(notes["onset"]) for notes in pieces) > 0.5


def test_before_the_last_chord_comes_its_dominant(monkeypatch):
    checkpoint = random_checkpoint(seed=4, scale=0.05)  # it hardly wishes for any key
    checkpoint.weights["onset/bias"][:20] += 3
    engine = Engine(checkpoint)

    def share():
        found = []
        for notes in composed(*(task(number=n) for n in range(16)), engine=engine):
            last_s, tonic = notes["onset"].max(), int(notes["pitch"][-1])
            before = notes[(notes["onset"] > last_s - 2.5) & (notes["onset"] < last_s - 0.05)]
            found.append(np.isin((before["pitch"].astype(int) - tonic) % 12, (7, 11, 2, 5)))
        return np.concatenate(found).mean()

    led = share()
    monkeypatch.setattr(sections, "CHORD_STRENGTH", 0.0)
    assert led > share() + 0.1


def test_a_piece_without_room_for_a_cadence_ends_all_the_same():
    for seconds in (11.0, 13.0, 15.0):
        [notes] = composed(task(Section(0.0, 9.0), Section(9.0, 60.0), seconds=seconds))
        assert notes["offset"].max() == pytest.approx(seconds - 0.75, abs=0.006)


def test_a_key_is_come_to_and_ended_in():
    key = Key(6, "minor")
    [notes] = composed(task(Section(key=key)))
    assert key_of(notes) == key
    last = notes[notes["offset"] > notes["offset"].max() - 0.01]
    assert set(last["pitch"] % 12) <= {6, 9, 1}
