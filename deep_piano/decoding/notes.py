"""Stepping the network without TensorFlow: logits of the next step, and drawing from them.

The engine is NumPy over the checkpoint's own arrays. One step reads every weight once, which is
what bounds it; a graph would have to win back TensorFlow's import first. A stream's numbers do not
depend on the streams beside it, to the last bit: products are `products.Kernel`'s, and everything
else goes row by row. `tests/test_decode.py` holds it to the Keras model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import IMPOSSIBLE, Beside, Part, rearranged
from deep_piano.decoding.kernels import Array, Kernel
from deep_piano.models.checkpoint import Checkpoint

NORM_EPSILON = 1e-3  # Keras's default for LayerNormalization

Pair = tuple[Array, Array]


@dataclass
class State:
    """What the LSTM layers carry: h and c, each of shape (layers, batch, units)."""

    h: Array
    c: Array

    def arrange(self, order: Sequence[int]) -> None:
        """Keep the streams of these indices, in this order; -1 is a new one."""
        self.h, self.c = (rearranged(array, order, axis=1) for array in (self.h, self.c))


class InputKernel(NamedTuple):
    """The rows of a kernel by what they are multiplied with.

    Attributes
    ----------
    features : ndarray, shape (features, outputs)
    table : ndarray, shape (classes of all categorical inputs, outputs)
        One row a class, one input after another.
    starts : ndarray of int, shape (categorical inputs,)
        The row of each input's first class.
    """

    features: Array
    table: Array
    starts: NDArray[np.int64]


class Arranged(NamedTuple):
    """The arrays of a network as stepping needs them; pairs are of a kernel and its bias.

    Attributes
    ----------
    input : InputKernel
        Of the LSTM: the fields of a step, then what is known beside it.
    bias : ndarray, shape (units,)
    norms : list of pair
        Scale and shift: of each layer's input, and of the output.
    lstms : list of pair
        From inputs and h to the gates input, forget, output and cell.
    hidden : pair
        From the output to what all heads make of it.
    known : list of InputKernel
        Of each head: the fields before its own, then what is known beside them.
    heads : list of pair
    """

    input: InputKernel
    bias: Array
    norms: list[Pair]
    lstms: list[Pair]
    hidden: Pair
    known: list[InputKernel]
    heads: list[Pair]


def arranged(checkpoint: Checkpoint) -> Arranged:
    """Return a checkpoint's arrays as stepping needs them."""
    weights, fields, units = checkpoint.weights, checkpoint.spec.fields, checkpoint.config.units
    norms, lstms = arranged_layers(checkpoint)
    sizes = [field.size for field in fields]
    hidden = [weights[f"{field.name}_hidden/kernel"] for field in fields]
    return Arranged(
        input=_input_kernel(weights["input/kernel"], sizes, checkpoint.spec.context[:2]),
        bias=weights["input/bias"],
        norms=norms,
        lstms=lstms,
        hidden=(
            np.concatenate([kernel[:units] for kernel in hidden], 1),
            np.concatenate([weights[f"{field.name}_hidden/bias"] for field in fields]),
        ),
        known=[
            _input_kernel(kernel[units:], sizes[:index], [fields[index].beside])
            for index, kernel in enumerate(hidden)
        ],
        heads=[
            (weights[f"{field.name}/kernel"], weights[f"{field.name}/bias"]) for field in fields
        ],
    )


def _input_kernel(kernel: Array, sizes: Sequence[int], parts: Sequence[Beside]) -> InputKernel:
    """Tell a kernel's rows apart, which stand as `model.build_model` joins its inputs."""
    features, of_fields = sum(part.features for part in parts), sum(sizes)
    sizes = [*sizes, *(size for part in parts for size in part.classes)]
    return InputKernel(
        kernel[of_fields : of_fields + features],
        np.concatenate([kernel[:of_fields], kernel[of_fields + features :]]),
        np.cumsum([0, *sizes], dtype=np.int64)[:-1],
    )


def arranged_layers(checkpoint: Checkpoint) -> tuple[list[Pair], list[Pair]]:
    """Return the arrays of the LSTM layers: `Arranged.norms` and `Arranged.lstms`."""
    weights, layers = checkpoint.weights, range(checkpoint.config.layers)
    names = [*(f"norm_{n}" for n in layers), "norm_out"]
    return (
        [(weights[f"{name}/gamma"], weights[f"{name}/beta"]) for name in names],
        [_gates(weights, f"lstm_{n}", checkpoint.config.units) for n in layers],
    )


def _gates(weights: Mapping[str, Array], name: str, units: int) -> Pair:
    """Return a layer's kernel: from inputs and h to the gates.

    Keras's gates are input, forget, cell, output; here the cell is last, so that one tanh serves
    all four: sigmoid(x) = (1 + tanh(x / 2)) / 2, and halving a weight rounds nothing.
    """
    kernel = np.concatenate([weights[f"{name}/kernel"], weights[f"{name}/recurrent_kernel"]])
    rows = np.r_[kernel, weights[f"{name}/bias"][None]]
    first, last = rows[:, : 2 * units], rows[:, 3 * units :]
    rows = np.concatenate([first / 2, last / 2, rows[:, 2 * units : 3 * units]], 1)
    return rows[:-1], rows[-1]


