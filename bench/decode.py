"""Microseconds a note of the decoding engine, against what the machine could do, and `predict`.

Compared in one run, on one thread, at each batch size:

- the engine as `NoteDecoder` uses it: context, network, and one draw a field with a mask and top-p;
- the composer itself, with all its rules, over whole pieces;
- the bound of float32: the weights that a step needs are read once (at the bandwidth of memory,
  measured on an array that no cache holds), or its multiply-adds are done (at the rate of a large
  product of square matrices by BLAS), whichever takes longer; and the same with the bandwidth
  measured on an array as large as the weights, which may lie in a cache between two steps. The
  engine reads halves, and its products need not be BLAS's, so that it may be below the bound;
- the products of a step alone, by BLAS at the same shapes: what calling a library leaves;
- a loop over `model.predict` of the Keras model with a window of one note and a carried state.
  One call a note, with the note known, although a chained head would need four: a lower bound.

Every figure is the median of all steps in several rounds; the ways are taken in turn, so that
other load on the machine falls on all of them.
"""

from __future__ import annotations

import os

# Before NumPy and TensorFlow are loaded: they read these once.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import click  # noqa: E402
import numpy as np  # noqa: E402

from bench.common import Round, in_turn, machine, seconds_of, tell  # noqa: E402
from deep_piano.codecs.base import Part  # noqa: E402
from deep_piano.codecs.note_context import NoteContext  # noqa: E402
from deep_piano.codecs.notes import SPEC, VALUES, classes, encode  # noqa: E402
from deep_piano.decoding.base import Sampling  # noqa: E402
from deep_piano.decoding.note_task import NoteTask  # noqa: E402
from deep_piano.decoding.notes import Engine, NoteDecoder  # noqa: E402
from deep_piano.errors import DeepPianoError  # noqa: E402
from deep_piano.models import checkpoint as checkpoints  # noqa: E402
from deep_piano.music.notes import Notes, make_notes  # noqa: E402
from deep_piano.report.text import markdown  # noqa: E402

SAMPLING = Sampling(temperature=1.0, top_p=0.95)
SEED_S = 10.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--checkpoint", default="notes", show_default=True, help="Name or folder.")
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=int,
    default=(1, 8, 32, 128),
    show_default=True,
    help="Streams decoded together; may be given several times.",
)
@click.option("--notes", default=300, show_default=True, help="Notes a stream in each round.")
@click.option(
    "--predict-notes",
    default=40,
    show_default=True,
    help="Notes in each round of model.predict; 0 leaves it and TensorFlow out.",
)
@click.option("--rounds", default=5, show_default=True, help="Rounds of every way in turn.")
@click.option("--piece-seconds", default=60.0, show_default=True, help="The composer's piece.")
def main(
    checkpoint: str,
    batches: tuple[int, ...],
    notes: int,
    predict_notes: int,
    rounds: int,
    piece_seconds: float,
) -> None:
    """Print microseconds a note against the bound and a model.predict loop, as Markdown."""
    try:
        weights = checkpoints.load(checkpoint, codec=SPEC.codec)
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error
    engine = Engine(weights)
    bytes_a_step, multiply_adds = step_cost(weights)
    tell(f"{bytes_a_step / 1e6:.1f} MB of weights and {2e-6 * multiply_adds:.1f} MFLOP a step")
    bandwidth = {
        "memory": bandwidth_of(far_more_than_cache()),
        "cache": bandwidth_of(bytes_a_step),
    }
    flops = gemm_flops()
    print_machine(bandwidth, flops, bytes_a_step, multiply_adds)
    rows, parts = [], []
    for batch in batches:
        tell(f"batch {batch}")
        ways = {
            "engine": engine_loop(engine, batch, notes),
            "composer": composer_loop(engine, batch, piece_seconds),
        }
        ways["products"] = products_loop(weights, batch, notes)
        if predict_notes:
            ways["predict"] = predict_loop(weights, batch, predict_notes)
        took = {name: 1e6 * s for name, s in in_turn(ways, rounds=rounds).items()}
        compute = 2e6 * multiply_adds * batch / flops
        for where, rate in bandwidth.items():
            took[f"bound, {where}"] = max(1e6 * bytes_a_step / rate, compute)
        rows += way_rows(batch, took)
        parts += part_rows(engine, batch)
    click.echo(
        markdown(
            [
                "batch",
                "way",
                "µs a step",
                "µs a note",
                "/ bound, memory",
                "/ bound, cache",
                "engine is faster by",
            ],
            rows,
            words=2,
        )
    )
    click.echo()
    click.echo(markdown(["batch", "part of the engine's step", "µs a step"], parts, words=2))


