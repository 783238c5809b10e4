"""Time and memory of each stage, by how much it is given: once, ten times, a hundred times as much.

With `--corpus`, the stages do their work on that many files of it. Without, PREPARE and GENERATE
run on that many tiny files, and what their tasks do is made up, so that a hundred thousand items
take minutes; what a task returns is as large as the real thing. The driver is then what is
measured. Every count has a process of its own, and but for TRAIN a Ray cluster, as what one run
leaves behind would be part of the next one's peak.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.common import machine, processor_s, ray_workers, tell
from deep_piano.analysis import fingerprint
from deep_piano.analysis.descriptors import AudioFeatures, describe_notes
from deep_piano.analysis.note_figures import figures
from deep_piano.codecs.notes import encode
from deep_piano.config.load import load_config
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.rows import Row, ShardFacts
from deep_piano.generate import on_ray as generating
from deep_piano.generate.notes import NoteTake
from deep_piano.generate.records import Key, Record
from deep_piano.generate.seeds import Seed
from deep_piano.generate.tasks import Run, known_of
from deep_piano.infra.backend import load_tensorflow
from deep_piano.infra.cluster.connection import connected
from deep_piano.infra.progress import Progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.notes import Notes, make_notes
from deep_piano.music.recordings import survey
from deep_piano.prepare import on_ray as preparing
from deep_piano.prepare import tasks
from deep_piano.prepare.sources import Source
from deep_piano.report.text import markdown

SEED_NOTES, PIECE_NOTES, RECORDING_NOTES = 60, 1200, 1200
KINDS = ("mp3", "mid", "png", "json")
COUNTS = {True: (60, 600, 6_000), False: (1_000, 10_000, 100_000)}
"""What is measured unless told otherwise: with a corpus, and without."""

_LOOK_EVERY_S = 0.5


@dataclass
class Took:
    """What a stage took: seconds, processor seconds, bytes that are a process's own (RssAnon).

    `at_first`, `at_tenth` and `at_last` are the driver's, when that share of the items was done.
    """

    count: int
    seconds: float = 0.0
    start: float = 0.0
    processor: float = 0.0
    at_first: int = 0
    at_tenth: int = 0
    at_last: int = 0
    driver: int = 0
    largest_worker: int = 0
    whole: int = 0

    def show(self, at: Progress) -> None:
        """Note the driver's memory; a stage calls it with its progress."""
        if at.what in ("looking", "looking at shards", "starting Ray"):
            return
        now = anonymous_bytes(os.getpid())
        if not self.at_first or not at.done:
            self.at_first = now
        if not self.at_tenth and at.done >= self.count / 10:
            self.at_tenth = now
        self.at_last, self.driver = now, max(self.driver, now)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("stage", type=click.Choice(["prepare", "train", "generate"]))
@click.argument("counts", type=click.IntRange(1), nargs=-1)
@click.option(
    "--corpus",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Of MIDI files: the stage works on so many of them.  [made-up results]",
)
@click.option("--seconds", default=60.0, show_default=True, help="Length of a generated piece.")
@click.option("--updates", default=40, show_default=True, help="Of a training.")
def main(
    stage: str, counts: tuple[int, ...], corpus: Path | None, seconds: float, updates: int
) -> None:
    """Print time and memory of a stage for COUNTS of items, as Markdown.

    STAGE is prepare, train or generate. Without COUNTS they are 60, 600 and 6,000 with a corpus,
    and 1,000, 10,000 and 100,000 without.
    """
    if stage == "train" and corpus is None:
        raise click.UsageError("training cannot be made up. Give a --corpus.")
    # By the module's own name, under which Ray's workers find what stands in for their work.
    run = import_module("bench.growth").measured
    found = []
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as alone:
        for count in counts or COUNTS[corpus is not None]:
            tell(f"{stage}, {count:,}")
            found.append(alone.submit(run, stage, count, corpus, seconds, updates).result())
            tell(f"  {found[-1]}")
    print_growth(stage, found, made_up=corpus is None)


