"""The loops that decode sound, compiled, and the limits that hold its energy.

`wave` calls them on the arrays that a stream carries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np

from deep_piano.decoding.base import NORM_EPSILON
from deep_piano.models.config import ERRORS_GAIN, LEAST_ERROR, PLACE_UNITS

_ROWS = 8  # of a matrix that are taken at once

# How energy is held: that of the samples, and of what is added to the linear prediction, is
# measured over so many; what is added is multiplied by what brings both back, at most by so much.
LEVEL_STEPS, MOST = 16_384, 2.0
# What is added at once is at most so many of the filter's mean errors on the seed: more is a click,
# and it rings. What is fed back may be so many times full scale: a filter that is fed its own
# clipped output can lock.
LARGEST, ROOM = 10.0, 16.0


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
    def lstm_step(
        frame: Any, state: Any, lstm: Any, x: Any, joined: Any, gates: Any, out: Any
    ) -> None:
        """Take a frame into the state; the LSTM's output goes to `out`."""
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
        """Compand values and errors; the arrays end at the same step."""
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
        given: Any,
        ready: Any,
        scored: Any,
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
        compand(0, past + given + 1, values, errors, companded)
        for t in range(count - 1):
            place = (last + t) % ahead
            if place == 0:
                look(companded, t, past, frame)
                lstm_step(frame, state, lstm, x, joined, gates, out[:units])
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
            if scored or t >= given:
                foretold = predicted[t] + told[place]
                if t >= given:
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
        given: Any,
        ready: Any,
        scored: Any,
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
        compand(0, past + given + 1, values, errors, companded)
        for t in range(steps_in_all - 1):
            place = (last + t) % count
            if place == 0:
                look(companded, t, past, frame)
                lstm_step(frame, state, lstm, x, joined, gates, out[:units])
                multiply(out, frame_kernel, frame_bias, of_frame)
                multiply(out, places_kernel, places_bias, places)
                for n in range(count):
                    mine = places[n * places_units : (n + 1) * places_units]
                    multiply(mine, place_kernel, of_frame, told[n * width : (n + 1) * width])
            if t < given and not scored:
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
            if t >= given:
                drawn = chances[t] * total
                chosen = np.searchsorted(mass, drawn, side="right")
                factor, hold = gain(level, np.inf), level[0] > 0
                value = levels[chosen]
                # Where in its cell it was drawn says what number it is, and that, which class it
                # becomes. The number itself is fed back: errors of rounding grow in a filter.
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
