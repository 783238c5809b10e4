"""Stepping the network of sound, sample after sample, compiled: millions of steps a piece.

The network is that of `tiers`; here it is loops over the checkpoint's own arrays, which Numba
compiles. What is carried stays in arrays that were made beforehand, and nothing is allocated in
between. One stream runs on one core. This module knows checkpoints and sequences; it knows nothing
of files. `tests/test_stepping.py` holds it to the Keras model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from deep_piano.checkpoint import Checkpoint
from deep_piano.decode import NORM_EPSILON
from deep_piano.errors import CheckpointError
from deep_piano.linear import OwnPrediction, coefficients, numbers_of, predict
from deep_piano.sizes import ERRORS_GAIN, LEAST_ERROR, PLACE_UNITS

Array = NDArray[np.float32]

_ROWS = 8  # of a matrix that are taken at once
_BLOCK = 16_384  # steps of one call
# How energy is held: that of the samples, and of what is added to the linear prediction, is
# measured over so many; what is added is multiplied by what brings both back, at most by so much.
_LEVEL_SAMPLES, _MOST = 16_384, 2.0
# What is added at once is at most so many of the filter's mean errors on the seed: more is a click,
# and it rings. What is heard back may be so many times full scale: a filter that hears itself
# clipped can lock.
_LARGEST, _ROOM = 10.0, 16.0


class Stepper:
    """The network of a checkpoint of sound.

    Parameters
    ----------
    checkpoint : Checkpoint

    Raises
    ------
    CheckpointError
        When the checkpoint is of a codec that is no sound wave.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.spec, self.config = checkpoint.spec, checkpoint.config
        if self.config.past == 1 or len(self.spec.fields) != 1:
            raise CheckpointError(
                f"the checkpoint is of the codec {self.spec.codec!r}, which is no sound wave. Give "
                "one that was trained on mulaw or samples."
            )
        [field] = self.spec.fields
        config, weights = self.config, checkpoint.weights
        layers = range(config.layers)
        dense = [("input", "input/kernel", "input/bias")]
        dense += [("hidden", f"{field.name}_hidden/kernel", f"{field.name}_hidden/bias")]
        dense += [("head", f"{field.name}/kernel", f"{field.name}/bias")]
        if not field.continuous:
            dense += [("from_frame", "from_frame/kernel", "from_frame/bias")]
            dense += [("places", "places/kernel", "places/bias")]
            dense += [
                ("from_place", "from_place/kernel", ""),
                ("from_past", "from_past/kernel", ""),
            ]
        matrices = {}
        for name, kernel, bias in dense:
            matrices[name] = _padded(weights[kernel]), _bias(weights, bias, kernel)
        # Layer after layer: what the LSTM makes of its input and of what it carries, as one matrix
        lstms = [
            np.concatenate([weights[f"lstm_{n}/kernel"], weights[f"lstm_{n}/recurrent_kernel"]])
            for n in layers
        ]
        norms = [*(f"norm_{n}" for n in layers), "norm_out"]
        self._lstm = (
            *matrices["input"],
            np.stack([_padded(kernel) for kernel in lstms]),
            np.stack([weights[f"lstm_{n}/bias"] for n in layers]),
            np.stack([weights[f"{name}/gamma"] for name in norms]),
            np.stack([weights[f"{name}/beta"] for name in norms]),
        )
        if field.continuous:
            self._head: tuple[Any, ...] = (*matrices["hidden"], *matrices["head"])
        else:
            self._levels = (field.levels / config.scale).astype(np.float32)
            names = ("from_frame", "places", "from_place", "from_past", "hidden", "head")
            self._head = tuple(array for name in names for array in matrices[name])
            self._head += (self._levels, field.log_widths.astype(np.float32))
            self._head += (field.edges / config.scale,)

    def go_on(
        self,
        sequence: NDArray[Any],
        count: int,
        rng: np.random.Generator,
        *,
        temperature: float = 1.0,
        hold: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[Any]:
        """Continue a sequence.

        The linear prediction is the one that fits what was heard, to the end.

        Parameters
        ----------
        sequence : ndarray, shape (n, 1)
            What was heard; at least one step.
        count : int
            How many steps to add.
        rng : numpy.random.Generator
            One number a step is taken from it.
        temperature : float
            Of classes: divides the logits. Of numbers: how much noise is added to the prediction;
            at 1 as much as the linear prediction was wrong on what was heard.
        hold : bool
            Hold the energy of what is added to the linear prediction: a network that hears itself
            otherwise swells or fades by a little a step, and there are millions.
        progress : callable, optional
            Called with steps done and steps in all, about once a second of sound.

        Returns
        -------
        ndarray of the dtype of `sequence`, shape (count, 1)
        """
        heard = len(sequence)
        steps, _ = self._run(sequence, heard + count, rng, temperature, hold, progress)
        return steps[heard:].astype(sequence.dtype)[:, None]

    def losses(self, sequence: NDArray[Any]) -> NDArray[np.float64]:
        """Return the loss of each step but the first, given those before; shape (n - 1,)."""
        rng = np.random.default_rng(0)
        return self._run(sequence, len(sequence), rng, 1.0, False, None, judged=1)[1][1:]

    def _run(
        self,
        sequence: NDArray[Any],
        total: int,
        rng: np.random.Generator,
        temperature: float,
        hold: bool,
        progress: Callable[[int, int], None] | None,
        judged: int = 0,
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Hear a sequence, go on until `total` steps; return steps, and losses from `judged` on."""
        config, continuous = self.config, self.spec.continuous
        heard, past, order = len(sequence), config.past, config.order
        [field] = self.spec.fields
        judged = judged or heard
        given = numbers_of(field, sequence)[:, 0] / config.scale
        weights = coefficients(given, config, ahead=config.frame if continuous else 1)
        apart = given[1:] - predict(given, 0, heard, weights)[:-1]
        energy = float(np.mean(np.square(apart))) if heard > 1 else 0.0  # of what is not foretold
        energy *= temperature**2 if continuous else 1.0
        weights = np.ascontiguousarray(weights.T, np.float32)  # (values ahead, order)
        steps = np.zeros(total, np.float64 if continuous else np.int64)
        steps[:heard] = sequence[:, 0]
        # What is before the beginning is silent.
        values, errors = np.zeros(order + total, np.float32), np.zeros(past + total, np.float32)
        predicted = np.zeros(total, np.float32)  # after each step
        values[order : order + heard] = given
        context = OwnPrediction(self.spec, config, 1)
        context.begin(0, sequence)
        predicted[:heard] = context.window(sequence[None])[0, :, 0]
        errors[past : past + heard] = values[order : order + heard]
        errors[past + 1 : past + heard] -= predicted[: heard - 1]
        companded = np.zeros((2, past + total), np.float32)
        companded[0, past:] = np.arcsinh(16 * values[order:]) / 3
        companded[1] = np.arcsinh(16 * ERRORS_GAIN * errors) / 3
        state = np.zeros((3, config.layers, config.units), np.float32)
        told = np.zeros(
            config.frame * (1 if continuous else config.head_units), np.float32
        )  # what the LSTM said last
        loss = np.zeros(total, np.float64)
        whole = float(np.mean(np.square(given)))
        # Of what is added, to be held and of the last samples; then of the samples themselves
        level = np.array([energy if hold else 0.0, energy, whole, whole])
        kernels = _compiled()
        run = kernels[0] if continuous else kernels[1]
        edges = {*range(0, total - 1, _BLOCK), heard - 1, total - 1}
        for begin, end in pairwise(sorted(edges)):
            drawn = max(0, end + 1 - max(begin + 1, heard))
            draw = rng.standard_normal if continuous else rng.random
            chances = np.zeros(end - begin)
            chances[end - begin - drawn :] = draw(drawn)
            if continuous:
                chances *= np.sqrt(energy)
            run(
                begin,
                end,
                heard,
                judged,
                steps,
                values,
                errors,
                companded,
                predicted,
                weights,
                loss,
                state,
                told,
                level,
                chances,
                config.scale if continuous else temperature,
                self._lstm,
                self._head,
            )
            if progress is not None:
                progress(end + 1, total)
        return steps, loss


def _padded(kernel: Array) -> Array:
    """Return a matrix with rows of zeros below, so that they can be taken eight at a time."""
    rows = -(-len(kernel) // _ROWS) * _ROWS
    padded = np.zeros((rows, kernel.shape[1]), np.float32)
    padded[: len(kernel)] = kernel
    return padded


def _bias(weights: Any, bias: str, kernel: str) -> Array:
    return weights[bias] if bias else np.zeros(weights[kernel].shape[1], np.float32)


@cache
def _compiled() -> tuple[Callable[..., None], Callable[..., None]]:
    """Compile the loops over numbers and over classes, which takes a few seconds."""
    from numba import njit

    # A multiplication and an addition may become one instruction; nothing else may change.
    compiled = njit(fastmath={"contract"}, error_model="numpy", nogil=True)
    summing = njit(fastmath={"contract", "reassoc"}, error_model="numpy", nogil=True)
    places_units, rows = PLACE_UNITS, _ROWS
    level_samples, most = _LEVEL_SAMPLES, _MOST
    largest, room = _LARGEST, _ROOM
    errors_gain, least_error = np.float32(ERRORS_GAIN), np.float32(LEAST_ERROR)

    @compiled
    def add_eight(out: Any, w: Any, x: Any) -> None:
        w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
        x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
        for i in range(len(out)):
            some = out[i] + x0 * w0[i] + x1 * w1[i] + x2 * w2[i] + x3 * w3[i]
            out[i] = some + x4 * w4[i] + x5 * w5[i] + x6 * w6[i] + x7 * w7[i]

    @compiled
    def multiply(x: Any, kernel: Any, bias: Any, out: Any) -> None:
        out[:] = bias
        for k in range(0, len(kernel), rows):
            add_eight(out, kernel[k : k + rows], x[k : k + rows])

    @summing
    def dot(a: Any, b: Any) -> Any:
        some = np.float32(0)
        for i in range(len(a)):
            some += a[i] * b[i]
        return some

    @compiled
    def usual_error(lately: Any) -> Any:
        return np.sqrt(dot(lately, lately) / np.float32(len(lately)) + least_error * least_error)

    @compiled
    def normalise(x: Any, gamma: Any, beta: Any, out: Any) -> None:
        share = np.float32(1 / len(x))
        mean = np.float32(0)
        for value in x:
            mean += value * share
        spread = np.float32(0)
        for value in x:
            spread += (value - mean) * (value - mean) * share
        factor = np.float32(1) / np.sqrt(spread + np.float32(NORM_EPSILON))
        for i in range(len(x)):
            out[i] = (x[i] - mean) * factor * gamma[i] + beta[i]

    @compiled
    def sigmoid(x: Any) -> Any:
        return np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1))

    @compiled
    def gain(level: Any, loudest: Any) -> Any:
        """Return what is multiplied by it to hold the energy: what is added to a prediction.

        Additions that are too soft are brought up by `loudest` at most.
        """
        if level[0] <= 0 or level[2] <= 0:
            return 1.0
        return min(most, min(loudest, level[0] / level[1]) * (level[2] / level[3]) ** 2)

    @compiled
    def bounded(level: Any, added: Any) -> Any:
        """Return what is to be added to a prediction, without what would be a click."""
        if level[0] <= 0:
            return added
        bound = largest * np.sqrt(level[0])
        return min(bound, max(-bound, added))

    @compiled
    def measure(level: Any, value: Any, predicted: Any) -> None:
        error = value - predicted
        level[1] += (error * error - level[1]) / level_samples
        level[3] += (value * value - level[3]) / level_samples

    @compiled
    def hear(frame: Any, state: Any, lstm: Any, x: Any, joined: Any, gates: Any, out: Any) -> None:
        """Take a frame into the state; what the LSTM makes of it goes to `out`."""
        kernel, bias, kernels, biases, gamma, beta = lstm
        units, layers = state.shape[2], state.shape[1]
        multiply(frame, kernel, bias, x)
        for layer in range(layers):
            h, c = state[0, layer], state[1, layer]
            normalise(x, gamma[layer], beta[layer], joined[:units])
            joined[units : 2 * units] = h
            multiply(joined, kernels[layer], biases[layer], gates)
            for i in range(units):
                kept = sigmoid(gates[units + i]) * c[i]
                c[i] = kept + sigmoid(gates[i]) * np.tanh(gates[2 * units + i])
                h[i] = sigmoid(gates[3 * units + i]) * np.tanh(c[i])
                x[i] += h[i]
        normalise(x, gamma[layers], beta[layers], out)

    @compiled
    def look(companded: Any, t: Any, past: Any, out: Any) -> None:
        """Write the last values and errors, those of step t included."""
        out[:past] = companded[0, t + 1 : t + 1 + past]
        out[past : 2 * past] = companded[1, t + 1 : t + 1 + past]

    @compiled
    def note(t: Any, value: Any, values: Any, errors: Any, companded: Any, predicted: Any) -> None:
        """Write down what was made at step t, for the steps to come."""
        order, past = len(values) - len(predicted), len(errors) - len(predicted)
        values[order + t] = value
        error = values[order + t] - predicted[t - 1]
        errors[past + t] = error
        companded[0, past + t] = np.arcsinh(16 * values[order + t]) / 3
        companded[1, past + t] = np.arcsinh(16 * errors_gain * error) / 3

    @compiled
    def numbers(
        begin: Any,
        end: Any,
        heard: Any,
        judged: Any,
        steps: Any,
        values: Any,
        errors: Any,
        companded: Any,
        predicted: Any,
        weights: Any,
        loss: Any,
        state: Any,
        told: Any,
        level: Any,
        noise: Any,
        scale: Any,
        lstm: Any,
        head: Any,
    ) -> None:
        hidden_kernel, hidden_bias, kernel, bias = head
        (ahead, order), past = weights.shape, len(errors) - len(steps)
        units, padded = state.shape[2], len(lstm[0])
        x, out = np.zeros(units, np.float32), np.zeros(len(hidden_kernel), np.float32)
        joined, gates = np.zeros(lstm[2].shape[1], np.float32), np.zeros(4 * units, np.float32)
        frame = np.zeros(padded, np.float32)
        hidden = np.zeros(len(kernel), np.float32)
        width = len(hidden_bias)
        for t in range(begin, end):
            place = t % ahead
            if place == 0:
                look(companded, t, past, frame)
                hear(frame, state, lstm, x, joined, gates, out[:units])
                multiply(out, hidden_kernel, hidden_bias, hidden[:width])
                for i in range(width):
                    hidden[i] = max(hidden[i], np.float32(0))
                multiply(hidden, kernel, bias, told)
                usual = usual_error(errors[t + 1 : t + 1 + past])
                for j in range(ahead):
                    told[j] *= usual
                    if heard <= t + j < len(predicted):
                        predicted[t + j] = dot(weights[j], values[t + 1 : t + 1 + order])
            if t + 1 >= judged:
                foretold = predicted[t] + told[place]
                if t + 1 >= heard:
                    added = gain(level, 1.0) * (told[place] + noise[t - begin])
                    value = predicted[t] + bounded(level, added)
                    value = min(room / scale, max(-room / scale, value))
                    measure(level, value, predicted[t])
                    steps[t + 1] = min(1.0, max(-1.0, value * scale))
                    note(t + 1, value, values, errors, companded, predicted)
                loss[t + 1] = (foretold * scale - steps[t + 1]) ** 2

    @compiled
    def classes(
        begin: Any,
        end: Any,
        heard: Any,
        judged: Any,
        steps: Any,
        values: Any,
        errors: Any,
        companded: Any,
        predicted: Any,
        weights: Any,
        loss: Any,
        state: Any,
        told: Any,
        level: Any,
        chances: Any,
        temperature: Any,
        lstm: Any,
        head: Any,
    ) -> None:
        frame_kernel, frame_bias, places_kernel, places_bias = head[:4]
        place_kernel, _, past_kernel, _ = head[4:8]  # the frame's is the bias of both
        hidden_kernel, hidden_bias, kernel, bias, levels, widths, edges = head[8:]
        past, order = len(errors) - len(steps), weights.shape[1]
        size, width = len(levels), len(hidden_bias)
        units, padded = state.shape[2], len(lstm[0])
        count = len(told) // width  # places of a frame
        x, out = np.zeros(units, np.float32), np.zeros(len(frame_kernel), np.float32)
        joined, gates = np.zeros(lstm[2].shape[1], np.float32), np.zeros(4 * units, np.float32)
        frame, places = np.zeros(padded, np.float32), np.zeros(len(places_bias), np.float32)
        of_frame = np.zeros(width, np.float32)
        known, first = np.zeros(len(past_kernel), np.float32), np.zeros(len(kernel), np.float32)
        second, logits = np.zeros(len(kernel), np.float32), np.zeros(len(bias), np.float32)
        mass = np.zeros(size, np.float64)
        for t in range(begin, end):
            place = t % count
            if place == 0:
                look(companded, t, past, frame)
                hear(frame, state, lstm, x, joined, gates, out[:units])
                multiply(out, frame_kernel, frame_bias, of_frame)
                multiply(out, places_kernel, places_bias, places)
                for n in range(count):
                    mine = places[n * places_units : (n + 1) * places_units]
                    multiply(mine, place_kernel, of_frame, told[n * width : (n + 1) * width])
            if t + 1 < judged:
                continue
            if t >= heard:
                predicted[t] = dot(weights[0], values[t + 1 : t + 1 + order])
            usual = usual_error(errors[t + 1 : t + 1 + past])
            look(companded, t, past, known)
            known[2 * past] = np.arcsinh(16 * predicted[t]) / 3
            multiply(known, past_kernel, told[place * width : (place + 1) * width], first[:width])
            for i in range(width):
                first[i] = max(first[i], np.float32(0))
            multiply(first, hidden_kernel, hidden_bias, second[:width])
            for i in range(width):
                second[i] = max(second[i], np.float32(0))
            multiply(second, kernel, bias, logits)
            shift, sharp = logits[size], np.exp(logits[size + 1])
            steep = np.float32(1) + np.log1p(np.exp(logits[size + 2]))
            highest = np.float32(-np.inf)
            for i in range(size):
                apart = (levels[i] - predicted[t]) / usual - shift
                logits[i] += widths[i] - steep * np.log1p(sharp * apart * apart)
                highest = max(highest, logits[i])
            total = 0.0
            for i in range(size):
                total += np.exp((logits[i] - highest) / temperature)
                mass[i] = total
            if t + 1 >= heard:
                drawn = chances[t - begin] * total
                chosen = np.searchsorted(mass, drawn, side="right")
                factor, hold = gain(level, np.inf), level[0] > 0
                value = levels[chosen]
                # Where in its cell it was drawn says what number it is, and that, which class it
                # becomes. The number itself is heard: errors of rounding grow in a filter.
                if hold:
                    before = mass[chosen - 1] if chosen > 0 else 0.0
                    share = (drawn - before) / (mass[chosen] - before)
                    value = edges[chosen] + share * (edges[chosen + 1] - edges[chosen])
                    value = predicted[t] + bounded(level, factor * (value - predicted[t]))
                    value = min(room * edges[size], max(room * edges[0], value))
                    chosen = np.searchsorted(edges, value, side="right") - 1
                    chosen = min(size - 1, max(0, chosen))
                steps[t + 1] = chosen
                measure(level, value, predicted[t])
                note(t + 1, value, values, errors, companded, predicted)
            chosen = steps[t + 1]
            loss[t + 1] = np.log(total) - (logits[chosen] - highest) / temperature

    return cast(Any, numbers), cast(Any, classes)
