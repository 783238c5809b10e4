"""`index` at the command line, and what `generate` makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deep_piano.music.midi import write_midi
from tests.support.commands import made, refused, run
from tests.support.fakes import arpeggios
from tests.support.rows import note_row, sound_row, write_dataset

pytestmark = pytest.mark.usefixtures("desk")


def test_a_dataset_is_indexed_and_a_piece_is_compared_with_it(weights, rng):
    rows = [note_row(f"{n}.mid", seed=n) for n in range(3)]
    rows.append(note_row("held-out.mid", seed=9, split="validation"))
    write_dataset(Path("dataset"), rows)
    notes = sum(len(row.sequence) for row in rows[:3])
    said = made(run("index", "dataset", "-o", "corpus.index"))
    assert said == f"corpus.index: 3 recordings, {notes} notes\n"
    write_midi(Path("seed.mid"), arpeggios(12, rng=rng))
    options = ("--checkpoint", weights, "--seconds", 20, "--index", "corpus.index")
    made(run("generate", "seed.mid", "-o", "piece.mid", *options))
    facts = json.loads(Path("piece.json").read_text())
    assert set(facts["originality"]) == {
        "longest_shared_run_notes",
        "exact",
        "recording",
        "corpus_sha256",
    }


def test_a_checkpoint_that_has_an_index_compares_every_piece_with_it(weights, rng):
    write_dataset(Path("dataset"), [note_row(f"{n}.mid", seed=n) for n in range(3)])
    said = made(run("index", "dataset", "-o", "small.index", "--compact"))
    assert said.startswith("small.index: 3 recordings, ")
    shutil.copytree(weights, "mine")
    made(run("index", "dataset", "--checkpoint", "mine"))
    write_midi(Path("seed.mid"), arpeggios(12, rng=rng))
    options = ("--checkpoint", "mine", "--seconds", 20)
    made(run("generate", "seed.mid", "-o", "own.mid", *options))
    made(run("generate", "seed.mid", "-o", "given.mid", *options, "--index", "small.index"))
    own, given = (json.loads(Path(f"{name}.json").read_text()) for name in ("own", "given"))
    assert own["originality"] == given["originality"]
    assert not own["originality"]["exact"]
    options += ("--most-shared", 12)
    made(run("generate", "seed.mid", "-o", "apart.mid", *options))
    apart = json.loads(Path("apart.json").read_text())
    assert apart["originality"]["longest_shared_run_notes"] <= 12


def test_an_index_goes_to_one_place():
    write_dataset(Path("dataset"), [note_row()])
    refused(run("index", "dataset"), "-o, or a --checkpoint")
    refused(run("index", "dataset", "-o", "a", "--checkpoint", "b"), "-o, or a --checkpoint")


def test_an_index_is_replaced_by_force_alone():
    write_dataset(Path("dataset"), [note_row()])
    Path("corpus.index").write_text("mine")
    refused(run("index", "dataset", "-o", "corpus.index"), "already exists", "--force")
    assert Path("corpus.index").read_text() == "mine"
    made(run("index", "dataset", "-o", "corpus.index", "--force"))


def test_an_index_that_a_checkpoint_has_is_replaced_by_force_alone(weights):
    write_dataset(Path("dataset"), [note_row()])
    shutil.copytree(weights, "mine")
    made(run("index", "dataset", "--checkpoint", "mine"))
    card = Path("mine/checkpoint.json").read_text()
    again = ("index", "dataset", "--checkpoint", "mine")
    refused(run(*again), "has an index of its corpus already", "--force")
    assert Path("mine/checkpoint.json").read_text() == card
    made(run(*again, "--force"))


def test_only_notes_can_be_indexed():
    write_dataset(Path("dataset"), [sound_row("mulaw")], codec="mulaw")
    refused(run("index", "dataset", "-o", "corpus.index"), "'mulaw", "codec notes")
    write_dataset(Path("held-out"), [note_row(split="validation")])
    refused(run("index", "held-out", "-o", "corpus.index"), "the split 'train'", "0 recordings")
    assert not Path("corpus.index").exists()
