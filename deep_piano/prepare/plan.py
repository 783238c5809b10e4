"""Plans a dataset: which recordings stay, their splits, and their shards.

A plan is a pure function of the corpus's content and the settings. Duplicates and splits depend on
facts of recordings that were read before, in any shard; until all are known a plan is provisional,
and planning again corrects it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.fingerprint import near_duplicates
from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.rows import Reject, SetAside, ShardFacts
from deep_piano.errors import one_line
from deep_piano.infra.assets.catalogue import ASSETS
from deep_piano.music.recordings import is_midi
from deep_piano.prepare.ingest import split_of
from deep_piano.prepare.sources import Source, hash_share

READING_VERSION: Final = 2
"""Increased when the same settings read recordings differently than before."""

LAYOUT: Final = frozenset(
    {
        *("split", "validation_share", "test_share", "group"),
        *("shard_mb", "row_group_mb", "max_similarity"),
    }
)
"""Settings that determine where a recording goes, not what is read from it."""
RUNNING: Final = frozenset(
    {
        *("time_limit_seconds", "silence_seconds", "max_failures"),
        *("workers", "transcribers"),
    }
)
"""Settings that do not affect a dataset."""

_MOST_SHARD_BITS = 16  # `SHARD_NAME` has five digits


def kept_settings(settings: PrepareConfig) -> dict[str, Any]:
    """Return the settings that a dataset depends on, JSON-ready."""
    return settings.model_dump(mode="json", exclude=set(RUNNING))


def reading_digest(settings: PrepareConfig) -> str:
    """Return the digest of everything that determines what is read from a recording."""
    codec = CODECS[settings.codec]
    return _digest(
        READING_VERSION,
        settings.model_dump(mode="json", exclude=set(RUNNING | LAYOUT)),
        codec.spec.bare.to_json(),
        [archive.sha256 for archive in ASSETS["transkun"].archives]
        if codec.encodes_notes
        else None,
    )


def dataset_digest(settings: PrepareConfig) -> str:
    """Return the digest of everything that determines a dataset, except the corpus."""
    return _digest(reading_digest(settings), kept_settings(settings))


@dataclass(frozen=True)
class ShardPlan:
    """A planned shard.

    Attributes
    ----------
    name : str
        Of its file; it depends on everything that determines the content.
    sources : tuple of Source
        Its files.
    set_aside : tuple of SetAside
        Those of its files that duplicate another recording.
    """

    name: str
    sources: tuple[Source, ...]
    set_aside: tuple[SetAside, ...]


class Known:
    """Facts of a corpus's files, from existing shards.

    Parameters
    ----------
    digest : str
        From `reading_digest`; shards with another digest are ignored.
    """

    def __init__(self, digest: str) -> None:
        self._digest = digest
        self.shards: dict[str, ShardFacts] = {}
        self.shard_of: dict[str, str] = {}
        self.rejects: dict[str, Reject] = {}
        self.prints: dict[str, tuple[str, NDArray[np.uint32]]] = {}
        self.duration_s: dict[str, float] = {}
        self._was_midi: dict[str, bool] = {}

    def add(self, facts: ShardFacts) -> bool:
        """Add a shard's facts; return whether they apply."""
        if facts.digest != self._digest:
            return False
        self.shards[facts.name] = facts
        for reject in facts.rejects:
            self.rejects[reject.source_sha256] = reject
            self._was_midi[reject.source_sha256] = is_midi(reject.name)
        for one in facts.set_aside:
            prints = np.array(one.fingerprint, np.uint32)
            self.prints[one.reject.source_sha256] = (one.id, prints)
            self._was_midi[one.reject.source_sha256] = is_midi(one.reject.name)
        columns = ["source_sha256", "id", "fingerprint", "duration_s", "kind"]
        for row in facts.table.select(columns).to_pylist():
            sha256 = row["source_sha256"]
            self.shard_of[sha256] = facts.name
            self.duration_s[sha256] = row["duration_s"]
            if row["kind"] != "midi":  # MIDI is read as such whatever its name
                self._was_midi[sha256] = False
            self.prints[sha256] = (row["id"], np.array(row["fingerprint"], np.uint32))
        return True

    def forget(self, sources: Iterable[Source]) -> None:
        """Let files be read again."""
        for source in sources:
            for facts in (self.rejects, self.shard_of, self.prints, self.duration_s):
                facts.pop(source.sha256, None)

    def forget_misnamed(self, sources: Iterable[Source]) -> None:
        """Let files be read again that were read as audio and are MIDI now, or the reverse."""
        self.forget(s for s in sources if self._was_midi.get(s.sha256, s.is_midi) != s.is_midi)

    def forget_failures(self) -> None:
        """Let files that failed be read again, and their shards be written again."""
        failed = {sha for sha, reject in self.rejects.items() if reject.kind == "failure"}
        self.rejects = {sha: r for sha, r in self.rejects.items() if sha not in failed}
        self.shards = {
            name: facts
            for name, facts in self.shards.items()
            if not any(reject.source_sha256 in failed for reject in facts.rejects)
        }

    def has(self, sha256: str) -> bool:
        """Tell whether a file is known."""
        return sha256 in self.rejects or sha256 in self.prints

    def unread(self, plan: ShardPlan) -> list[Source]:
        """Return the files that must be read for a shard.

        They include recordings that were set aside before: only their fingerprints are known.
        """
        there = {one.reject.source_sha256 for one in plan.set_aside}
        return [
            source
            for source in plan.sources
            if not any(source.sha256 in known for known in (there, self.rejects, self.shard_of))
        ]


