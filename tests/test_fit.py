from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from deep_piano import checkpoint as checkpoints
from deep_piano.codecs.notes import LOG_WIDTHS, SPEC, encode
from deep_piano.config import TrainConfig
from deep_piano.corpus import Corpus, Recording
from deep_piano.decode import Engine
from deep_piano.errors import DeepPianoError, InputError
from deep_piano.evaluate import score, table
from deep_piano.fit import fit
from deep_piano.likelihood import cross_entropy, nats_per_note
from deep_piano.model import build_model
from deep_piano.windows import NoteContext
from tests.fakes import arpeggios

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


def make_corpus(rng, recordings=16):
    splits = ["validation" if index % 4 == 0 else "train" for index in range(recordings)]
    return Corpus(
        [
            Recording(f"{'ab'[index % 8 == 0]}/{index}.mid", split, arpeggios(30, rng=rng))
            for index, split in enumerate(splits)
        ]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    corpus = make_corpus(np.random.default_rng(1))
    run = tmp_path_factory.mktemp("runs") / "first"
    told = []
    best = fit(corpus, run, SETTINGS, progress=told.append)
    return corpus, run, best, told


def test_it_learns_and_beats_the_baselines(trained):
    corpus, _, best, _ = trained
    scores = score(best, corpus)
    totals = {s.model: s.total for s in scores if s.group == "all"}
    # The toy's pitches follow a rule twelve notes long, its timing and velocity are noise.
    mine = next(s for s in scores if s.group == "all" and s.model == "this checkpoint")
    assert mine.nats["pitch"] < 0.3
    assert totals["this checkpoint"] < min(totals["unigram"], totals["Markov, order 2"])
    assert {s.group for s in scores} == {"a", "b", "all"}


def test_the_table_has_a_row_a_model_and_group(trained):
    corpus, _, best, _ = trained
    lines = table(score(best, corpus)).splitlines()
    assert lines[0].startswith("| corpus | model | notes | nats a note | onset | pitch")
    assert len(lines) == 2 + 3 * 3
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_the_run_folder_holds_what_it_should(trained):
    _, run, best, told = trained
    history = pq.read_table(run / "history.parquet").to_pylist()
    assert [row["step"] for row in history] == [20, 40, 60, 80]
    assert history[-1]["validation_nats"] < history[0]["validation_nats"] - 0.1
    assert (run / "history.png").stat().st_size > 1000
    assert TrainConfig.model_validate_json((run / "settings.json").read_text()) == SETTINGS
    assert best.facts["validation_sample_nats"] == min(row["validation_nats"] for row in history)
    assert told[-1].step == told[-1].steps == 80
    assert [p.validation_nats for p in told if p.validation_nats is not None] == [
        row["validation_nats"] for row in history
    ]


def test_nats_are_those_of_the_engine_step_by_step(trained):
    corpus, _, best, _ = trained
    notes = corpus.of("validation")[0].notes
    model = build_model(SPEC, best.config, batch=2, window=16)
    checkpoints.assign_weights(model, best.weights)
    found = nats_per_note(model, SPEC, [notes])

    engine, sequence = Engine(best), encode(notes)
    state, context = engine.start(1), NoteContext(1)
    context.start(0)
    sums = np.zeros(4)
    for step, target in itertools.pairwise(sequence):
        heard = engine.hear(state, step[None], context.advance(step[None]))
        for index in range(4):
            logits = engine.logits(heard, target[None, :index])
            sums[index] += cross_entropy(logits, target[None, index])[0]
            sums[index] += LOG_WIDTHS[index][target[index]]
    expected = dict(zip(found, sums / (len(sequence) - 1), strict=True))
    assert found == pytest.approx(expected, abs=1e-3)


def test_resuming_goes_on_from_the_last_checkpoint(trained, tmp_path):
    corpus, _, _, _ = trained
    half = SETTINGS.model_copy(update={"steps": 40})
    fit(corpus, tmp_path / "run", half)
    told = []
    fit(corpus, tmp_path / "run", SETTINGS, resume=True, progress=told.append)
    assert told[0].step > 40
    history = pq.read_table(tmp_path / "run" / "history.parquet").to_pylist()
    assert [row["step"] for row in history] == [20, 40, 60, 80]
    card = json.loads((tmp_path / "run/checkpoint/last" / checkpoints.CARD).read_text())
    assert card["facts"]["step"] == 80


def test_a_run_is_not_overwritten_nor_resumed_from_nothing(trained, tmp_path):
    corpus, run, _, _ = trained
    with pytest.raises(InputError, match=r"holds a run already.*--resume"):
        fit(corpus, run, SETTINGS)
    with pytest.raises(InputError, match="holds no run to resume"):
        fit(corpus, tmp_path / "none", SETTINGS, resume=True)
    other = SETTINGS.model_copy(update={"preset": "small"})
    with pytest.raises(InputError, match="Give the run's own preset"):
        fit(corpus, run, other, resume=True)


def test_a_loss_that_is_no_number_stops_the_run(trained, tmp_path, monkeypatch):
    from deep_piano import fit as module

    def poisoned(*args, **kwargs):
        for batch in batches(*args, **kwargs):
            batch.context[:] = np.nan
            yield batch

    batches = module.training_batches
    monkeypatch.setattr(module, "training_batches", poisoned)
    with pytest.raises(DeepPianoError, match="not a number at step 1"):
        fit(trained[0], tmp_path / "run", SETTINGS)


def test_one_batch_can_be_learned_by_heart(rng):
    from deep_piano.fit import _Trainer
    from deep_piano.windows import validation_batches

    settings = SETTINGS.model_copy(update={"batch": 2, "window": 12, "learning_rate": 0.03})
    batch = next(validation_batches([arpeggios(3, rng=rng)] * 2, batch=2, window=12))
    trainer = _Trainer(SPEC, settings)
    for _ in range(150):
        trainer.reset_figures()
        batch.keep[:] = 0
        nats = trainer.train(batch)
    assert nats < 0.1
