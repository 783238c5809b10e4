"""The loops that decode sound, compiled by Numba.

This module loads Numba when it is imported, and compiles on first use (`compiling`); `wave` calls
it. `wave_xla` has the same in TensorFlow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.decoding import constants
from deep_piano.decoding.constants import (
    LARGEST_ADDITION,
    LEVEL_STEPS,
    MOST_GAIN,
    NORM_EPSILON,
    ROOM,
)
from deep_piano.infra.compiling import compiler
from deep_piano.models import config
from deep_piano.models.config import (
    COMPAND_BEND,
    COMPAND_GAIN,
    ERRORS_GAIN,
    LEAST_ERROR,
    PLACE_UNITS,
)

Floats = NDArray[np.float32]

ROWS = 8  # of a matrix that are taken at once: they are a multiple of it, with zeros below

_EPSILON, _LEAST, _ERRORS = map(np.float32, (NORM_EPSILON, LEAST_ERROR, ERRORS_GAIN))
_HALF, _ONE, _ZERO = map(np.float32, (0.5, 1, 0))


class Lstm(NamedTuple):
    """The LSTM layers; their kernels and biases have the gates as `base.arranged_layers` does."""

    input_kernel: Floats
    input_bias: Floats
    kernels: Floats
    biases: Floats
    gamma: Floats
    beta: Floats


class NumberHead(NamedTuple):
    """From the LSTM's output to the numbers of a frame."""

    hidden_kernel: Floats
    hidden_bias: Floats
    kernel: Floats
    bias: Floats


class ClassHead(NamedTuple):
    """From the LSTM's output, and the last values, to the classes of a step."""

    frame_kernel: Floats
    frame_bias: Floats
    places_kernel: Floats
    places_bias: Floats
    place_kernel: Floats
    past_kernel: Floats
    hidden_kernel: Floats
    hidden_bias: Floats
    kernel: Floats
    bias: Floats
    levels: Floats
    log_widths: Floats
    edges: NDArray[np.float64]


class Carried(NamedTuple):
    """What a stream carries: see `wave.Stream`."""

    linear: Floats
    state: Floats
    told: Floats
    level: NDArray[np.float64]


class Window(NamedTuple):
    """The steps of a call; place 0 is the last step before.

    Attributes
    ----------
    steps, loss, chances : ndarray, shape (1 + n,), (1 + n,), (n,)
    values, errors : ndarray, shape (reach + n,)
        With those before them.
    predicted : ndarray, shape (n + ahead,)
        The linear predictions.
    """

    steps: NDArray[Any]
    values: Floats
    errors: Floats
    predicted: Floats
    loss: NDArray[np.float64]
    chances: NDArray[np.float64]


# A multiplication and an addition may become one instruction; nothing else may change.
compiled = compiler(__file__, constants.__file__, config.__file__, fastmath={"contract"})
summing = compiler(__file__, fastmath={"contract", "reassoc"})


@compiled
def add_eight(out: Any, w: Any, x: Any) -> None:
    """Add eight rows of a matrix, each times a number."""
    w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for i in range(len(out)):
        some = out[i] + x0 * w0[i] + x1 * w1[i] + x2 * w2[i] + x3 * w3[i]
        out[i] = some + x4 * w4[i] + x5 * w5[i] + x6 * w6[i] + x7 * w7[i]


@compiled
def multiply(x: Any, kernel: Any, bias: Any, out: Any) -> None:
    """Write a vector times a matrix, and a bias; what is beyond the vector are rows of zeros."""
    out[:] = bias
    for k in range(0, len(kernel), ROWS):
        add_eight(out, kernel[k : k + ROWS], x[k : k + ROWS])


@compiled
def rectify(x: Any) -> None:
    """Apply ReLU in place."""
    for i in range(len(x)):
        x[i] = max(x[i], _ZERO)


