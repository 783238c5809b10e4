from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from deep_piano.codecs.base import IMPOSSIBLE, Part
from deep_piano.codecs.notes import DURATION, SPEC
from deep_piano.models.config import PRESETS, ModelConfig
from deep_piano.models.note_network import build_model, carry_state
from tests.support.fakes import BATCH, TINY, WINDOW, random_inputs


def part(inputs, rows, step, first, last):
    """Return what `random_inputs` know of some parts of `SPEC.context` at a step."""
    places = zip(*SPEC.columns[first:last], strict=True)
    return Part(
        *(
            np.concatenate([array[rows, step, place] for place in of], 1)
            for array, of in zip(inputs[1:3], places, strict=True)
        )
    )


def test_config_survives_json():
    for config in PRESETS.values():
        assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.tf
def test_a_head_sees_only_the_fields_before_its_own(rng):
    model = build_model(SPEC, TINY, batch=BATCH, window=WINDOW)
    inputs = random_inputs(rng)
    carry_state(model, np.zeros(BATCH, np.float32))
    before = model.predict_on_batch(inputs)
    assert [logits.shape for logits in before] == [
        (BATCH, WINDOW, field.outputs) for field in SPEC.fields
    ]
    for changed in range(len(SPEC.fields)):
        other = [*inputs[:3], inputs[3].copy()]
        other[3][..., changed] = (other[3][..., changed] + 1) % SPEC.fields[changed].size
        carry_state(model, np.zeros(BATCH, np.float32))
        after = model.predict_on_batch(other)
        for head, (a, b) in enumerate(zip(before, after, strict=True)):
            assert (a != b).any() == (head > changed)


@pytest.mark.tf
def test_a_head_sees_what_is_known_of_its_own_field(rng):
    """And the LSTM what is known of the first one, and of the step: so all heads do."""
    model = build_model(SPEC, TINY, batch=BATCH, window=WINDOW)
    inputs = random_inputs(rng)
    carry_state(model, np.zeros(BATCH, np.float32))
    before = model.predict_on_batch(inputs)
    for kind in (1, 2):
        for index, place in enumerate(columns[kind - 1] for columns in SPEC.columns):
            if place.start == place.stop:
                continue
            other = [array.copy() for array in inputs]
            other[kind][..., place] = 1 + (other[kind][..., place] if kind == 1 else 0)
            carry_state(model, np.zeros(BATCH, np.float32))
            after = model.predict_on_batch(other)
            changed = [bool((a != b).any()) for a, b in zip(before, after, strict=True)]
            assert changed == [index < 2 or head == index - 1 for head in range(4)]


@pytest.mark.tf
def test_a_candidate_that_there_is_not_is_impossible(rng):
    model = build_model(SPEC, TINY, batch=BATCH, window=WINDOW)
    inputs = random_inputs(rng)
    field, place = SPEC.fields[DURATION], SPEC.columns[DURATION + 1][1]
    candidates = inputs[2][..., place][..., field.candidates]
    candidates[0, :, 1:] = field.size
    logits = model.predict_on_batch(inputs)[DURATION][..., field.size :]
    np.testing.assert_array_equal(logits < IMPOSSIBLE / 2, candidates == field.size)


@pytest.mark.tf
def test_the_network_does_not_see_the_future(rng):
    model = build_model(SPEC, TINY, batch=BATCH, window=WINDOW)
    inputs = random_inputs(rng)
    carry_state(model, np.zeros(BATCH, np.float32))
    before = model.predict_on_batch(inputs)
    other = [array.copy() for array in inputs]
    for array in other:
        array[:, 5:] = array[:, :2]
    carry_state(model, np.zeros(BATCH, np.float32))
    for a, b in zip(before, model.predict_on_batch(other), strict=True):
        np.testing.assert_array_equal(a[:, :5], b[:, :5])


@pytest.mark.tf
def test_state_is_carried_and_dropped_slot_by_slot(rng):
    model = build_model(SPEC, TINY, batch=BATCH, window=WINDOW)
    inputs = random_inputs(rng)
    carry_state(model, np.zeros(BATCH, np.float32))
    fresh = model.predict_on_batch(inputs)[0]
    carried = model.predict_on_batch(inputs)[0]
    assert (fresh != carried).any(axis=(1, 2)).all()
    carry_state(model, np.array([1, 0, 1], np.float32))
    mixed = model.predict_on_batch(inputs)[0]
    np.testing.assert_allclose(mixed[1], fresh[1], atol=1e-6)
    assert (mixed[0] != fresh[0]).any()


@pytest.mark.tf
def test_loading_the_builder_loads_no_framework():
    code = "import sys, deep_piano.models.note_network; print('keras' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


@pytest.mark.tf
def test_keras_predicts_note_by_note(rng):
    """Where it does not tell how many steps there are, the batch is known all the same."""
    model = build_model(SPEC, TINY, batch=1, window=1)
    inputs = random_inputs(rng, batch=1, window=1)
    carry_state(model, np.zeros(1, np.float32))
    at_once = model.predict_on_batch(inputs)
    carry_state(model, np.zeros(1, np.float32))
    for one, other in zip(at_once, model.predict(inputs, batch_size=1, verbose=0), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