class Engine:
    """The network of a checkpoint, one step at a time.

    Parameters
    ----------
    checkpoint : Checkpoint
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.spec, self.config = checkpoint.spec, checkpoint.config
        weights = arranged(checkpoint)
        self._input = _Input(weights.input, weights.bias)
        self._norms = weights.norms
        self._lstms = [Kernel(*pair) for pair in weights.lstms]
        self._hidden = Kernel(*weights.hidden)
        self._known = [_Input(known) for known in weights.known]
        self._heads = [Kernel(*pair) for pair in weights.heads]

    def start(self, batch: int) -> State:
        """Return the state before the first step."""
        shape = (self.config.layers, batch, self.config.units)
        return State(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def hear(self, state: State, steps: NDArray[np.int32], known: Part) -> Array:
        """Take one step into the state.

        Parameters
        ----------
        state : State
            Changed in place.
        steps : ndarray of int, shape (batch, fields)
            Classes.
        known : Part, of shape (batch, ...)
            What is known after the step, and of the first field of the next one.

        Returns
        -------
        ndarray of float32, shape (batch, fields * head_units)
            What `logits` needs: what each head makes of it, before the fields that are chosen.
        """
        x = self._input(steps, known)
        units = self.config.units
        for layer, kernel in enumerate(self._lstms):
            h, c = state.h[layer], state.c[layer]
            z = kernel(np.concatenate([_normalise(x, *self._norms[layer]), h], 1))
            np.tanh(z, out=z)
            gates = z[:, : 3 * units]  # input, forget, output: the logistic function by tanh
            gates += 1
            gates *= 0.5
            c *= z[:, units : 2 * units]
            c += z[:, :units] * z[:, 3 * units :]
            np.multiply(np.tanh(c), z[:, 2 * units : 3 * units], out=h)
            x += h
        return self._hidden(_normalise(x, *self._norms[-1]))

    def logits(self, heard: Array, chosen: NDArray[np.integer[Any]], known: Part) -> Array:
        """Return the logits of the next field.

        Parameters
        ----------
        heard : ndarray of float32, shape (batch, fields * head_units)
            From `hear`.
        chosen : ndarray of int, shape (batch, k)
            The classes of the first k fields of the step that is being decoded.
        known : Part, of shape (batch, ...)
            What is known of the field.

        Returns
        -------
        ndarray of float32, shape (batch, outputs of field k)
        """
        index, width = chosen.shape[1], self.config.head_units
        field = self.spec.fields[index]
        hidden = self._known[index](chosen, known)
        hidden += heard[:, index * width : (index + 1) * width]
        logits = self._heads[index](np.maximum(hidden, 0, out=hidden))
        if field.copies:
            missing = known.classes[:, field.candidates] == field.no_candidate
            logits[:, field.size :][missing] = IMPOSSIBLE
        return logits


class _Input:
    """The product of a kernel with its inputs, one-hot but for the features."""

    def __init__(self, kernel: InputKernel, bias: Array | None = None) -> None:
        given = len(kernel.features) > 0 or bias is not None
        self._features = Kernel(kernel.features, bias) if given else None
        self._table, self._starts = kernel.table, kernel.starts

    def __call__(self, classes: NDArray[np.integer[Any]], known: Part) -> Array:
        rows = np.concatenate([classes, known.classes], 1) + self._starts
        # (batch, inputs, outputs), summed input after input whatever the batch is
        x: Array = np.add.reduce(self._table[rows], 1)
        return x if self._features is None else x + self._features(known.features)


def _normalise(x: Array, gamma: Array, beta: Array) -> Array:
    """Layer normalisation (Ba, Kiros and Hinton 2016) of each row."""
    share = np.float32(1 / x.shape[1])
    x = np.subtract(x, np.add.reduce(x, 1, keepdims=True) * share)
    x *= 1 / np.sqrt(np.add.reduce(x * x, 1, keepdims=True) * share + np.float32(NORM_EPSILON))
    x *= gamma
    x += beta
    return x


@dataclass(frozen=True)
class Sampling:
    """How a class is drawn from its logits.

    Attributes
    ----------
    temperature : float
        Divides the logits.
    top_k : int
        Draw from the k likeliest classes; 0: from all.
    top_p : float
        Draw from the likeliest classes that together hold this probability (nucleus sampling,
        Holtzman et al. 2020, arXiv:1904.09751); 1: from all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def draw(
        self, logits: Array, rng: np.random.Generator, allowed: NDArray[np.bool_] | None = None
    ) -> int:
        """Draw one class.

        Parameters
        ----------
        logits : ndarray, shape (size,)
        rng : numpy.random.Generator
            Exactly one number is taken from it.
        allowed : ndarray of bool, shape (size,), optional
            Classes that may be drawn; at least one.
        """
        return int(self.draw_each(logits[None], np.array([rng.random()]), allowed)[0])

    def draw_each(
        self,
        logits: Array,
        chances: NDArray[np.float64],
        allowed: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Draw one class for each stream of a batch.

        Parameters
        ----------
        logits : ndarray, shape (batch, size)
        chances : ndarray of float64, shape (batch,)
            At least 0, below 1: a random number a stream.
        allowed : ndarray of bool, shape (size,) or (batch, size), optional
            Classes that may be drawn; at least one a stream.

        Returns
        -------
        ndarray of int, shape (batch,)
        """
        weights = logits.astype(np.float64)
        weights /= self.temperature
        if allowed is not None:
            weights = np.where(allowed, weights, -np.inf)
        weights -= weights.max(1, keepdims=True)
        np.exp(weights, out=weights)
        if self.top_k or self.top_p < 1:
            falling = -np.sort(-weights, 1)
            if self.top_k:
                falling[:, self.top_k :] = 0
            mass = falling.cumsum(1)
            # Keep each class before which less than top_p of the mass lies, and its equals.
            last = (mass < self.top_p * mass[:, -1:]).sum(1)
            weights[weights < falling[np.arange(len(last)), last][:, None]] = 0
        mass = weights.cumsum(1)
        place: NDArray[np.int64] = (mass <= chances[:, None] * mass[:, -1:]).sum(1)
        return place
