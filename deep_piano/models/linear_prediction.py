"""What the network of sound begins with: a linear prediction of it.

The prediction is fitted to the recording itself, again and again, from what has been heard of it,
as speech coders do (backward adaptation: ITU-T G.728). The autocorrelation method makes filters
that are stable when they hear themselves: what they go on with rings at the pitches of what was
heard, and neither swells nor dies away. This module knows sequences and filters; it knows
nothing of networks or training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import Context, Field, Known, SequenceSpec, only_features
from deep_piano.codecs.registry import Codec
from deep_piano.models.config import ModelConfig

Floats = NDArray[np.float64]

_HEARD: Final = 160_000  # the steps that a filter is fitted to: 10 s at 16 kHz, as a seed has
_RENEWED: Final = 16_000  # steps between one fit and the next
_LATEST: Final = 0.95  # where the window over what was heard is highest
_SPECTRUM_SHARE: Final = 0.2  # of the mean spectrum beside the recording's own
_FLOOR: Final = 1e-9  # white noise, as a share of the energy: an inverse of silence


def coefficients(heard: NDArray[Any], config: ModelConfig, *, ahead: int = 1) -> Floats:
    """Fit a linear prediction to what was heard.

    The autocorrelation of its last ten seconds (windowed, the latest counting most), a share of
    that of all recordings added, solved by Levinson's recursion.

    Parameters
    ----------
    heard : ndarray, shape (n,)
        None of it may be of what is to be predicted.
    config : ModelConfig
        Its `order` and `spectrum`.
    ahead : int
        How many of the next values, each from the same last ones: predictions stand for those
        that are not there yet.

    Returns
    -------
    ndarray, shape (order, ahead)
        What the last values are multiplied by, the oldest first.
    """
    from scipy.linalg import solve_toeplitz

    order = config.order
    heard = heard[-_HEARD:]
    products = _SPECTRUM_SHARE * _of_all(config.spectrum, order)
    mine = _autocorrelation(heard * _window(len(heard)), order) if len(heard) else np.zeros(1)
    if mine[0] > 0:
        products = products + mine * (len(heard) / _HEARD / mine[0])
    products[0] *= 1 + _FLOOR
    first = solve_toeplitz(products[:-1], products[1:])[::-1]
    # Of the values after the next: what multiplies values that are known, through those foretold
    weights = np.zeros((order, ahead))
    for place in range(ahead):
        weights[place:, place] = first[: max(0, order - place)]
        foretold = min(place, order)
        if foretold:
            earlier = weights[:, place - foretold : place]
            weights[:, place] += earlier @ first[order - foretold :]
    return weights


def predict(values: NDArray[Any], begin: int, end: int, weights: Floats) -> Floats:
    """Return the prediction after each step of `begin` to `end`; zeros stand before the first.

    With several values ahead, every so many steps are predicted at once, from the values up to the
    first of them; `begin` is such a first step.
    """
    order, ahead = weights.shape
    missing = max(0, order - 1 - begin)
    past = np.concatenate([np.zeros(missing), values[max(0, begin - order + 1) : end]])
    if ahead == 1:
        from scipy.signal import oaconvolve

        found: Floats = oaconvolve(past, weights[::-1, 0], mode="valid")
        return found
    rows = np.lib.stride_tricks.sliding_window_view(past, order)[::ahead]
    return (rows @ weights).reshape(-1)[: end - begin]


def context_of(codec: Codec, config: ModelConfig) -> Callable[[int], Context]:
    """Return what makes the context of a number of streams: of sound, its linear prediction."""
    return codec.context if codec.hears_notes else partial(OwnPrediction, codec.spec, config)


class OwnPrediction:
    """The context of sound: the linear prediction of the next value, after each step.

    The filter of a stream is fitted anew each second to what has been heard of the stream.

    Parameters
    ----------
    spec : SequenceSpec
        With one field.
    config : ModelConfig
    batch : int
        How many streams.
    """

    def __init__(self, spec: SequenceSpec, config: ModelConfig, batch: int) -> None:
        [self._field] = spec.fields
        self._config = config
        self._ahead = config.frame if self._field.continuous else 1
        self._renewed = -(-_RENEWED // self._ahead) * self._ahead
        self._sequences: list[NDArray[Any] | None] = [None] * batch
        self._places = [0] * batch
        self._fitted: list[tuple[int, Floats] | None] = [None] * batch

    def __deepcopy__(self, memo: Any) -> OwnPrediction:
        """Return a copy that goes on by itself; sequences and filters are never written to."""
        other = object.__new__(OwnPrediction)
        vars(other).update({k: v[:] if isinstance(v, list) else v for k, v in vars(self).items()})
        return other

    def begin(
        self, slot: int, sequence: NDArray[Any], rng: np.random.Generator | None = None
    ) -> None:
        """Begin a new stream: see `Context`."""
        self._sequences[slot], self._places[slot], self._fitted[slot] = sequence, 0, None

    def skip(self, steps: NDArray[Any]) -> None:
        """Hear steps: see `Context`."""
        for slot, sequence in enumerate(self._sequences):
            if sequence is not None:
                self._places[slot] += steps.shape[1]

    def window(self, steps: NDArray[Any], coming: NDArray[Any]) -> Known:
        """Return the predictions after the next steps: one feature."""
        found = np.zeros((*steps.shape[:2], 1), np.float32)
        for slot, sequence in enumerate(self._sequences):
            if sequence is None:
                continue
            end = min(len(sequence), self._places[slot] + steps.shape[1])
            done = 0
            while (begin := self._places[slot] + done) < end:
                until = min(end, (begin // self._renewed + 1) * self._renewed)
                found[slot, done : done + until - begin, 0] = self._predict(slot, begin, until)
                done += until - begin
        self.skip(steps)
        return only_features(found)

    def _predict(self, slot: int, begin: int, end: int) -> Floats:
        sequence = self._sequences[slot]
        assert sequence is not None
        fitted_at = begin // self._renewed * self._renewed
        fitted = self._fitted[slot]
        if fitted is None or fitted[0] != fitted_at:
            heard = self._values(sequence[max(0, fitted_at - _HEARD) : fitted_at])
            fitted = (fitted_at, coefficients(heard, self._config, ahead=self._ahead))
            self._fitted[slot] = fitted
        start = max(0, begin - self._config.order + 1)
        values = self._values(sequence[start:end])
        return predict(values, begin - start, end - start, fitted[1])

    def _values(self, sequence: NDArray[Any]) -> Floats:
        return numbers_of(self._field, sequence)[:, 0] / self._config.scale


def own_prediction(spec: SequenceSpec, config: ModelConfig, sequence: NDArray[Any]) -> Floats:
    """Return the prediction of every step of a sequence but the first; shape (n - 1,)."""
    context = OwnPrediction(spec, config, 1)
    context.begin(0, sequence)
    return context.window(sequence[None, :-1], sequence[None, 1:]).features[0, :, 0] * np.float64(
        config.scale
    )


def numbers_of(field: Field, sequence: NDArray[Any]) -> Floats:
    """Return what the steps of a sequence stand for, (n, 1)."""
    return sequence.astype(np.float64) if field.continuous else field.levels[sequence]


def _autocorrelation(values: Floats, order: int) -> Floats:
    from scipy.fft import irfft, next_fast_len, rfft

    length = next_fast_len(len(values) + order, real=True)
    found: Floats = irfft(np.square(np.abs(rfft(values, length))), length)[: order + 1]
    return found


def _window(count: int) -> Floats:
    """Return a window that rises slowly, and falls to 0 at the end, as a filter must see it."""
    rise = round(_LATEST * count)
    fall = count - rise
    up, down = np.arange(rise) / max(1, rise), np.arange(fall) / max(1, fall)
    return np.sin(np.pi / 2 * np.concatenate([up, 1 - down]))


def _of_all(spectrum: tuple[float, ...], order: int) -> Floats:
    """Return the autocorrelation that a spectrum in dB has, its energy 1."""
    places = np.linspace(0, len(spectrum) - 1, 4 * max(order, len(spectrum)) + 1)
    powers = 10 ** (np.interp(places, np.arange(len(spectrum)), spectrum) / 10)
    found: Floats = np.fft.irfft(powers)[: order + 1]
    return found / found[0]
