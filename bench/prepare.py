"""Hours of audio a second that PREPARE makes a dataset of, against the limit and the peers.

Compared in one run, on the same files, at the waveform codecs, which are bound by decoding:

- the limit: FFmpeg alone, by the command line of `audio.decode`, one process a core side by side,
  and what it decodes is read and thrown away;
- ours: `prepare.on_ray.prepare` on Ray, on all cores: hash, decode, describe, encode, write;
- the same work in a `multiprocessing.Pool`, which shows what Ray itself costs; its shards must be
  the same to the byte.

Ray and the pool are started anew in every round, and prepare a tiny corpus before the clock runs:
a process that imports librosa compiles for seconds. What that takes is told apart. Every figure
is the median of the rounds; the ways are taken in turn, so that other load falls on all of them,
and Ray's workers run at the ordinary priority, which they do not by themselves.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from multiprocessing.pool import Pool
from pathlib import Path
from typing import TypeVar

import click

from bench.common import machine, processor_s, ray_workers, tell
from bench.stages import REST, Stopwatch, wrap
from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import Config, PrepareConfig
from deep_piano.dataset.rows import Reject, ShardFacts
from deep_piano.errors import DeepPianoError
from deep_piano.infra.cluster.connection import connected
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.open import open_folder
from deep_piano.music import audio
from deep_piano.music.ffmpeg import ffmpeg_version
from deep_piano.music.recordings import survey
from deep_piano.prepare import tasks
from deep_piano.prepare.on_ray import prepare
from deep_piano.prepare.plan import Known, ShardPlan, plan, reading_digest
from deep_piano.prepare.sources import Source, Splits, sources_of
from deep_piano.report.text import markdown

Result = TypeVar("Result")

_FILES_A_TASK = 128
_DISCARDED_AT_ONCE = 2**20

STAGES = (
    ("deep_piano.prepare.tasks", "hash_files", "hash of the file"),
    ("deep_piano.music.audio", "decode", "decode: FFmpeg, its pipe, checks"),
    ("deep_piano.prepare.ingest", "_content_id", "hash of the samples"),
    ("deep_piano.prepare.ingest", "_trimmed", "trim"),
    ("deep_piano.analysis.descriptors", "describe_audio", "descriptors"),
    ("deep_piano.analysis.fingerprint", "of_audio", "fingerprint"),
    ("deep_piano.prepare.ingest", "_row", "encode"),
    ("deep_piano.dataset.shards", "write_shard", "write Parquet"),
    ("deep_piano.dataset.shards", "read_facts", "read back, checksum"),
)


@dataclass
class Took:
    """Seconds of a way, one figure a round; `start` and `first` are before the clock runs.

    `processor` is what the run takes of processors, which other load on the machine changes less.
    """

    start: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    run: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def with_start(self) -> float:
        """Return the median of all three together."""
        return statistics.median(map(sum, zip(self.start, self.first, self.run, strict=True)))


@dataclass
class Results:
    """What was measured on one corpus."""

    files: int
    audio_s: float
    limit: Took = field(default_factory=Took)
    ours: Took = field(default_factory=Took)
    pool: Took = field(default_factory=Took)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("small", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument(
    "large", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False
)
@click.option(
    "--codec",
    default="mulaw",
    show_default=True,
    type=click.Choice([name for name, codec in CODECS.items() if not codec.encodes_notes]),
)
@click.option("--cores", type=int, help="Processes of every way.  [all]")
@click.option("--rounds", default=3, show_default=True, help="Rounds of every way in turn.")
@click.option("--part-files", default=40, show_default=True, help="Files of the table of parts.")
def main(
    small: Path,
    large: Path | None,
    codec: str,
    cores: int | None,
    rounds: int,
    part_files: int,
) -> None:
    """Print hours of audio a second of PREPARE against FFmpeg alone, as Markdown.

    SMALL and LARGE are folders of recordings, say 100 and 1,000 mp3 of a minute.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    settings = PrepareConfig.model_validate(
        {"codec": codec, "min_seconds": 1.0, "max_similarity": 1.0}
    )
    cores = cores or len(os.sched_getaffinity(0))
    try:
        results = [
            measure(corpus, settings, cores=cores, rounds=rounds)
            for corpus in filter(None, [small, large])
        ]
        click.echo(
            f"Codec {codec}, {cores} processes, {rounds} rounds; {machine()}, "
            f"ray {metadata.version('ray')}, "
            f"FFmpeg {ffmpeg_version()}.\n"
        )
        print_rates(results)
        print_parts(recordings(small)[:part_files], settings)
    except DeepPianoError as error:
        raise click.ClickException(str(error)) from error


