"""The tasks of a preparation: hash some files, and build one shard.

Each is a plain function of its arguments, so that it may run anywhere and be repeated. This module
knows folders and recordings; it knows nothing of Ray.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from threadpoolctl import ThreadpoolController

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.rows import Reject, Row, ShardFacts
from deep_piano.dataset.shards import SHARDS, read_facts, read_rows, write_shard
from deep_piano.errors import FileError, one_line
from deep_piano.infra.storage.atomic import sha256_of
from deep_piano.infra.storage.folder import Folder
from deep_piano.prepare.ingest import Transcribe, ingest, raise_of_the_machine, reason_of, split_of
from deep_piano.prepare.plan import ShardPlan, reading_digest
from deep_piano.prepare.sources import Source

logger = logging.getLogger(__name__)

_BROKEN: Final = (FileError, OSError, ValueError, TypeError, KeyError, NotImplementedError)
"""The errors of reading a broken shard, depending on where it is broken."""


def hash_files(corpus: Folder, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return name, SHA-256 and problem of each file; one of the last two is empty."""
    found = []
    for name in names:
        try:
            with corpus.local(name) as path:
                found.append((name, sha256_of(path), ""))
        except (FileError, OSError) as error:
            raise_of_the_machine(error)
            found.append((name, "", reason_of(error, corpus.place(name))))
    return found


def look_up(dataset: Folder, name: str) -> ShardFacts | None:
    """Return the facts of a shard; None where it is broken or missing."""
    try:
        with dataset.local(f"{SHARDS}/{name}") as path:
            return read_facts(path, name)
    except _BROKEN:
        return None


def build_shard(
    corpus: Folder,
    dataset: Folder,
    plan: ShardPlan,
    settings: PrepareConfig,
    *,
    rejects: Mapping[str, Reject],
    rows_in: Mapping[str, str],
    transcribe: Transcribe,
) -> ShardFacts:
    """Write a shard.

    Facts of known files are copied; other files are read.

    Parameters
    ----------
    corpus, dataset : Folder
    plan : ShardPlan
    settings : PrepareConfig
    rejects : mapping of str to Reject
        Known rejects, by the SHA-256 of the file.
    rows_in : mapping of str to str
        SHA-256 of a file to the name of the shard with its row.
    transcribe : callable
        See `ingest`.

    Returns
    -------
    ShardFacts
    """
    outcomes = list(_outcomes(corpus, dataset, plan, settings, rejects, rows_in, transcribe))
    target = f"{SHARDS}/{plan.name}"
    with dataset.write(target) as path:
        write_shard(
            path,
            [outcome for outcome in outcomes if isinstance(outcome, Row)],
            rejects=[outcome for outcome in outcomes if isinstance(outcome, Reject)],
            set_aside=plan.set_aside,
            spec=CODECS[settings.codec].spec,
            digest=reading_digest(settings),
            row_group_bytes=settings.row_group_mb * 1e6,
        )
        facts = read_facts(path, plan.name)
    assert facts is not None, "a new shard can be read"
    return facts


def _outcomes(
    corpus: Folder,
    dataset: Folder,
    plan: ShardPlan,
    settings: PrepareConfig,
    rejects: Mapping[str, Reject],
    rows_in: Mapping[str, str],
    transcribe: Transcribe,
) -> Iterator[Row | Reject]:
    aside = {one.reject.source_sha256 for one in plan.set_aside}
    wanted = {source.sha256: source for source in plan.sources if source.sha256 not in aside}
    for sha256 in wanted.keys() & rejects.keys():
        yield replace(rejects[sha256], name=wanted.pop(sha256).name)
    for row in _rows_there(dataset, wanted, rows_in):
        source = wanted.pop(row.source_sha256, None)
        if source is not None:  # a damaged shard may hold a row twice
            yield replace(row, name=source.name, split=split_of(source, row.id, settings))
    for source in wanted.values():
        yield read(corpus, source, settings, transcribe=transcribe)


def _rows_there(
    dataset: Folder, wanted: Mapping[str, Source], rows_in: Mapping[str, str]
) -> Iterator[Row]:
    """Yield the rows of wanted files from existing shards; skip broken shards."""
    by_shard: dict[str, list[str]] = {}
    for sha256 in wanted:
        if sha256 in rows_in:
            by_shard.setdefault(rows_in[sha256], []).append(sha256)
    for name, hashes in by_shard.items():
        try:
            with dataset.local(f"{SHARDS}/{name}") as path:
                rows = list(read_rows(path, hashes))
        except _BROKEN as error:
            logger.warning("%s is broken; its recordings are read again: %s", name, error)
            continue
        yield from rows


def read(
    corpus: Folder, source: Source, settings: PrepareConfig, *, transcribe: Transcribe
) -> Row | Reject:
    """Fetch one file and `ingest` it."""
    begun = time.monotonic()
    try:
        # One thread, so that sums have the same order on every machine.
        pools = _thread_pools(len(sys.modules))
        with corpus.local(source.name) as path, pools.limit(limits=1):
            outcome = ingest(path, source, settings, transcribe=transcribe)
    except (FileError, OSError) as error:
        raise_of_the_machine(error)
        reason = reason_of(error, corpus.place(source.name))
        return Reject(source.name, "failure", "unreadable", reason, source_sha256=source.sha256)
    if isinstance(outcome, Row):
        facts = dict(recording=source.name, source_sha256=source.sha256, id=outcome.id)
        times = dict(duration_s=outcome.duration_s, took_s=round(time.monotonic() - begun, 3))
        extra = dict(stage="prepare", event="read", **facts, **times)
        logger.info("%s: read", one_line(source.name), extra=extra)
    return outcome


@lru_cache(maxsize=1)
def _thread_pools(modules: int) -> ThreadpoolController:
    """Return the thread pools of this process, found anew where more modules are loaded.

    To look for them takes longer than to read a MIDI file.
    """
    return ThreadpoolController()
