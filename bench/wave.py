"""Samples a second of the compiled stepping kernel, against what the machine could do, and peers.

In one run, on one thread, the ways taken in turn; CPU time, so that other load counts for little:

- the kernel, as `generate` uses it: hearing frames, foretelling samples, drawing;
- the bound: the multiply-adds of the same network, those of a frame shared among its samples, at
  the rates measured for a matrix and a vector of the sizes of the LSTM's and of the head's;
- a loop within a `tf.function`, which steps the same network and draws;
- `model.predict`, called once a sample with a frame of it: what the first plan was.
"""

from __future__ import annotations

import os

# Before NumPy and TensorFlow are loaded: they read these once.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import click  # noqa: E402
import numpy as np  # noqa: E402

from bench.decode import in_turn, tell  # noqa: E402
from bench.machine import machine  # noqa: E402
from deep_piano import checkpoint as checkpoints  # noqa: E402
from deep_piano.checkpoint import Checkpoint  # noqa: E402
from deep_piano.codecs import codec_of  # noqa: E402
from deep_piano.errors import DeepPianoError  # noqa: E402
from deep_piano.linear import coefficients  # noqa: E402
from deep_piano.model import build_model  # noqa: E402
from deep_piano.sizes import (  # noqa: E402
    ERRORS_GAIN,
    LEAST_ERROR,
    PLACE_UNITS,
    SHAPE_OUTPUTS,
)
from deep_piano.stepping import Stepper  # noqa: E402
from deep_piano.tables import markdown  # noqa: E402

PIECE_S = 180.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--checkpoint", default="mulaw", show_default=True, help="Of sound; name or folder.")
@click.option("--samples", default=16_000, show_default=True, help="Of the kernel in each round.")
@click.option("--rounds", default=5, show_default=True, help="Rounds of every way in turn.")
def main(checkpoint: str, samples: int, rounds: int) -> None:
    """Print microseconds a sample, and the ratios, as Markdown."""
    try:
        loaded = checkpoints.load(checkpoint)
        stepper = Stepper(loaded)
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error
    sr = int(loaded.facts["sr"])
    ways = {"the kernel": kernel_loop(stepper, samples)}
    tell("compiling")
    if not loaded.spec.continuous:
        ways["a loop in a tf.function"] = graph_loop(loaded, samples // 8)
    ways["model.predict, one call a sample"] = predict_loop(loaded, 20)
    took = in_turn(ways, rounds=rounds)
    took = {"bound: multiply-adds, GEMV": bound(loaded), **took}
    frame, sample = multiply_adds(loaded)
    kernel, least = took["the kernel"], took["bound: multiply-adds, GEMV"]
    rows = [
        [
            name,
            f"{1e6 * each:,.1f}",
            f"{1 / each:,.0f}",
            f"{each / least:,.2f}",
            f"{each / kernel:,.2f}",
            f"{1 / each / sr:,.3f}",
            _clock(PIECE_S * sr * each),
        ]
        for name, each in took.items()
    ]
    head = ["way", "µs a sample", "samples a second", "/ bound", "/ the kernel"]
    head += ["times real time", f"{PIECE_S:g} s take"]
    click.echo(f"{machine()}\n")
    click.echo(
        f"A frame of {loaded.config.frame} samples costs {frame / 1e6:.2f} million multiply-adds, "
        f"and each sample {sample / 1e3:,.0f} thousand more; {sr} Hz.\n"
    )
    click.echo(markdown(head, rows, words=1))


def multiply_adds(loaded: Checkpoint) -> tuple[int, int]:
    """Return the multiply-adds of the products of a frame, and of a sample."""
    head = ("from_past", "sample")
    frame, sample = 0, loaded.config.order  # the linear prediction's
    for name, array in loaded.weights.items():
        if "kernel" not in name:
            continue
        if not loaded.spec.continuous and name.startswith(head):
            sample += array.size
        elif name.startswith("from_place"):
            frame += array.size * loaded.config.frame
        else:
            frame += array.size
    return frame, sample


def bound(loaded: Checkpoint) -> float:
    """Return the least seconds a sample: multiply-adds at the measured rates of products."""
    config = loaded.config
    frame, sample = multiply_adds(loaded)
    seconds = frame / gemv_rate(2 * config.units, 4 * config.units, config.layers) / config.frame
    return seconds + sample / gemv_rate(config.head_units, config.head_units, 2)


def gemv_rate(inputs: int, outputs: int, matrices: int) -> float:
    """Return the multiply-adds a second of vectors with matrices of a size, in turn; the best."""
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(matrices, inputs, outputs)).astype(np.float32)
    row, out = rng.normal(size=inputs).astype(np.float32), np.empty(outputs, np.float32)

    def work() -> None:
        for _ in range(20):
            for kernel in kernels:
                np.dot(row, kernel, out=out)

    return 20 * kernels.size / min(seconds_of(work) for _ in range(30))


def kernel_loop(stepper: Stepper, samples: int) -> Callable[[], list[float]]:
    """Return a round: `Stepper.go_on` after a tenth of a second."""
    seed = _noise(stepper.spec, 1600)
    rng = np.random.default_rng(0)
    stepper.go_on(seed, 64, rng)  # compiles

    def run() -> list[float]:
        heard = seconds_of(lambda: stepper.go_on(seed, 1, rng))
        return [(seconds_of(lambda: stepper.go_on(seed, samples, rng)) - heard) / samples]

    return run


