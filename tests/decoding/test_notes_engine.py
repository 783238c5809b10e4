from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano.codecs.notes import SPEC
from deep_piano.decoding.base import Sampling
from deep_piano.decoding.notes import Engine
from deep_piano.models.checkpoint import assign_weights
from deep_piano.models.config import ModelConfig
from deep_piano.models.note_network import build_model, carry_state
from tests.models.test_note_network import part
from tests.support.fakes import TINY, random_checkpoint, random_inputs

ALL = slice(None)


@pytest.mark.tf
def test_the_engine_gives_the_logits_of_the_keras_model(rng):
    checkpoint = random_checkpoint()
    model = build_model(SPEC, TINY, batch=3, window=50)
    assign_weights(model, checkpoint.weights)
    carry_state(model, np.zeros(3, np.float32))
    inputs = random_inputs(rng, batch=3, window=50)
    steps, _, _, targets = inputs
    expected = model.predict_on_batch(inputs)

    engine = Engine(checkpoint)
    state = engine.start(3)
    for t in range(50):
        heard = engine.step(state, steps[:, t], part(inputs, ALL, t, 0, 2))
        for index in range(len(SPEC.fields)):
            known = part(inputs, ALL, t, index + 1, index + 2)
            logits = engine.logits(heard, targets[:, t, :index], known)
            np.testing.assert_allclose(logits, expected[index][:, t], atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
@settings(max_examples=20)
def test_a_stream_is_the_same_to_the_last_bit_whatever_streams_are_beside_it(seed, batch):
    rng = np.random.default_rng(seed)
    engine = Engine(random_checkpoint(ModelConfig(2, 72, 40), seed=seed))  # no powers of two
    inputs = random_inputs(rng, batch=batch, window=6)
    steps, _, _, targets = inputs
    mine = int(rng.integers(batch))
    own_rows = slice(mine, mine + 1)
    together, alone = engine.start(batch), engine.start(1)
    for t in range(6):
        both = engine.step(together, steps[:, t], part(inputs, ALL, t, 0, 2))
        one = engine.step(alone, steps[own_rows, t], part(inputs, own_rows, t, 0, 2))
        np.testing.assert_array_equal(both[mine], one[0])
        for index in range(len(SPEC.fields)):
            known = [part(inputs, rows, t, index + 1, index + 2) for rows in (ALL, own_rows)]
            logits = engine.logits(both, targets[:, t, :index], known[0])
            own = engine.logits(one, targets[own_rows, t, :index], known[1])
            np.testing.assert_array_equal(logits[mine], own[0])


def test_streams_keep_their_state_when_others_come_and_go(rng):
    engine = Engine(random_checkpoint())
    inputs = random_inputs(rng, batch=3, window=2)
    steps = inputs[0]
    state = engine.start(3)
    engine.step(state, steps[:, 0], part(inputs, ALL, 0, 0, 2))
    expected = engine.step(state, steps[:, 1], part(inputs, ALL, 1, 0, 2))
    other = engine.start(3)
    engine.step(other, steps[:, 0], part(inputs, ALL, 0, 0, 2))
    other.arrange([2, -1, 0])
    assert not other.h[:, 1].any()
    rows = [2, 1, 0]
    found = engine.step(other, steps[rows, 1], part(inputs, rows, 1, 0, 2))
    np.testing.assert_array_equal(found[[0, 2]], expected[[2, 0]])


LOGITS = st.lists(st.floats(-20, 20), min_size=2, max_size=30).map(
    lambda values: np.array(values, np.float32)
)


@given(LOGITS, st.integers(0, 2**32 - 1), st.floats(0.2, 3), st.integers(0, 5), st.floats(0.1, 1))
def test_only_allowed_classes_are_drawn(logits, seed, temperature, top_k, top_p):
    rng = np.random.default_rng(seed)
    allowed = rng.random(len(logits)) < 0.5
    allowed[rng.integers(len(logits))] = True
    drawn = Sampling(temperature, top_k, top_p).draw(logits, rng, allowed)
    assert allowed[drawn]
    if top_k:
        rank = (logits[allowed] > logits[drawn] + 1e-6).sum()  # nearer ones are equal once scaled
        assert rank < top_k


def frequencies(sampling, probabilities, rng, count=20_000):
    logits = np.log(np.array(probabilities, np.float32))
    drawn = [sampling.draw(logits, rng) for _ in range(count)]
    return np.bincount(drawn, minlength=len(probabilities)) / count


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(temperature=0.5), np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365),
        (Sampling(top_k=2), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.7), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.1), [1, 0, 0, 0]),
        (Sampling(top_k=1), [1, 0, 0, 0]),
        (Sampling(min_p=0.2), np.array([0.5, 0.3, 0.15, 0]) / 0.95),
        (Sampling(min_p=0.9), [1, 0, 0, 0]),
    ],
)
def test_classes_come_as_often_as_they_should(sampling, expected, rng):
    np.testing.assert_allclose(
        frequencies(sampling, [0.5, 0.3, 0.15, 0.05], rng), expected, atol=0.015
    )


def test_one_number_is_taken_whatever_is_drawn(rng):
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    Sampling(top_k=1).draw(np.zeros(5, np.float32), one)
    other.random()
    assert one.random() == other.random()
