"""Stepping the network of sound, sample after sample, compiled: millions of steps a piece.

The network is that of `tiers`; here it is loops over the checkpoint's own arrays, which Numba
compiles. What is carried stays in arrays that were made beforehand, and nothing is allocated in
between. One stream runs on one core; `device_stepping` steps many of them on a GPU. This module
knows checkpoints and sequences; it knows nothing of files. `tests/test_stepping.py` holds it to the
Keras model.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from deep_piano.decoding.notes import NORM_EPSILON
from deep_piano.errors import CheckpointError
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.models.config import ERRORS_GAIN, LEAST_ERROR, PLACE_UNITS
from deep_piano.models.linear_prediction import OwnPrediction, coefficients, numbers_of, predict

Array = NDArray[np.float32]

_ROWS = 8  # of a matrix that are taken at once
_BLOCK = 16_384  # steps of one call
# How energy is held: that of the samples, and of what is added to the linear prediction, is
# measured over so many; what is added is multiplied by what brings both back, at most by so much.
LEVEL_STEPS, MOST = 16_384, 2.0
# What is added at once is at most so many of the filter's mean errors on the seed: more is a click,
# and it rings. What is heard back may be so many times full scale: a filter that hears itself
# clipped can lock.
LARGEST, ROOM = 10.0, 16.0


@dataclasses.dataclass
class Stream:
    """A sequence that goes on: what the network carries from one step to the next.

    Attributes
    ----------
    dtype : dtype
        Of its steps.
    rng : numpy.random.Generator
    temperature : float
    noise : float or None
        Of numbers: how much is added to each prediction. Of classes, None.
    last : int
        The place of its last step, which says where in a frame it is.
    linear : ndarray, shape (ahead, order)
        The linear prediction of the values to come.
    values, errors : ndarray, shape (order or past,), (past,)
        The last ones, scaled, and how wrong their predictions were; the latest at the end.
    foretold : ndarray, shape (n,)
        The linear predictions of the next values, as far as they are known.
    told : ndarray, shape (n,)
        What the LSTM said last, of the frame in the making.
    state : ndarray, shape (2, layers, units)
        The LSTM's h and c.
    level : ndarray of float64, shape (4,)
        Mean squares: of what is added to the prediction, to be held (0: nothing is held) and of the
        last samples; then of the samples themselves.
    made : list of ndarray, shape (n, 1)
        The steps since what was heard.
    """

    dtype: np.dtype[Any]
    rng: np.random.Generator
    temperature: float
    noise: float | None
    last: int
    linear: Array
    values: Array
    errors: Array
    foretold: Array
    told: Array
    state: Array
    level: NDArray[np.float64]
    made: list[NDArray[Any]] = dataclasses.field(default_factory=list)

    def fork(self, rng: np.random.Generator) -> Stream:
        """Return a stream that goes on from here by other chances."""
        other = copy.deepcopy(self)
        other.rng = rng
        return other

    def chances(self, count: int) -> NDArray[np.float64]:
        """Draw what decides over the next steps: noise, or for classes from [0, 1)."""
        if self.noise is None:
            return self.rng.random(count)
        return self.rng.standard_normal(count) * self.noise


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
        require_sound(checkpoint)
        self.spec, self.config = checkpoint.spec, checkpoint.config
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
            levels = (field.levels / config.scale).astype(np.float32)
            names = ("from_frame", "places", "from_place", "from_past", "hidden", "head")
            self._head = tuple(array for name in names for array in matrices[name])
            self._head += (levels, field.log_widths.astype(np.float32))
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

        Parameters
        ----------
        sequence, rng, temperature, hold
            As for `begin`.
        count : int
            How many steps to add.
        progress : callable, optional
            Called with steps done and steps in all, about once a second of sound.

        Returns
        -------
        ndarray of the dtype of `sequence`, shape (count, 1)
        """
        stream = self.begin(sequence, rng, temperature=temperature, hold=hold)
        for begin in range(0, count, _BLOCK):
            self.extend(stream, min(_BLOCK, count - begin))
            if progress is not None:
                progress(stream.last + 1, len(sequence) + count)
        return np.concatenate([sequence[:0], *stream.made])

    def begin(
        self,
        sequence: NDArray[Any],
        rng: np.random.Generator,
        *,
        temperature: float = 1.0,
        hold: bool = True,
    ) -> Stream:
        """Hear a sequence that is to be continued.

        The linear prediction is the one that fits what was heard, to the end.

        Parameters
        ----------
        sequence : ndarray, shape (n, 1)
            At least one step.
        rng : numpy.random.Generator
            One number a step is taken from it.
        temperature : float
            Of classes: divides the logits. Of numbers: how much noise is added to the prediction;
            at 1 as much as the linear prediction was wrong on what was heard.
        hold : bool
            Hold the energy of what is added to the linear prediction: a network that hears itself
            otherwise swells or fades by a little a step, and there are millions.
        """
        return self._hear(sequence, rng, temperature, hold)[0]

    def extend(self, stream: Stream, count: int) -> None:
        """Take a stream so many steps further; however they are divided, they are the same."""
        steps, _ = self._run(stream, np.zeros(0), np.zeros(0, np.float32), count)
        stream.made.append(steps.astype(stream.dtype)[:, None])

    def extend_to_frame(self, stream: Stream) -> None:
        """Take a stream to the beginning of the next frame, from where a GPU can step it."""
        self.extend(stream, self.config.frame - stream.last % self.config.frame)

    def losses(self, sequence: NDArray[Any]) -> NDArray[np.float64]:
        """Return the loss of each step but the first, given those before; shape (n - 1,)."""
        return self._hear(sequence, np.random.default_rng(0), 1.0, False, judged=True)[1]

    def _hear(
        self,
        sequence: NDArray[Any],
        rng: np.random.Generator,
        temperature: float,
        hold: bool,
        *,
        judged: bool = False,
    ) -> tuple[Stream, NDArray[np.float64]]:
        """Hear a sequence; return the stream, and where they are asked for the losses."""
        config, continuous = self.config, self.spec.continuous
        [field] = self.spec.fields
        given = numbers_of(field, sequence)[:, 0] / config.scale
        linear = coefficients(given, config, ahead=config.frame if continuous else 1)
        apart = given[1:] - predict(given, 0, len(given), linear)[:-1]
        energy = float(np.mean(np.square(apart))) if len(apart) else 0.0  # of what is not foretold
        energy *= temperature**2 if continuous else 1.0
        whole = float(np.mean(np.square(given)))
        context = OwnPrediction(self.spec, config, 1)
        context.begin(0, sequence)
        told = config.frame * (1 if continuous else config.head_units)
        stream = Stream(
            dtype=sequence.dtype,
            rng=rng,
            temperature=temperature,
            noise=float(np.sqrt(energy)) if continuous else None,
            last=0,
            linear=np.ascontiguousarray(linear.T, np.float32),
            # What is before the beginning is silent.
            values=np.zeros(max(config.order, config.past), np.float32),
            errors=np.zeros(config.past, np.float32),
            foretold=context.window(sequence[None], sequence[None]).features[0, :, 0],
            told=np.zeros(told, np.float32),
            state=np.zeros((2, config.layers, config.units), np.float32),
            level=np.array([energy if hold else 0.0, energy, whole, whole]),
        )
        stream.values[-1] = stream.errors[-1] = given[0]
        return stream, self._run(stream, sequence[1:, 0], given[1:], 0, judged=judged)[1]

    def _run(
        self,
        stream: Stream,
        given: NDArray[Any],
        numbers: NDArray[Any],
        count: int,
        *,
        judged: bool = False,
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Hear steps and what numbers they are, or make some; return steps, and their losses."""
        reach, past, heard = len(stream.values), len(stream.errors), len(given)
        total, ready = heard + count, len(stream.foretold)
        # Place 0 is the last step; what was before it stands in front.
        steps = np.zeros(1 + total, np.float64 if self.spec.continuous else np.int64)
        steps[1 : 1 + heard] = given
        values = np.concatenate([np.zeros(1), stream.values, numbers, np.zeros(count)])
        values = values.astype(np.float32)
        ahead = len(stream.linear)
        predicted = np.concatenate([stream.foretold, np.zeros(total + ahead, np.float32)])
        errors = np.zeros(1 + past + total, np.float32)
        errors[1 : 1 + past] = stream.errors
        errors[1 + past : 1 + past + heard] = values[1 + reach : 1 + reach + heard]
        errors[1 + past : 1 + past + heard] -= predicted[:heard]
        chances = np.zeros(total)
        chances[heard:] = stream.chances(count)
        loss = np.zeros(1 + total)
        run = _compiled()[0 if self.spec.continuous else 1]
        run(
            stream.last,
            heard,
            ready,
            judged,
            steps,
            values,
            errors,
            predicted,
            stream.linear,
            loss,
            stream.state,
            stream.told,
            stream.level,
            chances,
            self.config.scale if self.spec.continuous else stream.temperature,
            self._lstm,
            self._head,
        )
        stream.last += total
        # A frame of numbers is foretold as a whole
        stream.foretold = predicted[total : max(ready, total + -stream.last % ahead)]
        stream.values, stream.errors = values[-reach:], errors[-past:]
        return steps[1:], loss[1:]


def require_sound(checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` when a checkpoint is of a codec that is no sound wave."""
    if checkpoint.config.past == 1 or len(checkpoint.spec.fields) != 1:
        raise CheckpointError(
            f"the checkpoint is of the codec {checkpoint.spec.codec!r}, which is no sound wave. "
            "Give one that was trained on mulaw or samples."
        )


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
    level_steps, most, largest, room = LEVEL_STEPS, MOST, LARGEST, ROOM
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
        level[1] += (error * error - level[1]) / level_steps
        level[3] += (value * value - level[3]) / level_steps

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
    def compand(begin: Any, end: Any, values: Any, errors: Any, companded: Any) -> None:
        """Write down how values and errors are heard; the arrays end at the same step."""
        before = len(values) - len(errors)
        for i in range(begin, end):
            companded[0, i] = np.arcsinh(16 * values[before + i]) / 3
            companded[1, i] = np.arcsinh(16 * errors_gain * errors[i]) / 3

    @compiled
    def note(t: Any, value: Any, steps: Any, values: Any, errors: Any, predicted: Any) -> None:
        """Write down what was made at step t, for the steps to come."""
        reach, past = len(values) - len(steps), len(errors) - len(steps)
        values[reach + t] = value
        errors[past + t] = values[reach + t] - predicted[t - 1]

    @compiled
    def numbers(
        last: Any,
        heard: Any,
        ready: Any,
        judged: Any,
        steps: Any,
        values: Any,
        errors: Any,
        predicted: Any,
        linear: Any,
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
        (ahead, order), count = linear.shape, len(steps)
        reach, past = len(values) - count, len(errors) - count
        units, padded = state.shape[2], len(lstm[0])
        x, out = np.zeros(units, np.float32), np.zeros(len(hidden_kernel), np.float32)
        joined, gates = np.zeros(lstm[2].shape[1], np.float32), np.zeros(4 * units, np.float32)
        frame = np.zeros(padded, np.float32)
        hidden = np.zeros(len(kernel), np.float32)
        width = len(hidden_bias)
        companded = np.empty((2, len(errors)), np.float32)
        compand(0, past + heard + 1, values, errors, companded)
        for t in range(count - 1):
            place = (last + t) % ahead
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
                    if t + j >= ready:
                        lately = values[reach - order + t + 1 : reach + t + 1]
                        predicted[t + j] = dot(linear[j], lately)
            if judged or t >= heard:
                foretold = predicted[t] + told[place]
                if t >= heard:
                    added = gain(level, 1.0) * (told[place] + noise[t])
                    value = predicted[t] + bounded(level, added)
                    value = min(room / scale, max(-room / scale, value))
                    measure(level, value, predicted[t])
                    steps[t + 1] = min(1.0, max(-1.0, value * scale))
                    note(t + 1, value, steps, values, errors, predicted)
                    compand(past + t + 1, past + t + 2, values, errors, companded)
                loss[t + 1] = (foretold * scale - steps[t + 1]) ** 2

    @compiled
    def classes(
        last: Any,
        heard: Any,
        ready: Any,
        judged: Any,
        steps: Any,
        values: Any,
        errors: Any,
        predicted: Any,
        linear: Any,
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
        order, steps_in_all = linear.shape[1], len(steps)
        reach, past = len(values) - steps_in_all, len(errors) - steps_in_all
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
        companded = np.empty((2, len(errors)), np.float32)
        compand(0, past + heard + 1, values, errors, companded)
        for t in range(steps_in_all - 1):
            place = (last + t) % count
            if place == 0:
                look(companded, t, past, frame)
                hear(frame, state, lstm, x, joined, gates, out[:units])
                multiply(out, frame_kernel, frame_bias, of_frame)
                multiply(out, places_kernel, places_bias, places)
                for n in range(count):
                    mine = places[n * places_units : (n + 1) * places_units]
                    multiply(mine, place_kernel, of_frame, told[n * width : (n + 1) * width])
            if t < heard and not judged:
                continue
            if t >= ready:
                predicted[t] = dot(linear[0], values[reach - order + t + 1 : reach + t + 1])
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
            if t >= heard:
                drawn = chances[t] * total
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
                note(t + 1, value, steps, values, errors, predicted)
                compand(past + t + 1, past + t + 2, values, errors, companded)
            chosen = steps[t + 1]
            loss[t + 1] = np.log(total) - (logits[chosen] - highest) / temperature

    return cast(Any, numbers), cast(Any, classes)
