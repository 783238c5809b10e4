"""Commits a dataset: writes the manifest, the rejects and the ledger.

``manifest.json`` has the settings, shards, totals and every reject; ``rejects.csv`` the rejects for
people; ``files.parquet`` sizes, stamps and hashes of the corpus's files, so that a rerun hashes
only changed ones. This module knows these three files; it knows nothing of recordings.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.manifest import FORMAT, LEDGER, MANIFEST, REJECTS, Manifest
from deep_piano.dataset.rows import Reject, ShardFacts
from deep_piano.dataset.shards import SHARD_NAME, SHARDS
from deep_piano.dataset.summary import summarise
from deep_piano.errors import DeepPianoError, InputError, one_line
from deep_piano.infra.storage.arrow import arrow_file
from deep_piano.infra.storage.atomic import is_temporary
from deep_piano.infra.storage.folder import Entry, Folder
from deep_piano.prepare.plan import dataset_digest, kept_settings, reading_digest
from deep_piano.prepare.sources import SPLITS, Source

_LOOKS, _LOOK_AGAIN_S = 15, 2


@dataclass(frozen=True)
class Remembered:
    """Size, stamp and hash of a file."""

    size: int
    stamp: str
    sha256: str


def make_manifest(
    corpus_uri: str,
    settings: PrepareConfig,
    *,
    corpus_digest: str,
    files: int,
    ignored: Mapping[str, int],
    shards: Sequence[ShardFacts],
    rejects: Iterable[Reject],
    versions: Mapping[str, str | None],
) -> Manifest:
    """Build a manifest; it holds no times and no facts of the machine.

    Parameters
    ----------
    corpus_uri : str
    settings : PrepareConfig
    corpus_digest : str
    files : int
        Files found that are recordings by their name.
    ignored : mapping of str to int
        Others, by kind.
    shards : sequence of ShardFacts
        In the order of their names.
    rejects : iterable of Reject
        Rejects that belong to no shard.
    versions : mapping of str to str
        Versions that determine the bytes.
    """
    everything = [*rejects]
    for shard in shards:
        everything += [*shard.rejects, *(one.reject for one in shard.set_aside)]
    everything.sort(key=lambda reject: reject.name)
    kinds = Counter(reject.kind for reject in everything)
    groups = [group for shard in shards for group in shard.row_groups]
    recordings = sum(group["recordings"] for group in groups)
    assert files == recordings + len(everything), "every file is a row or a reject"
    by_split = {split: [g for g in groups if g["split"] == split] for split in SPLITS}
    content = {
        "format": FORMAT,
        "codec": CODECS[settings.codec].spec.bare.to_json(),
        "settings": kept_settings(settings),
        "settings_digest": dataset_digest(settings),
        "reading_digest": reading_digest(settings),
        "versions": dict(versions),
        "corpus": {"uri": corpus_uri, "digest": corpus_digest},
        "totals": {
            "files": files,
            "ignored": sum(ignored.values()),
            "left_alone": dict(ignored),
            "drops": kinds["drop"],
            "failures": kinds["failure"],
            **_sums(groups),
            "bytes": sum(shard.bytes for shard in shards),
            "splits": {split: _sums(chosen) for split, chosen in by_split.items()},
        },
        "summary": summarise(descriptors(shards)),
        "shards": [
            {
                "name": shard.name,
                "bytes": shard.bytes,
                "sha256": shard.sha256,
                "row_groups": list(shard.row_groups),
            }
            for shard in shards
        ],
        "rejects": [asdict(reject) for reject in everything],
    }
    return Manifest.model_validate(content)


def descriptors(shards: Iterable[ShardFacts]) -> dict[str, list[Any]]:
    """Return a list of all recordings' values for every descriptor; None where unknown."""
    columns = ["audio", "notes", "duration_s"]
    rows = [
        # Where a recording has both, key and tempo of the notes are better than the spectrum's.
        {**(row["audio"] or {}), **(row["notes"] or {}), "duration_s": row["duration_s"]}
        for shard in shards
        for row in shard.table.select(columns).to_pylist()
    ]
    names = sorted({name for row in rows for name in row})
    return {name: [row.get(name) for row in rows] for name in names}


def _sums(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "recordings": sum(group["recordings"] for group in groups),
        "steps": sum(group["steps"] for group in groups),
        "duration_s": round(sum(group["duration_s"] for group in groups), 3),
    }


