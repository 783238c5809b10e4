"""Notes a second of TRAIN, against this machine's products, Keras's own `fit`, and Ray Train.

Compared in one run, on real batches of a dataset, all ways in turn:

- the peak: products of large square matrices by the same backend on as many threads, the best of
  all rounds; training is held against the peak of the dtype that it computes in;
- ours: `Trainer` on `training_batches`, which prepares the next batch meanwhile; of its time the
  share in which it waits for a batch;
- plain Keras: `Model.fit` on the same network with `keras.layers.LSTM`, the same optimizer and
  losses, compiled as Keras does by itself. Its batches are prepared before and lie in memory, and
  it does not drop the state where a recording begins: both are to its advantage;
- `Model.fit` on our model, which tells our layer from our loop;
- whole runs in a new process, without Ray and as workers of Ray Train: the time of an update
  between validations, after the first of them, and what passes before and after the loop. Ray's
  workers run at the ordinary priority, which they do not by themselves.

Arithmetic is counted as 6 operations a note for each number in a kernel, the matrices that the
layers multiply with: 2 forward, 2 for the gradient of the input, 2 for that of the kernel. One-hot
inputs are multiplied, so they count; no gradient flows to those of the first layer, so that the
figure is 2 % too high at `base`. Nothing else counts: gates, norms, biases, the optimizer. A note
is a place in a window, as in what `train` shows. Every figure but the peak is the median of
the rounds.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from itertools import dropwhile, pairwise
from math import prod
from multiprocessing import get_context
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import click
import numpy as np

from bench.common import machine
from deep_piano.codecs.base import SequenceSpec
from deep_piano.config.sections import TrainConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import DeepPianoError
from deep_piano.infra.backend import gpus, load_keras
from deep_piano.infra.cluster.connection import connected
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.open import open_folder
from deep_piano.models.config import PRESETS, ModelConfig, weight_shapes
from deep_piano.report.text import markdown
from deep_piano.train.loop import Update, go_on
from deep_piano.train.on_ray import train
from deep_piano.train.runs import read_history
from deep_piano.train.start import begin
from deep_piano.train.trainer import Trainer
from deep_piano.train.windows import Batch, training_batches

OURS, PLAIN = "ours: Trainer, batches prepared meanwhile", "plain fit, Keras's LSTM layer"
OUR_LAYER, ALONE, ON_RAY = "fit, our LSTM layer", "without Ray", "Ray Train"
WARM_UP, VALIDATIONS = 3, 3


class Stretch(NamedTuple):
    """Seconds of an update, and beside it: a share spent waiting, or seconds outside the loop."""

    update_s: float
    beside: float = 0.0


Way = Callable[[int], Stretch]  # makes so many updates
Took = Mapping[str, Sequence[Stretch]]  # one stretch a round of every way
Job = tuple[Folder, Folder, TrainConfig, ModelConfig]  # dataset, run, settings, network
Work = Callable[[Job], list[Update]]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dataset")
@click.option("--preset", default="base", show_default=True, type=click.Choice(list(PRESETS)))
@click.option("--updates", default=20, show_default=True, help="Of every way in each round.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of every way in turn.")
@click.option("--workers", default=2, show_default=True, help="Of Ray Train; 0 leaves it out.")
def main(dataset: str, preset: str, updates: int, rounds: int, workers: int) -> None:
    """Print notes a second of TRAIN against large products, Keras's fit and Ray, as Markdown.

    DATASET is a folder that `deep-piano prepare` made.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # several processes use it
    os.environ.setdefault("RAY_worker_niceness", "0")
    backend = load_keras().backend.backend()
    settings = TrainConfig.model_validate({"preset": preset})
    runs: Took = {}
    try:
        with Dataset(open_folder(dataset)) as opened:
            if workers and backend == "tensorflow":
                runs = whole_runs(opened, settings, updates, rounds, workers)
            peaks, took, dtype = loops(opened, settings, updates, rounds)
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error
    flops, notes = flops_a_note(opened.spec, PRESETS[preset]), settings.batch * settings.window
    click.echo(
        f"Preset {preset} in {dtype}, {settings.batch} windows of {settings.window} notes, "
        f"{flops / 1e6:.1f} MFLOP a note; {rounds} rounds of {updates} updates; {machine()}, "
        f"{gpus()} GPUs, ray {metadata.version('ray')}, on {backend}.\n"
    )
    rows = [[name, f"{rate / 1e9:,.0f}"] for name, rate in peaks.items()]
    click.echo(markdown(["a large product in", "GFLOP/s"], rows) + "\n")
    head = ["way", "ms an update", "of the rounds", "notes a second", "GFLOP/s", "/ peak"]
    rows = way_rows(took, notes, flops, peaks[dtype])
    click.echo(markdown([*head, "ours is faster by"], rows))
    click.echo(f"\nOurs waits for batches {median(took[OURS], 1):.1%} of the time.\n")
    if runs:
        rows = run_rows(runs, notes, flops, peaks[dtype], workers)
        click.echo(markdown(["a whole run", *head[1:6], "start and end, s"], rows))


