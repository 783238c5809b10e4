"""Pieces of notes, decoded by a network of random weights."""

from __future__ import annotations

import numpy as np

from deep_piano.decoding.base import Decoder, Sampling
from deep_piano.decoding.note_task import NoteContinuation, NoteTask
from deep_piano.decoding.notes import Engine, NoteDecoder
from deep_piano.decoding.sections import Section
from deep_piano.music.notes import Notes
from tests.support.fakes import arpeggios, random_checkpoint

ENGINE = Engine(random_checkpoint(seed=4, scale=0.3))
FIELDS = tuple(field.name for field in ENGINE.spec.fields)
SEED_S = 8.0


def task(*sections: Section, seconds: float = 60.0, number: int = 0) -> NoteTask:
    """Return a piece to be decoded; another number has another seed and other chances."""
    seed = arpeggios(8, rng=np.random.default_rng(number))
    return NoteTask(seed, SEED_S, seconds, np.random.default_rng(number), sections=sections)


def finished(decoder: Decoder[NoteTask, NoteContinuation]) -> dict[object, NoteContinuation]:
    """Decode all pieces to their ends."""
    done: dict[object, NoteContinuation] = {}
    while len(decoder):
        done |= decoder.step()
    return done


def composed(*tasks: NoteTask, engine: Engine = ENGINE) -> list[Notes]:
    """Return the notes of pieces that are decoded side by side, without guidance."""
    decoder = NoteDecoder(engine, dict.fromkeys(FIELDS, Sampling()), hold_density=1.0)
    for name, one in enumerate(tasks):
        decoder.add(name, one)
    done = finished(decoder)
    return [done[name].notes for name in range(len(tasks))]
