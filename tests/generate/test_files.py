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