def print_machine(
    bandwidth: dict[str, float], flops: float, bytes_a_step: int, multiply_adds: int
) -> None:
    """Print what the bounds are made of."""
    click.echo(f"{machine()}; one thread.\n")
    click.echo(
        f"A step reads {bytes_a_step / 1e6:.1f} MB of weights and costs "
        f"{2e-6 * multiply_adds:.1f} MFLOP a stream. Measured here: "
        f"{bandwidth['memory'] / 1e9:.1f} GB/s from memory, {bandwidth['cache'] / 1e9:.1f} GB/s "
        f"from an array as large as the weights, {flops / 1e9:.0f} GFLOP/s in a large product.\n"
    )


def way_rows(batch: int, took: dict[str, float]) -> list[list[str]]:
    """Return one row a way, from microseconds a step."""
    names = {
        "bound, cache": "bound, weights in a cache",
        "bound, memory": "bound, weights in memory",
        "products": "the step's products alone",
        "engine": "the engine: context, network, draws",
        "composer": "the composer, with its rules",
        "predict": "model.predict, one call a note",
    }
    rows = []
    for name, label in names.items():
        if name in took:
            us = took[name]
            ratios = [f"{us / took[f'bound, {where}']:.2f}" for where in ("memory", "cache")]
            faster = f"{us / took['engine']:.2f}"
            rows.append([str(batch), label, f"{us:,.0f}", f"{us / batch:,.1f}", *ratios, faster])
    return rows


def step_cost(weights: checkpoints.Checkpoint) -> tuple[int, int]:
    """Return the bytes of weights that one step reads, and its multiply-adds a stream.

    One row of a table is read where a class is known, not all of the table.
    """
    tables = table_rows(weights)
    numbers = multiply_adds = 0
    for name, array in weights.weights.items():
        if array.ndim == 1:
            numbers += array.size
            continue
        looked_up, rows = tables.get(name, (0, 0))
        multiplied = array.size - looked_up * array.shape[1]
        multiply_adds += multiplied
        numbers += multiplied + rows * array.shape[1]
    return 4 * numbers, multiply_adds


def table_rows(weights: checkpoints.Checkpoint) -> dict[str, tuple[int, int]]:
    """Return of each kernel with tables how many rows they have, and how many a step looks up."""
    spec = weights.spec
    sizes = [field.size for field in spec.fields]
    beside = [part.classes for part in spec.context]
    inputs = {"input/kernel": [*sizes, *beside[0], *beside[1]]}
    for index, field in enumerate(spec.fields):
        inputs[f"{field.name}_hidden/kernel"] = [*sizes[:index], *beside[index + 1]]
    return {name: (sum(classes), len(classes)) for name, classes in inputs.items()}


def far_more_than_cache() -> int:
    """Return a size in bytes that no cache holds: twice the last level's, 512 MB at least."""
    text = ""
    for level in (3, 2):
        file = Path(f"/sys/devices/system/cpu/cpu0/cache/index{level}/size")
        if file.is_file():
            text = file.read_text("ascii").strip()
            break
    cache = int(text[:-1]) * {"K": 2**10, "M": 2**20}.get(text[-1:], 1) if text[:-1] else 0
    return min(max(512 * 2**20, 2 * cache), 2**30)


