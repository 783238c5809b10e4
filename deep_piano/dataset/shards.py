"""Shards: Parquet files of recordings, one row each.

A shard is self-contained: its metadata has the rejects among its files and the settings. A row
group has one split, so that training reads only the row groups it needs. This module knows rows and
Parquet; it knows nothing of corpora.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.descriptors import AudioFeatures, NoteFeatures
from deep_piano.analysis.fingerprint import VALUES
from deep_piano.codecs.base import Field, SequenceSpec
from deep_piano.dataset.rows import Reject, Row, SetAside, ShardFacts
from deep_piano.infra.storage.arrow import arrow_file
from deep_piano.infra.storage.atomic import sha256_of

if TYPE_CHECKING:
    import pyarrow as pa


SHARDS: Final = "shards"
"""The folder of a dataset that holds them."""

SHARD_NAME: Final = re.compile(r"\d{5}-of-\d{5}-[0-9a-f]{16}\.parquet")

SEQUENCE: Final = "sequence_"
"""What the names of the columns of steps begin with."""

_METADATA: Final = b"deep_piano"


def write_shard(
    path: Path,
    rows: Iterable[Row],
    *,
    rejects: Iterable[Reject],
    set_aside: Iterable[SetAside],
    spec: SequenceSpec,
    digest: str,
    row_group_bytes: float,
) -> None:
    """Write a shard; the same recordings give the same bytes.

    Parameters
    ----------
    path : Path
    rows : iterable of Row
        In any order.
    rejects, set_aside : iterables of Reject and of SetAside
        In any order.
    spec : SequenceSpec
        Of the codec that made the sequences.
    digest : str
        Of the settings by which the recordings were read.
    row_group_bytes : float
        About how much of sequences a row group holds; one recording at least.
    """
    import pyarrow.parquet as pq

    about = {
        "codec": spec.bare.to_json(),
        "digest": digest,
        "rejects": [asdict(reject) for reject in sorted(rejects, key=lambda r: r.name)],
        "set_aside": [asdict(one) for one in sorted(set_aside, key=lambda s: s.reject.name)],
    }
    schema = _schema(spec).with_metadata({_METADATA: json.dumps(about, sort_keys=True)})
    ordered = sorted(rows, key=lambda row: (row.split, row.id))
    with (
        arrow_file(path, "wb") as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=["split", "kind"],
            # Parquet has no integer of 8 bits: of the four bytes that it takes, zstd sees three
            # as empty streams. Smaller and quicker than a dictionary.
            use_byte_stream_split=[f"{SEQUENCE}{field.name}.list.element" for field in spec.fields],
        ) as writer,
    ):
        for group in _row_groups(ordered, spec, row_group_bytes):
            writer.write_table(_table(group, schema, spec), row_group_size=len(group))


def read_rows(
    path: Path,
    wanted: Collection[str] | None = None,
    *,
    groups: Iterable[int] | None = None,
) -> Iterator[Row]:
    """Yield the rows of a shard, with one row group in memory at a time.

    Parameters
    ----------
    path : Path
    wanted : collection of str, optional
        The SHA-256 of the files whose rows are wanted; all of them without it.
    groups : iterable of int, optional
        The indices of the row groups to read; all of them without it.

    Raises
    ------
    OSError, ValueError
        When the file is not a complete shard, or not valid for its codec.
    """
    import pyarrow.parquet as pq

    with (
        arrow_file(path) as opened,
        pq.ParquetFile(opened, page_checksum_verification=True) as file,
    ):
        spec = _spec_of(file.schema_arrow)
        names = [f"{SEQUENCE}{field.name}" for field in spec.fields]
        for index in range(file.num_row_groups) if groups is None else groups:
            group = file.read_row_group(index)
            columns = [group[name].combine_chunks() for name in names]
            _require_sound(group, columns, spec)
            for place, row in enumerate(group.drop_columns(names).to_pylist()):
                if wanted is None or row["source_sha256"] in wanted:
                    steps = [column[place].values.to_numpy() for column in columns]
                    yield _row(row, np.stack(steps, axis=1))


def read_steps(path: Path, group: int) -> list[int]:
    """Return the length of each sequence of a row group, without reading the sequences."""
    import pyarrow.parquet as pq

    with arrow_file(path) as opened, pq.ParquetFile(opened) as file:
        _spec_of(file.schema_arrow)
        column = file.read_row_group(group, columns=["steps"])["steps"]
        if column.null_count:
            raise ValueError("a length of a sequence is missing")
        steps: list[int] = column.to_pylist()
        return steps


def read_facts(path: Path, name: str) -> ShardFacts | None:
    """Return what is known of a shard; None where the file is not a whole one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with arrow_file(path) as opened, pq.ParquetFile(opened) as file:
            _spec_of(file.schema_arrow)
            about = _about().validate_json(file.schema_arrow.metadata[_METADATA])
            plain = [key for key in file.schema_arrow.names if not key.startswith(SEQUENCE)]
            groups = [file.read_row_group(i, columns=plain) for i in range(file.num_row_groups)]
            table = pa.concat_tables(groups) if groups else file.read(columns=plain)
        _require_sound(table)
        if any(len(set(group["split"].to_pylist())) != 1 for group in groups):
            raise ValueError("a row group is not of one split")
    except (pa.ArrowInvalid, ValueError):  # also what pydantic raises
        return None
    return ShardFacts(
        name=name,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        digest=about.digest,
        table=table.replace_schema_metadata(None),
        rejects=about.rejects,
        set_aside=about.set_aside,
        row_groups=tuple(_about_group(group) for group in groups),
    )