@summing
def dot(a: Any, b: Any) -> Any:
    """Return the product of two vectors."""
    some = np.float32(0)
    for i in range(len(a)):
        some += a[i] * b[i]
    return some


@compiled
def usual_error(lately: Any) -> Any:
    """Return the root mean square of the last errors, never 0."""
    return np.sqrt(dot(lately, lately) / np.float32(len(lately)) + _LEAST * _LEAST)


@compiled
def normalise(x: Any, gamma: Any, beta: Any, out: Any) -> None:
    """Write the layer normalisation of a vector."""
    share = np.float32(1 / len(x))
    mean = np.float32(0)
    for value in x:
        mean += value * share
    spread = np.float32(0)
    for value in x:
        spread += (value - mean) * (value - mean) * share
    factor = np.float32(1) / np.sqrt(spread + _EPSILON)
    for i in range(len(x)):
        out[i] = (x[i] - mean) * factor * gamma[i] + beta[i]


@compiled
def sigmoid(halved: Any) -> Any:
    """Return the logistic function of twice `halved`, which is how the gates are laid out."""
    return _HALF * (np.tanh(halved) + _ONE)


@compiled
def gain(level: Any, loudest: Any) -> Any:
    """Return what an addition to a prediction is multiplied by, to hold the energy.

    Additions that are too soft are brought up by `loudest` at most.
    """
    if level[0] <= 0 or level[2] <= 0:
        return 1.0
    return min(MOST_GAIN, min(loudest, level[0] / level[1]) * (level[2] / level[3]) ** 2)


@compiled
def bounded(level: Any, added: Any) -> Any:
    """Return what is to be added to a prediction, without what would be a click."""
    if level[0] <= 0:
        return added
    bound = LARGEST_ADDITION * np.sqrt(level[0])
    return min(bound, max(-bound, added))


@compiled
def measure(level: Any, value: Any, predicted: Any) -> None:
    """Take a value into the levels."""
    error = value - predicted
    level[1] += (error * error - level[1]) / LEVEL_STEPS
    level[3] += (value * value - level[3]) / LEVEL_STEPS


@compiled
def lstm_step(frame: Any, state: Any, lstm: Any, x: Any, joined: Any, z: Any, out: Any) -> None:
    """Take a frame into the state; the LSTM's output goes to `out`."""
    units, layers = state.shape[2], state.shape[1]
    multiply(frame, lstm.input_kernel, lstm.input_bias, x)
    for layer in range(layers):
        h, c = state[0, layer], state[1, layer]
        normalise(x, lstm.gamma[layer], lstm.beta[layer], joined[:units])
        joined[units : 2 * units] = h
        multiply(joined, lstm.kernels[layer], lstm.biases[layer], z)
        for i in range(units):  # the gates: input, forget, output, cell
            kept = sigmoid(z[units + i]) * c[i]
            c[i] = kept + sigmoid(z[i]) * np.tanh(z[3 * units + i])
            h[i] = sigmoid(z[2 * units + i]) * np.tanh(c[i])
            x[i] += h[i]
    normalise(x, lstm.gamma[layers], lstm.beta[layers], out)


@compiled
def look(companded: Any, t: Any, past: Any, out: Any) -> None:
    """Write the last values and errors, those of step t included."""
    out[:past] = companded[0, t + 1 : t + 1 + past]
    out[past : 2 * past] = companded[1, t + 1 : t + 1 + past]


@compiled
def compand(begin: Any, end: Any, window: Any, companded: Any) -> None:
    """Compand values and errors; the arrays end at the same step."""
    before = len(window.values) - len(window.errors)
    for i in range(begin, end):
        value, error = window.values[before + i], window.errors[i]
        companded[0, i] = np.arcsinh(COMPAND_GAIN * value) / COMPAND_BEND
        companded[1, i] = np.arcsinh(COMPAND_GAIN * _ERRORS * error) / COMPAND_BEND