def bandwidth_of(size: int) -> float:
    """Return the bytes a second at which BLAS reads an array of `size` bytes; the best of some."""
    array = np.ones(size // 4, np.float32)
    repeats = max(5, min(200, 2**30 // size))
    return size / min(seconds_of(lambda: array @ array) for _ in range(repeats))


def gemm_flops() -> float:
    """Return the operations a second of a large float32 product; the best of some."""
    n = 1024
    a = np.random.default_rng(0).normal(size=(n, n)).astype(np.float32)
    return 2 * n**3 / min(seconds_of(lambda: a @ a) for _ in range(20))


def engine_loop(engine: Engine, batch: int, notes: int) -> Round:
    """Return a round: decoding `notes` notes in `batch` streams."""

    def run() -> list[float]:
        state, context = engine.start(batch), NoteContext(batch)
        rngs = [np.random.default_rng(slot) for slot in range(batch)]
        streams = np.arange(batch)
        for slot in range(batch):
            context.start(slot, seed_seconds=1.0, end_seconds=180.0)
        steps = np.zeros((batch, len(engine.spec.fields)), np.int32)
        marks = [time.perf_counter()]
        for _ in range(notes):
            hidden = engine.step(state, classes(steps), context.advance(steps))
            for index, values in enumerate(VALUES):
                known, candidates = context.of_field(streams, steps[:, :index])
                logits = engine.logits(hidden, classes(steps[:, :index]), known)
                chances = np.array([rng.random() for rng in rngs])
                drawn = SAMPLING.draw_each(logits, chances, np.isfinite(logits))
                values = np.concatenate([np.tile(values, (batch, 1)), candidates], 1)
                steps[:, index] = values[streams, drawn]
            marks.append(time.perf_counter())
        return np.diff(marks).tolist()

    return run


def composer_loop(engine: Engine, batch: int, seconds: float) -> Round:
    """Return a round: the notes of pieces side by side, without their last chords."""
    seed = scale(SEED_S)

    def run() -> list[float]:
        composer = NoteDecoder(engine, {field.name: SAMPLING for field in engine.spec.fields})
        for slot in range(batch):
            rng = np.random.default_rng(slot)
            composer.add(slot, NoteTask(seed, SEED_S, SEED_S + seconds, rng))
        for _ in seed:
            composer.step()
        marks = [time.perf_counter()]
        while len(composer) == batch:
            composer.step()
            marks.append(time.perf_counter())
        return np.diff(marks)[:-1].tolist()

    return run


def products_loop(weights: checkpoints.Checkpoint, batch: int, notes: int) -> Round:
    """Return a round: the products of matrices alone, each at its shape."""
    tables = table_rows(weights)
    kernels = []
    for name, array in weights.weights.items():
        if name.startswith("lstm_") and name.endswith("/kernel"):
            recurrent = weights.weights[name.replace("/kernel", "/recurrent_kernel")]
            kernels.append(np.concatenate([array, recurrent]))
        elif name in tables:
            kernels.append(np.ascontiguousarray(array[: len(array) - tables[name][0]]))
        elif array.ndim == 2 and "recurrent" not in name:
            kernels.append(array)
    rng = np.random.default_rng(0)
    pairs = [
        (rng.normal(size=(batch, len(kernel))).astype(np.float32), kernel) for kernel in kernels
    ]

    def step() -> None:
        for x, kernel in pairs:
            x @ kernel

    return lambda: [seconds_of(step) for _ in range(notes)]


def predict_loop(weights: checkpoints.Checkpoint, batch: int, notes: int) -> Round:
    """Return a round: `model.predict` with a window of one note."""
    import tensorflow as tf

    from deep_piano.models.note_network import build_model

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = build_model(weights.spec, weights.config, batch=batch, window=1)
    checkpoints.assign_weights(model, weights.weights)
    context = NoteContext(batch)
    for slot in range(batch):
        context.start(slot)
    sequence = np.resize(encode(scale(SEED_S)), (notes, len(weights.spec.fields)))

    def predict(step: np.ndarray[Any, Any]) -> None:
        steps = np.repeat(step[None, None], batch, 0)
        known, one = context.window(steps, steps), classes(steps)
        inputs = [one, known.features, known.classes, one]
        model.predict(inputs, batch_size=batch, verbose=0)

    predict(sequence[0])  # compiles
    return lambda: [seconds_of(partial(predict, step)) for step in sequence]


def part_rows(engine: Engine, batch: int) -> list[list[str]]:
    """Return what each part of a step costs."""
    rng = np.random.default_rng(0)
    columns = [rng.integers(1, field.size, batch) for field in engine.spec.fields]
    steps = np.stack(columns, 1).astype(np.int32)
    streams = np.arange(batch)
    context, state = NoteContext(batch), engine.start(batch)
    for slot in range(batch):
        context.start(slot, seed_seconds=1.0, end_seconds=180.0)
    after = context.advance(steps)
    hidden = engine.step(state, classes(steps), after)
    chosen = [steps[:, :index] for index in range(len(engine.spec.fields))]

    def of_fields() -> list[Part]:
        return [context.of_field(streams, some)[0] for some in chosen]

    def heads(known: list[Part]) -> list[Any]:
        pairs = zip(chosen, known, strict=True)
        return [engine.logits(hidden, classes(some), part) for some, part in pairs]

    known = of_fields()
    logits = heads(known)
    masks = [np.ones(field.outputs, bool) for field in engine.spec.fields]
    parts: dict[str, Callable[[], object]] = {
        "context": lambda: (context.advance(steps), of_fields()),
        "LSTM layers": lambda: engine.step(state, classes(steps), after),
        "heads": lambda: heads(known),
        "draws": lambda: [
            SAMPLING.draw_each(rows, rng.random(batch), mask)
            for rows, mask in zip(logits, masks, strict=True)
        ],
    }
    took: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(200):  # in the order of a step, so that each finds the caches as it does there
        for name, part in parts.items():
            took[name].append(seconds_of(part))
    return [[str(batch), name, f"{1e6 * np.median(s):,.0f}"] for name, s in took.items()]


def scale(seconds: float) -> Notes:
    """Return five notes a second of C major, up and down."""
    onset = np.arange(0, seconds - 0.2, 0.2)
    pitch = np.resize([60, 62, 64, 65, 67, 69, 71, 72, 71, 69, 67, 65, 64, 62], len(onset))
    return make_notes(onset, onset + 0.4, pitch, np.full(len(onset), 70))


if __name__ == "__main__":
    main()
