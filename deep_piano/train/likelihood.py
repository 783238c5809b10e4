"""The likelihood of held-out recordings under a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import Context, nats
from deep_piano.codecs.registry import Codec
from deep_piano.models.note_network import carried, carry_state
from deep_piano.train.windows import held_out_batches

Floats = NDArray[np.float64]


def losses(
    model: Any,
    codec: Codec,
    sequences: Sequence[NDArray[Any]],
    context: Callable[[int], Context] | None = None,
    *,
    given: int = 1,
) -> tuple[Floats, NDArray[np.int64]]:
    """Score a network on whole sequences, side by side.

    Parameters
    ----------
    model : keras.Model
        From `build_model`; its carried state is left as it was.
    codec : Codec
        The one that made the sequences.
    sequences : sequence of ndarray, shape (n, fields)
    context : callable, optional
        As for `windows.training_batches`.
    given : int
        How many first steps of each sequence are context and not scored; at least 1.

    Returns
    -------
    sums : ndarray, shape (sequences, fields)
        For a categorical field, nats on the codec's finest grid (of `notes`: 10 ms and 32
        velocities; the width of a class that holds several cells is counted); their sum over the
        fields, divided by `steps`, is the figure that papers give. For a continuous field, squared
        errors.
    steps : ndarray, shape (sequences,)
        How many steps were scored.
    """
    several = isinstance(model.input_shape, list)
    batch, window = (model.input_shape[0] if several else model.input_shape)[:2]
    states = carried(model)
    kept = [np.asarray(state.numpy()).copy() for state in states]
    fields = codec.spec.fields
    sums = np.zeros((len(sequences), len(fields)))
    for windows, places in held_out_batches(
        sequences, codec, batch=batch, window=window, context=context, given=given
    ):
        carry_state(model, windows.keep)
        outputs = model.predict_on_batch(windows.inputs)
        playing = places >= 0
        for index, (field, output) in enumerate(
            zip(fields, outputs if isinstance(outputs, list) else [outputs], strict=True)
        ):
            target = windows.targets[..., index]
            if field.continuous:
                loss = np.square(output[..., 0] - target)
            else:
                copied = windows.known.copied if field.copies else None
                loss = nats(field, codec.log_widths[index], output, target, copied)
            per_slot = (loss * windows.weights).sum(axis=1, dtype=np.float64)
            sums[places[playing], index] += per_slot[playing]
    for state, value in zip(states, kept, strict=True):
        state.assign(value)
    return sums, np.array([max(0, len(sequence) - given) for sequence in sequences], np.int64)
