"""One update after another: what a trainer learns, carries, averages and takes up again."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from deep_piano.codecs.notes import SPEC, encode
from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import TrainConfig
from deep_piano.errors import CheckpointError
from deep_piano.models import checkpoint as checkpoints
from deep_piano.train.trainer import Trainer
from deep_piano.train.windows import held_out_batches
from tests.support.fakes import TINY, arpeggios, random_checkpoint

pytestmark = pytest.mark.tf

SETTINGS = TrainConfig(
    batch=2,
    window=12,
    steps=1000,
    warmup_steps=4,
    learning_rate=0.03,
    mean_of_weights=0.9,
    precision="float32",
)


def build(**values):
    return Trainer(SPEC, TINY, SETTINGS.model_copy(update=values))


@pytest.fixture(scope="module")
def _begun():
    """A trainer, which takes seconds to compile, and how it began."""
    trainer = build()
    return trainer, checkpoints.weights_of(trainer.model), trainer.training_state()


@pytest.fixture
def trainer(_begun):
    """A trainer that has made no update."""
    trainer, weights, state = _begun
    trainer.restore(weights, state)
    trainer.reset_figures()
    trainer.step = 0
    return trainer


@pytest.fixture(scope="module")
def batches():
    """Consecutive windows of two recordings."""
    sequences = [encode(arpeggios(9, rng=np.random.default_rng(n))) for n in range(2)]
    found = held_out_batches(sequences, CODECS["notes"], batch=2, window=12)
    return [batch for batch, _ in itertools.islice(found, 3)]


def state_of(trainer):
    return checkpoints.weights_of(trainer.model) | trainer.training_state()


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


def test_one_batch_can_be_learned_by_heart(trainer, batches):
    batch = replace(batches[0], keep=np.zeros(2, np.float32))
    first = trainer.train(batch)
    for _ in range(149):
        trainer.reset_figures()
        nats = trainer.train(batch)
    assert trainer.step == 150
    assert nats < 0.1 < first


def test_figures_are_the_mean_since_they_were_reset(trainer, batches):
    weights, state = checkpoints.weights_of(trainer.model), trainer.training_state()
    _, both = (trainer.train(batch) for batch in batches[:2])
    each = []
    trainer.restore(weights, state)
    for batch in batches[:2]:
        trainer.reset_figures()
        each.append(trainer.train(batch))
    counts = [float(batch.weights.sum()) for batch in batches[:2]]
    assert both == pytest.approx(np.average(each, weights=counts), rel=1e-5)


def test_the_rate_rises_first(trainer, batches):
    rates = []
    for batch in batches:
        rates.append(trainer.learning_rate)
        trainer.train(batch)
    assert rates == pytest.approx([0.03 * (n + 1) / 4 for n in range(3)])


def test_the_random_state_decides_how_a_network_begins(trainer):
    began = state_of(trainer)
    assert equal(state_of(build()), began)
    assert not equal(state_of(build(random_state=1)), began)


def test_what_was_saved_goes_on_as_if_it_had_not_been(trainer, batches):
    for batch in batches[:2]:
        trainer.train(batch)
    saved = trainer.training_state()
    assert any(name.startswith("carried/") and array.any() for name, array in saved.items())
    again = build(random_state=1)
    again.restore(checkpoints.weights_of(trainer.model), saved)
    trainer.reset_figures()
    assert again.train(batches[2]) == trainer.train(batches[2])
    assert equal(state_of(again), state_of(trainer))


def test_another_network_is_refused(trainer):
    weights, state = checkpoints.weights_of(trainer.model), trainer.training_state()
    name = next(iter(weights))
    for wrong in (
        weights | {name: np.ones((3, 3))},
        {n: a for n, a in weights.items() if n != name},
    ):
        with pytest.raises(CheckpointError, match="has another network than the run's settings"):
            trainer.restore(wrong, state)


@pytest.mark.parametrize(("name", "shape"), [("optimizer/002", (3, 3)), ("carried/000", (4, 2))])
def test_another_model_s_state_is_refused(trainer, name, shape):
    weights, state = checkpoints.weights_of(trainer.model), trainer.training_state()
    assert state[name].shape != shape
    for wrong in (state | {name: np.ones(shape)}, {n: a for n, a in state.items() if n != name}):
        with pytest.raises(CheckpointError, match="does not fit the run's settings"):
            trainer.restore(weights, wrong)


def test_the_mean_of_the_weights_is_lent_and_taken_back(trainer, batches):
    began = checkpoints.weights_of(trainer.model)
    for batch in batches:
        trainer.train(batch)
    own = checkpoints.weights_of(trainer.model)
    with trainer.averaged():
        mean = trainer.checkpoint({}).weights
    name = "lstm_0/kernel"
    moved, averaged = np.abs(own[name] - began[name]), np.abs(mean[name] - began[name])
    assert 0 < averaged.mean() < moved.mean()
    assert equal(checkpoints.weights_of(trainer.model), own)


def test_it_begins_from_other_weights_and_their_mean_is_theirs(trainer):
    given = random_checkpoint(TINY, seed=5)
    trainer.begin_from(given.weights)
    with trainer.averaged():
        found = trainer.checkpoint({"why": "to see"})
    assert equal(found.weights, dict(given.weights))
    assert found.facts == {"why": "to see"}


def test_added_layers_change_nothing_until_they_are_trained(batches):
    given = random_checkpoint(TINY, seed=5)
    deeper = Trainer(SPEC, replace(TINY, layers=TINY.layers + 1), SETTINGS)
    deeper.begin_from(given.weights)
    same = build()
    same.begin_from(given.weights)
    for ours, theirs in zip(*(t.model(batches[0].inputs) for t in (deeper, same)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    began = checkpoints.weights_of(deeper.model)
    for batch in batches:
        deeper.train(batch)
    now, added = checkpoints.weights_of(deeper.model), f"lstm_{TINY.layers}/"
    learned = {name for name in now if name.startswith(added) and (now[name] != began[name]).any()}
    assert learned == {added + part for part in ("kernel", "recurrent_kernel", "bias")}


def test_a_loss_that_is_not_a_number_is_said(trainer, batches):
    known = batches[0].known
    poisoned = replace(
        batches[0], known=known._replace(features=known.features * np.float32(np.nan))
    )
    trainer.train(batches[0])
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        trainer.train(poisoned)
