"""Memory of the driver of GENERATE and of PREPARE, by how many seeds or recordings there are.

The stages themselves run, on real files. What their tasks do with a seed or a recording is made up,
so that a hundred thousand of them take minutes; what a task returns is as large as the real thing.
Without Ray every task is done in this process when its result is asked for, and what it returns
goes through pickle: then all that grows is what the driver keeps.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.common import anonymous_bytes, machine, memory_watched
from deep_piano.analysis import fingerprint
from deep_piano.analysis.descriptors import AudioFeatures, describe_notes
from deep_piano.analysis.note_figures import figures
from deep_piano.codecs.notes import encode
from deep_piano.config.load import load_config
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.rows import Row, ShardFacts
from deep_piano.generate import on_ray as generating
from deep_piano.generate.notes import NoteTake
from deep_piano.generate.records import Key, Record, folder_of
from deep_piano.generate.seeds import Seed
from deep_piano.generate.tasks import Run, known_of
from deep_piano.infra.progress import Progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.notes import Notes, make_notes
from deep_piano.prepare import on_ray as preparing
from deep_piano.prepare import tasks
from deep_piano.prepare.sources import Source
from deep_piano.report.text import markdown

SEED_NOTES, PIECE_NOTES, RECORDING_NOTES = 60, 1200, 1200


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("stage", type=click.Choice(["generate", "prepare"]))
@click.argument("counts", type=int, nargs=-1)
@click.option("--ray/--no-ray", "on_ray", default=True, show_default=True)
def main(stage: str, counts: tuple[int, ...], on_ray: bool) -> None:
    """Print the driver's memory for COUNTS of items (1,000 and 10,000), as Markdown."""
    # By the module's own name, under which Ray's workers find what stands in for their work.
    run = getattr(import_module("bench.driver_memory"), stage)
    # Each in a process of its own, as what one run leaves behind is part of the next one's peak.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as alone:
        found = [alone.submit(run, n, on_ray).result() for n in counts or (1_000, 10_000)]
    rows = [
        [
            f"{one.count:,}",
            *(
                f"{size / 2**20:,.0f}"
                for size in (one.at_first, one.at_tenth, one.at_last, one.peak)
            ),
            f"{(one.at_last - one.at_tenth) / 0.9 / one.count / 1024:.2f}",
            f"{one.seconds:,.0f}",
        ]
        for one in found
    ]
    click.echo(f"{stage}: the driver's own memory (RssAnon); {machine()}.\n")
    columns = ["items", "before the first, MiB", "after a tenth", "after the last", "peak"]
    columns += ["KiB an item, from a tenth on", "seconds"]
    click.echo(markdown(columns, rows))


@dataclass
class Driver:
    """The memory of this process while a stage runs, in bytes; `show` is the stage's progress."""

    count: int
    at_first: int = 0
    at_tenth: int = 0
    at_last: int = 0
    peak: int = 0
    seconds: float = 0.0
    begun: float = field(default_factory=time.monotonic)

    def show(self, at: Progress) -> None:
        """Note the memory before the first item is done, and the last that is seen."""
        now = anonymous_bytes(os.getpid())
        if not self.at_first or not at.done:
            self.at_first = now
        if not self.at_tenth and at.done >= self.count / 10:
            self.at_tenth = now
        self.at_last = now

    def ran(self, stage: Callable[[], object]) -> Driver:
        """Run a stage; return this."""
        with memory_watched() as peaks:
            stage()
        self.peak, self.seconds = peaks[0].driver, time.monotonic() - self.begun
        return self


class Call:
    """What stands for an ``ObjectRef``: a call that is done when it is asked for."""

    def __init__(self, function: Callable[..., Any], *args: Any, **named: Any) -> None:
        self._call = function, args, named

    def get(self) -> Any:
        """Do it; what is returned is a copy, as if it had come from another process."""
        function, args, named = self._call
        return pickle.loads(pickle.dumps(function(*args, **named)))


