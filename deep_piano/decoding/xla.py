"""What the loops of notes and of sound have in common that XLA compiles for a GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf

from deep_piano.decoding.constants import NORM_EPSILON
from deep_piano.errors import DeepPianoError

_XLA_FLAGS: Final = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
MANY: Final = 2**62

Rows = dict[str, Any]
"""One row a piece: what its rules need to know."""


def prepare_gpu() -> None:
    """Make TensorFlow fit for decoding on this process's GPU; to be called before anything else.

    Memory is taken as needed, so that several processes may share a GPU; products are of whole
    float32 numbers, not of TF32's; and kernels sum in one order, and are not chosen by timing them,
    which might choose another one in each process.

    Raises
    ------
    DeepPianoError
        When TensorFlow sees no GPU.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        raise DeepPianoError(
            "TensorFlow sees no GPU in a process that has one. Install '.[gpu]' on every node, or "
            "give --gpus-per-worker 0 to compose on CPUs."
        )
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.config.experimental.enable_op_determinism()
    os.environ["XLA_FLAGS"] = f"{_XLA_FLAGS} {os.environ.get('XLA_FLAGS', '')}"  # read later, once


def product(rows: tf.Tensor, pair: Any) -> tf.Tensor:
    """Return rows times a kernel, and its bias added."""
    return rows @ pair[0] + pair[1]


def lstm_layers(
    x: tf.Tensor, state: Sequence[Any], norms: Sequence[Any], lstms: Sequence[Any]
) -> tuple[list[Any], tf.Tensor]:
    """Take one step through the LSTM layers.

    Parameters
    ----------
    x : tensor, shape (streams, units)
    state : list of pair of tensor, shape (streams, units)
        h and c of each layer.
    norms, lstms : list of pair
        See `decoding.base.Arranged`.

    Returns
    -------
    list of pair of tensor
        The state after the step.
    tensor, shape (streams, units)
        The input of the heads.
    """
    after, units = [], x.shape[1]
    for (h, c), norm, kernel in zip(state, norms, lstms, strict=False):
        z = tf.tanh(product(tf.concat([_normalise(x, norm), h], 1), kernel))
        gates = 0.5 * (z[:, : 3 * units] + 1)
        c = c * gates[:, units : 2 * units] + gates[:, :units] * z[:, 3 * units :]
        h = tf.tanh(c) * gates[:, 2 * units :]
        after.append((h, c))
        x += h
    return after, _normalise(x, norms[-1])


def where(condition: tf.Tensor, yes: Any, no: Any) -> Any:
    """Choose among the rows of each tensor of a structure."""

    def choose(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return tf.where(tf.reshape(condition, [-1] + [1] * (len(b.shape) - 1)), a, b)

    return tf.nest.map_structure(choose, yes, no)


def _normalise(x: tf.Tensor, norm: Any) -> tf.Tensor:
    """Layer normalisation of each row, as in `decoding.notes`."""
    x -= tf.reduce_mean(x, 1, keepdims=True)
    x *= tf.math.rsqrt(tf.reduce_mean(x * x, 1, keepdims=True) + NORM_EPSILON)
    return x * norm[0] + norm[1]
