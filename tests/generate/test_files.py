"""The files of a piece: claimed by one run, and all there or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from deep_piano.errors import InputError
from deep_piano.generate.files import staged, targets


def write(files, text):
    with staged(files) as places:
        for place in places.values():
            place.write_text(text)


def test_another_run_that_was_quicker_is_not_replaced(tmp_path):
    out = tmp_path / "piece.wav"
    [first], [second] = (targets(out, 1, force=False, given=[]) for _ in range(2))
    write(first, "first")
    with pytest.raises(InputError, match=r"piece\.mid appeared .*--force"):
        write(second, "second")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"first"}
    assert len(list(tmp_path.iterdir())) == 4


def test_what_was_put_in_place_before_the_taken_name_is_taken_back(tmp_path):
    [files] = targets(tmp_path / "piece.wav", 1, force=False, given=[])
    files["sound"].write_text("another's")
    with pytest.raises(InputError, match=r"piece\.wav appeared"):
        write(files, "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["piece.wav"]
    assert files["sound"].read_text() == "another's"


def test_force_replaces(tmp_path):
    [files] = targets(tmp_path / "piece.mid", 1, force=True, given=[])
    write(files, "first")
    write(files, "second")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"second"}


def test_a_plain_mapping_replaces_nothing(tmp_path):
    files = {".json": Path(tmp_path, "a.json")}
    write(files, "first")
    with pytest.raises(InputError, match="appeared"):
        write(files, "second")