class Remote:
    """What stands for a remote function, an actor's class, an actor or its method."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def options(self, **_: Any) -> Remote:
        """Be the same with any options."""
        return self

    def remote(self, *args: Any, **named: Any) -> Any:
        """Return a call, or an actor."""
        if isinstance(self._target, type):
            return Remote(self._target(*args, **named))
        return Call(self._target, *args, **named)

    def __getattr__(self, name: str) -> Remote:
        return Remote(getattr(self._target, name))


def without_ray() -> None:
    """Put stand-ins into this process for what the driver asks of Ray."""
    import ray

    def remote(target: Any = None, **_: Any) -> Any:
        return Remote if target is None else Remote(target)

    def wait(calls: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return calls[:1], calls[1:]

    def nothing(*_: Any, **__: Any) -> None:
        pass

    vars(ray).update(remote=remote, wait=wait, get=Call.get, cancel=nothing, kill=nothing)
    vars(ray).update(put=lambda value: value, is_initialized=lambda: True)
    vars(ray).update(cluster_resources=lambda: {"CPU": 64.0})


def generate(count: int, on_ray: bool = True) -> Driver:
    """Run GENERATE over so many seeds."""
    if not on_ray:
        without_ray()
    generating.read_seed = made_up_seed
    generating.write_piece = made_up_record
    generating.ComposerActor = MadeUpComposer  # type: ignore[misc, assignment]
    with tempfile.TemporaryDirectory() as folder:
        seeds, pieces = open_folder(Path(folder, "seeds")), open_folder(Path(folder, "pieces"))
        write_files(Path(folder, "seeds"), count, ".mid")
        config = load_config(None, {"bulk": {"format": "mid"}})
        driver = Driver(count)
        return driver.ran(lambda: generating.generate(seeds, pieces, config, progress=driver.show))


def prepare(count: int, on_ray: bool = True) -> Driver:
    """Run PREPARE over so many recordings, about a thousand in a shard."""
    if not on_ray:
        without_ray()
    build_shard = tasks.build_shard

    def made_up_shard(*args: Any, **named: Any) -> ShardFacts:
        tasks.ingest = made_up_row  # in the task's process
        return build_shard(*args, **named)

    tasks.build_shard = made_up_shard
    with tempfile.TemporaryDirectory() as folder:
        corpus, dataset = open_folder(Path(folder, "corpus")), open_folder(Path(folder, "dataset"))
        write_files(Path(folder, "corpus"), count, ".mid")
        size_mb = sum(entry.size for entry in corpus.entries()) / 1e6
        config = load_config(None, {"prepare": {"shard_mb": size_mb * 1000 / count}})
        driver = Driver(count)
        return driver.ran(lambda: preparing.prepare(corpus, dataset, config, progress=driver.show))


def write_files(folder: Path, count: int, suffix: str) -> None:
    """Fill folders of a thousand with files that only differ."""
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"a piece of the collection, {number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}")


@cache
def music(notes: int, random_state: int = 0) -> Notes:
    """Return so many notes of chance, seven a second."""
    rng = np.random.default_rng(random_state)
    onset = np.sort(rng.uniform(0, notes / 7, notes))
    length, velocity = rng.uniform(0.1, 1, notes), rng.integers(40, 90, notes)
    return make_notes(onset, onset + length, rng.integers(36, 96, notes), velocity)


def made_up_seed(run: Run, name: str) -> tuple[Seed, dict[str, str]]:
    """Return a seed as large as a real one, and the file that would be written of it."""
    digest = sha(name)
    return Seed(music(SEED_NOTES).copy(), 10.0, digest, name), {
        f"{folder_of(name)}/seed.mp3": digest
    }


class MadeUpComposer:
    """Composes at once."""

    def __init__(self, *_: Any) -> None:
        pass

    def work(self, asked: Mapping[Key, Seed]) -> dict[Key, NoteTake]:
        """Return a take for each seed."""
        return {key: made_up_take(key[1]) for key in asked}


def made_up_take(index: int) -> NoteTake:
    """Return a take of three minutes."""
    notes = music(PIECE_NOTES)
    return NoteTake(index, notes.copy(), 10.0, figures_of() | {"nats_a_note": 4.2345})


@cache
def figures_of() -> dict[str, Any]:
    """Return what is measured of a piece."""
    return figures(music(SEED_NOTES), music(PIECE_NOTES), from_s=10.0)


def made_up_record(run: Run, name: str, seed: Seed, take: NoteTake) -> Record:
    """Return the record of a piece with all its files; none is written."""
    files = {f"{folder_of(name)}/take-{take.index + 1}.{kind}": sha(kind + name) for kind in KINDS}
    known = known_of(run, name, seed, take)
    return Record(**known, status="done", seconds=180.0, wall_s=3.25, files=files)


KINDS = ("mp3", "mid", "png", "json")


def made_up_row(path: Path, source: Source, settings: PrepareConfig, **_: Any) -> Row:
    """Return a row as large as a recording's of three minutes, all different."""
    rng = np.random.default_rng(int(source.sha256[:12], 16))
    notes = music(RECORDING_NOTES)
    return Row(
        id=sha(source.name),
        name=source.name,
        source_sha256=source.sha256,
        split="train" if rng.random() < 0.9 else "validation",
        kind="midi",
        duration_s=171.4,
        sequence=encode(notes),
        fingerprint=rng.integers(0, 2**32, fingerprint.VALUES, dtype=np.uint32),
        audio=AudioFeatures(
            171.4,
            -20.5,
            -1.5,
            0.0,
            0.1,
            800.5,
            1600.5,
            0.03,
            *[tuple(rng.random(13))] * 1,
            tuple(rng.random(12)),
            120.0,
            "C major",
            0.9,
        ),
        notes=described(),
    )


@cache
def described() -> Any:
    """Return the descriptors of a recording."""
    return describe_notes(music(RECORDING_NOTES), pedal_share=0.5)


def sha(text: str) -> str:
    """Return 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