@compiled
def note(t: Any, value: Any, window: Any, companded: Any) -> None:
    """Write down what was drawn at step t, for the steps to come."""
    count = len(window.steps)
    reach, past = len(window.values) - count, len(window.errors) - count
    window.values[reach + t] = value
    window.errors[past + t] = window.values[reach + t] - window.predicted[t - 1]
    compand(past + t, past + t + 1, window, companded)


@compiled
def numbers(
    last: int,
    given: int,
    ready: int,
    scored: bool,
    scale: float,
    window: Window,
    carried: Carried,
    lstm: Lstm,
    head: NumberHead,
) -> None:
    """Take in `given` steps, and draw the others: numbers, foretold a frame at once.

    `last` is the place of the last step before, the first `ready` predictions are there, and losses
    are told of steps that are drawn, or where `scored` of all. Numbers were divided by `scale`.
    """
    (ahead, order), count = carried.linear.shape, len(window.steps)
    predicted, told, level = window.predicted, carried.told, carried.level
    reach, past = len(window.values) - count, len(window.errors) - count
    units, width = carried.state.shape[2], len(head.hidden_bias)
    x, z = np.zeros(units, np.float32), np.zeros(4 * units, np.float32)
    joined = np.zeros(lstm.kernels.shape[1], np.float32)
    frame = np.zeros(len(lstm.input_kernel), np.float32)
    out = np.zeros(len(head.hidden_kernel), np.float32)
    hidden = np.zeros(len(head.kernel), np.float32)
    companded = np.empty((2, len(window.errors)), np.float32)
    compand(0, past + given + 1, window, companded)
    for t in range(count - 1):
        place = (last + t) % ahead
        if place == 0:
            look(companded, t, past, frame)
            lstm_step(frame, carried.state, lstm, x, joined, z, out[:units])
            multiply(out, head.hidden_kernel, head.hidden_bias, hidden[:width])
            rectify(hidden[:width])
            multiply(hidden, head.kernel, head.bias, told)
            usual = usual_error(window.errors[t + 1 : t + 1 + past])
            for j in range(ahead):
                told[j] *= usual
                if t + j >= ready:
                    lately = window.values[reach - order + t + 1 : reach + t + 1]
                    predicted[t + j] = dot(carried.linear[j], lately)
        if scored or t >= given:
            foretold = predicted[t] + told[place]
            if t >= given:
                added = gain(level, 1.0) * (told[place] + window.chances[t])
                value = predicted[t] + bounded(level, added)
                value = min(ROOM / scale, max(-ROOM / scale, value))
                measure(level, value, predicted[t])
                window.steps[t + 1] = min(1.0, max(-1.0, value * scale))
                note(t + 1, value, window, companded)
            window.loss[t + 1] = (foretold * scale - window.steps[t + 1]) ** 2


