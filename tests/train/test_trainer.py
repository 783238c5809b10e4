"""One update after another: what a trainer learns, carries, averages and takes up again."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from deep_piano.codecs.notes import SPEC, encode
from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import TrainConfig
from deep_piano.errors import CheckpointError, TrainingError
from deep_piano.models import checkpoint as checkpoints
from deep_piano.train.trainer import Trainer
from deep_piano.train.windows import held_out_batches
from tests.support.fakes import TINY, arpeggios, random_checkpoint

pytestmark = pytest.mark.tf

SETTINGS = TrainConfig(
    batch=2, window=12, steps=100, warmup_steps=4, learning_rate=0.03, precision="float32"
)


def trainer_of(config=TINY, **values):
    return Trainer(SPEC, config, SETTINGS.model_copy(update=values))


@pytest.fixture(scope="module")
def batches():
    """Consecutive windows of two recordings."""
    sequences = [encode(arpeggios(9, rng=np.random.default_rng(n))) for n in range(2)]
    found = held_out_batches(sequences, CODECS["notes"], batch=2, window=12)
    return [batch for batch, _ in itertools.islice(found, 3)]


def state_of(trainer):
    return checkpoints.weights_of(trainer.model) | trainer.training_state()


def test_one_batch_can_be_learned_by_heart(batches):
    """What is known beside the notes nearly tells the next: a network that learns finds it."""
    trainer = trainer_of()
    batch = replace(batches[0], keep=np.zeros(2, np.float32))
    first = trainer.train(batch)
    for _ in range(149):
        trainer.reset_figures()
        nats = trainer.train(batch)
    assert trainer.step == 150
    assert nats < 0.1 < first


def test_figures_are_the_mean_since_they_were_reset(batches):
    trainer, other = trainer_of(), trainer_of()
    first, both = (trainer.train(batch) for batch in batches[:2])
    other.train(batches[0])
    other.reset_figures()
    second = other.train(batches[1])
    counts = [float(batch.weights.sum()) for batch in batches[:2]]
    assert both == pytest.approx(np.average([first, second], weights=counts), rel=1e-5)


def test_the_rate_rises_first_and_the_same_seed_makes_the_same_network(batches):
    trainer, same, other = trainer_of(), trainer_of(), trainer_of(random_state=1)
    rates = []
    for batch in batches:
        rates.append(trainer.learning_rate)
        trainer.train(batch)
        same.train(batch)
        other.train(batch)
    assert rates == pytest.approx([0.03 * (n + 1) / 4 for n in range(3)])
    one, two, three = map(state_of, (trainer, same, other))
    assert all(np.array_equal(array, two[name]) for name, array in one.items())
    assert any((array != three[name]).any() for name, array in one.items())


def test_what_was_saved_goes_on_as_if_it_had_not_been(batches):
    whole, again = trainer_of(), trainer_of(random_state=1)
    for batch in batches[:2]:
        whole.train(batch)
    again.restore(checkpoints.weights_of(whole.model), whole.training_state())
    carried = [name for name in whole.training_state() if name.startswith("carried/")]
    assert carried
    for trainer in (whole, again):
        trainer.reset_figures()
    assert whole.train(batches[2]) == again.train(batches[2])
    expected = state_of(whole)
    assert all(np.array_equal(array, expected[name]) for name, array in state_of(again).items())


@pytest.mark.parametrize(("name", "shape"), [("optimizer/002", (3, 3)), ("carried/000", (4, 2))])
def test_another_model_s_state_is_refused(batches, name, shape):
    trainer = trainer_of()
    weights, state = checkpoints.weights_of(trainer.model), trainer.training_state()
    assert state[name].shape != shape
    for wrong in (state | {name: np.ones(shape)}, {n: a for n, a in state.items() if n != name}):
        with pytest.raises(CheckpointError, match="does not fit the run's settings"):
            trainer.restore(weights, wrong)


def test_the_mean_of_the_weights_is_lent_and_taken_back(batches):
    trainer = trainer_of(mean_of_weights=0.9)
    began = checkpoints.weights_of(trainer.model)
    for batch in batches:
        trainer.train(batch)
    own = checkpoints.weights_of(trainer.model)
    with trainer.averaged():
        mean = trainer.checkpoint({}).weights
    name = "lstm_0/kernel"
    moved, averaged = np.abs(own[name] - began[name]), np.abs(mean[name] - began[name])
    assert 0 < averaged.mean() < moved.mean()
    after = checkpoints.weights_of(trainer.model)
    assert all(np.array_equal(array, after[which]) for which, array in own.items())


def test_it_begins_from_other_weights_and_their_mean_is_theirs():
    trainer, given = trainer_of(mean_of_weights=0.9), random_checkpoint(TINY, seed=5)
    trainer.begin_from(given.weights)
    with trainer.averaged():
        found = trainer.checkpoint({"why": "to see"})
    assert found.digest == given.digest
    assert found.facts == {"why": "to see"}


def test_a_loss_that_is_not_a_number_ends_it_saying_what_to_lower(batches):
    known = batches[0].known
    poisoned = replace(
        batches[0], known=known._replace(features=known.features * np.float32(np.nan))
    )
    trainer = trainer_of()
    trainer.train(batches[0])
    with pytest.raises(TrainingError, match=r"at update 2\. Lower train\.learning_rate"):
        trainer.train(poisoned)
