from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from deep_piano.errors import InputError
from deep_piano.generate.records import (
    MANIFEST,
    RECORDS,
    RUN,
    TABLE,
    Record,
    Records,
    read_records,
    require_same_run,
    write_manifest,
    write_records,
    write_table,
)
from deep_piano.infra.storage.open import open_folder

RUN_A = {"settings": {"seconds": 60, "top_p": {"pitch": 0.9}}, "format": "mp3"}


def record(seed="a.mid", take=1, **changes):
    facts = {
        "status": "done",
        "notes": 12,
        "figures": {"nats_a_note": 8.5},
        "files": {f"{seed}/take-{take}.mid": "ab"},
    }
    return Record(seed, take, **(facts | changes))


@pytest.fixture
def pieces(tmp_path):
    return open_folder(tmp_path / "pieces")


def test_nothing_is_known_of_a_new_folder(pieces):
    assert read_records(pieces) == {}


def test_records_are_read_as_they_were_written_and_later_ones_win(pieces):
    first = [record(), record(take=2, status="failed", reason="broken", files={})]
    write_records(pieces, 0, first)
    again = record(take=2, shared_run_notes=9)
    write_records(pieces, 1, [again])
    assert read_records(pieces) == {("a.mid", 0): first[0], ("a.mid", 1): again}


def test_the_manifest_takes_the_place_of_the_records(pieces, tmp_path):
    known = [record("b.mid"), record("a.mid", 2), record("a.mid", 1, status="failed", reason="no")]
    write_records(pieces, 0, known[:1])
    write_manifest(pieces, Records(known))
    assert not list((tmp_path / "pieces" / RECORDS).iterdir())
    assert read_records(pieces) == {one.key: one for one in known}
    lines = (tmp_path / "pieces" / MANIFEST).read_text().splitlines()
    order = [("a.mid", 1), ("a.mid", 2), ("b.mid", 1)]
    assert [(row["seed"], row["take"]) for row in map(json.loads, lines)] == order
    assert not (tmp_path / "pieces" / TABLE).exists()


def test_a_table_says_what_the_manifest_says(pieces, tmp_path):
    known = [record("b.mid"), record("a.mid", 2), record("a.mid", 1, status="failed", reason="no")]
    write_records(pieces, 0, known)
    write_table(pieces, Records(known))
    assert read_records(pieces) == {one.key: one for one in known}  # the batches stay
    table = pq.read_table(tmp_path / "pieces" / TABLE).to_pylist()
    assert [(row["seed"], row["take"] - 1) for row in table] == [*Records(known)]
    assert json.loads(table[2]["files"]) == known[0].files
    assert table[0]["shared_run_notes"] is None


def test_a_manifest_and_a_table_may_hold_nothing(pieces, tmp_path):
    write_table(pieces, Records())
    write_manifest(pieces, Records())
    assert pq.read_table(tmp_path / "pieces" / TABLE).num_rows == 0
    assert read_records(pieces) == {}


def test_a_broken_record_is_one_that_is_not_there(pieces, tmp_path):
    write_records(pieces, 0, [record()])
    path = tmp_path / "pieces" / RECORDS / "000000.jsonl"
    path.write_text('{"seed": "b.mid"}\nno json\n[]\n' + path.read_text() + '{"seed": "c.m')
    assert list(read_records(pieces)) == [("a.mid", 0)]


def test_the_same_settings_may_go_on_and_others_may_not(pieces):
    require_same_run(pieces, RUN_A, force=False)
    require_same_run(pieces, RUN_A, force=False)
    other = {"settings": {"seconds": 60, "top_p": {"pitch": 0.8}}, "format": "ogg"}
    with pytest.raises(InputError, match=r"\(format, settings.top_p.pitch\).*--force"):
        require_same_run(pieces, other, force=False)
    assert json.loads(pieces.read_bytes(RUN)) == RUN_A
    require_same_run(pieces, other, force=True)
    require_same_run(pieces, other, force=False)


def test_what_is_found_out_later_is_added_and_stays(pieces):
    require_same_run(pieces, RUN_A, force=False)
    require_same_run(pieces, RUN_A | {"composed_on": "cpu"}, force=False)
    require_same_run(pieces, RUN_A, force=False)
    with pytest.raises(InputError, match=r"\(composed_on\)"):
        require_same_run(pieces, RUN_A | {"composed_on": "gpu"}, force=False)
    require_same_run(pieces, RUN_A | {"format": "ogg"}, force=True)  # all is made anew, anywhere
    require_same_run(pieces, RUN_A | {"format": "ogg", "composed_on": "gpu"}, force=False)


@pytest.mark.parametrize("content", ["", "no json", "[1]"])
def test_damaged_settings_are_said(pieces, content):
    with pieces.write(RUN) as path:
        path.write_text(content)
    with pytest.raises(InputError, match="is damaged"):
        require_same_run(pieces, RUN_A, force=True)


def test_a_record_of_numbers_beyond_reason_is_none(pieces, tmp_path):
    write_records(pieces, 0, [record()])
    path = tmp_path / "pieces" / RECORDS / "000000.jsonl"
    line = path.read_text()
    odd = [
        line.replace('"notes": 12', '"notes": 1' + "0" * 30),
        line.replace('"take": 1', '"take": 0'),
    ]
    path.write_text("".join(odd) + line)
    assert list(read_records(pieces).values()) == [record()]


def test_records_are_a_mapping_in_the_order_of_seeds_and_takes():
    records = Records([record("b"), record("a", 2), record("a", 1), record("a", 2, notes=99)])
    assert list(records) == [("a", 0), ("a", 1), ("b", 0)]
    assert [one.key for one in records.all] == list(records)
    assert (len(records), records["a", 1].notes) == (3, 99)
    assert ("a", 1) in records
    assert ("c", 0) not in records
    del records["a", 1]
    assert records == {("a", 0): record("a"), ("b", 0): record("b")}
    for missing in (lambda: records["a", 1], lambda: records.pop(("a", 1))):
        with pytest.raises(KeyError):
            missing()


def test_a_table_of_many_is_written_some_at_a_time(pieces, tmp_path, monkeypatch):
    known = [record(f"{n:02d}.mid") for n in range(7)]
    write_table(pieces, Records(known))
    whole = pq.read_table(tmp_path / "pieces" / TABLE)
    monkeypatch.setattr("deep_piano.generate.records._ROWS_AT_ONCE", 3)
    write_table(pieces, Records(known))
    assert pq.read_table(tmp_path / "pieces" / TABLE).equals(whole)
    assert pq.ParquetFile(tmp_path / "pieces" / TABLE).num_row_groups == 3
