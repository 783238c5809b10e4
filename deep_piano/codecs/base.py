"""What a model needs to know of a codec, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Field:
    """One attribute of a step: one of `size` classes or, where `continuous`, a real number.

    Attributes
    ----------
    name : str
    size : int
    continuous : bool
    mu : int
        Not 0: the classes stand for numbers, and are the cells of [-1, 1] companded by this μ.
    """

    name: str
    size: int
    continuous: bool = False
    mu: int = 0

    @property
    def levels(self) -> NDArray[np.float64]:
        """The numbers that the classes stand for, in the middle of their cells; shape (size,)."""
        return expand((np.arange(self.size) + 0.5) * (2 / self.size) - 1, self.mu)

    @property
    def log_widths(self) -> NDArray[np.float64]:
        """Log of the widths of the classes' cells; shape (size,)."""
        return np.log(np.diff(self.edges))

    @property
    def edges(self) -> NDArray[np.float64]:
        """Where the classes' cells begin, and the last one ends; shape (size + 1,)."""
        return expand(np.arange(self.size + 1) * (2 / self.size) - 1, self.mu)


def expand(companded: NDArray[np.floating[Any]], mu: int) -> NDArray[np.float64]:
    """Return what was companded: the inverse of ``sign(x) ln(1 + μ |x|) / ln(1 + μ)``."""
    expanded: NDArray[np.float64] = np.expm1(np.abs(companded) * np.log1p(mu)) / mu
    return np.sign(companded) * expanded


@dataclass(frozen=True)
class SequenceSpec:
    """The shape of a codec's sequences.

    Attributes
    ----------
    codec : str
        The codec's name and version. A checkpoint only serves the codec it was trained on.
    fields : tuple of Field
        The columns of a step, in the order in which they are predicted.
    context_size : int
        How many real-valued features stand beside each step (0: none).
    """

    codec: str
    fields: tuple[Field, ...]
    context_size: int = 0

    @property
    def continuous(self) -> bool:
        """Whether a step holds real numbers, so that losses are squared errors and not nats."""
        return any(field.continuous for field in self.fields)

    def to_json(self) -> dict[str, Any]:
        """Return the specification as JSON-ready values."""
        fields = [asdict(field) for field in self.fields]
        for field in fields:
            if not field["mu"]:  # datasets and checkpoints of before know nothing of it
                del field["mu"]
        return {**asdict(self), "fields": fields}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SequenceSpec:
        """Build a specification from what `to_json` returned."""
        fields = tuple(
            Field(
                str(f["name"]),
                int(f["size"]),
                bool(f.get("continuous", False)),
                int(f.get("mu", 0)),
            )
            for f in value["fields"]
        )
        return cls(str(value["codec"]), fields, int(value["context_size"]))


def loss_unit(step_name: str, *, continuous: bool) -> str:
    """Return what losses are measured in, such as "nats a note"."""
    return f"{'squared error' if continuous else 'nats'} a {step_name}"


@dataclass(frozen=True)
class Augmentation:
    """How far a recording may be bent each time it is trained on; all zero: not at all.

    Attributes
    ----------
    transpose_semitones : int
        Up or down at most.
    tempo_range : float
        0.1: from a tenth slower to a tenth faster.
    velocity_range : float
        0.1: up to a tenth of the whole range softer or louder.
    transcription_noise : float
        0.5: in half of the plays the first seconds are as a transcription would hear them.
    """

    transpose_semitones: int = 0
    tempo_range: float = 0.0
    velocity_range: float = 0.0
    transcription_noise: float = 0.0


class Context(Protocol):
    """What is known beside each step, for a batch of streams."""

    def begin(
        self, slot: int, sequence: NDArray[Any], rng: np.random.Generator | None = None
    ) -> None:
        """Begin a new stream in `slot`: a sequence to train on, or without `rng` to be scored."""

    def window(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        """Hear (batch, window, fields); return the features after each step."""

    def skip(self, steps: NDArray[Any]) -> None:
        """Hear (batch, window, fields); nobody asks for the features."""


class NoContext:
    """The context of a codec that has none."""

    size: ClassVar[int] = 0

    def __init__(self, batch: int) -> None:
        pass

    def begin(
        self, slot: int, sequence: NDArray[Any], rng: np.random.Generator | None = None
    ) -> None:
        """Begin a new stream: see `Context`."""

    def window(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        """Return no features: shape (batch, window, 0)."""
        return np.zeros((*steps.shape[:2], 0), np.float32)

    def skip(self, steps: NDArray[Any]) -> None:
        """Hear steps: see `Context`."""


def rearranged(array: NDArray[Any], order: Sequence[int], *, axis: int = 0) -> NDArray[Any]:
    """Return the streams of these indices along an axis, in this order; -1 is a new one of zeros.

    Examples
    --------
    >>> rearranged(np.array([1, 2, 3]), [2, 0, -1]).tolist()
    [3, 1, 0]
    """
    new = np.zeros_like(array, shape=(*array.shape[:axis], 1, *array.shape[axis + 1 :]))
    taken: NDArray[Any] = np.take(np.concatenate([array, new], axis), order, axis)
    return taken
