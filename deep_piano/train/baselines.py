"""The baselines.

For classes: frequencies, Markov chains and repetition. For numbers: the last value, a mean and a
linear prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import Field, SequenceSpec

Floats = NDArray[np.float64]
Sequences = Iterable[NDArray[Any]]

_RIDGE = 1e-9  # noise added to the last values, as a share of their energy: inverts silence


class MarkovChain:
    """A Markov chain for each field: each class given the field's classes in the steps before.

    Orders are interpolated by Witten-Bell smoothing (Witten and Bell 1991), down to the uniform
    distribution, so that no class has probability zero. Order 0 is the unigram baseline.

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
        self._repeats = np.zeros((2, len(self._sizes)))  # how often a class equals the last one

    def learn(self, sequences: Sequences) -> MarkovChain:
        """Count; each sequence is an array of shape (n, fields). Returns itself."""
        self.__dict__.pop("_levels", None)  # a stale cache
        for sequence in sequences:
            self._repeats[0] += (sequence[1:] == sequence[:-1]).sum(0)
            self._repeats[1] += max(0, len(sequence) - 1)
            for field, counts in enumerate(self._counts):
                column = sequence[:, field].astype(np.int64)
                for depth, table in enumerate(counts):
                    if len(column) <= depth:
                        continue
                    # (x[t - depth], ..., x[t]) as an index into the table
                    places = tuple(column[k : len(column) - depth + k] for k in range(depth + 1))
                    index = np.ravel_multi_index(places, table.shape)
                    np.add.at(table.reshape(-1), index, 1)
        return self

    def nats(self, sequences: Sequences, *, order: int | None = None) -> Floats:
        """Return the mean nats a step for each field, without the first step of each sequence.

        An `order` smaller than the chain's own selects the shorter chain within it.
        """
        order = self.order if order is None else order
        sums, total = np.zeros(len(self._sizes)), 0
        for sequence in sequences:
            total += max(0, len(sequence) - 1)
            for field, levels in enumerate(self._levels):
                column = sequence[:, field]
                for step in range(1, min(order, len(column))):
                    # Fewer steps than the order are known: use the shorter chain.
                    places = tuple(column[step - k] for k in range(step, -1, -1))
                    sums[field] -= np.log(levels[step][places])
                begin = max(1, order)
                places = tuple(column[begin - k : len(column) - k] for k in range(order, -1, -1))
                sums[field] -= np.log(levels[order][places]).sum()
        return sums / max(1, total)

    def nats_of_repetition(self, sequences: Sequences) -> Floats:
        """Return the mean nats a step for each field of "repeat the last, else by frequency".

        The probability of a repetition is its share in the training data.
        """
        frequencies = [levels[0] for levels in self._levels]
        again = (self._repeats[0] + 1) / (self._repeats[1] + 2)
        sums, total = np.zeros(len(self._sizes)), 0
        for sequence in sequences:
            last, now = sequence[:-1], sequence[1:]
            total += len(now)
            for field, frequency in enumerate(frequencies):
                other = (1 - again[field]) * frequency[now[:, field]]
                other /= 1 - frequency[last[:, field]]
                same = last[:, field] == now[:, field]
                sums[field] -= np.log(np.where(same, again[field], other)).sum()
        return sums / max(1, total)

    @cached_property
    def _levels(self) -> list[list[Floats]]:
        """The result of `_probabilities` for each field; shorter chains come first."""
        return [self._probabilities(counts) for counts in self._counts]

    @staticmethod
    def _probabilities(counts: list[NDArray[np.int64]]) -> list[Floats]:
        """Return P(last | those before), one array for each order."""
        size = counts[0].shape[-1]
        lower: Floats = np.full(size, 1 / size)
        levels = []
        for table in counts:
            kinds = np.count_nonzero(table, axis=-1, keepdims=True)
            total = table.sum(-1, keepdims=True)
            # For a context that never occurred, only the shorter chain counts.
            weight = np.where(total == 0, 1, kinds)
            lower = (table + weight * lower) / (total + weight)
            levels.append(lower)
        return levels


