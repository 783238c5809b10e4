"""Nats a note: how well a network foresees recordings that it has not heard."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import SequenceSpec
from deep_piano.codecs.notes import LOG_WIDTHS
from deep_piano.model import carry_state
from deep_piano.notes import Notes
from deep_piano.windows import validation_batches


def nats_per_note(model: Any, spec: SequenceSpec, recordings: list[Notes]) -> dict[str, float]:
    """Score a network on whole recordings.

    Parameters
    ----------
    model : keras.Model
        From `build_model`; its carried state is left as it was.
    spec : SequenceSpec
    recordings : list of ndarray, dtype `NOTE`

    Returns
    -------
    dict of str to float
        Nats a note and field on the grid of 10 ms and 32 velocities (the width of a class that
        holds several cells is counted); their sum is the figure that papers give. The first note
        of each recording is given, not scored.
    """
    batch, window = model.input_shape[0][:2]
    states = [state for layer in model.layers for state in getattr(layer, "states", None) or []]
    carried = [np.asarray(state.numpy()) for state in states]
    sums, count = np.zeros(len(spec.fields)), 0.0
    for heard in validation_batches(recordings, batch=batch, window=window):
        carry_state(model, heard.keep)
        outputs = model.predict_on_batch([heard.steps, heard.context, heard.targets])
        for index, logits in enumerate(outputs):
            target = heard.targets[..., index]
            nats = cross_entropy(logits, target) + LOG_WIDTHS[index][target]
            sums[index] += (nats * heard.weights).sum()
        count += heard.weights.sum()
    for state, value in zip(states, carried, strict=True):
        state.assign(value)
    return {
        field.name: float(total / count) for field, total in zip(spec.fields, sums, strict=True)
    }


def cross_entropy(logits: NDArray[np.float32], target: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return nats: logits of shape (..., size) and targets of shape (...) give shape (...)."""
    shifted = logits - logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(-1))
    nats: NDArray[np.float32] = log_sum - np.take_along_axis(shifted, target[..., None], -1)[..., 0]
    return nats