def predict_loop(loaded: Checkpoint, calls: int) -> Callable[[], list[float]]:
    """Return a round: `model.predict` with a frame."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    frame = loaded.config.frame
    model = build_model(loaded.spec, loaded.config, batch=1, window=frame)
    checkpoints.assign_weights(model, loaded.weights)
    heard = _noise(loaded.spec, frame)[None].astype(
        np.float32 if loaded.spec.continuous else np.int32
    )

    predicted = np.zeros((1, frame, 1), np.float32)

    def predict() -> None:
        model.predict([heard, predicted], batch_size=1, verbose=0)

    predict()  # compiles
    return lambda: [seconds_of(predict) for _ in range(calls)]


def graph_loop(loaded: Checkpoint, samples: int) -> Callable[[], list[float]]:
    """Return a round: the same network in a `tf.while_loop`."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    [field] = loaded.spec.fields
    config = loaded.config
    w = {name: tf.constant(array) for name, array in loaded.weights.items()}
    levels = tf.constant((field.levels / config.scale).astype(np.float32))
    widths = tf.constant(field.log_widths.astype(np.float32))
    name, frame = field.name, config.frame
    seed = np.random.default_rng(0).normal(0, 1, 16_000)
    linear = tf.constant(coefficients(seed, config).astype(np.float32))

    def compand(x: Any) -> Any:
        return tf.asinh(16 * x) / 3

    def normal(x: Any, which: str) -> Any:
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        gamma, beta = w[f"{which}/gamma"], w[f"{which}/beta"]
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)

    def hear(known: Any, h: Any, c: Any) -> Any:
        x = known @ w["input/kernel"] + w["input/bias"]
        hs, cs = [], []
        for n in range(config.layers):
            z = normal(x, f"norm_{n}") @ w[f"lstm_{n}/kernel"]
            z += h[n] @ w[f"lstm_{n}/recurrent_kernel"] + w[f"lstm_{n}/bias"]
            i, f, g, o = tf.split(z, 4, 1)
            cs.append(tf.sigmoid(f) * c[n] + tf.sigmoid(i) * tf.tanh(g))
            hs.append(tf.sigmoid(o) * tf.tanh(cs[-1]))
            x += hs[-1]
        x = normal(x, "norm_out")
        places = tf.reshape(x @ w["places/kernel"] + w["places/bias"], [frame, PLACE_UNITS])
        told = places @ w["from_place/kernel"] + x @ w["from_frame/kernel"] + w["from_frame/bias"]
        return told, tf.stack(hs), tf.stack(cs)

    def step(t: Any, recent: Any, errors: Any, told: Any, h: Any, c: Any) -> Any:
        known = [compand(recent[:, -config.past :]), compand(ERRORS_GAIN * errors)]
        known = tf.concat(known, 1)
        told, h, c = tf.cond(t % frame == 0, lambda: hear(known, h, c), lambda: (told, h, c))
        predicted = recent @ linear
        known = tf.concat([known, compand(predicted)], 1)
        x = tf.nn.relu(known @ w["from_past/kernel"] + told[t % frame])
        x = tf.nn.relu(x @ w[f"{name}_hidden/kernel"] + w[f"{name}_hidden/bias"])
        x = x @ w[f"{name}/kernel"] + w[f"{name}/bias"]
        logits, shape = x[:, : field.size], x[:, field.size : field.size + SHAPE_OUTPUTS]
        usual = tf.sqrt(tf.reduce_mean(tf.square(errors)) + LEAST_ERROR**2)
        apart = tf.square((levels - predicted) / usual - shape[:, :1])
        logits -= (1 + tf.nn.softplus(shape[:, 2:])) * tf.math.log1p(tf.exp(shape[:, 1:2]) * apart)
        chosen = tf.random.categorical(logits + widths, 1)[0, 0]
        recent = tf.concat([recent[:, 1:], [[levels[chosen]]]], 1)
        errors = tf.concat([errors[:, 1:], levels[chosen] - predicted], 1)
        return t + 1, recent, errors, told, h, c

    @tf.function
    def run(count: Any) -> Any:
        state = tf.zeros([config.layers, 1, config.units])
        told = tf.zeros([frame, config.head_units])
        values = tf.zeros([1, config.order]), tf.zeros([1, config.past])
        begin = (0, *values, told, state, state)
        return tf.while_loop(lambda t, *_: t < count, step, begin)[1]

    run(tf.constant(64))  # compiles
    return lambda: [seconds_of(lambda: run(tf.constant(samples))) / samples]


def seconds_of(work: Callable[[], object]) -> float:
    """Return the CPU time that `work` takes, of all threads."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _noise(spec: Any, count: int) -> np.ndarray[Any, Any]:
    samples = np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32)
    return codec_of(spec).encode(samples)


def _clock(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:,.1f} min" if seconds >= 60 else f"{seconds:,.1f} s"


if __name__ == "__main__":
    main()