def measure(corpus: Path, settings: PrepareConfig, *, cores: int, rounds: int) -> Results:
    """Take every way in turn over a corpus, `rounds` times."""
    paths = recordings(corpus)
    commands = decode_commands(paths, settings)
    results = Results(len(paths), 0.0)
    with tempfile.TemporaryDirectory() as scratch:
        tiny = Path(scratch) / "tiny"
        tiny.mkdir()
        for path in paths[: 4 * cores]:
            (tiny / path.name).symlink_to(path.absolute())
        for turn in range(rounds):
            tell(f"{len(paths)} files, round {turn + 1} of {rounds}: FFmpeg alone")
            with counted(results.limit, lambda: []):
                decoded = decode_alone(commands, cores=cores)
            results.audio_s = decoded / 4 / (settings.sr or CODECS[settings.codec].sr)
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                tell("  on Ray")
                ours = on_ray(corpus, tiny, Path(folder), settings, cores=cores, results=results)
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                tell("  in a pool of processes")
                theirs = on_pool(
                    corpus, tiny, Path(folder), settings, cores=cores, took=results.pool
                )
            if ours != theirs:
                raise click.ClickException("Ray and the pool made different shards.")
    return results


def on_ray(
    corpus: Path,
    tiny: Path,
    scratch: Path,
    settings: PrepareConfig,
    *,
    cores: int,
    results: Results,
) -> dict[str, str]:
    """Prepare a corpus as `deep-piano prepare` does; return its shards' checksums by name."""
    begun = time.perf_counter()
    with connected(cpus=cores):
        results.ours.start.append(time.perf_counter() - begun)
        config = Config(prepare=settings)
        alone = Config(prepare=settings.model_copy(update={"shard_mb": 0.01}))
        first = partial(prepare, open_folder(tiny), open_folder(scratch / "tiny"), alone)
        results.ours.first.append(timed(first)[0])
        with counted(results.ours, partial(ray_workers, os.getpid())):
            manifest = prepare(open_folder(corpus), open_folder(scratch / "all"), config)
    return {shard.name: shard.sha256 for shard in manifest.shards}


def on_pool(
    corpus: Path, tiny: Path, scratch: Path, settings: PrepareConfig, *, cores: int, took: Took
) -> dict[str, str]:
    """Do the same in a pool of processes."""
    begun = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        took.start.append(time.perf_counter() - begun)
        alone = settings.model_copy(update={"shard_mb": 0.01})
        first = partial(pooled, open_folder(tiny), open_folder(scratch / "tiny"), alone, pool)
        took.first.append(timed(first)[0])
        with counted(took, lambda: [one.pid or 0 for one in multiprocessing.active_children()]):
            shards = pooled(open_folder(corpus), open_folder(scratch / "all"), settings, pool)
    return shards


@contextmanager
def counted(took: Took, workers: Callable[[], list[int]]) -> Iterator[None]:
    """Count the block as a run, with the processor time of this process and of its workers."""
    before, own, begun = processor_s(workers()), sum(os.times()[:4]), time.perf_counter()
    yield
    took.run.append(time.perf_counter() - begun)
    after = processor_s(workers())
    theirs = sum(used - before.get(pid, 0.0) for pid, used in after.items())
    took.processor.append(sum(os.times()[:4]) - own + theirs)


def print_rates(results: Sequence[Results]) -> None:
    """Print the times of every way."""
    median = statistics.median
    rows = []
    for one in results:
        limit = one.audio_s / median(one.limit.run)
        ways = [
            ("FFmpeg alone: the limit", median(one.limit.run), one.limit),
            ("ours, on Ray", median(one.ours.run), one.ours),
            ("ours, with Ray's start", one.ours.with_start(), None),
            ("a pool of processes", median(one.pool.run), one.pool),
            ("a pool, with its start", one.pool.with_start(), None),
        ]
        for name, took, way in ways:
            spread = f"{min(way.run):.1f} to {max(way.run):.1f}" if way else ""
            processor = f"{median(way.processor):.1f}" if way else ""
            shares = ratios(one.audio_s / took, limit)
            rows.append([f"{one.files:,}", name, f"{took:.1f}", spread, processor, *shares])
    head = ["files", "way", "s", "of the rounds", "of processors, s"]
    head += ["x real time", "hours a second", "/ limit"]
    click.echo(markdown(head, rows, words=2))
    click.echo()


def ratios(rate: float, limit: float) -> list[str]:
    """Return the last columns: times of real time, hours a second, the share of the limit."""
    return [f"{rate:,.0f}", f"{rate / 3600:.3f}", f"{rate / limit:.2f}"]


