"""Looking at what there is from Python: what the commands print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import deep_piano as dp
from deep_piano.api import tools
from deep_piano.errors import InputError
from deep_piano.generate.records import Record, Records, require_same_run, write_manifest
from deep_piano.infra.storage.local import LocalFolder
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.music.midi import write_midi
from tests.support.commands import made, run
from tests.support.fakes import arpeggios, random_checkpoint
from tests.support.rows import note_row, write_dataset

pytestmark = pytest.mark.usefixtures("desk")


def test_a_dataset_is_inspected_and_indexed():
    write_dataset(Path("dataset"), [note_row("a/1.mid"), note_row("b/2.mid", seed=2)])
    found = dp.inspect("dataset", plot=Path("plot"))
    assert found.card + "\nplot/dataset.png\n" == made(run("inspect", "dataset", "--plot", "plot"))
    assert found.pictures == [Path("plot/dataset.png")]
    told = json.loads(made(run("inspect", "dataset", "--json")))
    assert told.pop("pictures") == []
    assert told == json.loads(json.dumps(found.facts))
    assert told["totals"]["recordings"] == 2
    index = dp.index_dataset("dataset", "corpus.index")
    assert len(index.names) == 2
    with pytest.raises(InputError, match="already exists"):
        dp.index_dataset(Path("dataset"), Path("corpus.index"))
    with dp.Dataset("dataset") as dataset:
        assert [row.name for row in dataset.recordings("train")] == ["a/1.mid", "b/2.mid"]


def test_a_checkpoint_that_cannot_be_written_to_is_refused_before_the_index(monkeypatch):
    write_dataset(Path("dataset"), [note_row()])
    checkpoint.save(Path("any"), random_checkpoint())
    dp.index_dataset("dataset", checkpoint="any")
    assert dp.load_checkpoint("any").corpus.recordings == 1

    def refuse(self):
        raise InputError("cannot write to it")

    monkeypatch.setattr(LocalFolder, "require_writable", refuse)
    monkeypatch.setattr(tools, "index_of", lambda *_, **__: pytest.fail("the work was begun"))
    with pytest.raises(InputError, match="cannot write"):
        dp.index_dataset("dataset", checkpoint="any", force=True)


def test_a_recording_is_inspected(rng):
    write_midi(Path("a.mid"), arpeggios(20, rng=rng))
    told = json.loads(made(run("inspect", "a.mid", "--json")))
    assert told["recording"] == "a.mid"
    assert told["sound"] is None
    assert told["notes"]["notes"] == 100
    assert told["certainties"].keys() == {"key", "tempo"}


def test_a_page_is_written_and_votes_are_counted():
    folder = open_folder("a")
    require_same_run(folder, {"checkpoint_sha256": "a"}, force=False)
    write_manifest(folder, Records([Record("seed.mp3", 1, "done")]))
    assert dp.write_page("a") == "a/index.html"
    assert dp.write_page(Path("a"), out=Path("b.html")) == "b.html"
    with pytest.raises(InputError, match="already exists"):
        dp.write_page("a", out="b.html")
    with pytest.raises(InputError, match="is in S3"):
        dp.write_page("a", out="s3://bucket/b.html")
    with pytest.raises(InputError, match="need a name: give out="):
        dp.write_page("a", "a")
    side = {"run": "a", "take": 1}
    vote = {"first": side, "second": {**side, "take": 2}, "preferred": "first"}
    heard = {"heard_s": [9, 9]}
    Path("votes.json").write_text(json.dumps({"votes": [vote | heard, vote | {"heard_s": [0, 9]}]}))
    [comparison], unheard = dp.count_votes("votes.json")
    assert (comparison.preferred, unheard) == ((1, 0), 1)


def test_what_is_there_is_found_out():
    checks = dp.check_machine(frameworks=False)
    assert {"Python", "ffmpeg", "checkpoint"} <= {check.name for check in checks}
    assert "transkun" in {state.asset.name for state in dp.list_assets()}
    checkpoint.save(Path("any"), random_checkpoint())
    assert dp.load_checkpoint("any").weights.keys() == random_checkpoint().weights.keys()
