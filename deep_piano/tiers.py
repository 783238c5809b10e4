"""The network of sound waves: an LSTM that takes a frame a step, and what foretells its samples.

As in SampleRNN (Mehri et al. 2017, arXiv:1612.07837) an LSTM hears a frame at a time. Where the
steps are classes, a small network without memory foretells one sample after another of the next
frame, from the LSTM's output and the last samples; where they are numbers, one Dense layer
foretells all of the next frame at once. Either adds to a linear prediction from the last samples,
with which training begins (`fit`): what is left to learn is what that one does not know.

This module knows specifications with one field; it knows nothing of files.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from deep_piano.codecs.base import SequenceSpec
from deep_piano.lstm import LSTM
from deep_piano.sizes import PLACE_UNITS, SHAPE_OUTPUTS, ModelConfig


@keras.saving.register_keras_serializable(package="deep_piano")
class Past(layers.Layer):
    """Puts the last steps of the window before in front of a window.

    (batch, window) becomes (batch, past - 1 + window). Zeros stand where nothing was heard.
    """

    def __init__(self, past: int, **more: Any) -> None:
        super().__init__(**more)
        self.past = past
        self.states: list[Any] = []

    def build(self, shape: Any) -> None:
        """Make room for what is carried."""
        self.states = [
            self.add_weight(
                shape=(shape[0], self.past - 1), initializer="zeros", trainable=False, name="past"
            )
        ]

    def call(self, window: Any) -> Any:
        """Return the window with its past, and carry the end of it on."""
        [state] = self.states
        whole = ops.concatenate([ops.convert_to_tensor(state), window], 1)
        state.assign(whole[:, whole.shape[1] - self.past + 1 :])
        return whole


def build_tiers(
    spec: SequenceSpec, config: ModelConfig, *, batch: int, window: int, precision: str
) -> Any:
    """Build the Keras model for training: `model.build_model` says what goes in and out."""
    [field] = spec.fields
    frame, past, units, hidden = config.frame, config.past, config.units, config.head_units
    dtype = "float32" if field.continuous else "int32"
    steps = keras.Input(batch_shape=(batch, window, 1), dtype=dtype, name="steps")
    if field.continuous:
        values = steps[..., 0] / config.scale
    else:
        levels = np.asarray(field.levels / config.scale, np.float32)
        values = ops.take(ops.convert_to_tensor(levels), ops.cast(steps[..., 0], "int32"))
    heard = Past(past, dtype="float32", name="past")(values)  # (B, past - 1 + W)

    def dense(size: int, name: str, activation: str | None = None, **more: Any) -> Any:
        return layers.Dense(size, activation, dtype=precision, name=name, **more)

    frames = _windows(heard, past, frame, window // frame)  # (B, frames, past)
    x = dense(units, "input")(compand(frames))
    for layer in range(config.layers):
        normal = layers.LayerNormalization(dtype=precision, name=f"norm_{layer}")(x)
        lstm = LSTM(
            units, return_sequences=True, stateful=True, dtype=precision, name=f"lstm_{layer}"
        )
        x = x + lstm(normal)
    x = layers.LayerNormalization(dtype=precision, name="norm_out")(x)
    if field.continuous:
        linear = layers.Dense(frame, use_bias=False, dtype="float32", name="linear")(frames)
        more = dense(hidden, f"{field.name}_hidden", "relu")(x)
        more = layers.Dense(frame, kernel_initializer="zeros", dtype="float32", name=field.name)(
            more
        )
        return keras.Model(
            [steps],
            ops.reshape((linear + more) * config.scale, (batch, window, 1)),
            name="deep_piano",
        )
    recent = _windows(heard, past, 1, window)  # (B, W, past)
    linear = layers.Dense(1, use_bias=False, dtype="float32", name="linear")(recent)
    shape = (batch, window // frame, frame)
    places = ops.reshape(dense(frame * PLACE_UNITS, "places")(x), (*shape, PLACE_UNITS))
    from_frame = ops.expand_dims(dense(hidden, "from_frame")(x), 2)
    told = from_frame + dense(hidden, "from_place", use_bias=False)(places)  # (B, frames, frame, H)
    known = ops.concatenate([compand(recent), compand(linear)], -1)
    more = dense(hidden, "from_past", use_bias=False)(known)
    more = ops.relu(more + ops.reshape(told, (batch, window, hidden)))
    more = dense(hidden, f"{field.name}_hidden", "relu")(more)
    more = layers.Dense(
        field.size + SHAPE_OUTPUTS, kernel_initializer="zeros", dtype="float32", name=field.name
    )(more)
    logits, shift, sharp, steep = ops.split(
        more, [field.size, field.size + 1, field.size + 2], axis=-1
    )
    # Student's t distribution around the prediction, over cells of the classes' widths
    apart = ops.convert_to_tensor(levels) - (linear + shift)
    bell = -(1 + ops.softplus(steep)) * ops.log1p(ops.exp(sharp) * ops.square(apart))
    widths = ops.convert_to_tensor(np.asarray(field.log_widths, np.float32))
    return keras.Model([steps], logits + bell + widths, name="deep_piano")


def compand(values: Any) -> Any:
    """Return scaled samples with soft ones brought near loud ones."""
    return ops.arcsinh(16 * values) / 3


def _windows(heard: Any, past: int, hop: int, count: int) -> Any:
    """Return the last `past` values at every hop-th step: (B, count, past)."""
    places = hop * np.arange(count)[:, None] + np.arange(past)
    return ops.take(heard, ops.convert_to_tensor(places.astype(np.int32)), axis=1)
