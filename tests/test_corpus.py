from __future__ import annotations

import numpy as np
import pytest

from deep_piano.corpus import load_corpus
from deep_piano.errors import InputError
from deep_piano.notes import write_midi
from tests.fakes import arpeggios


def write_piece(path, rng, seconds=20.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_midi(path, arpeggios(seconds, rng=rng))


def test_metadata_decides_the_split(tmp_path, rng):
    for year, name in ((2004, "a"), (2004, "b"), (2006, "c")):
        write_piece(tmp_path / "set" / str(year) / f"{name}.midi", rng)
    (tmp_path / "set" / "metadata.csv").write_text(
        "split,midi_filename\ntrain,2004/a.midi\nvalidation,2004/b.midi\ntest,2006/c.midi\n"
    )
    corpus = load_corpus(tmp_path)
    assert [r.name for r in corpus.of("train")] == ["set/2004/a.midi"]
    assert [r.name for r in corpus.of("validation")] == ["set/2004/b.midi"]
    assert corpus.of("validation")[0].group == "set"
    assert [r.split for r in corpus.recordings].count("test") == 1


def test_elsewhere_the_name_does_and_clips_of_one_song_stay_together(tmp_path, rng):
    for song in range(30):
        for clip in range(2):
            write_piece(tmp_path / "pop" / f"Q1_song{song}_{clip}.mid", rng)
    corpus = load_corpus(tmp_path, validation_share=0.3)
    splits: dict[str, set[str]] = {}
    for recording in corpus.recordings:
        splits.setdefault(recording.name.rsplit("_", 1)[0], set()).add(recording.split)
    assert all(len(found) == 1 for found in splits.values())
    assert 2 <= len(corpus.of("validation")) <= 34
    again = load_corpus(tmp_path, validation_share=0.3)
    assert [r.split for r in again.recordings] == [r.split for r in corpus.recordings]


def test_bad_files_are_left_out_with_their_reason(tmp_path, rng):
    for song in range(20):
        write_piece(tmp_path / f"song {song}.mid", rng)
    (tmp_path / "text.mid").write_text("not MIDI")
    write_piece(tmp_path / "short.MID", rng, seconds=3)
    (tmp_path / "readme.txt").write_text("ignored")
    corpus = load_corpus(tmp_path, validation_share=0.3)
    assert set(corpus.rejects) == {"text.mid", "short.MID"}
    assert "MThd" in corpus.rejects["text.mid"]
    assert "15 notes, fewer than 64" in corpus.rejects["short.MID"]
    assert len(corpus.recordings) == 20


def test_a_loop_of_links_is_no_trap(tmp_path, rng):
    for song in range(20):
        write_piece(tmp_path / f"song {song}.mid", rng)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert len(load_corpus(tmp_path, validation_share=0.3).recordings) == 20


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.mkdir(), "holds no MIDI file"),
        (lambda path: path.write_text("x"), "no such folder"),
    ],
)
def test_a_folder_without_music_is_refused(tmp_path, prepare, message):
    prepare(tmp_path / "corpus")
    with pytest.raises(InputError, match=message):
        load_corpus(tmp_path / "corpus")


def test_an_empty_split_is_an_error(tmp_path):
    write_piece(tmp_path / "only.mid", np.random.default_rng(0))
    with pytest.raises(InputError, match=r"no recording .* \(1 usable of 1 files\)"):
        load_corpus(tmp_path)


def test_numbered_files_fall_on_both_sides(tmp_path, rng):
    write_piece(tmp_path / "take_000.mid", rng)
    for number in range(1, 120):
        (tmp_path / f"take_{number:03d}.mid").hardlink_to(tmp_path / "take_000.mid")
    corpus = load_corpus(tmp_path, validation_share=0.2)
    assert 8 <= len(corpus.of("validation")) <= 50


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"midi_filename,split\na.mid,vel\n", "gives a file the split 'vel'. Use one of train"),
        (b"midi_filename,split\n\xff\xfe.mid,train\n", "cannot be read as UTF-8 CSV"),
    ],
)
def test_metadata_that_cannot_be_used_is_refused(tmp_path, rng, content, message):
    write_piece(tmp_path / "a.mid", rng)
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_corpus(tmp_path)


def test_a_few_files_are_enough(tmp_path, rng):
    for name in "abc":
        write_piece(tmp_path / f"{name}.mid", rng)
    corpus = load_corpus(tmp_path, validation_share=0.0001)
    assert (len(corpus.of("train")), len(corpus.of("validation"))) == (2, 1)
