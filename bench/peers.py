"""What PREPARE is held against: FFmpeg alone, a pool of processes, a loop over `librosa.load`."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.shards import ShardFacts
from deep_piano.infra.storage.local import Folder
from deep_piano.music import audio
from deep_piano.prepare import tasks
from deep_piano.prepare.filters import Reject
from deep_piano.prepare.plan import Known, ShardPlan, plan, reading_digest
from deep_piano.prepare.sources import Source, Splits, sources_of, survey

_FILES_A_TASK = 128
_DISCARDED_AT_ONCE = 2**20


def decode_commands(paths: Sequence[Path], settings: PrepareConfig) -> list[list[str]]:
    """Return, for each recording, the command that `audio.decode` runs, as it logs it."""
    log = logging.getLogger("deep_piano.music.audio")
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
    return [
        [f"file:{path.absolute()}" if word == first else word for word in seen[0]] for path in paths
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
    splits = Splits(corpus, ignored, settings)
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
        raise AssertionError("a waveform codec hears no notes")

    return tasks.build_shard(
        corpus,
        dataset,
        one,
        settings,
        rejects=rejects,
        rows_in=rows_in,
        transcribe=transcribe,  # type: ignore[arg-type]
    )


def serial_rate(paths: Sequence[Path], *, sr: int) -> float:
    """Return the times of real time at which a loop over `librosa.load` loads recordings."""
    import librosa

    librosa.load(paths[0], sr=sr)  # imports and compiles
    begun = time.perf_counter()
    lengths = [len(librosa.load(path, sr=sr)[0]) for path in paths]
    return sum(lengths) / sr / (time.perf_counter() - begun)
