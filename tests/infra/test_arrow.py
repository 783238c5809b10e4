"""Tables at paths of any kind, and on a disk that is full."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deep_piano.errors import DeepPianoError
from deep_piano.infra.storage.arrow import arrow_file
from deep_piano.infra.storage.atomic import atomic_path

TABLE = pa.table({"a": [1, 2]})


@pytest.mark.parametrize("name", ["a b.parquet", "100%.parquet", os.fsdecode(b"caf\xe9.parquet")])
def test_a_table_may_lie_at_any_path(tmp_path, name):
    folder = tmp_path / "year=2004"
    folder.mkdir()
    with arrow_file(folder / name, "wb") as file:
        pq.write_table(TABLE, file)
    with arrow_file(folder / name) as file:
        assert pq.read_table(file).equals(TABLE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_arrow_says_of_a_full_disk_what_python_does(tmp_path):
    def fill():
        with atomic_path(tmp_path / "a.parquet") as path:
            path.unlink()
            path.symlink_to("/dev/full")
            with arrow_file(path, "wb") as file:
                pq.write_table(TABLE, file)

    with pytest.raises(DeepPianoError, match=r"no room for .*: No space left on device\."):
        fill()
    assert list(tmp_path.iterdir()) == []
