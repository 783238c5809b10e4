"""What a model needs to know of a codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Beside:
    """The inputs of a network beside the steps themselves.

    Attributes
    ----------
    features : int
        Number of real inputs.
    classes : tuple of int
        Number of classes of each categorical input, with a class for "none" where it occurs.
    """

    features: int = 0
    classes: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """The number of inputs with one-hot classes: rows of a kernel."""
        return self.features + sum(self.classes)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"features": self.features, "classes": list(self.classes)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Beside:
        """Build it from what `to_json` returned."""
        classes = tuple(int(size) for size in value.get("classes", ()))
        return cls(int(value.get("features", 0)), classes)


@dataclass(frozen=True)
class Field:
    """One attribute of a step: one of `size` classes or, where `continuous`, a real number.

    Attributes
    ----------
    name : str
    size : int
    continuous : bool
    mu : int
        If not 0, the classes represent numbers: the cells of [-1, 1] companded by this μ.
    longest : int
        If not 0, steps are integers up to this one, and long ones share classes.
    beside : Beside
        The context of the field, given the fields before it. Its head sees it. The context of the
        first field is known after each step, so the LSTM sees it too.
    copies : int
        Number of further classes: the k-th of them means "the k-th candidate's value". The
        candidates' classes are the last `copies` of `beside.classes`, in each of which the last
        class means "no such candidate". The probability of a value is the sum over all classes
        that mean it.
    """

    name: str
    size: int
    continuous: bool = False
    mu: int = 0
    longest: int = 0
    beside: Beside = Beside()
    copies: int = 0

    @property
    def values(self) -> int:
        """How many values a step may have, from 0 on."""
        return self.longest + 1 if self.longest else self.size

    @property
    def candidates(self) -> slice:
        """The candidates for copying among `beside.classes`."""
        return slice(len(self.beside.classes) - self.copies, len(self.beside.classes))

    @property
    def no_candidate(self) -> NDArray[np.int64]:
        """The class of each candidate for copying that means "none"; shape (copies,)."""
        return np.array(self.beside.classes[self.candidates], np.int64) - 1

    @property
    def outputs(self) -> int:
        """The number of logits."""
        return self.size + self.copies

    @property
    def levels(self) -> NDArray[np.float64]:
        """The numbers that the classes represent, in the middle of their cells; shape (size,)."""
        return expand((np.arange(self.size) + 0.5) * (2 / self.size) - 1, self.mu)

    @property
    def log_widths(self) -> NDArray[np.float64]:
        """Log of the widths of the classes' cells; shape (size,)."""
        return np.log(np.diff(self.edges))

    @property
    def edges(self) -> NDArray[np.float64]:
        """The edges of the classes' cells; shape (size + 1,)."""
        return expand(np.arange(self.size + 1) * (2 / self.size) - 1, self.mu)


def expand(companded: NDArray[np.floating[Any]], mu: int) -> NDArray[np.float64]:
    """Invert the companding ``sign(x) ln(1 + μ |x|) / ln(1 + μ)``."""
    expanded: NDArray[np.float64] = np.expm1(np.abs(companded) * np.log1p(mu)) / mu
    return np.sign(companded) * expanded


@dataclass(frozen=True)
class SequenceSpec:
    """The shape of a codec's sequences.

    Attributes
    ----------
    codec : str
        The codec's name and version. A checkpoint only works with its own codec.
    fields : tuple of Field
        The columns of a step, in the order in which they are predicted.
    beside : Beside
        The context after a step. The LSTM sees it.
    """

    codec: str
    fields: tuple[Field, ...]
    beside: Beside = Beside()

    @property
    def context(self) -> tuple[Beside, ...]:
        """The context of a step, then those of the fields: the order of the columns of `Known`."""
        return (self.beside, *(field.beside for field in self.fields))

    @property
    def continuous(self) -> bool:
        """Whether steps are real numbers, so that losses are squared errors and not nats."""
        return any(field.continuous for field in self.fields)

    @property
    def columns(self) -> list[tuple[slice, slice]]:
        """The columns of each part of `context`, among the features and among the classes."""
        found, features, classes = [], 0, 0
        for part in self.context:
            ends = features + part.features, classes + len(part.classes)
            found.append((slice(features, ends[0]), slice(classes, ends[1])))
            features, classes = ends
        return found

    @property
    def bare(self) -> SequenceSpec:
        """The specification without context, as a dataset holds it."""
        fields = tuple(replace(field, beside=Beside(), copies=0) for field in self.fields)
        return SequenceSpec(self.codec, fields)

    def to_json(self) -> dict[str, Any]:
        """Return the specification as JSON-ready values."""
        fields = [
            {"name": f.name, "size": f.size, "continuous": f.continuous}
            | ({"mu": f.mu} if f.mu else {})
            | ({"longest": f.longest} if f.longest else {})
            | ({"beside": f.beside.to_json()} if f.beside.size else {})
            | ({"copies": f.copies} if f.copies else {})
            for f in self.fields
        ]
        value = {"codec": self.codec, "fields": fields, "context_size": self.beside.features}
        return value | ({"beside": self.beside.to_json()} if self.beside.classes else {})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SequenceSpec:
        """Build a specification from what `to_json` returned."""
        fields = tuple(
            Field(
                str(f["name"]),
                int(f["size"]),
                bool(f.get("continuous", False)),
                int(f.get("mu", 0)),
                int(f.get("longest", 0)),
                Beside.from_json(f.get("beside", {})),
                int(f.get("copies", 0)),
            )
            for f in value["fields"]
        )
        beside = value.get("beside", {"features": value["context_size"]})
        return cls(str(value["codec"]), fields, Beside.from_json(beside))


