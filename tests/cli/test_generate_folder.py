"""`generate` of a folder of seeds at the command line: what users see, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deep_piano.models import checkpoint as checkpoints
from deep_piano.music.midi import write_midi
from tests.support.commands import everything, refused, run
from tests.support.fakes import arpeggios, sound_checkpoint

pytestmark = pytest.mark.usefixtures("desk")


@pytest.fixture
def seeds():
    for number in range(2):
        music = arpeggios(9, rng=np.random.default_rng(number))
        write_midi(Path(f"seeds/{number}.mid"), music)
    return Path("seeds")


def generate(weights, *arguments):
    return run("generate", *arguments, "--checkpoint", weights, "--seconds", 20)


@pytest.mark.ray
@pytest.mark.slow
def test_pieces_and_failures_are_counted(weights, seeds):
    Path("seeds/bad.mid").write_text("not MIDI")
    result = generate(weights, "seeds", "-o", "pieces", "--format", "mid")
    assert result.exit_code == 1
    asked, page = result.stdout.splitlines()
    assert asked == "pieces: pieces asked for: 3 = 2 there + 1 failed"
    assert page == "to hear and compare them, open pieces/index.html"
    for told in ("starting Ray\n", "writing pieces: 3 of 3"):
        assert told in result.stderr
    assert "1 of 3 pieces failed. pieces.jsonl says why" in result.stderr
    lines = [json.loads(line) for line in Path("pieces/pieces.jsonl").read_text().splitlines()]
    assert {line["seed"]: line["status"] for line in lines} == {
        "0.mid": "done",
        "1.mid": "done",
        "bad.mid": "failed",
    }
    Path("seeds/bad.mid").unlink()
    again = generate(weights, "seeds", "-o", "pieces", "--format", "mid")
    assert again.exit_code == 0
    assert again.stdout.startswith("pieces: pieces asked for: 2 = 2 there + 0 failed\n")
    told = json.loads(
        generate(weights, "seeds", "-o", "pieces", "--format", "mid", "--json").stdout
    )
    assert told["page"] == "pieces/index.html"
    assert (told["asked"], told["there"], told["failed"], told["failures"]) == (2, 2, 0, [])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--format", "mid"), "sound is written, and no notes"),
        (("--takes", "3", "--keep", "1"), "--keep: takes of sound cannot be ranked"),
    ],
)
def test_what_only_notes_have_is_not_asked_of_sound(seeds, options, why):
    checkpoints.save(Path("sound"), sound_checkpoint("mulaw", frame=4))
    refused(generate("sound", "seeds", "-o", "pieces", *options), why)
    assert not Path("pieces").exists()


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["seeds", "-o", "piece.mp3"], ["'seeds' is a folder of seeds", "Give a folder"]),
        (["seeds", "-o", "seeds/pieces"], ["contain each other", "folder of its own"]),
        (["seeds", "-o", "seeds"], ["contain each other"]),
        (["none/", "-o", "piece.mid"], ["no such file: none"]),
        (["s3:/seeds", "-o", "piece.mid"], ["no such file: s3:/seeds"]),
        (["seeds/0.mid", "-o", "p.mid", "--format", "mp3"], ["--format is for a folder of seeds"]),
        (["seeds/0.mid", "-o", "p.mid", "--workers", "2"], ["--workers is for a folder of seeds"]),
        (["seeds/0.mid", "-o", "p.mid", "--gpus-per-worker", "0"], ["--gpus-per-worker is for a"]),
        (["seeds", "-o", "pieces", "--gpus-per-worker", "2"], ["bulk.gpus_per_worker", "1"]),
        (["seeds", "-o", "pieces", "--format", "exe"], ["bulk.format", "mp3"]),
        (["seeds", "-o", "pieces", "--index", "none"], ["not an index of a corpus"]),
        (["seeds", "-o", "pieces", "--sound", "none.sf2"], ["none.sf2"]),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(weights, seeds, arguments, fragments):
    before = everything()
    refused(generate(weights, *arguments), *fragments)
    assert everything() == before


def test_a_folder_without_seeds(weights):
    Path("seeds").mkdir()
    Path("seeds/readme.txt").write_text("nothing here")
    refused(generate(weights, "seeds", "-o", "pieces"), "holds no recording", "1 other files")
