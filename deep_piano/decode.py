"""Stepping the network without TensorFlow: logits of the next step, and drawing from them.

The engine is NumPy over the checkpoint's own arrays. One step reads every weight once, which is
what bounds it; a graph would have to win back TensorFlow's import first. `tests/test_decode.py`
holds it to the Keras model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deep_piano.checkpoint import Checkpoint

Array = NDArray[np.float32]

_NORM_EPSILON = 1e-3  # Keras's default for LayerNormalization


@dataclass
class State:
    """What the LSTM layers carry: h and c, each of shape (layers, batch, units)."""

    h: Array
    c: Array


class Engine:
    """The network of a checkpoint, one step at a time.

    Parameters
    ----------
    checkpoint : Checkpoint
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        weights, self.spec, self.config = checkpoint.weights, checkpoint.spec, checkpoint.config
        sizes = [field.size for field in self.spec.fields]
        self._starts = np.cumsum([0, *sizes[:-1]])  # row of each field's first class
        kernel = weights["input/kernel"]
        self._embedding, self._from_context = kernel[: sum(sizes)], kernel[sum(sizes) :]
        self._input_bias = weights["input/bias"]
        self._norms = [
            (weights[f"{name}/gamma"], weights[f"{name}/beta"])
            for name in [*(f"norm_{n}" for n in range(self.config.layers)), "norm_out"]
        ]
        # The input's and the state's kernels as one: a single product a layer.
        self._lstms = [
            (
                np.concatenate(
                    [weights[f"lstm_{n}/kernel"], weights[f"lstm_{n}/recurrent_kernel"]]
                ),
                weights[f"lstm_{n}/bias"],
            )
            for n in range(self.config.layers)
        ]
        self._heads = [
            tuple(
                weights[f"{field.name}{part}"]
                for part in ("_hidden/kernel", "_hidden/bias", "/kernel", "/bias")
            )
            for field in self.spec.fields
        ]

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
        ndarray of float32, shape (batch, units)
            What `logits` needs.
        """
        x = self._embedding[steps + self._starts].sum(1)
        x += context @ self._from_context
        x += self._input_bias
        units = self.config.units
        for layer, (kernel, bias) in enumerate(self._lstms):
            h, c = state.h[layer], state.c[layer]
            z = np.concatenate([_normalise(x, *self._norms[layer]), h], 1) @ kernel
            z += bias
            _sigmoid(z[:, : 2 * units])  # input and forget gates
            _sigmoid(z[:, 3 * units :])  # output gate
            c *= z[:, units : 2 * units]
            c += z[:, :units] * np.tanh(z[:, 2 * units : 3 * units])
            np.multiply(np.tanh(c), z[:, 3 * units :], out=h)
            x += h
        return _normalise(x, *self._norms[-1])

    def logits(self, heard: Array, chosen: NDArray[np.int32]) -> Array:
        """Return the logits of the next field.

        Parameters
        ----------
        heard : ndarray of float32, shape (batch, units)
            From `hear`.
        chosen : ndarray of int, shape (batch, k)
            The first k fields of the step that is being decoded.

        Returns
        -------
        ndarray of float32, shape (batch, size of field k)
        """
        index = chosen.shape[1]
        hidden_kernel, hidden_bias, kernel, bias = self._heads[index]
        hidden: Array = heard @ hidden_kernel[: self.config.units]
        for known in range(index):
            hidden += hidden_kernel[self.config.units + self._starts[known] + chosen[:, known]]
        hidden += hidden_bias
        np.maximum(hidden, 0, out=hidden)
        logits: Array = hidden @ kernel
        logits += bias
        return logits


def _normalise(x: Array, gamma: Array, beta: Array) -> Array:
    """Layer normalisation (Ba, Kiros and Hinton 2016) over the last axis."""
    x = x - x.mean(-1, keepdims=True)
    x *= 1 / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(_NORM_EPSILON))
    x *= gamma
    x += beta
    return x


def _sigmoid(x: Array) -> None:
    """Logistic function, in place; by tanh, which does not overflow."""
    x *= 0.5
    np.tanh(x, out=x)
    x += 1
    x *= 0.5


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
        scaled = logits.astype(np.float64) / self.temperature
        if allowed is not None:
            scaled = np.where(allowed, scaled, -np.inf)
        order = np.argsort(-scaled, kind="stable")
        weights = np.exp(scaled[order] - scaled[order[0]])
        if self.top_k:
            weights[self.top_k :] = 0
        total = np.cumsum(weights)
        # Keep each class before which less than top_p of the mass lies.
        kept = int(np.searchsorted(total, self.top_p * total[-1], side="left")) + 1
        total = total[:kept]
        place = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
        return int(order[min(place, kept - 1)])
