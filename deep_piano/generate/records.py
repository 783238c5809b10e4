"""What a bulk run has made: one record a piece, kept so that a rerun does only what is missing.

The folder of pieces holds ``run.json`` (what all pieces have in common), ``SEED/take-N.*`` (each
piece's files, its .json last), ``SEED/seed.*`` where it is written as sound, the manifest
``pieces.jsonl``, and ``pieces.parquet``, the same as a table, which nothing here reads. SEED is the
path of the seed's file within its folder, as two seeds may differ in their suffixes only. While a
run is at work its records are kept in ``.records/``, a file for each batch of them. This module
knows folders and records; it knows nothing of how pieces are made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import islice
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter

from deep_piano.errors import DeepPianoError, InputError, one_line
from deep_piano.infra.storage.arrow import arrow_file
from deep_piano.infra.storage.folder import Folder

RUN: Final = "run.json"
RECORDS: Final = ".records"  # no seed is hidden
SEED: Final = "seed"
MANIFEST: Final = "pieces.jsonl"
TABLE: Final = "pieces.parquet"

Key = tuple[str, int]
"""A piece: its seed's name, and its take from 0."""

_NESTED = ("figures", "files")
_ROWS_AT_ONCE = 10_000
_Count = Annotated[int, Field(ge=0, lt=2**63)]

Status = Literal["done", "failed", "left out"]


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
        "left out" where better takes of the seed are kept.
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
        SHA-256 of each file, the seed's sound too, by its name within the folder of pieces.
    """

    seed: str
    take: Annotated[int, Field(ge=1, lt=2**31)]
    status: Status
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


class Records(MutableMapping[Key, Record]):
    """What is known of many pieces, in the order of seeds and takes.

    They lie in a temporary file (SQLite's, which removes it by itself), so that a million of them
    take no memory: 3 KB each would be needed otherwise.

    Parameters
    ----------
    records : iterable of Record, optional
        Of several of one piece the last one counts.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        import sqlite3

        self._file = sqlite3.connect("", isolation_level=None)
        # No journal: it would be written for a rollback that never comes.
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute(
            "CREATE TABLE records (seed, take, line, PRIMARY KEY (seed, take)) WITHOUT ROWID"
        )
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Put a record in its place."""
        self[record.key] = record

    def __setitem__(self, key: Key, record: Record) -> None:
        import sqlite3

        try:
            line = (*key, _line(record))
            self._file.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", line)
        except sqlite3.Error as error:
            raise DeepPianoError(
                f"cannot keep what is known of the pieces in a temporary file: {error}. Make room, "
                "or set TMPDIR to another folder."
            ) from error

    def __getitem__(self, key: Key) -> Record:
        found = self._file.execute("SELECT line FROM records WHERE seed = ? AND take = ?", key)
        row = found.fetchone()
        if row is None:
            raise KeyError(key)
        return _read_line(row[0])

    def __contains__(self, key: object) -> bool:
        asked = "SELECT 1 FROM records WHERE seed = ? AND take = ?"
        return isinstance(key, tuple) and self._file.execute(asked, key).fetchone() is not None

    def __delitem__(self, key: Key) -> None:
        found = self._file.execute("DELETE FROM records WHERE seed = ? AND take = ?", key)
        if not found.rowcount:
            raise KeyError(key)

    def __iter__(self) -> Iterator[Key]:
        yield from self._file.execute("SELECT seed, take FROM records ORDER BY seed, take")

    def __len__(self) -> int:
        return int(self._file.execute("SELECT count(*) FROM records").fetchone()[0])

    @property
    def lines(self) -> Iterator[str]:
        """Each record as a line of JSON."""
        for (line,) in self._file.execute("SELECT line FROM records ORDER BY seed, take"):
            yield line

    @property
    def all(self) -> Iterator[Record]:
        """Each record; quicker than `values`, which looks up one after another."""
        return map(_read_line, self.lines)


def read_records(pieces: Folder) -> Records:
    """Return what is known of the pieces: of the manifest, then of what came after it."""
    names = [MANIFEST] if pieces.exists(MANIFEST) else []
    names += sorted(entry.name for entry in pieces.entries(RECORDS))
    found = Records()
    for name in names:
        with pieces.local(name) as path, path.open("rb") as lines:
            for line in lines:
                with suppress(ValueError):  # what is broken is made again
                    found.add(_read_line(line))
    return found


def _line(record: Record) -> str:
    return json.dumps(asdict(record), sort_keys=True)


def _read_line(line: str | bytes) -> Record:
    record: Record = _record().validate_json(line, strict=True)
    return record


@cache
def _record() -> Any:
    return TypeAdapter(Record)


def write_records(pieces: Folder, batch: int, records: Iterable[Record]) -> None:
    """Keep a batch of records while the run is at work."""
    _write_lines(pieces, f"{RECORDS}/{batch:06d}.jsonl", map(_line, records))


def write_manifest(pieces: Folder, records: Records) -> None:
    """Write the manifest, in the order of seeds and takes; it replaces the batches."""
    _write_lines(pieces, MANIFEST, records.lines)
    for entry in pieces.entries(RECORDS):
        pieces.remove(entry.name)


def write_table(pieces: Folder, records: Records) -> None:
    """Write what the manifest says as a table, for other programs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("seed", "status", "reason", "seed_stamp")),
            *((name, pa.string()) for name in ("seed_sha256", "checkpoint_sha256")),
            *((name, pa.int64()) for name in ("take", "random_state", "notes", "shared_run_notes")),
            *((name, pa.float64()) for name in ("seconds", "seed_seconds", "wall_s")),
            *((name, pa.string()) for name in ("figures", "files")),
        ]
    )
    coming = records.all
    with (
        pieces.write(TABLE) as path,
        arrow_file(path, "wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as table,
    ):
        some = list(islice(coming, _ROWS_AT_ONCE))
        while True:  # a table of nothing has a row group as well
            table.write_table(pa.Table.from_pylist([_row(record) for record in some], schema))
            some = list(islice(coming, _ROWS_AT_ONCE))
            if not some:
                break


def _row(record: Record) -> dict[str, Any]:
    nested = {name: json.dumps(getattr(record, name), sort_keys=True) for name in _NESTED}
    return asdict(record) | nested


def _write_lines(pieces: Folder, name: str, lines: Iterable[str]) -> None:
    with pieces.write(name) as path, path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
