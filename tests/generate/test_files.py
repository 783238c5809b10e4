from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from deep_piano.errors import DeepPianoError, InputError
from deep_piano.generate.files import PieceFiles, staged, targets


def names(files):
    return [path.name for path in files]


@pytest.mark.parametrize(
    ("out", "notes", "expected"),
    [
        ("a.wav", True, ["a.mid", "a.png", "a.wav", "a.json"]),
        ("a.MID", True, ["a.MID", "a.png", "a.json"]),
        ("a.flac", False, ["a.png", "a.flac", "a.json"]),
    ],
)
def test_the_suffix_and_the_codec_decide_which_files_there_are(tmp_path, out, notes, expected):
    [files] = targets(tmp_path / out, 1, force=False, given=[], notes=notes)
    assert names(files) == expected
    assert files.main == tmp_path / out
    assert files.title == "a"


def test_takes_are_numbered_and_nothing_is_left_behind(tmp_path):
    first, second = targets(tmp_path / "new" / "a.mp3", 2, force=False, given=[])
    assert names(first) == ["a-1.mid", "a-1.png", "a-1.mp3", "a-1.json"]
    assert second.facts.name == "a-2.json"
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_or_given_is_not_replaced(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"a\.png already exists"):
        targets(tmp_path / "a.wav", 1, force=False, given=[])
    with pytest.raises(InputError, match=r"a\.png"):
        targets(tmp_path / "a.wav", 1, force=True, given=[tmp_path])
    targets(tmp_path / "a.wav", 1, force=True, given=[])


def test_all_files_appear_together_or_none(tmp_path):
    [files] = targets(tmp_path / "a.wav", 1, force=False, given=[])

    def half_written():
        with staged(files) as hidden:
            hidden.picture.write_text("half")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        half_written()
    with pytest.raises(DeepPianoError, match="Nothing was kept"), staged(files):
        pass  # nothing was written
    assert list(tmp_path.iterdir()) == []
    with staged(files) as hidden:
        for path in hidden:
            path.write_text(path.name)
        hashes = hidden.hashes()
        assert not files.facts.exists()
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert hashes["a.wav"] == hashlib.sha256(b"a.wav").hexdigest()
    assert list(hashes) == ["a.mid", "a.png", "a.wav"]


def test_a_name_that_no_font_can_draw_has_a_title():
    files = PieceFiles(Path("x.png"), Path("x.json"), sound=Path("caf\udce9.wav"))
    assert files.title == "caf\ufffd"


def test_a_score_may_be_what_is_named_or_beside_it(tmp_path):
    [named] = targets(tmp_path / "a.musicxml", 1, force=False, given=[])
    assert named.main == named.score == tmp_path / "a.musicxml"
    assert named.notes == tmp_path / "a.mid"
    assert named.sound is None
    [beside] = targets(tmp_path / "a.mp3", 1, force=False, given=[], score=True)
    assert beside.main == beside.sound == tmp_path / "a.mp3"
    assert beside.score == tmp_path / "a.musicxml"
    assert beside.inside(tmp_path / "x").main == tmp_path / "x" / "a.mp3"


def write(files, text):
    with staged(files) as places:
        for place in places:
            place.write_text(text)


def test_another_run_that_was_faster_is_not_replaced(tmp_path):
    out = tmp_path / "piece.wav"
    [first], [second] = (targets(out, 1, force=False, given=[]) for _ in range(2))
    write(first, "first")
    with pytest.raises(InputError, match=r"piece\.mid appeared .*--force"):
        write(second, "second")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"first"}
    assert len(list(tmp_path.iterdir())) == 4


def test_files_put_in_place_before_a_taken_name_are_taken_back(tmp_path):
    [files] = targets(tmp_path / "piece.wav", 1, force=False, given=[])
    files.sound.write_text("another's")
    with pytest.raises(InputError, match=r"piece\.wav appeared"):
        write(files, "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["piece.wav"]
    assert files.sound.read_text() == "another's"


def test_force_replaces(tmp_path):
    [files] = targets(tmp_path / "piece.mid", 1, force=True, given=[])
    write(files, "first")
    write(files, "second")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"second"}


def test_a_picture_that_was_not_drawn_is_left_out_and_an_old_one_removed(tmp_path):
    [files] = targets(tmp_path / "piece.mid", 1, force=True, given=[])
    write(files, "first")
    with staged(files) as places:
        places.notes.write_text("second")
        places.facts.write_text("second")
        assert list(places.hashes()) == ["piece.mid"]
    assert [path.name for path in files.written()] == ["piece.mid", "piece.json"]
    assert sorted(tmp_path.iterdir()) == sorted(files.written())