def loops(
    dataset: Dataset, settings: TrainConfig, updates: int, rounds: int
) -> tuple[dict[str, float], Took, str]:
    """Take products, our loop and `fit` in turn; return peaks, stretches and training's dtype."""

    def build() -> Trainer:
        return Trainer(dataset.spec, PRESETS[settings.preset], settings)

    trainer, same = build(), build().model
    with patch("deep_piano.models.lstm.LSTM", load_keras().layers.LSTM):
        plain = build().model
    plain.jit_compile = plain._resolve_auto_jit_compile()
    dtype = trainer.model.get_layer("lstm_0").compute_dtype
    peaks = dict.fromkeys(["float32", "bfloat16", dtype], 0.0)
    with training_batches(dataset, settings) as batches:
        data = in_memory(trainer, [next(batches) for _ in range(max(updates, WARM_UP))])
        ways = {
            OURS: our_loop(trainer, batches),
            OUR_LAYER: fit_loop(same, data, settings.batch),
            PLAIN: fit_loop(plain, data, settings.batch),
        }
        took: dict[str, list[Stretch]] = {name: [] for name in ways}
        for way in ways.values():
            way(WARM_UP)
        for turn in range(rounds):
            for each in peaks:
                peaks[each] = max(peaks[each], product_flops(each))
            for name, way in ways.items():
                click.echo(f"round {turn + 1} of {rounds}: {name}", err=True)
                took[name].append(way(updates))
    return peaks, took, dtype


def product_flops(dtype: str) -> float:
    """Return the operations a second of a large product; the best of some."""
    import keras

    n, at_once = (8192, 10) if gpus() else (2048, 1)
    a = keras.random.normal((n, n), dtype=dtype)
    took_s = []
    for _ in range(10):
        begun = time.perf_counter()
        for _ in range(at_once):
            product = keras.ops.matmul(a, a)
        float(keras.ops.cast(product[0, 0], "float32"))  # waits for all of them
        took_s.append(time.perf_counter() - begun)
    return 2.0 * n**3 * at_once / min(took_s)


def our_loop(trainer: Trainer, batches: Iterator[Batch]) -> Way:
    """Return a way: one update after another, as `train` makes them; it tells what it waited."""

    def run(updates: int) -> Stretch:
        trainer.train(next(batches))  # does not count: its batch was ready before
        waited_s, begun = 0.0, time.perf_counter()
        for _ in range(updates):
            asked = time.perf_counter()
            batch = next(batches)
            waited_s += time.perf_counter() - asked
            trainer.train(batch)
        took_s = time.perf_counter() - begun
        return Stretch(took_s / updates, waited_s / took_s)

    return run


def in_memory(trainer: Trainer, batches: Sequence[Batch]) -> Any:
    """Return inputs, targets and weights of all batches, one after the other."""
    every = [(batch.inputs, *trainer._targets(batch)) for batch in batches]
    return load_keras().tree.map_structure(lambda *arrays: np.concatenate(arrays), *every)


def fit_loop(model: Any, data: Any, size: int) -> Way:
    """Return a way: an epoch of `fit` over the first batches, from its first update to its last.

    What `fit` does before and after is left out: taking down its input may stall for seconds.
    """
    import keras

    def run(updates: int) -> Stretch:
        marks: list[float] = []

        def ended(batch: int, logs: Any = None) -> None:
            if batch == updates - 1:
                float(logs["loss"])  # waits for it
                marks.append(time.perf_counter())

        mark = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs=None: marks.append(time.perf_counter()),
            on_train_batch_end=ended,
        )
        x, y, weights = keras.tree.map_structure(lambda array: array[: updates * size], data)
        options = {"batch_size": size, "shuffle": False, "verbose": 0, "callbacks": [mark]}
        model.fit(x, y, sample_weight=weights, **options)
        return Stretch((marks[-1] - marks[0]) / updates)

    return run


