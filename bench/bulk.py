"""Pieces a minute of GENERATE in bulk, against what its stages cost alone and `ActorPool`.

Compared in one run, on the same seeds:

- the stages alone, in this process: reading a seed (which transcribes sound), composing so many
  pieces side by side, playing, encoding, and drawing and writing the rest, each in processor
  seconds a piece. Together, divided among the cores, they bound what any number of processes can
  do; everything is loaded before;
- GENERATE in bulk on Ray, from starting Ray to the manifest;
- `ray.util.ActorPool` with an actor for each core that makes one piece a call, on a Ray that runs
  already: the way in which bulk decoding is commonly written.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

from bench.common import machine, output_format
from bench.stages import Stopwatch
from deep_piano.config.load import load_config
from deep_piano.config.sections import Config, GenerateConfig
from deep_piano.decoding.open import open_decoder
from deep_piano.errors import DeepPianoError
from deep_piano.generate import notes, piece
from deep_piano.generate.files import targets
from deep_piano.generate.on_ray import generate
from deep_piano.generate.piece import decode_takes, road_of, write
from deep_piano.infra.cluster.connection import connected
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.music.recordings import survey
from deep_piano.report.text import markdown

READING, COMPOSING = "reading seeds", "composing"
PLAYING, WRITING = "playing", "encoding, drawing and writing"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("seeds")
@click.option("--takes", default=2, show_default=True, help="Of each seed.")
@output_format
@click.option("--seconds", default=180.0, show_default=True, help="Length of a piece.")
@click.option("--checkpoint", default="notes", show_default=True, help="Name or folder.")
@click.option("--sound", help="As for deep-piano generate.")
def main(seeds: str, suffix: str, **settings: Any) -> None:
    """Print pieces a minute in bulk, against the stages alone and ActorPool, as Markdown.

    SEEDS is a folder of recordings and MIDI files.
    """
    try:
        config = load_config(None, {"generate": settings, "bulk": {"format": suffix}})
        entries, _ = survey(open_folder(seeds))
        paths = [Path(seeds, entry.name) for entry in entries]
        stages = stages_alone(paths, config)
        took = {"GENERATE in bulk": bulk(seeds, config), "ActorPool": actor_pool(paths, config)}
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error
    cores = os.cpu_count() or 1
    pieces = len(paths) * config.generate.takes
    bound_s = sum(stages.values()) * pieces / cores
    click.echo(
        f"{len(paths)} seeds, {pieces} pieces of {config.generate.seconds:g} s as {suffix}; "
        f"{machine()}.\n"
    )
    rows = [[name, f"{s:.2f}", f"{config.generate.seconds / s:,.0f}"] for name, s in stages.items()]
    click.echo(markdown(["stage, alone", "processor seconds a piece", "x real time"], rows) + "\n")
    rows = [["bound: the stages, divided among the cores", *row_of(bound_s, pieces, bound_s)]]
    rows += [[name, *row_of(s, pieces, bound_s)] for name, s in took.items()]
    click.echo(markdown(["way", "seconds", "pieces a minute", "/ bound"], rows))


def row_of(seconds: float, pieces: int, bound_s: float) -> list[str]:
    """Return the columns of a way that took so long."""
    return [f"{seconds:.1f}", f"{60 * pieces / seconds:.1f}", f"{seconds / bound_s:.2f}"]


def stages_alone(paths: Sequence[Path], config: Config) -> dict[str, float]:
    """Return the processor seconds a piece of each stage, in this process."""
    settings, suffix = config.generate, config.bulk.format
    road = road_of(checkpoint.load(settings.checkpoint), settings, Path(f"take.{suffix}"))
    road = road.ready(no_progress)
    decoder = open_decoder(road.checkpoint, settings)
    watch = Stopwatch()
    parts = {"synth.render": PLAYING, "loudness.normalise": PLAYING}
    with tempfile.TemporaryDirectory() as folder:

        def make(path: Path, number: int) -> None:
            with watch.measure(READING):
                seed = road.read(path, no_progress)
            with watch.measure(COMPOSING):
                takes = decode_takes(road, decoder, seed)
            for take in takes:
                out = Path(folder) / f"{number}-{take.index}.{suffix}"
                [files] = targets(out, 1, force=True, given=[])
                with watch.measure(WRITING):
                    write(road, files, seed, take)

        make(paths[0], 0)  # loads everything
        with _watched(watch, parts):
            watch.reset()
            for number, path in enumerate(paths):
                make(path, number)
            watch.pause()
    pieces = len(paths) * settings.takes
    # Those of the main thread, which waits for the others: its processor seconds are the process's.
    stages = (READING, COMPOSING, PLAYING, WRITING)
    return {name: watch.main[name][1] / pieces for name in stages if name in watch.main}


def _watched(watch: Stopwatch, parts: dict[str, str]) -> ExitStack:
    """Count what some functions of `generate`'s modules take to stages of their own."""
    stack = ExitStack()
    for name, stage in parts.items():
        module, function = name.split(".")
        original = getattr(getattr(notes, module), function)

        def timed(
            *given: Any, original: Callable[..., Any] = original, stage: str = stage, **named: Any
        ) -> Any:
            with watch.measure(stage):
                return original(*given, **named)

        stack.enter_context(patch.object(getattr(notes, module), function, timed))
    return stack


def bulk(seeds: str, config: Config) -> float:
    """Return the seconds that GENERATE in bulk takes, from starting Ray on."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        records = generate(open_folder(seeds), open_folder(folder), config)
        took_s = time.monotonic() - begun
    if not all(record.done for record in records.values()):
        raise click.ClickException("not every seed could be continued: give others.")
    return took_s


class OnePiece:
    """An actor that makes a piece a call."""

    def __init__(self, settings: GenerateConfig, suffix: str) -> None:
        self._settings, self._suffix = settings, suffix

    def make(self, path: Path, take: int) -> int:
        """Make a piece and throw it away; return its take."""
        state = self._settings.random_state + take
        chosen = self._settings.model_copy(update={"takes": 1, "random_state": state})
        with tempfile.TemporaryDirectory() as folder:
            piece.make_pieces(path, Path(folder) / f"piece.{self._suffix}", chosen)
        return take


def actor_pool(paths: Sequence[Path], config: Config) -> float:
    """Return the seconds that ActorPool takes, from making the actors on."""
    import ray
    from ray.util import ActorPool

    work = [(path.absolute(), take) for path in paths for take in range(config.generate.takes)]
    with connected():
        begun = time.monotonic()
        kind = ray.remote(OnePiece)
        actors = [
            kind.remote(config.generate, config.bulk.format) for _ in range(os.cpu_count() or 1)
        ]
        done = ActorPool(actors).map_unordered(lambda actor, one: actor.make.remote(*one), work)
        assert len(list(done)) == len(work)
        return time.monotonic() - begun


if __name__ == "__main__":
    main()