Floats = NDArray[np.float64]

IMPOSSIBLE: Final = -1e9
"""The logit of a class that is impossible: its probability is 0."""


def loss_unit(step_name: str, *, continuous: bool) -> str:
    """Return the unit of losses, such as "nats a note"."""
    return f"{'squared error' if continuous else 'nats'} a {step_name}"


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of recordings in training; all zero for none.

    Attributes
    ----------
    transpose_semitones : int
        The most semitones up or down.
    tempo_range : float
        0.1: up to a tenth slower or faster.
    velocity_range : float
        0.1: up to a tenth of the whole range softer or louder.
    transcription_noise : float
        0.5: in half of the plays, the first seconds have the errors of a transcription.
    """

    transpose_semitones: int = 0
    tempo_range: float = 0.0
    velocity_range: float = 0.0
    transcription_noise: float = 0.0


class Known(NamedTuple):
    """The context of steps, of shape (..., columns) each, in the order of `SequenceSpec.context`.

    Attributes
    ----------
    features : ndarray of float32
    classes : ndarray of int32
    copied : ndarray of bool
        For each candidate for copying, whether its value is the target.
    """

    features: NDArray[np.float32]
    classes: NDArray[np.int32]
    copied: NDArray[np.bool_]


class Part(NamedTuple):
    """One or more parts of `SequenceSpec.context`, of shape (streams, ...).

    Attributes
    ----------
    features : ndarray of float32
    classes : ndarray of int32
    """

    features: NDArray[np.float32]
    classes: NDArray[np.int32]

    def of(self, streams: Any, columns: tuple[slice, slice]) -> Part:
        """Return some streams and some columns of each kind."""
        return Part(self.features[streams, columns[0]], self.classes[streams, columns[1]])

    def repeated(self, times: int) -> Part:
        """Return each stream `times` times in a row."""
        return Part(np.repeat(self.features, times, 0), np.repeat(self.classes, times, 0))


class Context(Protocol):
    """The context of each step, for a batch of streams."""

    def begin(
        self, slot: int, sequence: NDArray[Any], rng: np.random.Generator | None = None
    ) -> None:
        """Begin a new stream in `slot`: a sequence to train on or, without `rng`, to score."""

    def window(self, steps: NDArray[Any], coming: NDArray[Any]) -> Known:
        """Advance over steps, (batch, window, fields); return the context after each.

        `coming` holds the step after each: the context of a field depends on the fields before it.
        """

    def skip(self, steps: NDArray[Any]) -> None:
        """Advance over steps, (batch, window, fields), without returning the context."""


class NoContext:
    """The context of a codec that has none."""

    def __init__(self, batch: int) -> None:
        pass

    def begin(
        self, slot: int, sequence: NDArray[Any], rng: np.random.Generator | None = None
    ) -> None:
        """Begin a new stream: see `Context`."""

    def window(self, steps: NDArray[Any], coming: NDArray[Any]) -> Known:
        """Return no columns."""
        return only_features(np.zeros((*steps.shape[:2], 0), np.float32))

    def skip(self, steps: NDArray[Any]) -> None:
        """Advance over steps: see `Context`."""


def only_features(features: NDArray[np.float32]) -> Known:
    """Return a context of features only."""
    shape = (*features.shape[:-1], 0)
    return Known(features, np.zeros(shape, np.int32), np.zeros(shape, bool))


def rearranged(array: NDArray[Any], order: Sequence[int], *, axis: int = 0) -> NDArray[Any]:
    """Return the streams with these indices along an axis; -1 is a new one of zeros.

    Examples
    --------
    >>> rearranged(np.array([1, 2, 3]), [2, 0, -1]).tolist()
    [3, 1, 0]
    """
    new = np.zeros_like(array, shape=(*array.shape[:axis], 1, *array.shape[axis + 1 :]))
    taken: NDArray[Any] = np.take(np.concatenate([array, new], axis), order, axis)
    return taken


def nats(
    field: Field,
    log_widths: Floats,
    logits: NDArray[np.float32],
    target: NDArray[np.integer[Any]],
    copied: NDArray[np.bool_] | None = None,
) -> NDArray[np.floating[Any]]:
    """Return the negative log-likelihood of values, in nats on the codec's finest grid.

    The probability of a value is that of its class, divided evenly among the cells of the grid in
    the class, plus those of the copies of candidates with that value.

    Parameters
    ----------
    field : Field
    log_widths : ndarray, shape (size,)
        Log of the cells in each class.
    logits : ndarray, shape (..., outputs)
    target : ndarray of int, shape (...)
        The values' classes.
    copied : ndarray of bool, shape (..., copies), optional
        Which candidates have the value; none by default.

    Returns
    -------
    ndarray, shape (...)
    """
    said = np.take_along_axis(logits, target[..., None], -1) - log_widths[target][..., None]
    if copied is None or not field.copies:
        return log_sum(logits) - said[..., 0]
    ways = np.where(copied, logits[..., field.size :], IMPOSSIBLE)
    return log_sum(logits) - log_sum(np.concatenate([said, ways], -1))


def log_sum(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the logarithm of the sum of the exponentials along the last axis."""
    most = logits.max(-1, keepdims=True)
    found: NDArray[Any] = np.log(np.exp(logits - most).sum(-1)) + most[..., 0]
    return found
