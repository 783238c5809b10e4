"""The network of sound waves: an LSTM that takes a frame a step, and what foretells its samples.

As in SampleRNN (Mehri et al. 2017, arXiv:1612.07837) an LSTM hears a frame at a time. Where the
steps are classes, a small network without memory foretells one sample after another of the next
frame, from the LSTM's output and the last samples; where they are numbers, one Dense layer
foretells all of the next frame at once. As in LPCNet (Valin and Skoglund 2019, arXiv:1810.11846)
both hear a linear prediction (`linear_prediction`) and its last errors, and begin with it: they
learn how far the next sample will be from it, in units of what its errors were lately.

This module knows specifications with one field; it knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from deep_piano.codecs.base import SequenceSpec
from deep_piano.models.config import (
    COMPAND_BEND,
    COMPAND_GAIN,
    ERRORS_GAIN,
    LEAST_ERROR,
    PLACE_UNITS,
    SHAPE_OUTPUTS,
    ModelConfig,
)
from deep_piano.models.lstm import LSTM


@keras.saving.register_keras_serializable(package="deep_piano")
class Past(layers.Layer):
    """Puts the last `count` values of the window before in front of a window.

    (batch, window) becomes (batch, count + window). Zeros stand where nothing was heard.
    """

    def __init__(self, count: int, **more: Any) -> None:
        super().__init__(**more)
        self.count = count
        self.states: list[Any] = []

    def build(self, shape: Any) -> None:
        """Make room for what is carried."""
        self.states = [
            self.add_weight(
                shape=(shape[0], self.count), initializer="zeros", trainable=False, name="past"
            )
        ]

    def call(self, window: Any) -> Any:
        """Return the window with its past, and carry the end of it on."""
        [state] = self.states
        whole = ops.concatenate([ops.convert_to_tensor(state), window], 1)
        state.assign(whole[:, whole.shape[1] - self.count :])
        return whole


def build_tiers(
    spec: SequenceSpec, config: ModelConfig, *, batch: int, window: int, precision: str
) -> Any:
    """Build the Keras model for training: `note_network.build_model` says what goes in and out."""
    [field] = spec.fields
    frame, units, hidden = config.frame, config.units, config.head_units
    steps, context = inputs(spec, batch=batch, window=window)
    known = hear(spec, config, steps, context)

    def dense(size: int, name: str, activation: str | None = None, **more: Any) -> Any:
        return layers.Dense(size, activation, dtype=precision, name=name, **more)

    frames, usual = known(frame, window // frame)
    x = dense(units, "input")(frames)
    for layer in range(config.layers):
        normal = layers.LayerNormalization(dtype=precision, name=f"norm_{layer}")(x)
        lstm = LSTM(
            units, return_sequences=True, stateful=True, dtype=precision, name=f"lstm_{layer}"
        )
        x = x + lstm(normal)
    x = layers.LayerNormalization(dtype=precision, name="norm_out")(x)
    if field.continuous:
        more = dense(hidden, f"{field.name}_hidden", "relu")(x)
        more = layers.Dense(frame, kernel_initializer="zeros", dtype="float32", name=field.name)(
            more
        )
        return keras.Model(
            [steps, context], foretell(more, usual, context, config), name="deep_piano"
        )
    shape = (batch, window // frame, frame)
    places = ops.reshape(dense(frame * PLACE_UNITS, "places")(x), (*shape, PLACE_UNITS))
    from_frame = ops.expand_dims(dense(hidden, "from_frame")(x), 2)
    told = from_frame + dense(hidden, "from_place", use_bias=False)(places)  # (B, frames, frame, H)
    recent, usual = known(1, window)
    more = ops.concatenate([recent, compand(context)], -1)
    more = dense(hidden, "from_past", use_bias=False)(more)
    more = ops.relu(more + ops.reshape(told, (batch, window, hidden)))
    more = dense(hidden, f"{field.name}_hidden", "relu")(more)
    more = layers.Dense(
        field.size + SHAPE_OUTPUTS, kernel_initializer="zeros", dtype="float32", name=field.name
    )(more)
    logits, shift, sharp, steep = ops.split(
        more, [field.size, field.size + 1, field.size + 2], axis=-1
    )
    # Student's t distribution around the prediction, over cells of the classes' widths
    levels = ops.convert_to_tensor(np.asarray(field.levels / config.scale, np.float32))
    apart = (levels - context) / usual - shift
    bell = -(1 + ops.softplus(steep)) * ops.log1p(ops.exp(sharp) * ops.square(apart))
    widths = ops.convert_to_tensor(np.asarray(field.log_widths, np.float32))
    return keras.Model([steps, context], logits + bell + widths, name="deep_piano")


def inputs(spec: SequenceSpec, *, batch: int, window: int) -> tuple[Any, Any]:
    """Return what goes in, (batch, window, 1) each: the steps, and what is predicted after each."""
    dtype = "float32" if spec.continuous else "int32"
    shape = (batch, window, 1)
    return (
        keras.Input(batch_shape=shape, dtype=dtype, name="steps"),
        keras.Input(batch_shape=shape, name="context"),
    )


def hear(
    spec: SequenceSpec, config: ModelConfig, steps: Any, context: Any
) -> Callable[[int, int], tuple[Any, Any]]:
    """Return a function of a hop and a count: what is known at so many steps, a hop apart.

    It returns the last values and the last errors of prediction, (batch, count, 2 * past), and the
    root mean square of these errors, (batch, count, 1).
    """
    [field] = spec.fields
    past = config.past
    if field.continuous:
        values = steps[..., 0] / config.scale
    else:
        levels = np.asarray(field.levels / config.scale, np.float32)
        values = ops.take(ops.convert_to_tensor(levels), ops.cast(steps[..., 0], "int32"))
    heard = Past(past - 1, dtype="float32", name="past")(values)  # (B, past - 1 + W)
    before = Past(past, dtype="float32", name="past_predicted")(context[..., 0])
    errors = heard - before[:, :-1]

    def known(hop: int, count: int) -> tuple[Any, Any]:
        lately = _windows(errors, past, hop, count)
        usual = ops.sqrt(ops.mean(ops.square(lately), -1, keepdims=True) + LEAST_ERROR**2)
        values = compand(_windows(heard, past, hop, count))
        return ops.concatenate([values, compand(ERRORS_GAIN * lately)], -1), usual

    return known


def foretell(more: Any, usual: Any, context: Any, config: ModelConfig) -> Any:
    """Return numbers from what a network says of each frame, in units of the usual error."""
    return (ops.reshape(usual * more, context.shape) + context) * config.scale


def compand(values: Any) -> Any:
    """Return scaled samples with soft ones brought near loud ones."""
    return ops.arcsinh(COMPAND_GAIN * values) / COMPAND_BEND


def _windows(values: Any, past: int, hop: int, count: int) -> Any:
    """Return the last `past` values at every hop-th step: (B, count, past)."""
    places = hop * np.arange(count)[:, None] + np.arange(past)
    return ops.take(values, ops.convert_to_tensor(places.astype(np.int32)), axis=1)
