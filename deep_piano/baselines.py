"""What a model must beat: the frequencies of the classes, and a Markov chain a field."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import SequenceSpec

Floats = NDArray[np.float64]


class MarkovChain:
    """A chain a field: each class given the classes of the same field in the steps before.

    Orders are interpolated by Witten-Bell smoothing (Witten and Bell 1991), down to the uniform
    distribution, so that nothing has probability zero. Order 0 is the unigram baseline.

    Parameters
    ----------
    spec : SequenceSpec
    order : {0, 1, 2}
    """

    def __init__(self, spec: SequenceSpec, *, order: int) -> None:
        self._sizes = [field.size for field in spec.fields]
        self.order = order
        self._counts = [
            [np.zeros((size,) * (depth + 1), np.int64) for depth in range(order + 1)]
            for size in self._sizes
        ]

    def learn(self, sequences: Iterable[NDArray[np.int32]]) -> MarkovChain:
        """Count; each sequence is an array of shape (n, fields). Returns itself."""
        for sequence in sequences:
            for field, counts in enumerate(self._counts):
                column = sequence[:, field]
                for depth, table in enumerate(counts):
                    # (x[t - depth], ..., x[t]) as an index into the table
                    places = tuple(column[k : len(column) - depth + k] for k in range(depth + 1))
                    index = np.ravel_multi_index(places, table.shape)
                    np.add.at(table.reshape(-1), index, 1)
        return self

    def nats(self, sequences: Iterable[NDArray[np.int32]], *, order: int | None = None) -> Floats:
        """Return the mean nats a step, a field, over all but the first step of each sequence.

        A smaller `order` than the chain's own asks the shorter chain within it.
        """
        order = self.order if order is None else order
        tables = [self._probabilities(counts[: order + 1]) for counts in self._counts]
        sums, total = np.zeros(len(self._sizes)), 0
        for sequence in sequences:
            total += len(sequence) - 1
            for field, levels in enumerate(tables):
                column = sequence[:, field]
                for step in range(1, min(order, len(column))):
                    # Fewer steps have been heard than the order: the shorter chain answers.
                    places = tuple(column[step - k] for k in range(step, -1, -1))
                    sums[field] -= np.log(levels[step][places])
                begin = max(1, order)
                places = tuple(column[begin - k : len(column) - k] for k in range(order, -1, -1))
                sums[field] -= np.log(levels[order][places]).sum()
        return sums / max(1, total)

    @staticmethod
    def _probabilities(counts: list[NDArray[np.int64]]) -> list[Floats]:
        """Return P(last | those before), a level an order."""
        size = counts[0].shape[-1]
        lower: Floats = np.full(size, 1 / size)
        levels = []
        for table in counts:
            kinds = np.count_nonzero(table, axis=-1, keepdims=True)
            heard = table.sum(-1, keepdims=True)
            # Where a context was never heard, the shorter one decides alone.
            weight = np.where(heard == 0, 1, kinds)
            lower = (table + weight * lower) / (heard + weight)
            levels.append(lower)
        return levels
