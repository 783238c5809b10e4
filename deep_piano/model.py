"""The network: stacked LSTMs and one Dense head a field, built from a `SequenceSpec`.

Each head sees the output of the stack and the fields of the next step that stand before its own,
so that a step's probability is the product of its fields' (a chain in the order of the spec).
This module knows a codec's specification; it knows nothing of what the fields mean.
"""

from __future__ import annotations

from typing import Any

from deep_piano.codecs.base import SequenceSpec
from deep_piano.sizes import PRESETS as PRESETS  # who builds a model may ask how large it may be
from deep_piano.sizes import ModelConfig as ModelConfig
from deep_piano.sizes import weight_shapes as weight_shapes


def build_model(
    spec: SequenceSpec,
    config: ModelConfig,
    *,
    batch: int,
    window: int,
    precision: str = "float32",
) -> Any:
    """Build the Keras model for training.

    The LSTM layers carry their state from one call to the next (`carry_state` drops it), so the
    batch is fixed. One-hot products stand for embeddings: the same mathematics, and a dense
    gradient, which Adam needs (Keras squares the parts of a sparse one without adding them up).

    Parameters
    ----------
    spec : SequenceSpec
    config : ModelConfig
    batch, window : int
        Windows side by side, and their steps: a multiple of the configuration's frame.
    precision : str
        Keras's dtype policy of the layers: "float32", "mixed_bfloat16" or "mixed_float16".
        The logits are float32 in any case.

    Returns
    -------
    keras.Model
        Inputs, as `windows.Batch.inputs` lists them: steps (batch, window, fields) int32, or
        float32 where a field is continuous; context (batch, window, context_size) if there is one;
        and with several fields targets (batch, window, fields), of which each head sees the fields
        before its own. Outputs, one a field: logits (batch, window, size) or the value itself.
    """
    if config.past > 1:
        from deep_piano.tiers import build_tiers

        return build_tiers(spec, config, batch=batch, window=window, precision=precision)
    import keras
    from keras import layers, ops

    from deep_piano.lstm import LSTM

    shape = (batch, window, len(spec.fields))
    dtype = "float32" if spec.continuous else "int32"
    steps = keras.Input(batch_shape=shape, dtype=dtype, name="steps")
    targets = keras.Input(batch_shape=shape, dtype=dtype, name="targets")
    context = keras.Input(batch_shape=(*shape[:2], spec.context_size), name="context")
    inputs = [steps]
    inputs += [context] if spec.context_size else []
    inputs += [targets] if len(spec.fields) > 1 else []

    def as_features(array: Any, index: int) -> Any:
        if spec.fields[index].continuous:
            return array[..., index : index + 1]
        return ops.one_hot(ops.cast(array[..., index], "int32"), spec.fields[index].size)

    heard = [as_features(steps, index) for index in range(len(spec.fields))]
    heard += [context] if spec.context_size else []
    x = layers.Dense(config.units, dtype=precision, name="input")(
        ops.concatenate(heard, -1) if len(heard) > 1 else heard[0]
    )
    for layer in range(config.layers):
        normal = layers.LayerNormalization(dtype=precision, name=f"norm_{layer}")(x)
        x = x + LSTM(
            config.units,
            return_sequences=True,
            stateful=True,
            dtype=precision,
            name=f"lstm_{layer}",
        )(normal)
    x = layers.LayerNormalization(dtype=precision, name="norm_out")(x)
    outputs = []
    known = [x]
    for index, field in enumerate(spec.fields):
        joined = ops.concatenate(known, -1) if index else x
        hidden = layers.Dense(
            config.head_units, "relu", dtype=precision, name=f"{field.name}_hidden"
        )(joined)
        outputs.append(layers.Dense(field.size, dtype="float32", name=field.name)(hidden))
        known.append(as_features(targets, index))
    return keras.Model(inputs, outputs, name="deep_piano")


def carry_state(model: Any, keep: Any) -> None:
    """Drop the carried state of the slots in which a new recording begins.

    Parameters
    ----------
    model : keras.Model
        From `build_model`.
    keep : ndarray of float32, shape (batch,)
        1 to carry the state on, 0 to begin anew.
    """
    from keras import ops

    if keep.all():
        return
    for state in carried(model):
        state.assign(state * ops.convert_to_tensor(keep[:, None], state.dtype))


def carried(model: Any) -> list[Any]:
    """Return the variables that a model carries from window to window, (batch, units) each."""
    return [state for layer in model.layers for state in getattr(layer, "states", None) or []]