def print_growth(stage: str, found: list[Took], *, made_up: bool) -> None:
    """Print the table."""
    first = found[0]
    rows = [
        [
            f"{one.count:,}",
            *(f"{value:,.1f}" for value in (one.start, one.seconds, one.processor)),
            f"{1e3 * one.seconds / one.count:,.1f}",
            f"{one.seconds / one.count / (first.seconds / first.count):.2f}",
            *(
                f"{size / 2**20:,.0f}"
                for size in (one.at_first, one.at_last, one.driver, one.largest_worker, one.whole)
            ),
            f"{(one.at_last - one.at_tenth) / 0.9 / one.count / 1024:.2f}",
        ]
        for one in found
    ]
    click.echo(f"{stage}{', its results made up' * made_up}; {machine()}.\n")
    head = [stage, "Ray's start, s", "seconds", "of processors, s", "ms each", "/ first"]
    head += ["driver at first, MiB", "at last", "at most", "largest worker", "all at most"]
    click.echo(markdown([*head, "KiB each, driver, from a tenth on"], rows))


def measured(stage: str, count: int, corpus: Path | None, seconds: float, updates: int) -> Took:
    """Run a stage on so many items."""
    took = Took(count)
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        scratch = Path(folder)
        if corpus is None:
            make_up()
            write_files(scratch / "in", count)
        else:
            link_files(scratch / "in", corpus, count)
        if stage == "train":
            work = train(scratch, count, updates=updates)
            with watched(took):
                work()
            return took
        make = {"prepare": prepare, "generate": partial(generate, seconds=seconds)}[stage]
        begun = time.monotonic()
        with connected():
            took.start = time.monotonic() - begun
            with watched(took):
                make(scratch, took)
    return took


def prepare(scratch: Path, took: Took) -> None:
    """Prepare a dataset; of tiny files a thousand are in a shard."""
    corpus = open_folder(scratch / "in")
    size_mb = sum(entry.size for entry in corpus.entries()) / 1e6
    settings = {"shard_mb": size_mb * 1000 / took.count} if size_mb < 1e-4 * took.count else {}
    config = load_config(None, {"prepare": settings})
    preparing.prepare(corpus, open_folder(scratch / "out"), config, progress=took.show)


def train(scratch: Path, count: int, *, updates: int) -> Callable[[], object]:
    """Return a training in this process; its dataset is made, and TensorFlow loaded, before."""
    from deep_piano.train.on_ray import begin_and_train

    prepare(scratch, Took(count))
    load_tensorflow()
    settings = {"preset": "tiny", "steps": updates, "warmup_steps": 1, "eval_every_steps": updates}
    config = load_config(None, {"train": settings})
    data, run = open_folder(scratch / "out"), open_folder(scratch / "run")
    return lambda: begin_and_train(data, run, config.train)


def generate(scratch: Path, took: Took, *, seconds: float) -> None:
    """Continue seeds, MIDI to MIDI."""
    config = load_config(None, {"generate": {"seconds": seconds}, "bulk": {"format": "mid"}})
    seeds, pieces = open_folder(scratch / "in"), open_folder(scratch / "out")
    generating.generate(seeds, pieces, config, progress=took.show)


@contextmanager
def watched(took: Took) -> Iterator[None]:
    """Count the block's time, and watch the memory of this process and of Ray's workers below it.

    Counted is what belongs to a process alone: no file that several have mapped, and no shared
    memory, so the object store is left out, and so are Ray's own services.
    """
    done, used = threading.Event(), dict[int, float]()

    def look() -> None:
        workers = ray_workers(os.getpid())
        used.update(processor_s(workers))
        sizes = [anonymous_bytes(pid) for pid in workers]
        driver = anonymous_bytes(os.getpid())
        took.driver = max(took.driver, driver)
        took.largest_worker = max(took.largest_worker, *sizes, 0)
        took.whole = max(took.whole, driver + sum(sizes))

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_S):
            look()

    before, own = processor_s(ray_workers(os.getpid())), sum(os.times()[:4])
    begun = time.monotonic()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        took.seconds = time.monotonic() - begun
        done.set()
        thread.join()
    look()
    workers = sum(seconds - before.get(pid, 0.0) for pid, seconds in used.items())
    took.processor = sum(os.times()[:4]) - own + workers


