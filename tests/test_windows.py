from __future__ import annotations

from itertools import islice

import numpy as np

from deep_piano.codecs.notes import PITCH, NoteContext, encode
from deep_piano.notes import make_notes
from deep_piano.windows import Augmentation, training_batches, validation_batches
from tests.fakes import arpeggios

NONE = Augmentation(transpose_semitones=0, tempo_range=0.0)


def test_validation_plays_every_note_once_and_in_order(rng):
    recordings = [arpeggios(seconds, rng=rng) for seconds in (8, 30, 17)]
    heard: dict[int, list[np.ndarray]] = {}
    playing = {}
    coming = iter(range(3))
    for batch in validation_batches(recordings, batch=2, window=16):
        for slot in range(2):
            if batch.keep[slot] == 0 and batch.weights[slot].any():
                playing[slot] = next(coming)
            length = int(batch.weights[slot].sum())
            if length:
                heard.setdefault(playing[slot], []).append(batch.targets[slot, :length])
                assert (batch.steps[slot, 1:length] == batch.targets[slot, : length - 1]).all()
    longest_first = sorted(recordings, key=len, reverse=True)
    for index, notes in enumerate(longest_first):
        np.testing.assert_array_equal(np.concatenate(heard[index]), encode(notes)[1:])


def test_context_is_that_of_the_step_before_the_target(rng):
    notes = arpeggios(10, rng=rng)
    batch = next(validation_batches([notes], batch=1, window=20))
    context = NoteContext(1)
    context.start(0)
    for step, row in zip(encode(notes)[:20], batch.context[0], strict=True):
        np.testing.assert_array_equal(context.advance(step[None])[0], row)


def test_training_does_not_end_and_is_the_same_for_the_same_rng(rng):
    recordings = [arpeggios(seconds, rng=rng) for seconds in (8, 30, 17)]

    def first(count, seed):
        batches = training_batches(
            recordings,
            batch=2,
            window=16,
            augmentation=Augmentation(),
            rng=np.random.default_rng(seed),
        )
        return list(islice(batches, count))

    once, again, other = first(40, 1), first(40, 1), first(40, 2)
    assert all((a.steps == b.steps).all() for a, b in zip(once, again, strict=True))
    assert any((a.steps != b.steps).any() for a, b in zip(once, other, strict=True))


def test_every_recording_is_played_before_any_is_played_again(rng):
    recordings = [
        make_notes(
            np.arange(80) / 10, np.arange(80) / 10 + 0.1, np.full(80, pitch), np.full(80, 64)
        )
        for pitch in range(30, 50)
    ]
    batches = training_batches(recordings, batch=1, window=128, augmentation=NONE, rng=rng)
    order = [int(batch.steps[0, 0, PITCH]) for batch in islice(batches, 40)]
    assert sorted(order[:20]) == sorted(order[20:]) == [p - 21 for p in range(30, 50)]


def test_augmentation_keeps_within_the_keyboard(rng):
    notes = make_notes([0, 1], [1, 2], [21, 107], [64, 64])
    for _ in range(50):
        bent = Augmentation(transpose_semitones=6, tempo_range=0.1).apply(notes, rng)
        assert int(bent["pitch"][1]) - int(bent["pitch"][0]) == 86
        assert bent["pitch"].min() >= 21
        assert bent["pitch"].max() <= 108
        assert 1 / 1.1 - 1e-9 <= bent["onset"][1] <= 1.1 + 1e-9
    assert notes["pitch"].tolist() == [21, 107]
