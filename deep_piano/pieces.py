"""What a bulk run has made: one record a piece, kept so that a rerun does only what is missing.

The folder of pieces holds ``run.json`` (what all pieces have in common), ``pieces/SEED/take-N.*``
(each piece's files, its .json last), ``pieces/SEED/seed.*`` where they are to be heard, and the
manifest: ``pieces.parquet`` and ``pieces.jsonl``. While a run is at work its records are kept in
``records/``, a file for each batch of them. This module knows folders and records; it knows nothing
of how pieces are made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter

from deep_piano.errors import InputError, one_line
from deep_piano.storage import Folder

RUN: Final = "run.json"
PIECES: Final = "pieces"
RECORDS: Final = "records"
SEED: Final = "seed"
MANIFEST: Final = "pieces.jsonl"
TABLE: Final = "pieces.parquet"

Key = tuple[str, int]
"""A piece: its seed's name, and its take from 0."""

_Count = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class Record:
    """What became of one piece.

    Attributes
    ----------
    seed : str
        The path of its file within the folder of seeds.
    take : int
        From 1, as in the names of files.
    status : str
        "done", "failed", or "left out" where better takes of the seed are kept.
    reason : str
        Why it is not there; "" where it is.
    seed_stamp : str
        Tells whether the seed's file has changed since.
    seed_sha256, checkpoint_sha256 : str
    random_state : int
    seconds, seed_seconds : float
        Length of the piece, and of the seed at its beginning.
    notes : int
    figures : dict
        As in the piece's .json: adherence to the seed, silence, loops.
    shared_run_notes : int or None
        With an index: the longest run of notes that it shares with the corpus.
    wall_s : float
        What finishing it took: rendering, encoding, writing.
    files : dict of str to str
        SHA-256 of each file, the seed's that is to be heard too, by its name within the folder of
        pieces.
    """

    seed: str
    take: Annotated[int, Field(ge=1, lt=2**31)]
    status: str
    reason: str = ""
    seed_stamp: str = ""
    seed_sha256: str = ""
    checkpoint_sha256: str = ""
    random_state: _Count = 0
    seconds: float = 0.0
    seed_seconds: float = 0.0
    notes: _Count = 0
    figures: dict[str, Any] = field(default_factory=dict)
    shared_run_notes: _Count | None = None
    wall_s: float = 0.0
    files: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Which piece it is of."""
        return self.seed, self.take - 1

    @property
    def done(self) -> bool:
        """The piece is there."""
        return self.status == "done"

    @property
    def failed(self) -> bool:
        """The piece should be there and is not."""
        return self.status == "failed"


def folder_of(seed: str) -> str:
    """Return where a seed's pieces lie within the folder of pieces."""
    return f"{PIECES}/{seed}"


def require_same_run(pieces: Folder, run: Mapping[str, Any], *, force: bool) -> None:
    """Make sure that the folder's pieces were made with these settings, and write them down.

    What is known of the run beside them stays, and what was not known yet is added.

    Raises
    ------
    InputError
        When they were made with others, and there is no `force`.
    """
    before = read_run(pieces) if pieces.exists(RUN) else {}
    known = {name: value for name, value in run.items() if name in before}
    changed = sorted(_differing({name: before[name] for name in known}, known))
    if changed and not force:
        raise InputError(
            f"the pieces in {one_line(pieces.uri)} were made with other settings "
            f"({', '.join(changed)}). Give another folder, or --force to make them anew."
        )
    if changed or known != run:
        with pieces.write(RUN) as path:
            now = run if changed else {**before, **run}
            path.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")


def read_run(pieces: Folder) -> dict[str, Any]:
    """Return what the folder's pieces have in common.

    Raises
    ------
    InputError
        When it is not there or damaged.
    """
    try:
        return dict(json.loads(pieces.read_bytes(RUN)))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{pieces.place(RUN)} is damaged: {one_line(error)}. Give another folder."
        ) from error


def _differing(a: Mapping[str, Any], b: Mapping[str, Any], under: str = "") -> Iterable[str]:
    for name in {*a, *b}:
        mine, other = a.get(name), b.get(name)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            yield from _differing(mine, other, f"{under}{name}.")
        elif mine != other:
            yield under + name


def read_records(pieces: Folder) -> dict[Key, Record]:
    """Return what is known of the pieces: of the manifest, then of what came after it."""
    names = [MANIFEST] if pieces.exists(MANIFEST) else []
    names += sorted(entry.name for entry in pieces.entries(RECORDS))
    found = {}
    for name in names:
        for line in pieces.read_bytes(name).splitlines():
            try:
                record = _record().validate_json(line, strict=True)
            except ValueError:
                continue  # it is made again
            found[record.key] = record
    return found


@cache
def _record() -> Any:
    return TypeAdapter(Record)


def write_records(pieces: Folder, batch: int, records: Iterable[Record]) -> None:
    """Keep a batch of records while the run is at work."""
    _write_lines(pieces, f"{RECORDS}/{batch:06d}.jsonl", records)


def write_manifest(pieces: Folder, records: Iterable[Record]) -> None:
    """Write the manifest, in the order of seeds and takes; it replaces the batches."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(records, key=lambda record: record.key)
    rows = [
        asdict(record)
        | {name: json.dumps(getattr(record, name), sort_keys=True) for name in ("figures", "files")}
        for record in ordered
    ]
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("seed", "status", "reason", "seed_stamp")),
            *((name, pa.string()) for name in ("seed_sha256", "checkpoint_sha256")),
            *((name, pa.int64()) for name in ("take", "random_state", "notes", "shared_run_notes")),
            *((name, pa.float64()) for name in ("seconds", "seed_seconds", "wall_s")),
            *((name, pa.string()) for name in ("figures", "files")),
        ]
    )
    with pieces.write(TABLE) as path:
        pq.write_table(pa.Table.from_pylist(rows, schema), path, compression="zstd")
    _write_lines(pieces, MANIFEST, ordered)
    for entry in pieces.entries(RECORDS):
        pieces.remove(entry.name)


def _write_lines(pieces: Folder, name: str, records: Iterable[Record]) -> None:
    with pieces.write(name) as path:
        lines = (json.dumps(asdict(record), sort_keys=True) for record in records)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
