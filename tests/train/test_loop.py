from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deep_piano.codecs.base import nats
from deep_piano.codecs.note_context import NoteContext
from deep_piano.codecs.notes import LOG_WIDTHS, SPEC, classes, encode, excerpt
from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import TrainConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.decoding.notes import Engine
from deep_piano.errors import DeepPianoError, TrainingError
from deep_piano.infra.progress import Progress
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.config import PRESETS
from deep_piano.models.note_network import build_model
from deep_piano.train import loop as module
from deep_piano.train import runs
from deep_piano.train.evaluation import MINE, evaluate
from deep_piano.train.likelihood import losses
from deep_piano.train.loop import go_on
from deep_piano.train.start import begin
from deep_piano.train.trainer import Trainer
from tests.support.fakes import SOUND_CODECS, arpeggios, random_checkpoint
from tests.support.rows import arpeggio_rows, note_row, sound_row, write_dataset

pytestmark = pytest.mark.tf

SETTINGS = TrainConfig(
    preset="tiny",
    batch=8,
    window=16,
    steps=80,
    eval_every_steps=20,
    warmup_steps=10,
    learning_rate=0.01,
    transpose_semitones=0,
    precision="float32",
)


def train(dataset, run, settings=SETTINGS, *, resume=False, init=None, **told):
    place = open_folder(run)
    chosen, network = begin(dataset, place, settings, resume=resume, init=init)
    return go_on(dataset, place, chosen, network, init=init, **told)


def changed(**values):
    return TrainConfig(**(SETTINGS.model_dump(exclude_unset=True) | values))


@pytest.fixture
def resumable(trained, tmp_path):
    """A copy of the first run."""
    return shutil.copytree(trained[0], tmp_path / "run")


def weights_of(run, which="last"):
    return checkpoints.load(str(Path(run) / "checkpoint" / which)).weights


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    # Every recording is of one key, so that 12 of them tell what the others are like.
    rows = [note_row(row.name, split=row.split, seconds=30, seed=0) for row in arpeggio_rows(16)]
    for index, row in enumerate(rows):
        notes = arpeggios(30, rng=np.random.default_rng(index))
        row.sequence[:] = encode(notes)
    return Dataset(write_dataset(folder, rows, row_group_bytes=2000))


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "first"
    told, rows = [], []
    best = train(dataset, run, progress=told.append, validated=rows.append)
    return run, best, told, rows


def test_it_learns_and_beats_the_baselines(dataset, trained):
    _, best, _, _ = trained
    found = evaluate(best, dataset)
    totals = {score.model: score for score in found.of("all")}
    mine = totals.pop(MINE)
    # The toy's pitches follow a rule twelve notes long, its timing and velocity are noise.
    assert mine.losses["pitch"] < 0.3
    assert {"unigram", "Markov, order 1", "Markov, order 2", "repeat the last note"} == set(totals)
    assert mine.total < min(score.total for score in totals.values())


def test_the_run_folder_holds_what_it_should(dataset, trained):
    run, best, told, rows = trained
    history = pq.read_table(run / "history.parquet").to_pylist()
    assert history == rows
    assert [row["step"] for row in history] == [20, 40, 60, 80]
    assert [row["seen"] for row in history] == [128 * row["step"] for row in history]
    assert history[-1]["validation_loss"] < history[0]["validation_loss"] - 0.1
    assert (run / "history.png").stat().st_size > 1000
    [events] = (run / "tensorboard").iterdir()
    assert b"validation/pitch" in events.read_bytes()
    about = json.loads((run / "run.json").read_text())
    assert TrainConfig.model_validate(about["settings"]) == SETTINGS
    assert about["dataset"]["digest"] == dataset.digest
    assert about["versions"]["keras"]
    assert best.facts["validation_loss"] == min(row["validation_loss"] for row in history)
    assert told[-1].step == told[-1].steps == 80
    assert [p.validation_loss for p in told if p.validation_loss is not None] == [
        row["validation_loss"] for row in history
    ]
    assert told[-1].text.startswith("update 80 of 80, ")
    assert "nats a note, validation " in told[-1].text
    assert told[-1].progress == Progress("training", 80, 80, text=told[-1].text)


def test_losses_are_those_of_the_engine_step_by_step(dataset, trained):
    _, best, _, _ = trained
    sequence = next(dataset.recordings("validation")).sequence
    model = build_model(SPEC, best.config, batch=2, window=16)
    checkpoints.assign_weights(model, best.weights)
    others = [row.sequence[:40] for row in dataset.recordings("train")]
    every, counts = losses(model, CODECS["notes"], [others[0], sequence, *others[1:4]])
    assert counts.tolist() == [39, len(sequence) - 1, 39, 39, 39]
    sums, steps = every[1], counts[1]

    engine = Engine(best)
    state, context = engine.start(1), NoteContext(1)
    context.start(0)
    expected = np.zeros(4)
    for step, target in itertools.pairwise(excerpt(sequence, 0).astype(np.int32)):
        hidden = engine.step(state, classes(step[None]), context.advance(step[None]))
        for index, field in enumerate(SPEC.fields):
            known, candidates = context.of_field(np.zeros(1, np.int64), target[None, :index])
            logits = engine.logits(hidden, classes(target[None, :index]), known)
            mine, copied = classes(target[None])[:, index], candidates == target[index]
            expected[index] += nats(field, LOG_WIDTHS[index], logits, mine, copied)[0]
    assert sums / steps == pytest.approx(expected / steps, abs=1e-3)


