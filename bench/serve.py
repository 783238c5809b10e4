"""How soon a piece is there: the command in a fresh process, and the worker of a server.

The worker is that of `deep-piano serve`, with its queue and without HTTP. Its first piece is asked
for when it has warmed up. "Another window" is another ten seconds of the recording, which must be
transcribed; "a seed that was read" is one that had a piece before, or the window that a server
reads ahead when it gets a recording.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from bench.common import machine
from deep_piano.config.sections import Config, GenerateConfig
from deep_piano.report.text import markdown
from deep_piano.serve.jobs import Job, Jobs
from deep_piano.serve.worker import Compose, work

ROOT = Path(__file__).parents[1]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--seed",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=ROOT / "examples" / "seed.mp3",
    show_default="the example seed",
)
@click.option("--seconds", default=180.0, show_default=True, help="Length of the piece.")
@click.option("--runs", default=3, show_default=True, help="Pieces of each kind.")
def main(seed: Path, seconds: float, runs: int) -> None:
    """Print how long a piece takes, cold and on a warm server, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        cold = [of_the_command(seed, seconds, Path(folder) / str(n)) for n in range(runs)]
        another, same = on_a_server(seed, seconds, Path(folder), runs)
    print(f"{machine()}\n")
    rows = []
    for name, times in (("the command, cold", cold), ("a warm server: another window", another),
                        ("a warm server: a seed that was read", same)):  # fmt: skip
        middle = statistics.median(times)
        share = middle / statistics.median(cold)
        rows.append([name, f"{middle:.1f}", f"{min(times):.1f}-{max(times):.1f}", f"{share:.2f}"])
    print(markdown(["way", "s a piece, median", "s", "/ cold"], rows))


def of_the_command(seed: Path, seconds: float, folder: Path) -> float:
    """Return the wall time of the command in a process of its own."""
    command = [sys.executable, "-m", "deep_piano", "generate", str(seed)]
    command += ["-o", str(folder / "piece.mp3"), "--seconds", str(seconds)]
    begun = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return time.perf_counter() - begun


def on_a_server(
    seed: Path, seconds: float, folder: Path, runs: int
) -> tuple[list[float], list[float]]:
    """Return the times of pieces of other seeds, and of the same one again."""
    jobs = Jobs(work, (Config(),), lambda job: None)
    count = 0

    def took(start_s: float, random_state: int) -> float:
        nonlocal count
        count += 1
        out = folder / f"served-{count}"
        out.mkdir()
        settings = GenerateConfig(
            seconds=seconds, seed_start=start_s, random_state=random_state, seed_seconds=10.0
        )
        job = Job(
            "piece", {}, Compose(seed, seed.name, settings, out), lambda made: {}, lambda: None
        )
        begun = time.perf_counter()
        if jobs.submit(job).ended.result().state != "done":
            raise click.ClickException(job.message)
        return time.perf_counter() - begun

    try:
        took(0.0, 0)  # when it is warm
        another = [took(0.25 * n, 0) for n in range(1, runs + 1)]
        return another, [took(0.0, n) for n in range(1, runs + 1)]
    finally:
        jobs.close()


if __name__ == "__main__":
    main()
