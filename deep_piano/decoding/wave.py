"""Decoding sound on a CPU, sample after sample, compiled: millions of steps a piece.

The network is that of `wave_network`; here it is loops over the checkpoint's own arrays, which
Numba compiles. What is carried stays in arrays that were made beforehand, and nothing is allocated
in between. One stream runs on one core; `wave_xla` decodes many of them on a GPU. This module knows
checkpoints and sequences; it knows nothing of files. `tests/decoding/test_wave.py` holds it to the
Keras model.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.registry import CODECS, codec_of
from deep_piano.decoding.base import Decoder, arranged_layers
from deep_piano.errors import CheckpointError
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.models.linear_prediction import OwnPrediction, coefficients, numbers_of, predict

Array = NDArray[np.float32]

STEPS_A_CALL: Final = 16_384


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
        The LSTM's output for the current frame.
    state : ndarray, shape (2, layers, units)
        The LSTM's h and c.
    level : ndarray of float64, shape (4,)
        Mean squares: of what is added to the prediction, to be held (0: nothing is held) and of the
        last samples; then of the samples themselves.
    made : list of ndarray, shape (n, 1)
        The steps since the prefill.
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

    @property
    def steps(self) -> int:
        """How many steps were decoded since the prefill."""
        return sum(map(len, self.made))

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


class WaveEngine:
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
        from deep_piano.decoding import wave_kernels as kernels

        require_sound(checkpoint)
        self.spec, self.config = checkpoint.spec, checkpoint.config
        [field] = self.spec.fields
        weights, scale = checkpoint.weights, self.config.scale

        def dense(name: str) -> tuple[Array, Array]:
            return _padded(weights[f"{name}/kernel"]), weights[f"{name}/bias"].copy()

        norms, lstms = arranged_layers(checkpoint)
        self._lstm = kernels.Lstm(
            *dense("input"),
            np.stack([_padded(kernel) for kernel, _ in lstms]),
            np.stack([bias for _, bias in lstms]),
            *(np.stack(arrays) for arrays in zip(*norms, strict=True)),
        )
        output = (*dense(f"{field.name}_hidden"), *dense(field.name))
        self._head: kernels.NumberHead | kernels.ClassHead
        if field.continuous:
            self._head = kernels.NumberHead(*output)
        else:
            self._head = kernels.ClassHead(
                *dense("from_frame"),
                *dense("places"),
                _padded(weights["from_place/kernel"]),
                _padded(weights["from_past/kernel"]),
                *output,
                (field.levels / scale).astype(np.float32),
                field.log_widths.astype(np.float32),
                field.edges / scale,
            )

    def decode(
        self,
        sequence: NDArray[Any],
        count: int,
        rng: np.random.Generator,
        *,
        temperature: float = 1.0,
        hold: bool = True,
    ) -> NDArray[Any]:
        """Return `count` steps after a sequence, shape (count, 1); the rest as for `prefill`."""
        stream = self.prefill(sequence, rng, temperature=temperature, hold=hold)
        self.extend(stream, count)
        return np.concatenate([sequence[:0], *stream.made])

    def prefill(
        self,
        sequence: NDArray[Any],
        rng: np.random.Generator,
        *,
        temperature: float = 1.0,
        hold: bool = True,
    ) -> Stream:
        """Take in a sequence that is to be continued.

        The linear prediction is the one that fits the sequence, to its end.

        Parameters
        ----------
        sequence : ndarray, shape (n, 1)
            At least one step.
        rng : numpy.random.Generator
            One number a step is taken from it.
        temperature : float
            Of classes: divides the logits. Of numbers: how much noise is added to the prediction;
            at 1 as much as the linear prediction was wrong on the sequence.
        hold : bool
            Hold the energy of what is added to the linear prediction: a network that is fed its own
            output otherwise swells or fades by a little a step, and there are millions.
        """
        return self._prefill(sequence, rng, temperature, hold)[0]

    def extend(self, stream: Stream, count: int) -> None:
        """Take a stream so many steps further; however they are divided, they are the same."""
        steps, _ = self._run(stream, np.zeros(0), np.zeros(0, np.float32), count)
        stream.made.append(steps.astype(stream.dtype)[:, None])

    def extend_to_frame(self, stream: Stream) -> None:
        """Take a stream to the beginning of the next frame, from where a GPU can decode it."""
        self.extend(stream, self.config.frame - stream.last % self.config.frame)

    def losses(self, sequence: NDArray[Any]) -> NDArray[np.float64]:
        """Return the loss of each step but the first, given those before; shape (n - 1,)."""
        return self._prefill(sequence, np.random.default_rng(0), 1.0, False, scored=True)[1]

    def _prefill(
        self,
        sequence: NDArray[Any],
        rng: np.random.Generator,
        temperature: float,
        hold: bool,
        *,
        scored: bool = False,
    ) -> tuple[Stream, NDArray[np.float64]]:
        """Take in a sequence; return the stream, and where `scored` the losses."""
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
        return stream, self._run(stream, sequence[1:, 0], given[1:], 0, scored=scored)[1]

    def _run(
        self,
        stream: Stream,
        given: NDArray[Any],
        numbers: NDArray[Any],
        count: int,
        *,
        scored: bool = False,
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Take in steps and what numbers they are, or draw some; return steps, and their losses."""
        from deep_piano.decoding import wave_kernels as kernels

        reach, past, known = len(stream.values), len(stream.errors), len(given)
        total, ready = known + count, len(stream.foretold)
        # Place 0 is the last step; what was before it stands in front.
        steps = np.zeros(1 + total, np.float64 if self.spec.continuous else np.int64)
        steps[1 : 1 + known] = given
        values = np.concatenate([np.zeros(1), stream.values, numbers, np.zeros(count)])
        values = values.astype(np.float32)
        ahead = len(stream.linear)
        predicted = np.concatenate([stream.foretold, np.zeros(total + ahead, np.float32)])
        errors = np.zeros(1 + past + total, np.float32)
        errors[1 : 1 + past] = stream.errors
        errors[1 + past : 1 + past + known] = values[1 + reach : 1 + reach + known]
        errors[1 + past : 1 + past + known] -= predicted[:known]
        chances = np.zeros(total)
        chances[known:] = stream.chances(count)
        loss = np.zeros(1 + total)
        run: Any = kernels.numbers if self.spec.continuous else kernels.classes
        run(
            stream.last,
            known,
            ready,
            scored,
            self.config.scale if self.spec.continuous else stream.temperature,
            kernels.Window(steps, values, errors, predicted, loss, chances),
            kernels.Carried(stream.linear, stream.state, stream.told, stream.level),
            self._lstm,
            self._head,
        )
        stream.last += total
        # A frame of numbers is foretold as a whole
        stream.foretold = predicted[total : max(ready, total + -stream.last % ahead)]
        stream.values, stream.errors = values[-reach:], errors[-past:]
        return steps[1:], loss[1:]


