"""Samples a second of the compiled stepping kernel, against what the machine could do, and peers.

In one run, on one thread, the ways taken in turn; CPU time, so that other load counts for little:

- the kernel, as `generate` uses it: hearing frames, foretelling samples, drawing;
- the bound: the multiply-adds of the same network, those of a frame shared among its samples, at
  the rates measured for a matrix and a vector of the sizes of the LSTM's and of the head's;
- a loop that XLA compiles, `WaveDecoderXla`: one stream, and several at once, the
  time divided among them;
- `model.predict`, called once a sample with a frame of it: what the first plan was.

Where TensorFlow sees a GPU its ways are taken there, and their time is the clock's.
"""

from __future__ import annotations

import os

# Before NumPy and TensorFlow are loaded: they read these once.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import click  # noqa: E402
import numpy as np  # noqa: E402

from bench.common import machine, ready_tensorflow  # noqa: E402
from bench.decode import Round, in_turn, tell  # noqa: E402
from deep_piano.codecs.registry import codec_of  # noqa: E402
from deep_piano.decoding.wave import WaveEngine, WaveTask  # noqa: E402
from deep_piano.errors import DeepPianoError  # noqa: E402
from deep_piano.models import checkpoint as checkpoints  # noqa: E402
from deep_piano.models.checkpoint import Checkpoint  # noqa: E402
from deep_piano.models.note_network import build_model  # noqa: E402
from deep_piano.report.text import markdown  # noqa: E402

PIECE_S = 180.0
ON_A_GPU, ON_A_CPU = (1, 16, 128, 512, 2048), (1, 4, 16)
STEPS_A_CALL = 2048

Clock = Callable[[], float]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--checkpoint", default="mulaw", show_default=True, help="Of sound; name or folder.")
@click.option("--samples", default=16_000, show_default=True, help="Of the kernel in each round.")
@click.option("--rounds", default=5, show_default=True, help="Rounds of every way in turn.")
def main(checkpoint: str, samples: int, rounds: int) -> None:
    """Print microseconds a sample, and the ratios, as Markdown."""
    try:
        loaded = checkpoints.load(checkpoint)
        stepper = WaveEngine(loaded)
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error
    sr = int(loaded.facts["sr"])
    tell("compiling")
    ways = {"the kernel": kernel_loop(stepper, samples)}
    gpu = ready_tensorflow()
    for width in ON_A_GPU if gpu else ON_A_CPU:
        name = f"a compiled tf.function, {width} at once"
        ways[name] = compiled_loop(stepper, loaded, width, clock=clock(gpu))
    ways["model.predict, one call a sample"] = predict_loop(loaded, 20, clock=clock(gpu))
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
    click.echo(f"{machine()}; {gpu or 'no GPU'}.\n")
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


def clock(gpu: str) -> Clock:
    """Return what tells the time: that of all threads, or beside a GPU the clock's."""
    return time.perf_counter if gpu else time.process_time


def kernel_loop(stepper: WaveEngine, samples: int) -> Round:
    """Return a round: `WaveEngine.decode` after a tenth of a second."""
    seed = _noise(stepper.spec, 1600)
    rng = np.random.default_rng(0)
    stepper.decode(seed, 64, rng)  # compiles

    def run() -> list[float]:
        heard = seconds_of(lambda: stepper.decode(seed, 1, rng))
        return [(seconds_of(lambda: stepper.decode(seed, samples, rng)) - heard) / samples]

    return run


def predict_loop(loaded: Checkpoint, calls: int, *, clock: Clock) -> Round:
    """Return a round: `model.predict` with a frame."""
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
    return lambda: [seconds_of(predict, clock) for _ in range(calls)]


def compiled_loop(stepper: WaveEngine, loaded: Checkpoint, width: int, *, clock: Clock) -> Round:
    """Return a round: a call of the graph that steps so many streams at once."""
    from deep_piano.decoding.wave_xla import WaveDecoderXla

    device = WaveDecoderXla(loaded, width=width, steps_a_call=STEPS_A_CALL)
    prefix = stepper.prefill(_noise(stepper.spec, 1600), np.random.default_rng(0))
    for number in range(width):
        device.add(number, WaveTask(prefix, sys.maxsize, np.random.default_rng(number)))
    device.step()  # compiles
    return lambda: [seconds_of(device.step, clock) / STEPS_A_CALL / width]


def seconds_of(work: Callable[[], object], clock: Clock = time.process_time) -> float:
    """Return the time that `work` takes; unless told otherwise that of the CPU, of all threads."""
    begun = clock()
    work()
    return clock() - begun


def _noise(spec: Any, count: int) -> np.ndarray[Any, Any]:
    samples = np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32)
    return codec_of(spec).encode(samples)


def _clock(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:,.1f} min" if seconds >= 60 else f"{seconds:,.1f} s"


if __name__ == "__main__":
    main()
