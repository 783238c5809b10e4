"""The network: stacked LSTMs and one Dense head a field, built from a `SequenceSpec`.

Each head sees the output of the stack and the earlier fields of the next step, so that a step's
probability is the product of its fields' probabilities, in the order of the specification. This
module knows a codec's specification; it knows nothing of what the fields mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import IMPOSSIBLE, Field, SequenceSpec
from deep_piano.infra.backend import load_keras
from deep_piano.models.config import ModelConfig


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
    batch is fixed. One-hot products replace embeddings: they compute the same, with the dense
    gradient that Adam needs (Keras squares the parts of a sparse one without adding them up).

    Parameters
    ----------
    spec : SequenceSpec
    config : ModelConfig
    batch, window : int
        Windows in a batch, and steps in a window: a multiple of the configuration's frame.
    precision : str
        Keras's dtype policy of the layers: "float32", "mixed_bfloat16" or "mixed_float16".
        The logits are float32 in any case.

    Returns
    -------
    keras.Model
        Inputs, as `windows.Batch.inputs` lists them: steps (batch, window, fields) int32, or
        float32 where a field is continuous; the context, if there is any: features
        (batch, window, features) and classes (batch, window, classes) int32; and with several
        fields targets (batch, window, fields), of which each head sees the earlier fields.
        Outputs, one a field: logits (batch, window, outputs) or the value itself.
    """
    keras = load_keras()
    if config.past > 1:
        from deep_piano.models.wave_network import build_tiers

        return build_tiers(spec, config, batch=batch, window=window, precision=precision)
    from keras import layers, ops

    from deep_piano.models.lstm import LSTM

    steps, features, classes, targets = _inputs(spec, batch=batch, window=window)
    inputs = [steps] + [part for part in (features, classes) if part.shape[-1]]
    inputs += [targets] if len(spec.fields) > 1 else []

    def as_features(array: Any, index: int) -> Any:
        if spec.fields[index].continuous:
            return array[..., index : index + 1]
        return one_hot(array[..., index], spec.fields[index].size)

    def one_hot(array: Any, size: int) -> Any:
        return ops.one_hot(ops.cast(array, "int32"), size, dtype=compute)

    def beside(*parts: int) -> list[Any]:
        """Return parts of `spec.context` as features: features of all, then classes."""
        columns = [(*spec.columns[part], spec.context[part]) for part in parts]
        found = [features[..., place] for place, _, part in columns if part.features]
        for _, place, part in columns:
            for index, size in enumerate(part.classes):
                found.append(one_hot(classes[..., place.start + index], size))
        return found

    def dense(units: int, name: str, parts: list[Any], activation: str | None = None) -> Any:
        joined = ops.concatenate([ops.cast(part, compute) for part in parts], -1)
        return layers.Dense(units, activation, dtype=precision, name=name)(joined)

    compute = "float32" if precision == "float32" else precision.removeprefix("mixed_")
    last = [as_features(steps, index) for index in range(len(spec.fields))]
    x = dense(config.units, "input", last + beside(0, 1))
    for layer in range(config.layers):
        normal = layers.LayerNormalization(dtype=precision, name=f"norm_{layer}")(x)
        lstm = LSTM(
            config.units,
            return_sequences=True,
            stateful=True,
            dtype=precision,
            name=f"lstm_{layer}",
        )
        x = x + lstm(normal)
    x = layers.LayerNormalization(dtype=precision, name="norm_out")(x)
    outputs = []
    known = [x]
    for index, field in enumerate(spec.fields):
        hidden = dense(config.head_units, f"{field.name}_hidden", known + beside(index + 1), "relu")
        logits = layers.Dense(field.outputs, dtype="float32", name=field.name)(hidden)
        if field.copies:
            place = spec.columns[index + 1][1]
            candidates = classes[..., place.stop - field.copies : place.stop]
            missing = ops.cast(ops.equal(candidates, field.no_candidate), "float32") * IMPOSSIBLE
            logits = ops.concatenate(
                [logits[..., : field.size], logits[..., field.size :] + missing], -1
            )
        outputs.append(logits)
        known.append(as_features(targets, index))
    return keras.Model(inputs, outputs, name="deep_piano")


def _inputs(spec: SequenceSpec, *, batch: int, window: int) -> list[Any]:
    """Return the inputs: steps, features, classes and targets."""
    import keras

    (*_, (features_end, classes_end)) = ((f.stop, c.stop) for f, c in spec.columns)
    dtype = "float32" if spec.continuous else "int32"
    return [
        keras.Input(batch_shape=(batch, window, columns), dtype=kind, name=name)
        for name, columns, kind in (
            ("steps", len(spec.fields), dtype),
            ("features", features_end, "float32"),
            ("classes", classes_end, "int32"),
            ("targets", len(spec.fields), dtype),
        )
    ]


def nats_of(field: Field, log_widths: NDArray[np.float64]) -> Any:
    """Return the loss of a categorical field, for Keras to minimise.

    Its targets, (batch, window, 1 + copies), are the class and, for each candidate for copying,
    whether it equals the target; its logits are (batch, window, outputs). It returns nats on the
    codec's finest grid, (batch, window): see `codecs.base.nats`.
    """

    def nats(target: Any, logits: Any) -> Any:
        from keras import ops

        own = ops.one_hot(ops.cast(target[..., 0], "int32"), field.size, dtype="float32")
        widths = ops.convert_to_tensor(np.asarray(log_widths, np.float32))
        said = ops.sum((logits[..., : field.size] - widths) * own, -1)
        if field.copies:
            copied = logits[..., field.size :] + IMPOSSIBLE * (1 - target[..., 1:])
            said = ops.logsumexp(ops.concatenate([said[..., None], copied], -1), -1)
        return ops.logsumexp(logits, -1) - said

    return nats


def carry_state(model: Any, keep: Any) -> None:
    """Reset the carried state of the slots in which a new recording begins.

    Parameters
    ----------
    model : keras.Model
        From `build_model`.
    keep : ndarray of float32, shape (batch,)
        1 keeps the state, 0 resets it.
    """
    from keras import ops

    if keep.all():
        return
    for state in carried(model):
        state.assign(state * ops.convert_to_tensor(keep[:, None], state.dtype))


def carried(model: Any) -> list[Any]:
    """Return the variables that a model carries from window to window, (batch, units) each."""
    return [state for layer in model.layers for state in getattr(layer, "states", None) or []]
