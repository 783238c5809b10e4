"""`train`, `runs` and `evaluate` at the command line: what users see, and the exit codes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from deep_piano.codecs.registry import CODECS
from deep_piano.models import checkpoint
from tests.support.commands import beside_progress, everything, in_a_process, made, refused, run
from tests.support.fakes import random_checkpoint, sound_checkpoint
from tests.support.rows import arpeggio_rows, note_row, sound_row, write_dataset

pytestmark = pytest.mark.usefixtures("desk")

SMALL = ("--preset", "tiny", "--batch", "4", "--window", "16", "--precision", "float32")


@pytest.fixture(scope="module")
def _dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "dataset"
    write_dataset(folder, arpeggio_rows(12))
    return folder


@pytest.fixture
def dataset(_dataset):
    shutil.copytree(_dataset, "dataset")
    return Path("dataset")


@pytest.mark.tf
def test_a_run_is_made_compared_evaluated_and_found_again(dataset, caplog):
    steps = ("--steps", "6", "--eval-every-steps", "3", "--log-json")
    for name, rate in (("good", "0.01"), ("poor", "0.0001")):
        caplog.clear()
        said = made(
            run("train", dataset, "-o", f"runs/{name}", *SMALL, *steps, "--learning-rate", rate)
        )
        assert f"runs/{name}/checkpoint/best" in said
        told = [record for record in caplog.records if getattr(record, "stage", "") == "train"]
        assert [(record.event, getattr(record, "update", None)) for record in told] == [
            ("begun", None),
            *((event, update) for update in (3, 6) for event in ("checkpoint", "validated")),
            ("ended", None),
        ]
        assert told[-1].validation_loss == min(r.validation_loss for r in (told[2], told[4]))
    said = made(run("runs", "runs"))
    assert said.splitlines()[2].startswith("| good | ")
    assert "best so far: good; deep-piano generate --checkpoint runs uses it" in said
    best = checkpoint.load("runs")
    assert best.digest == checkpoint.load("runs/good").digest

    told = json.loads(made(run("runs", "runs", "--json")))
    assert told["best"] == "good"
    assert told["runs"][0]["best"]["validation_loss"] > 0
    assert told["runs"][0]["dataset"] == told["runs"][0]["about"]["dataset"]["digest"]

    figures = json.loads(made(run("evaluate", "runs", dataset, "--json")))
    said = made(run("evaluate", "runs", dataset, "--plot", "f.png"))
    assert "| a | this checkpoint |" in said
    assert "| published | Performance RNN (Huang et al. 2018, Table 3) |  | 8.132 |" in said
    assert figures["unit"] == "nats a note"
    assert figures["checkpoint"] == best.digest
    mine = [score for score in figures["scores"] if score["model"] == "this checkpoint"]
    assert {score["group"] for score in mine} == {"a", "b", "all"}
    assert mine[0]["total"] == pytest.approx(sum(mine[0]["losses"].values()))
    assert Path("f.png").read_bytes().startswith(b"\x89PNG")
    refused(run("evaluate", "runs", dataset, "--split", "test"), "'test'", "holds 0 recordings")


def test_what_train_cannot_use(dataset):
    checkpoint.save(Path("begin"), random_checkpoint())
    Path("runs").mkdir()
    Path("runs/file").write_text("not a folder")
    write_dataset("sound", [sound_row("mulaw", "a")], codec="mulaw")
    write_dataset("one-sided", [note_row("a.mid")])
    before = everything()
    for arguments, fragments in {
        ("none", "-o", "run"): ["none is not a dataset", "deep-piano prepare"],
        ("dataset", "-o", "run", "--preset", "huge"): ["train.preset", "'huge'"],
        ("dataset", "-o", "run", "--hop", "65"): ["hop is at most window (64)"],
        ("dataset", "-o", "run", "--workers", "3"): ["workers divide batch (64)"],
        ("dataset", "-o", "run", "--resume"): ["holds no run to resume"],
        ("dataset", "-o", "run", "--init", "nowhere"): ["no checkpoint 'nowhere'"],
        ("sound", "-o", "run", "--init", "begin"): ["holds 0 recordings"],
        ("one-sided", "-o", "run"): ["'validation'", "train 1", "prepare.validation_share"],
        ("dataset", "-o", "runs/file"): ["runs/file"],
        ("dataset", "-o", "ftp://host/run"): ["unknown kind"],
    }.items():
        refused(run("train", *arguments), *fragments)
        assert everything() == before, arguments


@pytest.mark.tf
@pytest.mark.parametrize("codec", CODECS)
def test_without_a_training_split_nothing_is_learned_from_it(tmp_path, codec):
    rows = [
        note_row("a.mid", split="validation")
        if codec == "notes"
        else sound_row(codec, "a", split="validation")
    ]
    write_dataset(tmp_path / "held-out", rows, codec=codec)
    checkpoint.save(
        Path("any"), random_checkpoint() if codec == "notes" else sound_checkpoint(codec, frame=4)
    )
    told = json.loads(made(run("evaluate", "any", tmp_path / "held-out", "--json")))
    said = made(run("evaluate", "any", tmp_path / "held-out", "--plot", "f.png"))
    assert "this checkpoint" in said
    assert not any(
        word in said for word in ("unigram", "Markov", "repeat", "uniform", "last value")
    )
    assert said.strip().endswith(
        "no training split: the baselines that are learned from one are left out."
    )
    assert "no training split" in told["remark"]


@pytest.mark.tf
def test_a_folder_of_any_name_is_told_from_all_together():
    checkpoint.save(Path("notes-one"), random_checkpoint())
    names = ("all/1.mid", "b/2.mid")
    rows = [note_row(name, seed=n, split="validation") for n, name in enumerate(names)]
    write_dataset("set", rows)
    found = json.loads(made(run("evaluate", "notes-one", "set", "--json")))
    assert [score["group"] for score in found["scores"]] == ["all", "b", "all together"]


def test_what_evaluate_and_runs_cannot_use(dataset):
    checkpoint.save(Path("notes-one"), random_checkpoint())
    write_dataset("sound", [sound_row("mulaw", "a")], codec="mulaw")
    refused(run("evaluate", "nowhere", dataset), "no checkpoint 'nowhere'")
    refused(run("evaluate", "notes-one", "none"), "none is not a dataset")
    refused(run("evaluate", "notes-one", "sound"), "'notes-2' and the dataset of 'mulaw-1'")
    refused(run("evaluate", "notes-one", dataset, "--split", "all"), "'all' is not one of")
    refused(run("evaluate", "notes-one", dataset, "--plot", "a.txt"), "ends in .png, not a.txt")
    refused(run("runs", "nowhere"), "no such folder")
    refused(run("runs", dataset), "holds no run")


def test_what_judge_cannot_use(dataset):
    checkpoint.save(Path("notes-one"), random_checkpoint())
    checkpoint.save(Path("sound-one"), sound_checkpoint("mulaw", frame=4))
    write_dataset("sound", [sound_row("mulaw", "a")], codec="mulaw")
    before = everything()
    for arguments, fragments in {
        ("nowhere", dataset): ["no checkpoint 'nowhere'"],
        ("notes-one", "none"): ["none is not a dataset"],
        ("notes-one", "sound"): ["'notes-2' and the dataset of 'mulaw-1'"],
        ("sound-one", "sound"): ["belongs to the codec 'mulaw-1', not 'notes-2'"],
        ("notes-one", dataset, "--recordings", "5"): ["10 recordings or more, and 5 are asked"],
        ("notes-one", dataset): ["needs 10 recordings", "9 do"],
    }.items():
        refused(run("judge", *arguments), *fragments)
        assert everything() == before, arguments


@pytest.mark.tf
@pytest.mark.slow
def test_a_command_that_is_killed_is_resumed_to_the_same_end(dataset):
    options = (*SMALL, "--steps", "60", "--eval-every-steps", "10")
    made(run("train", dataset, "-o", "whole", *options))
    command = in_a_process("train", dataset, "-o", "killed", *options, stderr=subprocess.PIPE)
    while not Path("killed/checkpoint/last/checkpoint.json").exists():
        time.sleep(0.01)
        assert command.poll() is None
    command.send_signal(signal.SIGKILL)
    assert beside_progress(command.communicate()[1].decode()) == []
    refused(run("train", dataset, "-o", "killed", *options), "already holds a run", "--resume")
    made(run("train", dataset, "-o", "killed", "--resume"))
    assert checkpoint.load("killed").digest == checkpoint.load("whole").digest
