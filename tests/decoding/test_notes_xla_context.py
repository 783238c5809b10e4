"""What is known, computed in TensorFlow, beside the reference that Numba compiles."""

from __future__ import annotations

import numpy as np
import pytest

from deep_piano.codecs.note_context import NoteContext
from deep_piano.codecs.notes import DURATION, ONSET, PITCH, SPEC, VELOCITY

pytestmark = [pytest.mark.tf, pytest.mark.slow]


def music(rng, streams, notes):
    """Return sequences of chords and single notes that come again, some with an error."""
    steps = np.zeros((streams, notes, 4), np.int32)
    for stream in steps:
        phrase = np.stack(
            [
                rng.choice([0, 1, 3, 4, 30], 24),
                rng.integers(0, 88, 24),
                rng.integers(0, 32, 24),
                rng.choice([10, 25, 40, 300], 24),
            ],
            1,
        )
        stream[:] = np.tile(phrase, (-(-notes // 24), 1))[:notes]
        stream[:, PITCH] = (stream[:, PITCH] + np.arange(notes) // 48) % 88
        wrong = rng.random(notes) < 0.05
        stream[wrong, PITCH] = rng.integers(0, 88, wrong.sum())
    return steps


@pytest.mark.parametrize("told", [{}, {"remembers": False}, {"seed_seconds": None}])
def test_after_each_note_the_same_is_known(rng, told):
    import tensorflow as tf

    from deep_piano.decoding import notes_xla_context

    sequences = music(rng, 3, 240)
    context = NoteContext(3)
    for slot in range(3):
        context.start(slot, **{"seed_seconds": 3.0, "end_seconds": 30.0} | told)
    state = type(context.state)(*(tf.convert_to_tensor(array) for array in context.state))
    advance, streams = tf.function(notes_xla_context.advance), np.arange(3)
    for note in range(sequences.shape[1] - 1):
        known = context.advance(sequences[:, note])
        state, (features, classes) = advance(state, tf.cast(sequences[:, note], tf.int64))
        np.testing.assert_allclose(features, known.features, atol=2e-6)
        np.testing.assert_array_equal(classes, known.classes)
        coming = sequences[:, note + 1].astype(np.int64)
        for field in (PITCH, VELOCITY, DURATION):
            part, candidates = context.of_field(streams, coming[:, :field])
            chosen = [tf.constant(coming[:, before]) for before in range(ONSET, field)]
            features, classes, ends = notes_xla_context.of_field(state, chosen)
            np.testing.assert_array_equal(features, part.features)
            np.testing.assert_array_equal(classes, part.classes)
            if SPEC.fields[field].copies:
                np.testing.assert_array_equal(ends, candidates)
    for name, array in context.state._asdict().items():
        np.testing.assert_allclose(getattr(state, name), array, rtol=1e-5, atol=1e-6, err_msg=name)