def plan(sources: Sequence[Source], known: Known, settings: PrepareConfig) -> list[ShardPlan]:
    """Plan the shards.

    Parameters
    ----------
    sources : sequence of Source
        The files with distinct content, sorted by name.
    known : Known
    settings : PrepareConfig

    Returns
    -------
    list of ShardPlan
    """
    set_aside = _superfluous(sources, known, settings)
    sources = _with_something_held_out(sources, known, set_aside, settings)
    bits = shard_bits(sources, settings)
    buckets: dict[int, list[Source]] = {}
    for source in sources:
        buckets.setdefault(int(source.sha256[:8], 16) >> (32 - bits), []).append(source)
    digest = dataset_digest(settings)
    plans = []
    for index, members in sorted(buckets.items()):
        aside = [set_aside[member.sha256] for member in members if member.sha256 in set_aside]
        content = _digest(
            digest, [vars(member) for member in members], [vars(one.reject) for one in aside]
        )
        name = f"{index:05d}-of-{1 << bits:05d}-{content[:16]}.parquet"
        plans.append(ShardPlan(name, tuple(members), tuple(aside)))
    return plans


def shard_bits(sources: Iterable[Source], settings: PrepareConfig) -> int:
    """Return the binary logarithm of the number of shards for some files.

    The number is a power of two, so that most shards stay the same as a corpus grows. Beyond 65,536
    shards, the shards grow instead.
    """
    growth = CODECS[settings.codec].growth
    size_mb = sum(source.size * (1 if source.is_midi else growth) for source in sources) / 1e6
    bits = math.ceil(math.log2(max(1e-9, size_mb / settings.shard_mb)))
    return min(max(0, bits), _MOST_SHARD_BITS)


def _superfluous(
    sources: Iterable[Source], known: Known, settings: PrepareConfig
) -> dict[str, SetAside]:
    """Return the recordings that duplicate an earlier one, by their files' SHA-256."""
    read = [source for source in sources if source.sha256 in known.prints]
    first: dict[str, Source] = {}
    found: dict[str, SetAside] = {}

    def put(source: Source, rule: str, reason: str, value: float) -> None:
        reject = Reject(
            source.name, "drop", rule, reason, value, settings.max_similarity, source.sha256
        )
        recording_id, prints = known.prints[source.sha256]
        found[source.sha256] = SetAside(reject, recording_id, tuple(int(x) for x in prints))

    for source in read:
        kept = first.setdefault(known.prints[source.sha256][0], source)
        if kept is not source:
            put(source, "duplicate", f"the same sound as {one_line(kept.name)}", 1.0)
    if settings.max_similarity < 1:
        candidates = [
            (source.name, *known.prints[source.sha256])
            for source in read
            if source.sha256 not in found
        ]
        near = near_duplicates(candidates, threshold=settings.max_similarity)
        for recording_id, (kept_id, similarity) in near.items():
            reason = f"{similarity:.0%} like {one_line(first[kept_id].name)}"
            put(first[recording_id], "near_duplicate", reason, round(similarity, 4))
    return found


def _with_something_held_out(
    sources: Sequence[Source],
    known: Known,
    set_aside: Mapping[str, SetAside],
    settings: PrepareConfig,
) -> Sequence[Source]:
    """Hold out the recording with the lowest hash where none is held out, as in a small corpus."""
    rows = [s for s in sources if s.sha256 in known.shard_of and s.sha256 not in set_aside]
    ids = {source.sha256: known.prints[source.sha256][0] for source in rows}
    splits = {split_of(source, ids[source.sha256], settings) for source in rows}
    free = [source for source in rows if source.split is None]
    if not free or "validation" in splits or not settings.validation_share:
        return sources
    keys = {source.sha256: source.group or ids[source.sha256] for source in free}
    held_out = min(keys.values(), key=hash_share)
    if len(set(keys.values())) < 2 and splits <= {"train"} and len(rows) == len(free):
        return sources  # or nothing would be left to train on
    return [
        replace(source, split="validation") if keys.get(source.sha256) == held_out else source
        for source in sources
    ]


def _digest(*values: Any) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
