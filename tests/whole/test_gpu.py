"""What runs on a GPU that TensorFlow sees: a training, and the pieces of a folder."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest

from deep_piano.models import checkpoint as checkpoints
from deep_piano.music.notes import write_midi
from tests.support.clusters import contents
from tests.support.commands import in_a_process
from tests.support.fakes import arpeggios, random_checkpoint, sound_checkpoint
from tests.support.recordings import SR, struck, write_sound
from tests.support.rows import arpeggio_rows, write_dataset

pytestmark = [pytest.mark.gpu, pytest.mark.tf, pytest.mark.slow]


def done(*words, **env):
    """Run a command in a process of its own, as a process keeps the devices it began with."""
    process = in_a_process(*words, env=env, stderr=subprocess.PIPE, text=True)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def test_a_training_has_the_losses_of_one_on_cpus(tmp_path):
    dataset = write_dataset(tmp_path / "dataset", arpeggio_rows(8)).uri
    small = ("--preset", "tiny", "--batch", "8", "--window", "16", "--precision", "float32")
    steps = ("--steps", "8", "--eval-every-steps", "4")
    done("train", dataset, "-o", tmp_path / "gpu", *small, *steps)
    done("train", dataset, "-o", tmp_path / "cpu", *small, *steps, CUDA_VISIBLE_DEVICES="")
    gpu, cpu = (
        pq.read_table(tmp_path / name / "history.parquet").to_pylist() for name in ("gpu", "cpu")
    )
    for name in ("train_loss", "validation_loss"):
        assert [row[name] for row in gpu] == pytest.approx([row[name] for row in cpu], rel=1e-2)


@pytest.mark.ray
@pytest.mark.parametrize("kind", ["mid", "wav"])
def test_the_pieces_of_a_folder_are_composed_there_and_again_with_the_same_bytes(kind, tmp_path):
    (tmp_path / "seeds").mkdir()
    for number in range(3):
        if kind == "mid":
            music = arpeggios(9, rng=np.random.default_rng(number))
            write_midi(tmp_path / f"seeds/{number}.mid", music)
        else:
            write_sound(tmp_path / f"seeds/{number}.wav", struck(60 + number, sr=SR), sr=SR)
    weights = random_checkpoint() if kind == "mid" else sound_checkpoint("mulaw", frame=4)
    checkpoints.save(tmp_path / "weights", weights)
    options = ("--checkpoint", tmp_path / "weights", "--seconds", 20, "--format", kind)
    pieces = []
    for name in ("one", "other"):
        done("generate", tmp_path / "seeds", "-o", tmp_path / name, *options, RAY_ADDRESS="")
        pieces.append(contents(tmp_path / name / "pieces"))
    facts = [json.loads(data) for name, data in pieces[0].items() if name.endswith(".json")]
    assert len(facts) == 3
    assert {one["composed_on"].split(",")[0] for one in facts} == {"gpu"}
    assert pieces[0] == pieces[1]
