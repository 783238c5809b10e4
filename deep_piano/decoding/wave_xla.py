"""Decoding sound on a GPU: many streams at once, in a graph compiled by XLA.

`wave.WaveEngine` is the reference: the same network, rules and chances, and but for the rounding
of sums the same sound. It prefills streams on a CPU, and takes them to the beginning of a frame;
the graph goes on from there. A call of it takes all streams a second further; between two calls the
host begins new ones, and collects what is complete.

There is a fixed number of slots, and the empty ones are computed too: the graph has the same shapes
whatever is in it, so that a stream does not depend on the streams beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from deep_piano.decoding.base import Decoder, arranged_layers
from deep_piano.decoding.constants import LARGEST_ADDITION, LEVEL_STEPS, MOST_GAIN, ROOM
from deep_piano.decoding.wave import (
    STEPS_A_CALL,
    Stream,
    WaveEngine,
    WaveTask,
    sampling_rate,
)
from deep_piano.decoding.xla import lstm_layers, product
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.models.config import (
    COMPAND_BEND,
    COMPAND_GAIN,
    ERRORS_GAIN,
    LEAST_ERROR,
    PLACE_UNITS,
)

Tensors = dict[str, Any]
"""Parts of all streams, named as in `Stream`."""


class WaveDecoderXla(Decoder[WaveTask, NDArray[Any]]):
    """Streams of sound decoded side by side, as by `WaveDecoder`, in a fixed number of slots.

    Parameters
    ----------
    checkpoint : Checkpoint
    width : int
        How many streams there may be at once. Sums depend on it, and on nothing else.
    steps_a_call : int
        About how many steps each stream gets in a call of the graph.

    Raises
    ------
    CheckpointError
        When the checkpoint is of a codec that is no sound wave.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, width: int, steps_a_call: int = STEPS_A_CALL
    ) -> None:
        self._engine, self._sr = WaveEngine(checkpoint), sampling_rate(checkpoint)
        config = checkpoint.config
        self._frame = config.frame
        self._steps = -(-steps_a_call // config.frame) * config.frame
        self._loop = (_Numbers if checkpoint.spec.continuous else _Classes)(checkpoint)
        self._slots: list[tuple[Hashable, Stream, int] | None] = [None] * width
        ahead = config.frame if checkpoint.spec.continuous else 1
        self._fixed: Tensors = {
            "linear": np.zeros((width, ahead, config.order), np.float32),
            "temperature": np.ones(width),
        }
        self._carried: Tensors = {
            "values": np.zeros((width, max(config.order, config.past)), np.float32),
            "errors": np.zeros((width, config.past), np.float32),
            "state": [
                tuple(np.zeros((2, width, config.units), np.float32)) for _ in range(config.layers)
            ],
            "level": np.ones((width, 4)),
        }

    def __len__(self) -> int:
        return sum(slot is not None for slot in self._slots)

    @property
    def done_s(self) -> float:
        """How far all streams have come together, in seconds."""
        return sum(stream.last + 1 for _, _, stream, _ in self._at_work()) / self._sr

    def add(self, name: Hashable, task: WaveTask) -> None:
        """Begin a stream: see `Decoder`."""
        slot = self._slots.index(None)
        stream = task.prefix.fork(task.rng)
        self._engine.extend_to_frame(stream)
        self._slots[slot] = name, stream, task.count
        for layer, (h, c) in enumerate(self._carried["state"]):
            h[slot], c[slot] = stream.state[:, layer]
        for part in ("linear", "temperature"):
            self._fixed[part][slot] = getattr(stream, part)
        for part in ("values", "errors", "level"):
            self._carried[part][slot] = getattr(stream, part)

    def step(self) -> dict[Hashable, NDArray[Any]]:
        """Take every stream about a second further: see `Decoder`."""
        chances = np.zeros((len(self._slots), self._steps))
        for slot, _, stream, _ in self._at_work():
            chances[slot] = stream.chances(self._steps)
        shape = (-1, self._frame, len(self._slots))
        carried, made = self._loop(self._carried, self._fixed, chances.T.reshape(shape))
        self._carried = tf.nest.map_structure(np.array, carried)  # which may be written to
        made = made.numpy()
        done = {}
        for slot, name, stream, count in self._at_work():
            stream.made.append(made[:, slot, None].astype(stream.dtype))
            stream.last += self._steps
            if stream.steps >= count:
                done[name] = np.concatenate(stream.made)[:count]
                self._slots[slot] = None
        return done

    def _at_work(self) -> Iterator[tuple[int, Hashable, Stream, int]]:
        for slot, there in enumerate(self._slots):
            if there is not None:
                yield slot, *there


class _Loop:
    """The graph: frame after frame through the LSTM, and within each one step after another."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._config = checkpoint.config
        [self._field] = checkpoint.spec.fields
        self._weights = {name: tf.Variable(array) for name, array in checkpoint.weights.items()}
        self._norms, self._lstms = tf.nest.map_structure(tf.Variable, arranged_layers(checkpoint))
        self._compiled = tf.function(self._run, jit_compile=True, autograph=False)

    def __call__(
        self, carried: Tensors, fixed: Tensors, chances: NDArray[Any]
    ) -> tuple[Tensors, tf.Tensor]:
        """Return what is carried on, and the steps made, (steps, streams).

        Parameters
        ----------
        carried : dict of str to ndarray
        fixed : dict of str to ndarray
        chances : ndarray, shape (frames, frame, streams)
        """
        return self._compiled(
            *tf.nest.map_structure(tf.convert_to_tensor, (carried, fixed, chances))
        )

    def _run(
        self, carried: Tensors, fixed: Tensors, chances: tf.Tensor
    ) -> tuple[Tensors, tf.Tensor]:
        frames, frame, streams = chances.shape
        dtype = tf.float32 if self._field.continuous else tf.int32
        made = tf.TensorArray(dtype, frames * frame, element_shape=[streams])

        def one_frame(n: tf.Tensor, carried: Tensors, made: tf.TensorArray) -> Any:
            """Take every stream a frame further."""
            carried, told = self._step(carried, fixed)

            def go_on(place: tf.Tensor, carried: Tensors, made: tf.TensorArray) -> Any:
                """Take every stream a step further."""
                mine = tf.nest.map_structure(lambda part: part[place], told)
                predicted, value, step = self._choose(carried, fixed, mine, chances[n, place])
                made = made.write(n * frame + place, step)
                return place + 1, _noted(carried, predicted, value), made

            _, carried, made = tf.while_loop(
                lambda place, *_: place < frame, go_on, (tf.constant(0), carried, made)
            )
            return n + 1, carried, made

        _, carried, made = tf.while_loop(
            lambda n, *_: n < frames, one_frame, (tf.constant(0), carried, made)
        )
        return carried, made.stack()

    def _step(self, carried: Tensors, fixed: Tensors) -> tuple[Tensors, Any]:
        """Take a frame into the LSTM's state; return what it tells of each place of the next."""
        x = product(self._known(carried), self._pair("input"))
        state, x = lstm_layers(x, carried["state"], self._norms, self._lstms)
        return {**carried, "state": state}, self._tell(x, carried, fixed)

    def _known(self, carried: Tensors) -> tf.Tensor:
        """Return the last values and errors, companded."""
        values = carried["values"][:, -self._config.past :]
        return tf.concat([_companded(values), _companded(ERRORS_GAIN * carried["errors"])], 1)

    def _pair(self, name: str) -> tuple[tf.Variable, tf.Variable]:
        return self._weights[f"{name}/kernel"], self._weights[f"{name}/bias"]

    def _tell(self, x: tf.Tensor, carried: Tensors, fixed: Tensors) -> Any:
        """Return what is known of each place of the next frame, (frame, streams, …)."""
        raise NotImplementedError

    def _choose(
        self, carried: Tensors, fixed: Tensors, told: Any, chances: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return of each stream what was predicted, what number comes, and as which step."""
        raise NotImplementedError


class _Numbers(_Loop):
    """Steps that are numbers: all of a frame foretold at once."""

    def _tell(self, x: tf.Tensor, carried: Tensors, fixed: Tensors) -> Any:
        name = self._field.name
        hidden = tf.nn.relu(product(x, self._pair(f"{name}_hidden")))
        told = product(hidden, self._pair(name)) * _usual_error(carried)
        values = carried["values"][:, -self._config.order :]
        predicted = tf.linalg.matvec(fixed["linear"], values)
        return tf.transpose(predicted), tf.transpose(told)

    def _choose(
        self, carried: Tensors, fixed: Tensors, told: Any, chances: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        predicted, more = told
        level, scale = carried["level"], self._config.scale
        added = _gain(level, loudest=1.0) * (_double(more) + chances)
        value = _double(predicted) + _bounded(level, added)
        value = tf.clip_by_value(value, -ROOM / scale, ROOM / scale)
        step = tf.clip_by_value(value * scale, -1, 1)
        return predicted, value, tf.cast(step, tf.float32)


class _Classes(_Loop):
    """Steps that are classes: one foretold after another."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        scale = self._config.scale
        self._levels = tf.constant(self._field.levels / scale)
        self._widths = tf.constant(self._field.log_widths, tf.float32)
        self._edges = tf.constant(self._field.edges / scale)

    def _tell(self, x: tf.Tensor, carried: Tensors, fixed: Tensors) -> Any:
        shape = (-1, self._config.frame, PLACE_UNITS)
        places = tf.reshape(product(x, self._pair("places")), shape)
        told = tf.transpose(places, (1, 0, 2)) @ self._weights["from_place/kernel"]
        return told + product(x, self._pair("from_frame"))

    def _choose(
        self, carried: Tensors, fixed: Tensors, told: Any, chances: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        name, size = self._field.name, self._field.size
        values = carried["values"][:, -self._config.order :]
        predicted = tf.reduce_sum(values * fixed["linear"][:, 0], 1)
        known = tf.concat([self._known(carried), _companded(predicted)[:, None]], 1)
        x = tf.nn.relu(known @ self._weights["from_past/kernel"] + told)
        x = tf.nn.relu(product(x, self._pair(f"{name}_hidden")))
        x = product(x, self._pair(name))
        shift, sharp, steep = (x[:, size + n, None] for n in range(3))
        apart = tf.cast(self._levels, tf.float32) - predicted[:, None]
        apart = apart / _usual_error(carried) - shift
        bell = -(1 + tf.nn.softplus(steep)) * tf.math.log1p(tf.exp(sharp) * apart * apart)
        logits = x[:, :size] + bell + self._widths
        logits -= tf.reduce_max(logits, 1, keepdims=True)
        mass = tf.cumsum(tf.exp(_double(logits) / fixed["temperature"][:, None]), 1)
        drawn = chances * mass[:, -1]
        below = mass <= drawn[:, None]
        chosen = tf.math.count_nonzero(below, 1, dtype=tf.int32)
        # Where in its cell it was drawn says what number it is: see `wave_kernels`.
        before = tf.reduce_max(tf.where(below, mass, 0.0), 1)
        share = (drawn - before) / (tf.gather(mass, chosen, batch_dims=1) - before)
        begin, end = tf.gather(self._edges, chosen), tf.gather(self._edges, chosen + 1)
        level, middle = carried["level"], _double(predicted)
        value = begin + share * (end - begin)
        added = _gain(level, loudest=np.inf) * (value - middle)
        value = middle + _bounded(level, added)
        value = tf.clip_by_value(value, ROOM * self._edges[0], ROOM * self._edges[size])
        cell = tf.math.count_nonzero(self._edges <= value[:, None], 1, dtype=tf.int32) - 1
        cell = tf.clip_by_value(cell, 0, size - 1)
        held = level[:, 0] > 0
        value = tf.where(held, value, tf.gather(self._levels, chosen))
        return predicted, value, tf.where(held, cell, chosen)


def _noted(carried: Tensors, predicted: tf.Tensor, value: tf.Tensor) -> Tensors:
    """Return what is carried after a number was made."""
    fed_back = tf.cast(value, tf.float32)
    error, level = value - _double(predicted), carried["level"]
    squares = tf.stack([error * error, value * value], 1)
    now = tf.stack([level[:, 1], level[:, 3]], 1)
    now += (squares - now) / LEVEL_STEPS
    return {
        **carried,
        "values": tf.concat([carried["values"][:, 1:], fed_back[:, None]], 1),
        "errors": tf.concat([carried["errors"][:, 1:], (fed_back - predicted)[:, None]], 1),
        "level": tf.stack([level[:, 0], now[:, 0], level[:, 2], now[:, 1]], 1),
    }


def _gain(level: tf.Tensor, *, loudest: float) -> tf.Tensor:
    """Return what is multiplied by it to hold the energy, as `wave_kernels` does."""
    held, whole, loudest = level[:, 0], level[:, 2], tf.constant(loudest, tf.float64)
    factor = tf.minimum(loudest, held / level[:, 1]) * (whole / level[:, 3]) ** 2
    one = tf.ones_like(factor)
    return tf.where((held > 0) & (whole > 0), tf.minimum(MOST_GAIN * one, factor), one)


def _bounded(level: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
    """Return what is to be added to a prediction, without what would be a click."""
    bound = LARGEST_ADDITION * tf.sqrt(level[:, 0])
    return tf.where(level[:, 0] > 0, tf.clip_by_value(added, -bound, bound), added)


def _usual_error(carried: Tensors) -> tf.Tensor:
    """Return the root mean square of the last errors, (streams, 1)."""
    squares = tf.reduce_mean(tf.square(carried["errors"]), 1, keepdims=True)
    return tf.sqrt(squares + LEAST_ERROR**2)


def _companded(values: tf.Tensor) -> tf.Tensor:
    return tf.asinh(COMPAND_GAIN * values) / COMPAND_BEND


def _double(numbers: tf.Tensor) -> tf.Tensor:
    return tf.cast(numbers, tf.float64)
