"""The linear prediction that networks of sound correct.

The filter is fitted repeatedly to the past of the recording itself, as speech coders do (backward
adaptation: ITU-T G.728). Filters of the autocorrelation method are stable in closed loop: their
continuation rings at the pitches of the past and neither grows nor decays. This module knows
sequences and filters; it knows nothing of networks or training.
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

_FITTED: Final = 160_000  # steps that a filter is fitted to: 10 s at 16 kHz, the length of a seed
_RENEWED: Final = 16_000  # steps from one fit to the next
_LATEST: Final = 0.95  # position of the window's maximum
_SPECTRUM_SHARE: Final = 0.2  # weight of the mean spectrum beside the recording's own
_FLOOR: Final = 1e-9  # white noise, as a share of the energy, so that silence can be inverted


def coefficients(past: NDArray[Any], config: ModelConfig, *, ahead: int = 1) -> Floats:
    """Fit a linear prediction to the past.

    The autocorrelation of the last ten seconds (windowed, the latest weighted most) plus a share
    of the mean of all recordings, solved by Levinson's recursion.

    Parameters
    ----------
    past : ndarray, shape (n,)
        It must not contain any value to be predicted.
    config : ModelConfig
        Its `order` and `spectrum`.
    ahead : int
        How many next values to predict from the same last ones; predictions stand in for those
        between.

    Returns
    -------
    ndarray, shape (order, ahead)
        The weights of the last values, the oldest first.
    """
    from scipy.linalg import solve_toeplitz

    order = config.order
    past = past[-_FITTED:]
    products = _SPECTRUM_SHARE * _of_all(config.spectrum, order)
    mine = _autocorrelation(past * _window(len(past)), order) if len(past) else np.zeros(1)
    if mine[0] > 0:
        products = products + mine * (len(past) / _FITTED / mine[0])
    products[0] *= 1 + _FLOOR
    first = solve_toeplitz(products[:-1], products[1:])[::-1]
    # Beyond the next value: the weights of known values, by way of the predicted ones between
    weights = np.zeros((order, ahead))
    for place in range(ahead):
        weights[place:, place] = first[: max(0, order - place)]
        predicted = min(place, order)
        if predicted:
            earlier = weights[:, place - predicted : place]
            weights[:, place] += earlier @ first[order - predicted :]
    return weights


def predict(values: NDArray[Any], begin: int, end: int, weights: Floats) -> Floats:
    """Return the prediction after each step of `begin` to `end`; zeros precede the first value.

    With several values ahead, that many steps are predicted at once from the values up to the
    first of them; `begin` must be such a first step.
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
    """Return a factory of contexts for a number of streams; for sound, linear predictions."""
    return codec.context if codec.encodes_notes else partial(OwnPrediction, codec.spec, config)


class OwnPrediction:
    """The context of sound: the linear prediction of the next value, after each step.

    The filter of a stream is fitted anew each second to the past of the stream.

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
        """Return an independent copy; sequences and filters are shared, as they never change."""
        other = object.__new__(OwnPrediction)
        vars(other).update({k: v[:] if isinstance(v, list) else v for k, v in vars(self).items()})
        return other

    def begin(
        self, slot: int, sequence: NDArray[Any], rng: np.random.Generator | None = None
    ) -> None:
        """Begin a new stream: see `Context`."""
        self._sequences[slot], self._places[slot], self._fitted[slot] = sequence, 0, None

    def skip(self, steps: NDArray[Any]) -> None:
        """Advance over steps: see `Context`."""
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
            past = self._values(sequence[max(0, fitted_at - _FITTED) : fitted_at])
            fitted = (fitted_at, coefficients(past, self._config, ahead=self._ahead))
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
    """Return the numbers that the steps of a sequence represent, (n, 1)."""
    return sequence.astype(np.float64) if field.continuous else field.levels[sequence]


def _autocorrelation(values: Floats, order: int) -> Floats:
    from scipy.fft import irfft, next_fast_len, rfft

    length = next_fast_len(len(values) + order, real=True)
    found: Floats = irfft(np.square(np.abs(rfft(values, length))), length)[: order + 1]
    return found


def _window(count: int) -> Floats:
    """Return an asymmetric window: it rises slowly and falls to 0 at the end."""
    rise = round(_LATEST * count)
    fall = count - rise
    up, down = np.arange(rise) / max(1, rise), np.arange(fall) / max(1, fall)
    return np.sin(np.pi / 2 * np.concatenate([up, 1 - down]))


def _of_all(spectrum: tuple[float, ...], order: int) -> Floats:
    """Return the autocorrelation of a spectrum in dB, with energy 1."""
    places = np.linspace(0, len(spectrum) - 1, 4 * max(order, len(spectrum)) + 1)
    powers = 10 ** (np.interp(places, np.arange(len(spectrum)), spectrum) / 10)
    found: Floats = np.fft.irfft(powers)[: order + 1]
    return found / found[0]
