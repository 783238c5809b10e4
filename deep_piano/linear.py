"""What the network of sound begins with: how wide its numbers spread, and a linear prediction.

Both are fitted on the training split. This module knows datasets and least squares; it knows
nothing of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.baselines import LinearPrediction
from deep_piano.dataset import Dataset
from deep_piano.sizes import ModelConfig

_STEPS: Final = 10_000_000  # more of them change no digit that matters
_NOISE: Final = 1e-5  # what a network hears of itself is never as clean as a recording


def spread(dataset: Dataset) -> float:
    """Return the root of the mean square of the training split's numbers."""
    squares, count = 0.0, 0
    for values in numbers(dataset):
        squares += float(np.square(values).sum())
        count += len(values)
    return float(np.sqrt(squares / max(1, count))) or 1.0


def prediction(dataset: Dataset, config: ModelConfig) -> NDArray[np.float32]:
    """Return the linear prediction of a network, by least squares; shape (past, values ahead)."""
    ahead = config.frame if dataset.spec.continuous else 1
    fitted = LinearPrediction(config.past, ahead=ahead, ridge=_NOISE)
    fitted.learn(values / config.scale for values in numbers(dataset))
    return fitted.weights.astype(np.float32)


def numbers(dataset: Dataset) -> Iterator[NDArray[np.float64]]:
    """Yield what the steps of `middles` stand for, (n, 1)."""
    [field] = dataset.spec.fields
    for steps in middles(dataset):
        yield steps.astype(np.float64) if field.continuous else field.levels[steps]


def middles(dataset: Dataset) -> list[NDArray[Any]]:
    """Return the middle of each recording of the training split, as much as tells what it is."""
    each = _STEPS // max(1, sum(group.recordings for group in dataset.row_groups("train")))
    found = []
    for row in dataset.recordings("train"):
        begin = max(0, (len(row.sequence) - each) // 2)
        found.append(row.sequence[begin : begin + each].copy())  # and let go of the rest
    return found