def require_same_settings(manifest: Manifest, settings: PrepareConfig, dataset_uri: str) -> None:
    """Raise `InputError` where a dataset was made with other settings, saying which."""
    if manifest.settings_digest == dataset_digest(settings):
        return
    before, now = manifest.settings.to_json(), kept_settings(settings)
    changed = [
        f"{name} {before.get(name)} -> {now.get(name)}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ] or ["how this version of deep_piano reads recordings"]
    again = manifest.reading_digest != reading_digest(settings)
    cost = "every recording would be read again" if again else "its shards would be written again"
    raise InputError(
        f"{one_line(dataset_uri)} was made with other settings ({one_line('; '.join(changed))}): "
        f"{cost}. Give another folder, the settings it was made with, or --rebuild."
    )


def require_same_corpus(
    ledger: Mapping[str, Remembered], hashes: Mapping[str, str], dataset_uri: str
) -> None:
    """Raise `InputError` where the corpus has none of the files that a dataset was made of."""
    before = {file.sha256 for file in ledger.values()}
    if before and before.isdisjoint(hashes.values()):
        raise InputError(
            f"{one_line(dataset_uri)} was made of other files, none of which is in this corpus. "
            "Give another folder for the dataset, or --rebuild to replace it."
        )


def require_folders(
    ledger: Mapping[str, Remembered], entries: Iterable[Entry], dataset_uri: str
) -> None:
    """Raise `DeepPianoError` where a folder that a dataset was made of cannot be looked into.

    What lies below it would pass for removed, and all that was read of it would be lost.
    """
    problems = _problems(entries)
    lost: Counter[str] = Counter()
    for name in ledger if problems else ():
        while name := name.rpartition("/")[0]:
            lost[name] += name in problems
    for folder, files in lost.most_common(1):
        if files:
            raise DeepPianoError(
                f"{one_line(folder)} holds {files} files that {one_line(dataset_uri)} was made of, "
                f"and {problems[folder]}. Make it readable, and run the same command again; "
                "--rebuild leaves these files out."
            )


def require_there(dataset: Folder, shards: Iterable[ShardFacts]) -> None:
    """Raise `DeepPianoError` where shards that tasks have written are not visible here."""
    wanted = {shard.name: shard.bytes for shard in shards}
    for _ in range(_LOOKS):
        there = shards_there(dataset)
        missing = [name for name, size in wanted.items() if there.get(name) != size]
        if not missing:
            return
        time.sleep(_LOOK_AGAIN_S)  # shared file systems may be slow to show them
    raise DeepPianoError(
        f"{len(missing)} shards that were written are not in {one_line(dataset.uri)}, such as "
        f"{missing[0]}. Give a folder that all nodes of the cluster share, or an s3:// prefix."
    )


def corpus_digest(
    sources: Sequence[Source], ignored: Mapping[str, int], entries: Iterable[Entry] = ()
) -> str:
    """Return the digest of a corpus: names, contents and given splits, and what cannot be read."""
    problems = _problems(entries)
    parts = [[asdict(source) for source in sources], ignored, *([problems] if problems else [])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _problems(entries: Iterable[Entry]) -> dict[str, str]:
    """Return why entries cannot be read, by name."""
    return {entry.name: entry.problem for entry in entries if entry.problem}


def is_current(manifest: Manifest, settings: PrepareConfig, digest: str, dataset: Folder) -> bool:
    """Tell whether a dataset matches these settings and the corpus with this digest."""
    return (
        manifest.settings_digest == dataset_digest(settings)
        and manifest.corpus.digest == digest
        and dataset.exists(REJECTS)
        and shards_there(dataset) == {shard.name: shard.bytes for shard in manifest.shards}
    )


def commit(dataset: Folder, manifest: Manifest) -> None:
    """Write the rejects, then the manifest; remove other shards and leftovers of killed runs."""
    with dataset.write(REJECTS) as path, path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Reject)])
        table.writeheader()
        table.writerows(reject.to_json() for reject in manifest.rejects)
    with dataset.write(MANIFEST) as path:
        text = json.dumps(manifest.to_json(), indent=2, sort_keys=True, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    named = {shard.name for shard in manifest.shards}
    for entry in dataset.entries():
        folder, _, name = entry.name.rpartition("/")
        superfluous = folder == SHARDS and SHARD_NAME.fullmatch(name) and name not in named
        if superfluous or is_temporary(name):
            dataset.remove(entry.name)


def shards_there(dataset: Folder) -> dict[str, int]:
    """Return name and size of all shards in a dataset's folder, in the manifest or not."""
    names = {entry.name.rpartition("/")[2]: entry.size for entry in dataset.entries(SHARDS)}
    return {name: size for name, size in names.items() if SHARD_NAME.fullmatch(name)}


def read_ledger(dataset: Folder) -> dict[str, Remembered]:
    """Return the ledger of the corpus's files, by name; empty where it is missing or broken."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not dataset.exists(LEDGER):
        return {}
    try:
        with dataset.local(LEDGER) as path, arrow_file(path) as file:
            rows = pq.read_table(file).to_pylist()
        return {row.pop("name"): Remembered(**row) for row in rows}
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return {}  # it only saves time


def remembered(entries: Iterable[Entry], ledger: Mapping[str, Remembered]) -> dict[str, str]:
    """Return the SHA-256 of unchanged files: those with the same size and stamp."""
    found = {}
    for entry in entries:
        before = ledger.get(entry.name)
        if (
            before
            and not entry.problem
            and (before.size, before.stamp) == (entry.size, entry.stamp)
        ):
            found[entry.name] = before.sha256
    return found


def write_ledger(dataset: Folder, entries: Sequence[Entry], hashes: Mapping[str, str]) -> None:
    """Write size, stamp and hash of the hashed files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"name": e.name, "size": e.size, "stamp": e.stamp, "sha256": hashes[e.name]}
        for e in entries
        if e.name in hashes
    ]
    names = ("name", "size", "stamp", "sha256")
    types = (pa.string(), pa.int64(), pa.string(), pa.string())
    table = pa.Table.from_pylist(rows, pa.schema(list(zip(names, types, strict=True))))
    with dataset.write(LEDGER) as path, arrow_file(path, "wb") as file:
        pq.write_table(table, file, compression="zstd")