class LinearPrediction:
    """The next value as a weighted sum of the last `order` ones: AR(order) by least squares."""

    def __init__(self, order: int) -> None:
        self.order = order
        self._products = np.zeros((order + 1, order + 1))

    def learn(self, sequences: Sequences) -> LinearPrediction:
        """Add sequences of shape (n, 1) to the normal equations. Returns itself."""
        width = self.order + 1
        for sequence in sequences:
            values = sequence[:, 0].astype(np.float64)
            count = len(values) - width + 1
            if count < 1:
                continue
            # The sum over all windows of the products of their values i and j differs from that
            # of i - 1 and j - 1 by the first product and the one after the last.
            products = np.empty((width, width))
            spectra = np.fft.rfft(values[:count], len(values)).conj() * np.fft.rfft(values)
            products[0] = np.fft.irfft(spectra, len(values))[:width]
            for i in range(1, width):
                first = values[i - 1] * values[i - 1 : width - 1]
                after = values[count + i - 1] * values[count + i - 1 : count + width - 1]
                products[i, i:] = products[i - 1, i - 1 : -1] - first + after
                products[i, :i] = products[:i, i]
            self._products += products
        return self

    @property
    def weights(self) -> Floats:
        """The weights of the last values, the oldest first; shape (order, 1)."""
        order = self.order
        past, targets = self._products[:order, :order], self._products[:order, order:]
        floor = _RIDGE * max(float(np.trace(past)), 1e-30) / order
        return np.asarray(np.linalg.solve(past + floor * np.eye(order), targets), np.float64)

    def predict(self, sequence: NDArray[Any]) -> Floats:
        """Return the prediction of every value after the first `order`."""
        weights = self.weights
        found = [(rows[:, : self.order] @ weights)[:, 0] for rows in self._rows(sequence)]
        return np.concatenate([np.empty(0), *found])

    def errors(self, sequences: Sequences) -> dict[str, tuple[float, int]]:
        """Return the sum of squared errors and the count, for this and two simpler predictions.

        The simpler ones are the last value and the mean of the last `order` values. The first
        `order` values of each sequence are given.
        """
        weights = self.weights
        names = (f"linear AR({self.order})", f"mean of the last {self.order}", "last value")
        sums, count = dict.fromkeys(names, 0.0), 0
        for sequence in sequences:
            for rows in self._rows(sequence):
                past, targets = rows[:, : self.order], rows[:, self.order :]
                predictions = (past @ weights, past.mean(axis=1)[:, None], past[:, -1:])
                for name, prediction in zip(names, predictions, strict=True):
                    sums[name] += float(np.square(prediction - targets).sum())
                count += targets.size
        return {name: (total, count) for name, total in sums.items()}

    def _rows(self, sequence: NDArray[Any]) -> Iterable[Floats]:
        """Yield every window of `order` values and the next one, some thousands at a time."""
        values, width = sequence[:, 0].astype(np.float64), self.order + 1
        if len(values) < width:
            return
        rows = np.lib.stride_tricks.sliding_window_view(values, width)
        for begin in range(0, len(rows), 65_536):
            yield np.ascontiguousarray(rows[begin : begin + 65_536])  # for the BLAS


class PredictedClass:
    """The distribution of each class around the class of its linear prediction.

    The probability of a distance is its share in the training data, among the distances that lead
    to a class.

    Parameters
    ----------
    field : Field
        Its `mu` gives the number of each class.
    predict : callable
        Returns, for classes (n, 1), the predictions after the first ones.
    """

    def __init__(self, field: Field, predict: Callable[[NDArray[Any]], Floats]) -> None:
        self._field, self._predict = field, predict
        self._distances = np.ones(2 * field.size - 1)  # from 1 - size to size - 1

    def learn(self, sequences: Sequence[NDArray[Any]]) -> PredictedClass:
        """Count the distances; (n, 1) each. Returns itself."""
        for sequence in sequences:
            predicted, classes = self._classes(sequence)
            self._distances += np.bincount(
                classes - predicted + self._field.size - 1, minlength=len(self._distances)
            )
        return self

    def nats(self, sequences: Sequences) -> tuple[float, int]:
        """Return the sum of nats and the number of steps; the first of each sequence are given."""
        size = self._field.size
        logs = np.log(self._distances)
        reachable = np.concatenate([[0.0], np.cumsum(self._distances)])
        total, count = 0.0, 0
        for sequence in sequences:
            predicted, classes = self._classes(sequence)
            first = size - 1 - predicted  # the place of the distance to class 0
            total += float(np.log(reachable[first + size] - reachable[first]).sum())
            total -= float(logs[first + classes].sum())
            count += len(classes)
        return total, count

    def _classes(self, sequence: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the predicted and the actual class of each step."""
        levels = self._field.levels
        predicted = self._predict(sequence)
        nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, predicted)
        return nearest, sequence[len(sequence) - len(predicted) :, 0].astype(np.int64)
