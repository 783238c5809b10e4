from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deep_piano.codecs.registry import CODECS
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import DeepPianoError, InputError
from deep_piano.infra.storage.open import open_folder
from tests.support.fakes import SOUND_CODECS
from tests.support.rows import arpeggio_rows, sound_row, write_dataset


@pytest.fixture(scope="module")
def rows():
    return arpeggio_rows()


def test_every_recording_of_a_split_is_there_once(tmp_path, rows):
    place = write_dataset(tmp_path, rows, row_group_bytes=1000)
    with Dataset(place) as dataset:
        assert dataset.codec is CODECS["notes"]
        assert len(dataset.row_groups("train")) > 4
        assert dataset.row_groups("test") == []
        for split in ("train", "validation"):
            expected = {row.id: row for row in rows if row.split == split}
            found = {row.id: row for row in dataset.recordings(split)}
            assert found.keys() == expected.keys()
            for key, row in found.items():
                np.testing.assert_array_equal(row.sequence, expected[key].sequence)
        for group in dataset.row_groups("train"):
            found = dataset.rows(group)
            assert dataset.lengths(group) == [len(row.sequence) for row in found]
            assert group.recordings == len(found)
            assert group.steps == sum(dataset.lengths(group))


def test_a_dataset_is_the_same_wherever_it_lies(tmp_path, rows, s3):
    here = write_dataset(tmp_path / "one", rows)
    there = open_folder(f"s3://{s3.bucket()}/music/set")
    for entry in here.entries():
        with there.write(entry.name) as path:
            path.write_bytes(here.read_bytes(entry.name))
    with Dataset(here) as local, Dataset(there) as remote:
        assert local.digest == remote.digest
        for one, other in zip(local.recordings("train"), remote.recordings("train"), strict=True):
            np.testing.assert_array_equal(one.sequence, other.sequence)
        copies = list(remote._paths.values())
        assert all(copy.exists() for copy in copies)
    assert not any(copy.exists() for copy in copies)


def test_what_it_holds_decides_over_its_digest(tmp_path, rows):
    one, fewer = write_dataset(tmp_path / "1", rows), write_dataset(tmp_path / "2", rows[:-1])
    assert Dataset(one).digest != Dataset(fewer).digest


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not a dataset.*deep-piano prepare"):
        Dataset(open_folder(tmp_path))


def test_another_version_of_the_codec_is_refused(tmp_path, rows):
    write_dataset(tmp_path, rows)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["codec"]["codec"] = "notes-9"
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"'notes-9'.*notes-2.*Prepare the corpus again"):
        Dataset(open_folder(tmp_path))


def test_an_empty_split_says_what_there_is(tmp_path, rows):
    dataset = Dataset(write_dataset(tmp_path, rows))
    with pytest.raises(InputError, match=r"'test'.*holds 0 recordings \(test 0, train 12, val"):
        dataset.require("test")
    assert dataset.require("train") == dataset.row_groups("train")


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_broken_shard_is_named(tmp_path, rows, damage):
    dataset = Dataset(write_dataset(tmp_path, rows))
    [group, *_] = dataset.row_groups("train")
    path = Path(tmp_path) / "shards" / group.shard
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DeepPianoError, match=group.shard):
        dataset.rows(group)


@pytest.mark.parametrize("codec", SOUND_CODECS)
def test_sound_is_read_too(tmp_path, codec):
    rows = [sound_row(codec, f"{n}.wav", seed=n) for n in range(3)]
    with Dataset(write_dataset(tmp_path, rows, codec=codec)) as dataset:
        [first, *_] = dataset.recordings("train")
        assert first.sequence.dtype == rows[0].sequence.dtype


def test_recordings_by_corpus_are_in_the_order_of_names_without_short_ones(tmp_path, rows):
    some = [row for row in rows if row.split == "train"][:6]
    named = [
        replace(row, name=name, duration_s=seconds)
        for row, name, seconds in zip(
            some,
            ("b/x/2.mid", "a/1.mid", "b/1.mid", "b/3.mid", "2.mid", "1.mid"),
            (5.0, 9.0, 6.0, 4.9, 8.0, 8.0),
            strict=True,
        )
    ]
    with Dataset(write_dataset(tmp_path, named)) as dataset:
        found = dataset.by_corpus("train", shortest_s=5.0)
        assert list(found) == [".", "a", "b"]
        assert [row.name for row in found["."]] == ["1.mid", "2.mid"]
        assert [row.name for row in found["b"]] == ["b/1.mid", "b/x/2.mid"]
        assert len(dataset.by_corpus("train")["b"]) == 3
        assert dataset.by_corpus("test") == {}


def test_a_shard_that_holds_other_recordings_than_the_manifest_says_is_broken(tmp_path, rows):
    """Otherwise windows would be looked for where there are none."""
    place = write_dataset(tmp_path, rows, shards=1)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0]["row_groups"][0]["recordings"] += 1
    path.write_text(json.dumps(manifest))
    with Dataset(place) as dataset:
        [group] = dataset.row_groups(manifest["shards"][0]["row_groups"][0]["split"])
        for read in (dataset.rows, dataset.lengths):
            with pytest.raises(DeepPianoError, match=r"is broken: its recordings do not match"):
                read(group)
