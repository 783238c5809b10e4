"""Where the wall time of the main job goes: a recording in, a piece out.

Compared are, on the same machine in the same run:

- the command itself, in a fresh process, as a user starts it: its wall time;
- the same command in a fresh process with a timer around every stage (`bench.stages`), cold, and
  a second piece of another random state in that process, warm. The stages are the function's own
  time, they add up to the wall time of the process, and that is held against the command's.

Cold means a new process that has yet to import everything and to build the network, with the
sound's samples already prepared in the user's cache; `--fresh-sound` measures the very first
piece, which prepares them. Files are read from the operating system's cache either way.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bench.common import machine, output_format
from deep_piano.report.text import markdown

ROOT = Path(__file__).parents[1]
LEAVING = "leaving Python"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--seed",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=ROOT / "examples" / "seed.mp3",
    show_default="the example seed",
)
@click.option("--checkpoint", default="notes", show_default=True, help="Name or folder.")
@click.option("--seconds", default=180.0, show_default=True, help="Length of the piece.")
@output_format
@click.option("--sound", help="As for deep-piano generate.  [the best one that is there]")
@click.option("--runs", default=3, show_default=True, help="Fresh processes of each kind.")
@click.option("--fresh-sound", is_flag=True, help="With no sample of the sound prepared.")
def main(
    seed: Path,
    checkpoint: str,
    seconds: float,
    suffix: str,
    sound: str | None,
    runs: int,
    fresh_sound: bool,
) -> None:
    """Print where the wall time of the main job goes, cold and warm, as Markdown."""
    arguments = ["generate", str(seed.absolute()), "--checkpoint", checkpoint]
    arguments += ["--seconds", f"{seconds:g}", *(["--sound", sound] if sound else []), "--force"]
    if Path(checkpoint).is_dir():
        arguments[3] = str(Path(checkpoint).absolute())
    command_s, measured = [], []
    with tempfile.TemporaryDirectory() as folder:
        out = ["-o", str(Path(folder) / f"piece.{suffix}")]
        for run in range(runs):
            with home(fresh=fresh_sound) as environment:
                click.echo(f"the command itself, {run + 1} of {runs}", err=True)
                command_s.append(time_command([*arguments, *out], environment))
            with home(fresh=fresh_sound) as environment:
                click.echo(f"with timers, {run + 1} of {runs}", err=True)
                again = [*arguments, *out, "--random-state", "1"]
                measured.append(measure_stages([[*arguments, *out], again], environment))
    print_tables(measured, command_s, seconds=seconds)


@contextmanager
def home(*, fresh: bool) -> Iterator[dict[str, str]]:
    """Yield an environment for the processes; with `fresh`, a cache that has the assets only."""
    environment = dict(os.environ)
    known = filter(None, [os.environ.get("PYTHONPATH")])
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *known])
    with tempfile.TemporaryDirectory() as folder:
        if fresh:
            from deep_piano.infra.assets import cache

            (Path(folder) / "assets").symlink_to(cache.cache_dir() / "assets")
            environment["DEEP_PIANO_HOME"] = folder
        yield environment


def time_command(arguments: list[str], environment: dict[str, str]) -> float:
    """Return the wall time of `deep-piano` in a fresh process, in seconds."""
    begun = time.monotonic()
    run([sys.executable, "-m", "deep_piano", *arguments], environment)
    return time.monotonic() - begun


def measure_stages(runs: list[list[str]], environment: dict[str, str]) -> list[dict[str, Any]]:
    """Return, for each run, its wall time and its stages; the first has the process's end too."""
    script = [sys.executable, "-m", "bench.stages"]
    before = os.times()
    printed = run([*script, repr(time.monotonic()), json.dumps(runs)], environment)
    left, after = time.monotonic(), os.times()
    # The command's own lines come before.
    result = json.loads(printed[printed.index('{"runs"') :])
    leaving_s = left - result["ended_s"]
    processor_s = sum(after[2:4]) - sum(before[2:4])  # of the process and all that it started
    processor_s -= sum(own for one in result["runs"] for _, own in one["stages"].values())
    result["runs"][0]["stages"][LEAVING] = [leaving_s, max(0.0, processor_s)]
    result["runs"][0]["wall_s"] += leaving_s
    measured: list[dict[str, Any]] = result["runs"]
    return measured


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run a process and return what it printed; end with its last words when it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise click.ClickException(f"{' '.join(command[:3])} failed: {lines[-1]}")
    for line in done.stderr.splitlines():
        if line.startswith("bench:"):
            click.echo(line, err=True)
    return done.stdout


def print_tables(
    measured: list[list[dict[str, Any]]], command_s: list[float], *, seconds: float
) -> None:
    """Print the stages of the median run, and whether they add up to the command's time."""
    order = sorted(measured, key=lambda runs: runs[0]["wall_s"])
    cold, warm = order[(len(order) - 1) // 2]
    click.echo(f"A piece of {seconds:g} s; {machine()}.\n")
    rows = []
    for name in dict.fromkeys([*cold["stages"], *warm["stages"]]):
        cells = [cold["stages"].get(name, [0, 0]), warm["stages"].get(name, [0, 0])]
        if max(cells[0][0], cells[1][0]) >= 0.005:
            rows.append([name, *(f"{value:.2f}" for cell in cells for value in cell)])
    totals = [
        sum(times[column] for times in part["stages"].values())
        for part in (cold, warm)
        for column in (0, 1)
    ]
    rows.append(["**sum**", *(f"**{total:.2f}**" for total in totals)])
    head = ["stage", "cold, s", "of a processor, s", "warm, s", "of a processor, s"]
    click.echo(markdown(head, rows))
    beside = {**cold["beside"], **{f"{k} (warm)": v for k, v in warm["beside"].items()}}
    for name, (took_s, _) in beside.items():
        if took_s >= 0.005:
            click.echo(f"\nBeside them, in another thread: {name}, {took_s:.2f} s.")
    command = statistics.median(command_s)
    off = totals[0] / command - 1
    click.echo(
        f"\nThe command itself: {command:.1f} s (median of {len(command_s)}, "
        f"{min(command_s):.1f} to {max(command_s):.1f}); the stages' sum is {off:+.0%} off, "
        f"and {abs(totals[0] / cold['wall_s'] - 1):.1%} off its own process's wall time."
    )


if __name__ == "__main__":
    main()