def anonymous_bytes(pid: int) -> int:
    """Return the resident memory that is a process's own; 0 where it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    return 0


def link_files(folder: Path, corpus: Path, count: int) -> None:
    """Fill a folder with links to some files of a corpus: those whose names have the least hash."""
    entries, _ = survey(open_folder(corpus))
    chosen = sorted(entries, key=lambda entry: sha(entry.name))[:count]
    if len(chosen) < count:
        raise click.ClickException(f"{corpus} holds {len(chosen)} recordings, not {count}.")
    folder.mkdir()
    for entry in chosen:
        (folder / entry.name.replace("/", "-")).symlink_to((corpus / entry.name).absolute())


def write_files(folder: Path, count: int) -> None:
    """Fill folders of a thousand with files that only differ."""
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"a piece of the collection, {number}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}")


def make_up() -> None:
    """Put what makes results up into the place of what tasks and composers do."""
    generating.read_seed = made_up_seed
    generating.write_piece = made_up_record
    generating.ComposerActor = MadeUpComposer  # type: ignore[misc, assignment]
    tasks.build_shard = made_up_shard


@cache
def music(notes: int) -> Notes:
    """Return so many notes of chance, seven a second."""
    rng = np.random.default_rng(0)
    onset = np.sort(rng.uniform(0, notes / 7, notes))
    length, velocity = rng.uniform(0.1, 1, notes), rng.integers(40, 90, notes)
    return make_notes(onset, onset + length, rng.integers(36, 96, notes), velocity)


def made_up_seed(run: Run, name: str) -> tuple[Seed, dict[str, str]]:
    """Return a seed as large as a real one, and the file that would be written of it."""
    digest = sha(name)
    return Seed(music(SEED_NOTES).copy(), 10.0, digest, name), {f"{name}/seed.mp3": digest}


class MadeUpComposer:
    """Composes at once."""

    def __init__(self, *_: Any) -> None:
        pass

    def work(self, asked: Mapping[Key, Seed]) -> dict[Key, NoteTake]:
        """Return a take of three minutes for each seed."""
        return {
            key: NoteTake(key[1], music(PIECE_NOTES).copy(), 10.0, figures_of(), 180.0)
            for key in asked
        }


@cache
def figures_of() -> dict[str, Any]:
    """Return what is measured of a piece."""
    found = figures(music(SEED_NOTES), music(PIECE_NOTES), from_s=10.0)
    return found | {"nats_a_note": 4.2345, "judge_log_odds": 0.1234}


def made_up_record(run: Run, name: str, seed: Seed, take: NoteTake) -> Record:
    """Return the record of a piece with all its files; none is written."""
    files = {f"{name}/take-{take.index + 1}.{kind}": sha(kind + name) for kind in KINDS}
    known = known_of(run, name, seed, take)
    return Record(**known, status="done", seconds=180.0, wall_s=3.25, files=files)


_build_shard = tasks.build_shard


def made_up_shard(*args: Any, **named: Any) -> ShardFacts:
    """Build a shard, reading no file."""
    tasks.ingest = made_up_row  # in the task's process
    return _build_shard(*args, **named)


def made_up_row(path: Path, source: Source, settings: PrepareConfig, **_: Any) -> Row:
    """Return a row as large as a recording's of three minutes, all different."""
    rng = np.random.default_rng(int(source.sha256[:12], 16))
    sound = AudioFeatures(
        duration_s=171.4, loudness_lufs=-20.5, peak_dbfs=-1.5, clipping_share=0.0,
        silence_share=0.1, spectral_centroid_hz=800.5, spectral_rolloff_hz=1600.5,
        zero_crossing_rate=0.03, mfcc=tuple(rng.random(13)), chroma=tuple(rng.random(12)),
        tempo_bpm=120.0, key="C major", tuning_strength=0.9,
    )  # fmt: skip
    return Row(
        id=sha(source.name),
        name=source.name,
        source_sha256=source.sha256,
        split="train" if rng.random() < 0.9 else "validation",
        kind="midi",
        duration_s=171.4,
        sequence=encode(music(RECORDING_NOTES)),
        fingerprint=rng.integers(0, 2**32, fingerprint.VALUES, dtype=np.uint32),
        audio=sound,
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
