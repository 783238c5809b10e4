"""What every decoder shares: its interface, how values are drawn, arrays of layers.

This module knows checkpoints and draws; it steps nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import Beside
from deep_piano.infra.kernels import Array
from deep_piano.models.checkpoint import Checkpoint

Pair = tuple[Array, Array]
Task = TypeVar("Task")
Continuation = TypeVar("Continuation")


class Decoder(ABC, Generic[Task, Continuation]):
    """Sequences decoded side by side, that begin and end independently of each other.

    A sequence is the same whatever is decoded beside it. What a task and a continuation are is the
    codec's business; how they are computed is the engine's.
    """

    @abstractmethod
    def add(self, name: Hashable, task: Task) -> None:
        """Begin a sequence; `step` returns its name when it is complete.

        Raises
        ------
        ValueError
            When as many are being decoded as the decoder has slots for.
        """

    @abstractmethod
    def step(self) -> dict[Hashable, Continuation]:
        """Take every sequence some steps further.

        Returns
        -------
        dict of name to Continuation
            Those that are complete. They are no longer being decoded.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Return how many sequences are being decoded."""

    @property
    @abstractmethod
    def done_s(self) -> float:
        """How far all sequences that are being decoded have come together, in seconds."""


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
    """Tell a kernel's rows apart, which stand as `note_network.build_model` joins its inputs."""
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
    min_p : float
        Draw from classes that are at least this share as likely as the likeliest (Nguyen et al.
        2024, arXiv:2407.01082); 0: from all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

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
        if self.min_p:
            weights[weights < self.min_p] = 0  # the likeliest has 1
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
