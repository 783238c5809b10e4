"""Damage of every kind, by chance from a seed: to bytes, to JSON and YAML, to tables of Parquet."""

from __future__ import annotations

import copy
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HUGE = (0, 1, 2**7, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
ODD = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1e308, -0.5, float("nan"), float("inf")),
    *("", "x", "notes", "../../outside", "/etc/passwd", "a\nb", "\ud800", "\0", "9" * 5000),
    *([], {}, [[]], [None], {"": None}, ["x"] * 1000),
)


def damaged(data: bytes, rng: np.random.Generator, other: bytes = b"") -> bytes:
    """Return bytes that were damaged in one to four places."""
    for _ in range(int(rng.integers(1, 5))):
        data = _damaged_once(data, rng, other)
    return data


def _damaged_once(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    size = len(data)
    if not size:
        return bytes(rng.integers(0, 256, 20, np.uint8))
    # Headers and footers are where files say how large things are.
    near = min(size, 256)
    anywhere = int(rng.integers(size))
    place = int(rng.choice([anywhere, rng.integers(near), size - 1 - rng.integers(near)]))
    length = int(min(size - place, 2 ** rng.integers(0, 14)))
    chunk = data[place : place + length]
    match int(rng.integers(9)):
        case 0:
            return data[:place]
        case 1:
            flipped = bytearray(data)
            for _ in range(int(2 ** rng.integers(0, 7))):
                flipped[int(rng.integers(size))] ^= 1 << int(rng.integers(8))
            return bytes(flipped)
        case 2:
            return data[:place] + bytes(length) + data[place + length :]
        case 3:
            return data[:place] + chunk * int(rng.integers(2, 5)) + data[place:]
        case 4:
            return data[:place] + data[place + length :]
        case 5:
            start = int(rng.integers(max(1, len(other))))
            return data[:place] + other[start : start + length] + data[place + length :]
        case 6 | 7:
            width, order = int(rng.choice([1, 2, 4, 8])), str(rng.choice(["little", "big"]))
            count = int(rng.choice(HUGE[:9])) if width < 8 else HUGE[int(rng.integers(len(HUGE)))]
            field = (count % 256**width).to_bytes(width, order)
            return data[:place] + field + data[place + width :]
        case _:
            noise = bytes(rng.integers(0, 256, length, np.uint8))
            return data[:place] + noise + data[place + length :]


def odd_tree(tree: object, rng: np.random.Generator) -> object:
    """Return JSON-like values of which one to three are odd, missing or elsewhere."""
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(tree))
        if not places:
            return ODD[int(rng.integers(len(ODD)))]
        holder, key = places[int(rng.integers(len(places)))]
        match int(rng.integers(6)):
            case 0:
                del holder[key]
            case 1:
                inner, name = places[int(rng.integers(len(places)))]
                holder[key] = copy.deepcopy(inner[name])
            case 2 if isinstance(holder[key], int | float):
                factor = float(rng.choice([-1, 0, 0.5, 2, 1e3, 1e9]))
                holder[key] = type(holder[key])(holder[key] * factor)
            case _:
                holder[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
    return tree


def _places(tree: object):
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(pairs):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def odd_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Return JSON whose values are odd, or whose bytes are damaged."""
    if rng.random() < 0.3:
        return damaged(data, rng)
    return json.dumps(odd_tree(json.loads(data), rng)).encode("utf-8", "surrogatepass")


def odd_table(data: bytes, rng: np.random.Generator) -> bytes:
    """Return Parquet with odd columns, values or metadata, or whose bytes are damaged."""
    if rng.random() < 0.4:
        return damaged(data, rng)
    table = pq.read_table(pa.BufferReader(data))
    metadata = dict(table.schema.metadata or {})
    for key in metadata.keys() & {b"deep_piano"}:
        if rng.random() < 0.5:
            odd = odd_tree(json.loads(metadata[key]), rng)
            metadata[key] = json.dumps(odd).encode("utf-8", "surrogatepass")
    index = int(rng.integers(table.num_columns))
    name, column = table.column_names[index], table.column(index)
    count = int(rng.choice([1, 2, max(1, table.num_rows // 2)]))
    match int(rng.integers(6)):
        case 0:
            table = table.remove_column(index)
        case 1:
            table = table.set_column(index, name, pa.nulls(table.num_rows, column.type))
        case 2:
            table = table.set_column(index, name, pa.array(["odd"] * table.num_rows))
        case 3:
            table = table.set_column(index, name, pa.array([2**40] * table.num_rows))
        case 4:
            table = table.take(rng.integers(0, max(1, table.num_rows), 3))
        case _ if pa.types.is_list(column.type):
            odd = [[255] * int(rng.choice([0, 1, 7])) for _ in range(table.num_rows)]
            table = table.set_column(index, name, pa.array(odd, column.type))
        case _:
            table = table.slice(0, count)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, row_group_size=count)
    return sink.getvalue().to_pybytes()
