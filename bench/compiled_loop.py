"""Notes a second of the compiled loop, on a GPU where there is one, beside the composer on NumPy.

Both compose as users have it (rules, guidance, draws), many pieces at once. Compared in one run, at
each number of pieces:

- the bound: the weights that a step needs are read once (at the bandwidth of the device's memory,
  measured on an array that no cache holds), or its multiply-adds are done (at the rate of a large
  product of square float32 matrices there), whichever takes longer; the best rates of the run;
- `NoteDecoderXla`, whole calls with what the host does between them;
- `NoteDecoder`, on one thread of the CPU.

Without a GPU the compiled loop runs on one thread of the CPU as well. Every figure is the median of
all calls in several rounds, the ways taken in turn; compiling is left out, and said.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from bench.common import Round, in_turn, machine, ready_tensorflow, seconds_of, tell
from bench.decode import SEED_S, bandwidth_of, far_more_than_cache, gemm_flops, scale, step_cost
from deep_piano.codecs.notes import SPEC
from deep_piano.config.sections import GenerateConfig
from deep_piano.decoding.note_task import NoteTask
from deep_piano.decoding.notes import Engine, NoteDecoder
from deep_piano.decoding.open import drawing
from deep_piano.errors import DeepPianoError
from deep_piano.models import checkpoint as checkpoints
from deep_piano.report.text import markdown

ON_A_GPU, ON_A_CPU = (1, 4, 16, 64, 128, 256, 512, 1024), (1, 4, 16, 32)
STEPS = 64  # of a round of the composer on NumPy


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--checkpoint", default="notes", show_default=True, help="Name or folder.")
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=int,
    help="Pieces at once; may be given several times.  [1 to 32, or 1 to 1024 on a GPU]",
)
@click.option("--calls", default=4, show_default=True, help="Of the graph, in each round.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of every way in turn.")
def main(checkpoint: str, batches: tuple[int, ...], calls: int, rounds: int) -> None:
    """Print notes a second of the compiled loop against the bound, as Markdown."""
    try:
        weights = checkpoints.load(checkpoint, codec=SPEC.codec)
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error
    gpu = ready_tensorflow()
    settings = GenerateConfig()
    bytes_a_step, multiply_adds = step_cost(weights)
    streams = 1 if all(one == 1 for one in settings.guidance.model_dump().values()) else 2
    found: dict[int, dict[str, float]] = {}
    rates = []
    for batch in batches or (ON_A_GPU if gpu else ON_A_CPU):
        tell(f"{batch} pieces")
        rates.append(rates_of_the_gpu() if gpu else rates_of_the_cpu())
        ways = {
            "compiled": compiled_round(weights, settings, batch, calls),
            "numpy": numpy_round(Engine(weights), settings, batch),
        }
        found[batch] = in_turn(ways, rounds=rounds)
    bandwidth, flops = (max(rate) for rate in zip(*rates, strict=True))
    rows = []
    for batch, took in found.items():
        compute_s = 2 * multiply_adds * streams * batch / flops
        rows += way_rows(batch, took | {"bound": max(bytes_a_step / bandwidth, compute_s)})
    click.echo(f"{machine()}; one thread; {gpu or 'no GPU'}.\n")
    click.echo(
        f"A step reads {bytes_a_step / 1e6:.1f} MB of weights and costs {2e-6 * multiply_adds:.1f} "
        f"MFLOP a stream, {streams} streams a piece. Measured on the {'GPU' if gpu else 'CPU'}: "
        f"{bandwidth / 1e9:,.1f} GB/s, {flops / 1e9:,.0f} GFLOP/s.\n"
    )
    header = ["pieces", "way", "µs a step", "notes a second", "/ bound"]
    click.echo(markdown(header, rows, words=2))


def way_rows(batch: int, took: dict[str, float]) -> list[list[str]]:
    """Return one row a way, from seconds a step."""
    labels = {
        "bound": "bound",
        "compiled": "the compiled loop",
        "numpy": "the composer on NumPy, on the CPU",
    }
    return [
        [
            str(batch),
            label,
            f"{1e6 * took[name]:,.0f}",
            f"{batch / took[name]:,.0f}",
            f"{took[name] / took['bound']:.2f}",
        ]
        for name, label in labels.items()
    ]


def compiled_round(
    weights: checkpoints.Checkpoint, settings: GenerateConfig, batch: int, calls: int
) -> Round:
    """Return a round: seconds a step in each call of the graph, in the midst of the pieces."""
    from deep_piano.decoding.notes_xla import NOTES_A_CALL, NoteDecoderXla

    composer = NoteDecoderXla(weights, *drawing(settings), width=batch)
    begin(composer, batch)
    tell(f"compiled and called in {seconds_of(composer.step):.1f} s")  # prefills the seeds

    def run() -> list[float]:
        took = []
        for _ in range(calls):
            took.append(seconds_of(composer.step) / NOTES_A_CALL)
            require_all(composer, batch)
        return took

    return run


def numpy_round(engine: Engine, settings: GenerateConfig, batch: int) -> Round:
    """Return a round: seconds of each step, in the midst of the pieces."""
    composer = NoteDecoder(engine, *drawing(settings))
    begin(composer, batch)
    for _ in scale(SEED_S):
        composer.step()

    def run() -> list[float]:
        marks = [time.perf_counter()]
        for _ in range(STEPS):
            composer.step()
            marks.append(time.perf_counter())
        require_all(composer, batch)
        return np.diff(marks).tolist()

    return run


def begin(composer: Any, batch: int) -> None:
    """Begin pieces that are so long that none ends while they are timed."""
    for number in range(batch):
        rng = np.random.default_rng(number)
        composer.add(number, NoteTask(scale(SEED_S), SEED_S, 3600.0, rng))


def require_all(composer: Any, batch: int) -> None:
    """Make sure that no piece has ended: it would have been timed as if it had gone on."""
    if len(composer) != batch:
        raise click.ClickException("a piece has ended. Give fewer --calls or --rounds.")


def rates_of_the_cpu() -> tuple[float, float]:
    """Return bytes a second read from memory, and operations a second of a large product."""
    return bandwidth_of(far_more_than_cache()), max(gemm_flops(), product_flops(1024))


def rates_of_the_gpu() -> tuple[float, float]:
    """Return bytes a second read from its memory, and operations a second of a large product."""
    import tensorflow as tf

    size = 2**30
    large = tf.ones([size // 4])
    return size / best_s(tf.reduce_sum, large), product_flops(8192)


def product_flops(n: int) -> float:
    """Return the operations a second of TensorFlow's product of two (n, n) matrices."""
    import tensorflow as tf

    square = tf.random.stateless_normal([n, n], [0, 0])
    return 2 * n**3 / best_s(lambda a: tf.reduce_sum(a @ a), square)


def best_s(function: Callable[[Any], Any], value: Any) -> float:
    """Return the least time that a compiled function of a tensor takes."""
    import tensorflow as tf

    compiled = tf.function(function, jit_compile=True)
    compiled(value)
    return min(seconds_of(lambda: compiled(value).numpy()) for _ in range(20))


if __name__ == "__main__":
    main()