def print_parts(paths: Sequence[Path], settings: PrepareConfig) -> None:
    """Print where the time of a recording goes, in one process, one after the other."""
    tell(f"the parts, {len(paths)} files")
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as scratch:
        for stage in STAGES:
            wrap(watch, *stage)
        for name, some in (("first", paths[:1]), ("all", paths)):  # the first one compiles
            corpus = Path(scratch) / name
            corpus.mkdir()
            for path in some:
                (corpus / path.name).symlink_to(path.absolute())
            dataset, folder = open_folder(corpus.with_suffix(".out")), open_folder(corpus)
            watch.reset()
            sources = survey_hashed(folder, settings, map)
            for one in plan(sources, Known(reading_digest(settings)), settings):
                shard(folder, dataset, settings, one, rejects={}, rows_in={})
            watch.pause()
    names = [*dict.fromkeys(stage for _, _, stage in STAGES), REST]
    each_ms = {name: [1e3 * took / len(paths) for took in watch.main[name]] for name in names}
    total, processor = map(sum, zip(*each_ms.values(), strict=True))
    rows = [
        [name, f"{wall:.1f}", f"{own:.1f}", f"{own / processor:.1%}"]
        for name, (wall, own) in each_ms.items()
    ]
    rows.append(["**sum**", f"**{total:.1f}**", f"**{processor:.1f}**", ""])
    head = ["part, one process", "ms a recording", "of a processor, ms", "share"]
    click.echo(markdown(head, rows))


def decode_commands(paths: Sequence[Path], settings: PrepareConfig) -> list[list[str]]:
    """Return, for each recording, the command that `audio.decode` runs, as it logs it."""
    log = logging.getLogger("deep_piano.music.ffmpeg")
    seen: list[list[str]] = []
    level = log.level
    log.setLevel(logging.DEBUG)

    def keep(record: logging.LogRecord) -> bool:
        if record.msg == "running %s" and isinstance(record.args, tuple):
            seen.append(record.args[0])  # type: ignore[arg-type]
        return record.levelno >= logging.WARNING

    log.addFilter(keep)
    try:
        sr = settings.sr or CODECS[settings.codec].sr
        audio.decode(paths[0], sr=sr, seconds=settings.max_seconds + 1)
    finally:
        log.removeFilter(keep)
        log.setLevel(level)
    first = f"file:{paths[0].absolute()}"
    command = next(command for command in seen if first in command)
    return [
        [f"file:{path.absolute()}" if word == first else word for word in command] for path in paths
    ]


def decode_alone(commands: Sequence[list[str]], *, cores: int) -> int:
    """Run commands side by side and throw away what they write; return how many bytes it was."""

    def discard(command: list[str]) -> int:
        buffer, total = bytearray(_DISCARDED_AT_ONCE), 0
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        ) as process:
            assert process.stdout is not None
            while size := process.stdout.readinto(buffer):  # type: ignore[attr-defined]
                total += size
        return total

    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(discard, commands))


def pooled(corpus: Folder, dataset: Folder, settings: PrepareConfig, pool: Pool) -> dict[str, str]:
    """Hash, plan and build until nothing is missing, as `prepare` does."""
    sources = survey_hashed(corpus, settings, pool.imap_unordered)
    known = Known(reading_digest(settings))
    while True:
        plans = plan(sources, known, settings)
        missing = [one for one in plans if one.name not in known.shards]
        if not missing:
            return {one.name: known.shards[one.name].sha256 for one in plans}
        task = partial(
            shard, corpus, dataset, settings, rejects=known.rejects, rows_in=known.shard_of
        )
        for facts in pool.imap_unordered(task, missing):
            known.add(facts)


def survey_hashed(
    corpus: Folder,
    settings: PrepareConfig,
    over: Callable[..., Iterator[list[tuple[str, str, str]]]],
) -> list[Source]:
    """Return the files of different content of a corpus; `over` maps the hashing of batches."""
    entries, ignored = survey(corpus)
    splits = Splits(corpus, entries, ignored, settings)
    names = [entry.name for entry in entries if not entry.problem]
    batches = [names[i : i + _FILES_A_TASK] for i in range(0, len(names), _FILES_A_TASK)]
    hashes = {
        name: sha256
        for found in over(partial(tasks.hash_files, corpus), batches)
        for name, sha256, problem in found
        if not problem
    }
    sources: dict[str, Source] = {}
    for source in sources_of(entries, hashes, splits):
        sources.setdefault(source.sha256, source)
    return list(sources.values())


def shard(
    corpus: Folder,
    dataset: Folder,
    settings: PrepareConfig,
    one: ShardPlan,
    *,
    rejects: dict[str, Reject],
    rows_in: dict[str, str],
) -> ShardFacts:
    """Build one shard; nothing is transcribed."""

    def transcribe(samples: audio.Samples, sr: int) -> object:
        raise AssertionError("a waveform codec encodes no notes")

    return tasks.build_shard(
        corpus,
        dataset,
        one,
        settings,
        rejects=rejects,
        rows_in=rows_in,
        transcribe=transcribe,  # type: ignore[arg-type]
    )


def recordings(folder: Path) -> list[Path]:
    """Return the recordings of a folder, as PREPARE finds them."""
    entries, _ = survey(open_folder(folder))
    found = [folder / entry.name for entry in entries if not entry.problem]
    if not found:
        raise click.ClickException(f"no recording in {folder}")
    return found


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return how many seconds some work takes, and its result."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


if __name__ == "__main__":
    main()
