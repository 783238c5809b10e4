"""Stepping the network without TensorFlow: logits of the next step, and drawing from them.

The engine is NumPy over the checkpoint's own arrays. One step reads every weight once, which is
what bounds it; a graph would have to win back TensorFlow's import first. A stream's numbers do not
depend on the streams beside it, to the last bit: products are `products.Kernel`'s, and everything
else goes row by row. `tests/test_decode.py` holds it to the Keras model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.checkpoint import Checkpoint
from deep_piano.codecs.base import rearranged
from deep_piano.products import Array, Kernel

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


class Arranged(NamedTuple):
    """The arrays of a network as stepping needs them; pairs are of a kernel and its bias.

    Attributes
    ----------
    starts : ndarray of int, shape (fields,)
        The row of each field's first class in `embedding`.
    embedding : ndarray, shape (classes of all fields, units)
    from_context : pair
    norms : list of pair
        Scale and shift: of each layer's input, and of the output.
    lstms : list of pair
        From inputs and h to the gates input, forget, output and cell.
    hidden : pair
        From the output to what all heads make of it.
    known : list of ndarray
        A head: what it makes of the classes before its own, in the order of `embedding`.
    heads : list of pair
    """

    starts: NDArray[np.int64]
    embedding: Array
    from_context: Pair
    norms: list[Pair]
    lstms: list[Pair]
    hidden: Pair
    known: list[Array]
    heads: list[Pair]


def arranged(checkpoint: Checkpoint) -> Arranged:
    """Return a checkpoint's arrays as stepping needs them."""
    weights, fields, units = checkpoint.weights, checkpoint.spec.fields, checkpoint.config.units
    norms, lstms = arranged_layers(checkpoint)
    sizes = [field.size for field in fields]
    kernel = weights["input/kernel"]
    hidden = [weights[f"{field.name}_hidden/kernel"] for field in fields]
    return Arranged(
        starts=np.cumsum([0, *sizes[:-1]]),
        embedding=kernel[: sum(sizes)],
        from_context=(kernel[sum(sizes) :], weights["input/bias"]),
        norms=norms,
        lstms=lstms,
        hidden=(
            np.concatenate([kernel[:units] for kernel in hidden], 1),
            np.concatenate([weights[f"{field.name}_hidden/bias"] for field in fields]),
        ),
        known=[kernel[units:] for kernel in hidden],
        heads=[
            (weights[f"{field.name}/kernel"], weights[f"{field.name}/bias"]) for field in fields
        ],
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
        self._starts, self._embedding = weights.starts, weights.embedding
        self._from_context = Kernel(*weights.from_context)
        self._norms, self._known = weights.norms, weights.known
        self._lstms = [Kernel(*pair) for pair in weights.lstms]
        self._hidden = Kernel(*weights.hidden)
        self._heads = [Kernel(*pair) for pair in weights.heads]

    def start(self, batch: int) -> State:
        """Return the state before the first step."""
        shape = (self.config.layers, batch, self.config.units)
        return State(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def hear(self, state: State, steps: NDArray[np.int32], context: Array) -> Array:
        """Take one step into the state.

        Parameters
        ----------
        state : State
            Changed in place.
        steps : ndarray of int, shape (batch, fields)
        context : ndarray of float32, shape (batch, context_size)

        Returns
        -------
        ndarray of float32, shape (batch, fields * head_units)
            What `logits` needs: what each head makes of it, before the fields that are chosen.
        """
        x = self._from_context(context)
        for rows in (steps + self._starts).T:
            x += self._embedding[rows]
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

    def logits(self, heard: Array, chosen: NDArray[np.int32]) -> Array:
        """Return the logits of the next field.

        Parameters
        ----------
        heard : ndarray of float32, shape (batch, fields * head_units)
            From `hear`.
        chosen : ndarray of int, shape (batch, k)
            The first k fields of the step that is being decoded.

        Returns
        -------
        ndarray of float32, shape (batch, size of field k)
        """
        index, width = chosen.shape[1], self.config.head_units
        hidden = heard[:, index * width : (index + 1) * width].copy()
        for rows in (chosen + self._starts[:index]).T:
            hidden += self._known[index][rows]
        return self._heads[index](np.maximum(hidden, 0, out=hidden))


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