@dataclasses.dataclass(frozen=True)
class WaveTask:
    """Sound to be decoded.

    Attributes
    ----------
    prefix : Stream
        From `WaveEngine.prefill`; it is left as it is.
    count : int
        Steps that are to follow.
    rng : numpy.random.Generator
        For this continuation alone.
    """

    prefix: Stream
    count: int
    rng: np.random.Generator


class WaveDecoder(Decoder[WaveTask, NDArray[Any]]):
    """Streams of sound decoded side by side on a CPU, each on a core.

    A continuation is its steps, of shape (count, 1).

    Parameters
    ----------
    checkpoint : Checkpoint
    threads : int
        How many streams are decoded at the same time; there may be more in turn.

    Raises
    ------
    CheckpointError
        When the checkpoint is of a codec that is no sound wave.
    """

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 1) -> None:
        self._engine, self._threads = WaveEngine(checkpoint), threads
        self._sr = sampling_rate(checkpoint)
        self._streams: dict[Hashable, tuple[Stream, int]] = {}

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def done_s(self) -> float:
        """How far all streams have come together, in seconds."""
        return sum(stream.last + 1 for stream, _ in self._streams.values()) / self._sr

    def add(self, name: Hashable, task: WaveTask) -> None:
        """Begin a stream: see `Decoder`."""
        self._streams[name] = task.prefix.fork(task.rng), task.count

    def step(self) -> dict[Hashable, NDArray[Any]]:
        """Take every stream about a second further: see `Decoder`."""
        streams = list(self._streams.values())
        with ThreadPoolExecutor(min(self._threads, max(1, len(streams)))) as pool:
            list(pool.map(self._extend, *zip(*streams, strict=True)))
        done = {
            name: np.concatenate(stream.made)
            for name, (stream, count) in self._streams.items()
            if stream.steps == count
        }
        self._streams = {name: one for name, one in self._streams.items() if name not in done}
        return done

    def _extend(self, stream: Stream, count: int) -> None:
        self._engine.extend(stream, min(STEPS_A_CALL, count - stream.steps))


def sampling_rate(checkpoint: Checkpoint) -> int:
    """Return the rate in Hz of what a checkpoint of sound was trained on."""
    return int(checkpoint.facts.get("sr", codec_of(checkpoint.spec).sr))


def require_sound(checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` when a checkpoint is of a codec that is no sound wave."""
    if checkpoint.config.past == 1 or len(checkpoint.spec.fields) != 1:
        of_sound = " or ".join(name for name, one in CODECS.items() if not one.encodes_notes)
        raise CheckpointError(
            f"the checkpoint is of the codec {checkpoint.spec.codec!r}, which is no sound wave. "
            f"Give one that was trained on {of_sound}."
        )


def _padded(kernel: Array) -> Array:
    """Return a matrix with rows of zeros below: they are taken several at a time."""
    from deep_piano.decoding.wave_kernels import ROWS

    rows = -(-len(kernel) // ROWS) * ROWS
    padded = np.zeros((rows, kernel.shape[1]), np.float32)
    padded[: len(kernel)] = kernel
    return padded