def whole_runs(
    dataset: Dataset, settings: TrainConfig, updates: int, rounds: int, workers: int
) -> Took:
    """Train in each round, without Ray and on it, with the same number of threads."""
    lengths = {"steps": VALIDATIONS * updates, "eval_every_steps": updates}
    shares = {"workers": workers, "cpus_per_worker": len(os.sched_getaffinity(0)) / workers}
    took: dict[str, list[Stretch]] = {ALONE: [], ON_RAY: []}
    for turn in range(rounds):
        for name, work, more in ((ALONE, in_a_process, {}), (ON_RAY, on_ray, shares)):
            click.echo(f"run {turn + 1} of {rounds}: {name}", err=True)
            this = settings.model_copy(update=lengths | more)
            took[name].append(whole_run(dataset, this, work))
    return took


def whole_run(dataset: Dataset, settings: TrainConfig, work: Work) -> Stretch:
    """Train into a temporary folder; it tells the seconds before and after the loop, too."""
    with TemporaryDirectory() as scratch:
        run = open_folder(scratch)
        settings, config = begin(dataset, run, settings)
        begun = time.perf_counter()
        told = work((dataset.folder, run, settings, config))
        took_s = time.perf_counter() - begun
        loop_s = 3600 * read_history(run)[-1]["hours"]
    return Stretch(update_s(told, settings.batch * settings.window), took_s - loop_s)


def in_a_process(job: Job) -> list[Update]:
    """Train without Ray, in a process that is as new as Ray's worker."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(alone, job).result()


def alone(job: Job) -> list[Update]:
    """Train in this process."""
    told: list[Update] = []
    with Dataset(job[0]) as dataset:
        go_on(dataset, *job[1:], progress=told.append)
    return told


def on_ray(job: Job) -> list[Update]:
    """Train on a cluster of this machine, which is started for it."""
    told: list[Update] = []
    with connected(cpus=len(os.sched_getaffinity(0))), Dataset(job[0]) as dataset:
        train(dataset, *job[1:], progress=told.append)
    return told


def update_s(told: Sequence[Update], notes: int) -> float:
    """Return the seconds of an update of so many notes, after the first validation, without any."""
    took_s, made = 0.0, 0
    for before, now in pairwise(dropwhile(lambda one: one.validation_loss is None, told)):
        if now.validation_loss is None:
            took_s += notes * (now.step / now.per_s - before.step / before.per_s)
            made += now.step - before.step
    if not made:
        raise click.ClickException("a run told nothing between validations; raise --updates")
    return took_s / made


def flops_a_note(spec: SequenceSpec, config: ModelConfig) -> int:
    """Return the operations that training costs a note, by the convention above."""
    shapes = weight_shapes(spec, config)
    return 6 * sum(prod(shape) for name, shape in shapes.items() if name.endswith("kernel"))


def median(some: Sequence[Stretch], column: int = 0) -> float:
    """Return the median of the seconds an update, or of what is beside."""
    return statistics.median(one[column] for one in some)


def way_rows(took: Took, notes: int, flops: int, peak: float) -> list[list[str]]:
    """Return one row a way."""
    ours = median(took[OURS])
    return [
        [name, *in_ms(some), *rates(some, notes, flops, peak), f"{median(some) / ours:.2f}"]
        for name, some in took.items()
    ]


def run_rows(runs: Took, notes: int, flops: int, peak: float, workers: int) -> list[list[str]]:
    """Return one row a whole run."""
    names = {ALONE: ALONE, ON_RAY: f"{ON_RAY}, workers: {workers}"}
    return [
        [names[name], *in_ms(some), *rates(some, notes, flops, peak), f"{median(some, 1):.1f}"]
        for name, some in runs.items()
    ]


def rates(some: Sequence[Stretch], notes: int, flops: int, peak: float) -> list[str]:
    """Return notes and GFLOP a second, and the share of the peak."""
    rate = notes / median(some)
    return [f"{rate:,.0f}", f"{rate * flops / 1e9:,.0f}", f"{rate * flops / peak:.2f}"]


def in_ms(some: Sequence[Stretch]) -> list[str]:
    """Return the median of an update, and the span of the rounds."""
    every = [1e3 * one.update_s for one in some]
    return [f"{1e3 * median(some):,.0f}", f"{min(every):,.0f} to {max(every):,.0f}"]


if __name__ == "__main__":
    main()
