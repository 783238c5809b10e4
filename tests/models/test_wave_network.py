"""The network of sound waves: what it begins as, what it sees, and what it carries."""

from __future__ import annotations

import numpy as np
import pytest

from deep_piano.codecs.registry import CODECS
from deep_piano.models.checkpoint import assign_weights, weights_of
from deep_piano.models.config import ModelConfig, weight_shapes
from deep_piano.models.note_network import build_model, carried, carry_state
from tests.support.fakes import SOUND_CODECS, sound_checkpoint

pytestmark = pytest.mark.tf

CONFIG = ModelConfig(1, 8, 6, frame=4, past=10, order=19, scale=0.5, spectrum=(0.0, -3.0, -9.0))
BATCH, WINDOW = 2, 24


def network(codec, *, trained=True, window=WINDOW):
    """Build the network; with random weights, where it need not be as it begins."""
    spec = CODECS[codec].spec
    known = sound_checkpoint(codec, frame=4)
    config = known.config if trained else CONFIG
    model = build_model(spec, config, batch=BATCH, window=window)
    if trained:
        assign_weights(model, known.weights)
    carry_state(model, np.zeros(BATCH, np.float32))
    return model


def heard(codec, rng, window=WINDOW):
    """Return steps, and what a prediction says of the step after each."""
    samples = rng.uniform(-0.5, 0.5, (BATCH, window)).astype(np.float32)
    steps = CODECS[codec].encode(samples.ravel()).reshape(BATCH, window, 1)
    return [
        steps if CODECS[codec].spec.continuous else steps.astype(np.int32),
        0.9 * samples[..., None],
    ]


@pytest.mark.parametrize("codec", SOUND_CODECS)
def test_its_weights_are_those_that_the_configuration_counts(codec):
    shapes = {
        name: array.shape for name, array in weights_of(network(codec, trained=False)).items()
    }
    assert shapes == weight_shapes(CODECS[codec].spec, CONFIG)


def test_numbers_begin_as_the_linear_prediction(rng):
    steps, predicted = heard("samples", rng)
    found = network("samples", trained=False).predict_on_batch([steps, predicted])
    np.testing.assert_allclose(found, predicted * CONFIG.scale, rtol=1e-6)


def test_classes_begin_around_the_linear_prediction(rng):
    """The likeliest amplitude is the predicted one, and the further, the less likely."""
    field = CODECS["mulaw"].spec.fields[0]
    logits = network("mulaw", trained=False).predict_on_batch(heard("mulaw", rng))
    assert logits.shape == (BATCH, WINDOW, field.size)
    _, predicted = heard("mulaw", np.random.default_rng(20250101))
    density = logits - field.log_widths
    apart = np.abs(field.levels / CONFIG.scale - predicted)
    np.testing.assert_array_equal(density.argmax(-1), apart.argmin(-1))
    order = np.argsort(apart, -1)
    assert (np.diff(np.take_along_axis(density, order, -1), axis=-1) <= 1e-4).all()


@pytest.mark.parametrize("codec", SOUND_CODECS)
def test_nothing_is_seen_before_it_is_heard(codec, rng):
    """A sample tells of those after it; of numbers, of all frames but its own's."""
    model, given = network(codec), heard(codec, rng)
    before = model.predict_on_batch(given)
    other = [array.copy() for array in given]
    other[0][:, 13] = heard(codec, rng)[0][:, 13]
    carry_state(model, np.zeros(BATCH, np.float32))
    after = model.predict_on_batch(other)
    changed = (before != after).any((0, 2))
    assert not changed[:13].any()
    assert changed[16 if CODECS[codec].spec.continuous else 13 :].all()


@pytest.mark.parametrize("codec", SOUND_CODECS)
def test_windows_carry_on_what_one_long_window_does(codec, rng):
    given = heard(codec, rng)
    whole = network(codec).predict_on_batch(given)
    model = network(codec, window=WINDOW // 2)
    parts = [
        model.predict_on_batch([array[:, part] for array in given])
        for part in (slice(0, WINDOW // 2), slice(WINDOW // 2, None))
    ]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-5)
    assert all(np.abs(state).max() > 0 for state in map(np.asarray, carried(model)))


def test_a_slot_that_begins_anew_forgets_and_the_other_does_not(rng):
    model, given = network("samples"), heard("samples", rng)
    first = model.predict_on_batch(given)
    carry_state(model, np.array([0, 1], np.float32))
    second = model.predict_on_batch(given)
    np.testing.assert_array_equal(second[0], first[0])
    assert (second[1] != first[1]).any()
