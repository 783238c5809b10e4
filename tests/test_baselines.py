from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.baselines import MarkovChain
from deep_piano.codecs.base import Field, SequenceSpec

SPEC = SequenceSpec("toy", (Field("a", 3), Field("b", 2)))


def sequence(*columns):
    return np.array(columns, np.int32).T


def test_unigram_is_the_frequency_with_a_little_left_for_the_rest():
    chain = MarkovChain(SPEC, order=0).learn([sequence([0, 0, 0, 1], [1, 1, 1, 1])])
    # Witten-Bell: (count + kinds / size) / (total + kinds)
    expected = [-np.log((3 + 2 / 3) / 6), -np.log((4 + 1 / 2) / 5)]
    np.testing.assert_allclose(chain.nats([sequence([2, 0], [0, 1])]), expected)


def test_order_two_knows_what_order_zero_cannot():
    heard = sequence(np.resize([0, 1, 2, 2], 400), np.resize([0, 1], 400))
    nats = [MarkovChain(SPEC, order=k).learn([heard]).nats([heard]) for k in (0, 1, 2)]
    assert nats[2][0] < 0.05 < nats[1][0] < nats[0][0]
    assert nats[2][1] < 0.05


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2]))
def test_probabilities_of_every_context_add_up_to_one(seed, order):
    rng = np.random.default_rng(seed)
    heard = [sequence(rng.integers(0, 3, n), rng.integers(0, 2, n)) for n in (1, 2, 30)]
    chain = MarkovChain(SPEC, order=order).learn(heard)
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
    heard = [sequence(rng.integers(0, 3, n), rng.integers(0, 2, n)) for n in (5, 40)]
    inner = MarkovChain(SPEC, order=2).learn(heard).nats(heard, order=order)
    alone = MarkovChain(SPEC, order=order).learn(heard).nats(heard)
    np.testing.assert_array_equal(inner, alone)