def test_resuming_equals_not_stopping_bit_for_bit(dataset, trained, tmp_path):
    """The first run was not stopped; this one's process was killed in mid-run."""
    run, _, _, _ = trained

    class KilledError(Exception):
        pass

    def kill(row):
        if row["step"] == 40:
            raise KilledError

    with pytest.raises(KilledError):
        train(dataset, tmp_path / "run", validated=kill)
    told = []
    train(dataset, tmp_path / "run", TrainConfig(), resume=True, progress=told.append)
    assert told[0].step > 40
    assert same(weights_of(tmp_path / "run"), weights_of(run))
    assert same(weights_of(tmp_path / "run", "best"), weights_of(run, "best"))
    states = [
        checkpoints.load_training(open_folder(folder / "checkpoint" / "last"))
        for folder in (run, tmp_path / "run")
    ]
    assert same(*states)
    histories = [
        pq.read_table(folder / "history.parquet").drop_columns("hours")
        for folder in (run, tmp_path / "run")
    ]
    assert histories[0].equals(histories[1])


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(dataset, trained, tmp_path):
    run, _, _, _ = trained
    begin(dataset, open_folder(tmp_path / "run"), SETTINGS)
    train(dataset, tmp_path / "run", TrainConfig(), resume=True)
    assert same(weights_of(tmp_path / "run"), weights_of(run))


def test_a_finished_run_is_resumed_to_no_effect(dataset, trained):
    run = trained[0]
    before = (run / "checkpoint/last/checkpoint.json").read_bytes()
    again = train(dataset, run, TrainConfig(), resume=True)
    assert again.digest == checkpoints.load(str(run)).digest
    assert (run / "checkpoint/last/checkpoint.json").read_bytes() == before


@pytest.mark.parametrize("damage", ["short", "broken"])
def test_a_history_that_a_kill_cut_off_is_made_whole(dataset, resumable, damage):
    path = resumable / "history.parquet"
    whole = runs.read_history(open_folder(resumable))
    if damage == "short":
        runs.write_history(open_folder(resumable), whole[:-1], unit="nats a note")
    else:
        path.write_bytes(b"broken")
    train(dataset, resumable, TrainConfig(), resume=True)
    assert runs.read_history(open_folder(resumable)) == whole


def test_it_begins_with_other_weights(dataset, trained, tmp_path):
    _, best, _, _ = trained
    saved = tmp_path / "c"
    checkpoints.save(saved, best)
    best = checkpoints.load(str(saved))
    told = []
    short = changed(steps=1, warmup_steps=0, learning_rate=1e-9, preset="tiny")
    train(dataset, tmp_path / "run", short, init=best, progress=told.append)
    expected = best.facts["validation_loss"]
    assert told[-1].validation_loss == pytest.approx(expected, abs=1e-3)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["init"] == best.digest


def test_patience_ends_a_run(dataset, tmp_path):
    told = []
    settings = changed(learning_rate=0.1, weight_decay=0.0, steps=400, patience=2)
    settings = settings.model_copy(update={"eval_every_steps": 5, "warmup_steps": 0})
    train(dataset, tmp_path / "run", settings, validated=told.append)
    losses_found = [row["validation_loss"] for row in told]
    assert len(losses_found) < 80
    assert min(losses_found[-2:]) >= min(losses_found[:-2])


def test_a_loss_that_is_no_number_stops_the_run(dataset, tmp_path, monkeypatch):
    feed = NoteContext.window

    def poisoned(self, steps, coming):
        known = feed(self, steps, coming)
        return known._replace(features=known.features * np.nan)

    monkeypatch.setattr(NoteContext, "window", poisoned)
    with pytest.raises(
        TrainingError,
        match=r"the loss is nan at update 1\. Give --learning-rate 0\.005.*begin the run again",
    ):
        train(dataset, tmp_path / "run")


@pytest.mark.parametrize("what", ["the loss is nan", "the validation loss is nan", "lstm_0/kernel"])
def test_what_is_no_number_replaces_no_checkpoint(dataset, resumable, monkeypatch, what):
    def fail(self, batch):
        raise FloatingPointError("the loss is nan")

    def poisoned(self, facts):
        found = checkpoint(self, facts)
        return replace(found, weights=found.weights | {"lstm_0/kernel": np.array([np.nan])})

    checkpoint = Trainer.checkpoint
    if what == "the loss is nan":
        monkeypatch.setattr(Trainer, "train", fail)
    elif what == "lstm_0/kernel":
        monkeypatch.setattr(Trainer, "checkpoint", poisoned)
    else:
        scored = np.full((1, 4), np.nan), np.array([10])
        monkeypatch.setattr(module, "losses", lambda *_, **__: scored)
    before = checkpoints.load(str(resumable / "checkpoint/last")).digest
    way = rf"--learning-rate 0\.005.*in another run: --init {resumable}/checkpoint/last -o OTHER"
    with pytest.raises(TrainingError, match=rf"{what}.* at update \d+\. .*{way}"):
        train(dataset, resumable, TrainConfig(steps=100), resume=True)
    assert checkpoints.load(str(resumable / "checkpoint/last")).digest == before
    assert [row["step"] for row in runs.read_history(open_folder(resumable))] == [20, 40, 60, 80]