@compiled
def tell(out: Any, head: Any, of_frame: Any, places: Any, told: Any) -> None:
    """Write what the LSTM's output says of each place of the next frame."""
    multiply(out, head.frame_kernel, head.frame_bias, of_frame)
    multiply(out, head.places_kernel, head.places_bias, places)
    width = len(of_frame)
    for n in range(len(told) // width):
        mine = places[n * PLACE_UNITS : (n + 1) * PLACE_UNITS]
        multiply(mine, head.place_kernel, of_frame, told[n * width : (n + 1) * width])


@compiled
def shape(logits: Any, predicted: Any, usual: Any, head: Any) -> Any:
    """Turn the network's outputs into logits, around the prediction; return the highest."""
    size = len(head.levels)
    shift, sharp = logits[size], np.exp(logits[size + 1])
    steep = np.float32(1) + np.log1p(np.exp(logits[size + 2]))
    highest = np.float32(-np.inf)
    for i in range(size):
        apart = (head.levels[i] - predicted) / usual - shift
        logits[i] += head.log_widths[i] - steep * np.log1p(sharp * apart * apart)
        highest = max(highest, logits[i])
    return highest


@compiled
def draw(chance: Any, mass: Any, predicted: Any, level: Any, head: Any) -> Any:
    """Return the class that is drawn, and the number that is fed back."""
    size, edges = len(head.levels), head.edges
    drawn = chance * mass[size - 1]
    chosen = np.searchsorted(mass, drawn, side="right")
    if level[0] <= 0:
        return chosen, np.float64(head.levels[chosen])
    # Where in its cell it was drawn says what number it is, and that, which class it becomes. The
    # number itself is fed back: errors of rounding grow in a filter.
    before = mass[chosen - 1] if chosen > 0 else 0.0
    share = (drawn - before) / (mass[chosen] - before)
    value = edges[chosen] + share * (edges[chosen + 1] - edges[chosen])
    value = predicted + bounded(level, gain(level, np.inf) * (value - predicted))
    value = min(ROOM * edges[size], max(ROOM * edges[0], value))
    cell = np.searchsorted(edges, value, side="right") - 1
    return min(size - 1, max(0, cell)), value


@compiled
def classes(
    last: int,
    given: int,
    ready: int,
    scored: bool,
    temperature: float,
    window: Window,
    carried: Carried,
    lstm: Lstm,
    head: ClassHead,
) -> None:
    """Take in `given` steps, and draw the others: classes, foretold one after another.

    As `numbers`; `temperature` divides the logits.
    """
    order, steps, predicted = carried.linear.shape[1], window.steps, window.predicted
    reach, past = len(window.values) - len(steps), len(window.errors) - len(steps)
    size, width, units = len(head.levels), len(head.hidden_bias), carried.state.shape[2]
    told, count = carried.told, len(carried.told) // width  # places of a frame
    x, z = np.zeros(units, np.float32), np.zeros(4 * units, np.float32)
    joined = np.zeros(lstm.kernels.shape[1], np.float32)
    frame = np.zeros(len(lstm.input_kernel), np.float32)
    out = np.zeros(len(head.frame_kernel), np.float32)
    places, of_frame = np.zeros(len(head.places_bias), np.float32), np.zeros(width, np.float32)
    known = np.zeros(len(head.past_kernel), np.float32)
    first, second = np.zeros(len(head.kernel), np.float32), np.zeros(len(head.kernel), np.float32)
    logits, mass = np.zeros(len(head.bias), np.float32), np.zeros(size, np.float64)
    companded = np.empty((2, len(window.errors)), np.float32)
    compand(0, past + given + 1, window, companded)
    for t in range(len(steps) - 1):
        place = (last + t) % count
        if place == 0:
            look(companded, t, past, frame)
            lstm_step(frame, carried.state, lstm, x, joined, z, out[:units])
            tell(out, head, of_frame, places, told)
        if t < given and not scored:
            continue
        if t >= ready:
            lately = window.values[reach - order + t + 1 : reach + t + 1]
            predicted[t] = dot(carried.linear[0], lately)
        usual = usual_error(window.errors[t + 1 : t + 1 + past])
        look(companded, t, past, known)
        known[2 * past] = np.arcsinh(COMPAND_GAIN * predicted[t]) / COMPAND_BEND
        of_place = told[place * width : (place + 1) * width]
        multiply(known, head.past_kernel, of_place, first[:width])
        rectify(first[:width])
        multiply(first, head.hidden_kernel, head.hidden_bias, second[:width])
        rectify(second[:width])
        multiply(second, head.kernel, head.bias, logits)
        highest = shape(logits, predicted[t], usual, head)
        total = 0.0
        for i in range(size):
            total += np.exp((logits[i] - highest) / temperature)
            mass[i] = total
        if t >= given:
            chosen, value = draw(window.chances[t], mass, predicted[t], carried.level, head)
            steps[t + 1] = chosen
            measure(carried.level, value, predicted[t])
            note(t + 1, value, window, companded)
        chosen = steps[t + 1]
        window.loss[t + 1] = np.log(total) - (logits[chosen] - highest) / temperature
