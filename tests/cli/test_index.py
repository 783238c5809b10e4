"""`index` at the command line, and what `generate` makes of it."""

from __future__ import annotations

import json
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
        "recording",
    }


def test_an_index_is_replaced_by_force_alone():
    write_dataset(Path("dataset"), [note_row()])
    Path("corpus.index").write_text("mine")
    refused(run("index", "dataset", "-o", "corpus.index"), "already exists", "--force")
    assert Path("corpus.index").read_text() == "mine"
    made(run("index", "dataset", "-o", "corpus.index", "--force"))


def test_only_notes_can_be_indexed():
    write_dataset(Path("dataset"), [sound_row("mulaw")], codec="mulaw")
    refused(run("index", "dataset", "-o", "corpus.index"), "'mulaw", "codec notes")
    write_dataset(Path("held-out"), [note_row(split="validation")])
    refused(run("index", "held-out", "-o", "corpus.index"), "the split 'train'", "0 recordings")
    assert not Path("corpus.index").exists()
