from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.codecs.base import Field, SequenceSpec
from deep_piano.train.baselines import LinearPrediction, MarkovChain, PredictedClass

SPEC = SequenceSpec("toy", (Field("a", 3), Field("b", 2)))


def sequence(*columns):
    return np.array(columns, np.int32).T


def test_unigram_is_the_frequency_with_a_little_left_for_the_rest():
    chain = MarkovChain(SPEC, order=0).learn([sequence([0, 0, 0, 1], [1, 1, 1, 1])])
    # Witten-Bell: (count + kinds / size) / (total + kinds)
    expected = [-np.log((3 + 2 / 3) / 6), -np.log((4 + 1 / 2) / 5)]
    np.testing.assert_allclose(chain.nats([sequence([2, 0], [0, 1])]), expected)


def test_order_two_knows_what_order_zero_cannot():
    learned = sequence(np.resize([0, 1, 2, 2], 400), np.resize([0, 1], 400))
    nats = [MarkovChain(SPEC, order=k).learn([learned]).nats([learned]) for k in (0, 1, 2)]
    assert nats[2][0] < 0.05 < nats[1][0] < nats[0][0]
    assert nats[2][1] < 0.05


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2]))
def test_probabilities_of_every_context_add_up_to_one(seed, order):
    rng = np.random.default_rng(seed)
    learned = [sequence(rng.integers(0, 3, n), rng.integers(0, 2, n)) for n in (1, 2, 30)]
    chain = MarkovChain(SPEC, order=order).learn(learned)
    for counts in chain._counts:
        for level in chain._probabilities(counts):
            np.testing.assert_allclose(level.sum(-1), 1)
            assert (level > 0).all()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_sequences_are_scored_by_what_is_known(length):
    chain = MarkovChain(SPEC, order=2).learn([sequence([0, 1, 2, 0], [0, 1, 0, 1])])
    nats = chain.nats([sequence([0, 1, 2][:length], [0, 1, 0][:length])])
    assert np.isfinite(nats).all()


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_chain_holds_the_shorter_ones(order, rng):
    learned = [sequence(rng.integers(0, 3, n), rng.integers(0, 2, n)) for n in (5, 40)]
    inner = MarkovChain(SPEC, order=2).learn(learned).nats(learned, order=order)
    alone = MarkovChain(SPEC, order=order).learn(learned).nats(learned)
    np.testing.assert_array_equal(inner, alone)


def test_repetition_is_a_distribution(rng):
    spec = SequenceSpec("toy", (Field("x", 4),))
    chain = MarkovChain(spec, order=0).learn([rng.integers(0, 4, (200, 1))])
    for last in range(4):
        likely = [
            np.exp(-chain.nats_of_repetition([np.array([[last], [now]])])[0]) for now in range(4)
        ]
        assert sum(likely) == pytest.approx(1)


def test_repetition_foresees_what_repeats_itself():
    spec = SequenceSpec("toy", (Field("x", 4),))
    sequence = np.repeat([0, 1, 2, 3, 1, 0], 50)[:, None]
    chain = MarkovChain(spec, order=0).learn([sequence])
    assert chain.nats_of_repetition([sequence])[0] < 0.3 < chain.nats([sequence])[0]


def test_a_linear_prediction_finds_the_process_that_made_a_signal(rng):
    noise = rng.normal(0, 0.1, 20_000)
    values = np.zeros(len(noise))
    for t in range(2, len(values)):
        values[t] = 1.6 * values[t - 1] - 0.8 * values[t - 2] + noise[t]
    signal = values.astype(np.float32)[:, None]
    prediction = LinearPrediction(4).learn([signal[:15_000]])
    found = prediction.errors([signal[15_000:]])
    means = {name: total / count for name, (total, count) in found.items()}
    assert means["linear AR(4)"] == pytest.approx(0.01, rel=0.1)  # the noise's own variance
    assert means["linear AR(4)"] < means["last value"] < means["mean of the last 4"]
    assert {count for _, count in found.values()} == {5_000 - 4}


@pytest.mark.parametrize("length", [0, 3, 4, 5])
def test_silence_and_short_sequences_are_fine(length):
    prediction = LinearPrediction(4).learn([np.zeros((length, 1), np.float32)])
    found = prediction.errors([np.zeros((length, 1), np.float32)])
    assert found["last value"] == (0.0, max(0, length - 4))


def test_of_what_is_too_short_nothing_is_predicted():
    prediction = LinearPrediction(4).learn([np.ones((20, 1))])
    assert [len(prediction.predict(np.ones((n, 1)))) for n in (0, 4, 5)] == [0, 0, 1]


def test_a_predicted_class_is_worth_more_than_its_frequency(rng):
    spec = SequenceSpec("toy", (Field("x", 64, mu=255),))
    wave = 0.4 * np.sin(np.arange(4000) / 7) + rng.normal(0, 0.002, 4000)
    edges = np.convolve(spec.fields[0].levels, [0.5, 0.5], "valid")
    sequences = [np.searchsorted(edges, part)[:, None] for part in (wave[:3000], wave[3000:])]
    levels = spec.fields[0].levels
    linear = LinearPrediction(20).learn([levels[sequences[0]]])
    predicted = PredictedClass(spec.fields[0], lambda s: linear.predict(levels[s]))
    predicted.learn(sequences[:1])
    total, count = predicted.nats(sequences[1:])
    assert count == 980
    frequencies = MarkovChain(spec, order=0).learn(sequences[:1]).nats(sequences[1:])
    assert 0 < total / count < 0.5 * frequencies[0]
