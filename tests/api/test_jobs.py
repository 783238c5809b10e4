"""A call for each command: it gives what the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import deep_piano as dp
from deep_piano.errors import ConfigError, InputError
from deep_piano.generate.records import Record, Records, require_same_run, write_manifest
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint
from deep_piano.music.midi import write_midi
from tests.support.commands import made, run
from tests.support.fakes import arpeggios, random_checkpoint
from tests.support.rows import arpeggio_rows, note_row, write_dataset

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
    with pytest.raises(InputError, match="several folders need one page"):
        dp.write_page("a", "a")
    side = {"run": "a", "take": 1}
    vote = {"first": side, "second": {**side, "take": 2}, "preferred": "first"}
    heard = {"heard_s": [9, 9]}
    Path("votes.json").write_text(json.dumps({"votes": [vote | heard, vote | {"heard_s": [0, 9]}]}))
    [comparison], unheard = dp.count_votes("votes.json")
    assert (comparison.preferred, unheard) == ((1, 0), 1)


@pytest.mark.tf
def test_training_comparing_and_scoring():
    write_dataset(Path("dataset"), arpeggio_rows(6, held_out=2))
    told = []
    settings = {"preset": "tiny", "steps": 2, "batch": 4, "eval_every_steps": 1, "window": 16}
    best = dp.train_checkpoint("dataset", "runs/one", progress=told.append, **settings)
    assert best.facts["step"] in (1, 2)
    assert {now.what for now in told} == {"training"}
    [one] = dp.compare_runs("runs")
    assert one.name == "one"
    assert dp.load_checkpoint(Path("runs")).digest == best.digest
    scores = dp.evaluate(best, "dataset")
    assert scores.table() == dp.evaluate("runs", Path("dataset")).table()


@pytest.mark.ray
@pytest.mark.slow
def test_a_folder_is_continued(weights):
    for number in range(2):
        music = arpeggios(9, rng=np.random.default_rng(number))
        write_midi(Path(f"seeds/{number}.mid"), music)
    records = dp.continue_folder(
        "seeds", Path("pieces"), checkpoint=weights, seconds=20, format="mid", takes=2
    )
    assert [(record.seed, record.take, record.status) for record in records.all] == [
        (f"{number}.mid", take, "done") for number in range(2) for take in (1, 2)
    ]
    one = dp.continue_piece("seeds/0.mid", checkpoint=weights, seconds=20)
    one.save("take-1.mid")
    there = Path("pieces/pieces/0.mid/take-1.mid").read_bytes()
    assert Path("take-1.mid").read_bytes() == there


def test_a_setting_belongs_to_its_section(weights):
    with pytest.raises(ConfigError, match=r"'bulk.format' must be .*\(in the call\)"):
        dp.continue_folder("seeds", "pieces", checkpoint=weights, format="exe")
    with pytest.raises(ConfigError, match=r"no setting 'prepare\.codek': did you mean"):
        dp.prepare_dataset("corpus", "dataset", codek="notes")
    with pytest.raises(ConfigError, match=r"'train.preset'"):
        dp.train_checkpoint("dataset", "run", preset="enormous")
    with pytest.raises(InputError, match="not one of the stages"):
        dp.submit_job("dance", address="http://127.0.0.1:1")


def test_what_is_there_is_found_out():
    checks = dp.check_machine(frameworks=False)
    assert {"Python", "ffmpeg", "checkpoint"} <= {check.name for check in checks}
    assert "transkun" in {state.asset.name for state in dp.list_assets()}
    checkpoint.save(Path("any"), random_checkpoint())
    assert dp.load_checkpoint("any").weights.keys() == random_checkpoint().weights.keys()
