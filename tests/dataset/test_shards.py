"""Shards: rows come back as they were, in an order and in bytes that do not depend on chance."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deep_piano.codecs.registry import CODECS
from deep_piano.dataset.rows import SetAside
from deep_piano.dataset.shards import read_facts, read_rows, write_shard
from tests.support.fakes import SOUND_CODECS
from tests.support.rows import note_row, reject, sha, sound_row

PROBLEMS = (
    *("a column less", "another type", "no name", "no steps", "classes beyond"),
    *("fewer steps than it says", "half a fingerprint"),
)
SPLITS = ["train", "validation", "train", "test", "train", "validation"]


def write(path, rows, *, codec="notes", rejects=(), set_aside=(), row_group_bytes=1e6):
    write_shard(
        path,
        rows,
        rejects=rejects,
        set_aside=set_aside,
        spec=CODECS[codec].spec,
        digest="d",
        row_group_bytes=row_group_bytes,
    )
    return path


def same(a, b):
    plain = [{**vars(row), "sequence": None, "fingerprint": None} for row in (a, b)]
    return (
        plain[0] == plain[1]
        and np.array_equal(a.sequence, b.sequence)
        and np.array_equal(a.fingerprint, b.fingerprint)
    )


@pytest.fixture
def rows():
    return [note_row(f"{n}.mid", split=split, seed=n) for n, split in enumerate(SPLITS)]


def test_rows_come_back_as_they_were_by_split_and_then_id(tmp_path, rows):
    back = list(read_rows(write(tmp_path / "s.parquet", rows)))
    expected = sorted(rows, key=lambda row: (row.split, row.id))
    assert all(same(a, b) for a, b in zip(back, expected, strict=True))


@pytest.mark.parametrize("codec", SOUND_CODECS)
def test_sound_comes_back_as_it_was(tmp_path, codec):
    row = sound_row(codec)
    [back] = read_rows(write(tmp_path / "s.parquet", [row], codec=codec))
    assert same(back, row)
    assert back.sequence.dtype == row.sequence.dtype


def test_the_order_in_which_rows_come_changes_no_byte(tmp_path, rows):
    bad = [reject("a"), reject("b")]
    one = write(tmp_path / "1", rows, rejects=bad)
    other = write(tmp_path / "2", rows[::-1], rejects=bad[::-1])
    assert one.read_bytes() == other.read_bytes()


def test_rows_that_were_read_are_written_again_with_the_same_bytes(tmp_path, rows):
    one = write(tmp_path / "1", rows, row_group_bytes=900)
    other = write(tmp_path / "2", list(read_rows(one)), row_group_bytes=900)
    assert one.read_bytes() == other.read_bytes()


def test_row_groups_never_mix_splits_and_keep_to_their_size(tmp_path, rows):
    path = write(tmp_path / "s", rows, row_group_bytes=1350)  # of 6 bytes a note
    facts = read_facts(path, "s")
    assert [group["split"] for group in facts.row_groups] == [
        *("test", "train", "train", "validation")
    ]
    assert [group["recordings"] for group in facts.row_groups] == [1, 2, 1, 2]
    assert sum(group["steps"] for group in facts.row_groups) == sum(len(r.sequence) for r in rows)
    with pq.ParquetFile(path) as file:
        assert file.num_row_groups == 4


def test_a_row_group_holds_one_recording_at_least(tmp_path, rows):
    facts = read_facts(write(tmp_path / "s", rows, row_group_bytes=1), "s")
    assert [group["recordings"] for group in facts.row_groups] == [1] * 6


def test_only_the_rows_that_are_wanted_are_read(tmp_path, rows):
    path = write(tmp_path / "s", rows)
    assert [row.name for row in read_rows(path, {sha("3.mid"), sha("none")})] == ["3.mid"]


def test_facts_hold_everything_but_the_sequences(tmp_path, rows):
    prints = (*range(63), 2**32 - 1)
    aside = SetAside(reject("twin.mid", kind="drop", rule="duplicate"), "the id", prints)
    path = write(tmp_path / "s", rows, rejects=[reject()], set_aside=[aside])
    facts = read_facts(path, "shard name")
    assert (facts.name, facts.digest, facts.bytes) == ("shard name", "d", path.stat().st_size)
    assert (facts.rejects, facts.set_aside) == ((reject(),), (aside,))
    assert facts.table.num_rows == 6
    assert not any(name.startswith("sequence") for name in facts.table.column_names)


def test_a_shard_may_hold_nothing_but_rejects(tmp_path):
    path = write(tmp_path / "s", [], rejects=[reject()])
    assert list(read_rows(path)) == []
    facts = read_facts(path, "s")
    assert facts.rejects == (reject(),)
    assert (facts.row_groups, facts.table.num_rows) == ((), 0)


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_what_is_no_whole_shard_says_nothing(tmp_path, rows, damage):
    path = write(tmp_path / "s", rows)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("not Parquet")
    else:
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert read_facts(path, "s") is None


def test_columns_can_be_read_by_anyone(tmp_path, rows):
    table = pq.read_table(write(tmp_path / "s", rows))
    first = min(rows, key=lambda row: (row.split, row.id))
    assert table["sequence_pitch"][0].as_py() == first.sequence[:, 1].tolist()
    assert table["notes"][0]["pedal_share"].as_py() == 0.25
    assert table["audio"][0].as_py() is None


def test_damage_within_a_sequence_is_noticed(tmp_path, rows):
    path = write(tmp_path / "s", rows)
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(0).column(file.metadata.num_columns - 1)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"(?i)corrupt|checksum|CRC"):
        list(read_rows(path))


def odd_columns(table):
    """Tables that are whole Parquet and no shard, by what is wrong with them."""
    count, onset = table.num_rows, table["sequence_onset"]
    beyond = pa.array([[801] * len(steps) for steps in onset.to_pylist()], onset.type)
    fewer = pa.array([[1]] * count, onset.type)
    return {
        "a column less": table.drop_columns("sequence_pitch"),
        "another type": table.set_column(0, "id", pa.array([7] * count)),
        "no name": table.set_column(1, "name", pa.nulls(count, pa.string())),
        "no steps": with_column(table, "sequence_onset", pa.nulls(count, onset.type)),
        "classes beyond": with_column(table, "sequence_onset", beyond),
        "fewer steps than it says": with_column(table, "sequence_onset", fewer),
        "half a fingerprint": with_column(
            table, "fingerprint", pa.array([[1, 2]] * count, pa.list_(pa.uint32()))
        ),
    }


def with_column(table, name, column):
    return table.set_column(table.column_names.index(name), name, column)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_no_codec_makes_is_no_shard(tmp_path, rows, problem):
    path = write(tmp_path / "s", rows)
    pq.write_table(odd_columns(pq.read_table(path))[problem], path)
    with pytest.raises(ValueError, match=r"\w"):
        list(read_rows(path))
    if problem not in ("no steps", "classes beyond", "fewer steps than it says"):
        assert read_facts(path, "s") is None


@pytest.mark.parametrize(
    "about", ["[]", "{}", '{"digest": 1, "rejects": [], "set_aside": []}', "\ud800"]
)
def test_a_shard_with_other_facts_says_nothing(tmp_path, rows, about):
    path = write(tmp_path / "s", rows)
    data = {b"deep_piano": about.encode("utf-8", "surrogatepass")}
    pq.write_table(pq.read_table(path).replace_schema_metadata(data), path)
    assert read_facts(path, "s") is None
