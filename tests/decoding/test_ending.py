from __future__ import annotations

import numpy as np
import pytest

from deep_piano.analysis.keys import Key, key_of
from deep_piano.decoding.base import Sampling
from deep_piano.decoding.ending import FINAL_CHORD_S, RING_S
from deep_piano.decoding.notes import Engine, NoteDecoder
from deep_piano.decoding.rules import NoteTask
from deep_piano.decoding.sections import Section
from tests.support.fakes import arpeggios, random_checkpoint

ENGINE = Engine(random_checkpoint(seed=4, scale=0.3))
FIELDS = [field.name for field in ENGINE.spec.fields]
SEED_S = 8.0


def task(*sections, seconds=60.0, number=0):
    seed = arpeggios(8, rng=np.random.default_rng(number))
    return NoteTask(seed, SEED_S, seconds, np.random.default_rng(number), sections=sections)


def composed(*tasks, engine=ENGINE):
    decoder = NoteDecoder(engine, dict.fromkeys(FIELDS, Sampling()), hold_density=1.0)
    for name, one in enumerate(tasks):
        decoder.add(name, one)
    done = {}
    while len(decoder):
        done |= decoder.step()
    return [done[name].notes for name in range(len(tasks))]


def test_it_ends_with_a_chord_of_its_key_that_rings_out():
    [new] = composed(task())
    chord = new[new["offset"] > new["offset"].max() - 0.01]
    assert 3 <= len(chord) <= 5
    assert np.ptp(chord["onset"]) <= 0.031
    low, high = FINAL_CHORD_S
    assert low - 0.05 <= chord["offset"][0] - chord["onset"][0] <= high + 0.05
    bass = int(chord["pitch"].min())
    steps = {(int(pitch) - bass) % 12 for pitch in chord["pitch"]}
    assert steps <= {0, 4, 7} or steps <= {0, 3, 7}
    before = new[new["onset"] < chord["onset"][0]]
    assert (before["offset"] <= chord["onset"][0] + 0.051).all()


def test_the_shortest_piece_is_the_last_chord():
    [new] = composed(task(seconds=11.0))
    assert new["offset"].max() == pytest.approx(11.0 - RING_S, abs=0.006)
    assert new["onset"][0] >= 8.0 - 0.005


def test_before_the_last_chord_comes_its_dominant():
    def dominant(notes):
        tonic = int(notes["pitch"][notes["offset"] > notes["offset"].max() - 0.01].min())
        before = notes[(notes["onset"] > 51.3) & (notes["onset"] < 54.2)]
        return np.isin((before["pitch"].astype(int) - tonic) % 12, (7, 11, 2, 5))

    engine = Engine(random_checkpoint(seed=4, scale=0.05))  # it hardly wishes for any key
    led, plain = (
        np.concatenate(
            [
                dominant(notes)
                for notes in composed(*(task(*course, number=n) for n in range(12)), engine=engine)
            ]
        ).mean()
        for course in ((Section(),), ())
    )
    assert led > plain + 0.2


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