@dataclass(frozen=True)
class _About:
    """The metadata of a shard, beside its codec."""

    digest: str
    rejects: tuple[Reject, ...]
    set_aside: tuple[SetAside, ...]

    def __post_init__(self) -> None:
        for one in self.set_aside:
            if len(one.fingerprint) not in (0, VALUES) or not all(
                0 <= value < 2**32 for value in one.fingerprint
            ):
                raise ValueError("a fingerprint is invalid")


@cache
def _about() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(_About)


def _spec_of(schema: pa.Schema) -> SequenceSpec:
    """Return the codec's specification; raise ValueError where it is not a shard's schema."""
    try:
        spec = SequenceSpec.from_json(json.loads((schema.metadata or {})[_METADATA])["codec"])
        good = schema.equals(_schema(spec))
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError("its metadata names no codec") from error
    if not good:
        raise ValueError("it does not have the columns of a shard")
    return spec


def _require_sound(
    rows: pa.Table, sequences: Sequence[pa.ListArray] = (), spec: SequenceSpec | None = None
) -> None:
    """Raise ValueError where rows or their sequences are not valid for a codec."""
    import pyarrow.compute as pc

    needed = ("id", "name", "source_sha256", "split", "kind", "duration_s", "steps", "fingerprint")
    if any(rows[name].null_count for name in needed):
        raise ValueError("a value is missing in a row")
    sizes = pc.list_value_length(rows["fingerprint"])
    if len({0, VALUES, *sizes.to_pylist()}) > 2 or _flat(rows["fingerprint"]).null_count:
        raise ValueError("a fingerprint has another length")
    for column, field in zip(sequences, spec.fields if spec else (), strict=True):
        if column.null_count or not pc.list_value_length(column).equals(
            rows["steps"].combine_chunks().cast("int32")
        ):
            raise ValueError(f"the number of steps of {field.name} is wrong")
        values = column.flatten()
        if values.null_count or not (
            field.continuous or (pc.max(values).as_py() or 0) < field.values
        ):
            raise ValueError(f"a step of {field.name} is out of range")


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().flatten()


def _row_groups(rows: Sequence[Row], spec: SequenceSpec, limit_bytes: float) -> Iterator[list[Row]]:
    """Cut rows into groups of one split each, of about `limit_bytes`."""
    step_bytes = sum(_type_of(field).bit_width // 8 for field in spec.fields)
    group: list[Row] = []
    size = 0
    for row in rows:
        row_bytes = len(row.sequence) * step_bytes
        if group and (row.split != group[0].split or size + row_bytes > limit_bytes):
            yield group
            group, size = [], 0
        group.append(row)
        size += row_bytes
    if group:
        yield group


def _schema(spec: SequenceSpec) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            *[(name, pa.string()) for name in ("id", "name", "source_sha256", "split", "kind")],
            ("duration_s", pa.float64()),
            ("steps", pa.int64()),
            ("fingerprint", pa.list_(pa.uint32())),
            ("audio", _struct(AudioFeatures)),
            ("notes", _struct(NoteFeatures)),
            *[(f"{SEQUENCE}{field.name}", pa.list_(_type_of(field))) for field in spec.fields],
        ]
    )


def _struct(features: type[AudioFeatures] | type[NoteFeatures]) -> pa.DataType:
    import pyarrow as pa

    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    listed = pa.list_(pa.float64())
    return pa.struct(
        [
            (field.name, types.get(str(field.type).removesuffix(" | None"), listed))
            for field in fields(features)
        ]
    )


def _type_of(field: Field) -> pa.DataType:
    import pyarrow as pa

    if field.continuous:
        return pa.float32()
    return pa.uint8() if field.values <= 256 else pa.uint16()


def _table(rows: Sequence[Row], schema: pa.Schema, spec: SequenceSpec) -> pa.Table:
    import pyarrow as pa

    lengths = np.array([len(row.sequence) for row in rows])
    columns = [
        *[[getattr(row, name) for row in rows] for name in schema.names[:6]],
        lengths,
        [row.fingerprint for row in rows],
        [asdict(row.audio) if row.audio else None for row in rows],
        [asdict(row.notes) if row.notes else None for row in rows],
    ]
    arrays = [pa.array(column, schema.types[i]) for i, column in enumerate(columns)]
    offsets = pa.array(np.r_[0, np.cumsum(lengths)], pa.int32())
    for index, field in enumerate(spec.fields):
        steps = np.concatenate([row.sequence[:, index] for row in rows])
        values = pa.array(steps).cast(_type_of(field))
        arrays.append(pa.ListArray.from_arrays(offsets, values))
    return pa.Table.from_arrays(arrays, schema=schema)


def _row(values: dict[str, Any], sequence: NDArray[Any]) -> Row:
    audio, notes = values.pop("audio"), values.pop("notes")
    del values["steps"]
    return Row(
        **{**values, "fingerprint": np.array(values["fingerprint"], np.uint32)},
        sequence=sequence,
        audio=AudioFeatures(**_with_tuples(audio)) if audio else None,
        notes=NoteFeatures(**notes) if notes else None,
    )


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


def _about_group(group: pa.Table) -> dict[str, Any]:
    rows = group.select(["split", "steps", "duration_s"]).to_pylist()
    return {
        "split": rows[0]["split"],
        "recordings": len(rows),
        "steps": sum(row["steps"] for row in rows),
        "duration_s": round(sum(row["duration_s"] for row in rows), 3),
    }