def test_nothing_to_be_scored_is_said_before_the_training(tmp_path):
    rows = [
        replace(row, sequence=row.sequence[: 1 if row.split == "validation" else None])
        for row in arpeggio_rows(8)
    ]
    dataset = Dataset(write_dataset(tmp_path / "dataset", rows))
    with pytest.raises(
        TrainingError, match="no note to be scored: its 2 recordings have 1 or fewer"
    ):
        train(dataset, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.parametrize("error", ["tensorflow", "python"])
def test_running_out_of_memory_says_what_to_lower(dataset, tmp_path, monkeypatch, error):
    def exhausted(self, batch):
        import tensorflow as tf

        if error == "python":
            raise MemoryError
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(Trainer, "train", exhausted)
    said = r"out of memory with 8 windows of 16.*train\.batch"
    with pytest.raises(DeepPianoError, match=rf"{said}.*begin the run again"):
        train(dataset, tmp_path / "run")
    checkpoints.save(tmp_path / "run/checkpoint/last", random_checkpoint())
    with (
        pytest.raises(DeepPianoError, match=rf"{said}.*another run: --init"),
        module._memory_explained(SETTINGS, open_folder(tmp_path / "run")),
    ):
        raise MemoryError


def test_workers_that_drift_apart_are_noticed(dataset, tmp_path, monkeypatch):
    from deep_piano.train.workers import Workers

    class Drifting(Workers):
        def gather(self, array):
            return np.stack([array, array + (array.dtype == np.int32)])

    with pytest.raises(TrainingError, match="weights differ at update 20"):
        train(dataset, tmp_path / "run", workers=Drifting())


@pytest.mark.slow
@pytest.mark.parametrize("codec", SOUND_CODECS)
def test_sound_is_trained_on_by_the_same_loop(tmp_path, codec):
    rows = [sound_row(codec, f"{n}", split=s) for n, s in enumerate(["train"] * 3 + ["validation"])]
    for row in rows:  # a predictable tone
        wave = np.sin(np.arange(len(row.sequence)) / 9).astype(np.float32)[:, None] * 0.5
        row.sequence[:] = CODECS[codec].encode(wave[:, 0])
    dataset = Dataset(write_dataset(tmp_path / "dataset", rows, codec=codec))
    told = []
    settings = changed(batch=2, window=64, steps=150, eval_every_steps=75)
    best = train(dataset, tmp_path / "run", settings, progress=told.append)
    found = evaluate(best, dataset)
    scores = {score.model: score.total for score in found.of(".")}
    assert {score.steps for score in found.scores} == {16_000 - best.config.given}
    if CODECS[codec].spec.continuous:
        assert found.unit == "squared error a sample"
        assert scores[MINE] < scores["mean of the last 100"]
        assert scores["linear AR(100)"] < scores["last value"]
    else:
        assert found.unit == "nats a sample"
        assert scores[MINE] < scores["unigram"] < scores["uniform"]
    assert "a sample" in told[-1].text


def test_a_gpu_s_precision_trains_too(dataset, tmp_path):
    told = []
    settings = changed(precision="mixed_float16", steps=20)
    train(dataset, tmp_path / "run", settings, progress=told.append)
    assert np.isfinite(told[-1].validation_loss)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_train_the_same_model(dataset, tmp_path, backend):
    pytest.importorskip(backend)
    checkpoints.save(tmp_path / "begin", random_checkpoint(PRESETS["tiny"], scale=0.1))
    command = [sys.executable, "-m", "deep_piano", "train", dataset.folder.uri]
    options = ["--batch", "8", "--window", "16", "--steps", "8", "--eval-every-steps", "4"]
    options += ["--precision", "float32", "--init", str(tmp_path / "begin")]
    found = {}
    for name in ("tensorflow", backend):
        out = tmp_path / name
        subprocess.run(
            [*command, "-o", str(out), *options],
            check=True,
            env=os.environ | {"KERAS_BACKEND": name, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        found[name] = pq.read_table(out / "history.parquet").to_pylist()
    for one, other in zip(*found.values(), strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
        assert other["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-3)


def test_the_sample_reads_no_more_than_it_needs(tmp_path, monkeypatch):
    rows = [note_row(f"{n}", split="validation", seconds=10, seed=n) for n in range(12)]
    dataset = Dataset(write_dataset(tmp_path, rows, row_group_bytes=1))
    read = []
    monkeypatch.setattr(
        dataset, "rows", lambda group: read.append(group) or Dataset.rows(dataset, group)
    )
    assert len(module._sample(dataset, 3, 1)) == len(read) == 3
