from __future__ import annotations

import copy

import numpy as np
import pytest

from deep_piano.codecs.registry import CODECS
from deep_piano.models.config import ModelConfig
from deep_piano.models.linear_prediction import OwnPrediction, coefficients, own_prediction
from tests.support.fakes import SOUND_CASES, SOUND_CODECS

SPECS = {name: CODECS[name].spec for name in SOUND_CODECS}
CONFIG = ModelConfig(1, 8, 8, past=16, order=32, scale=0.35, spectrum=(0.0, -20.0, -60.0))


def chord(seconds):
    t = np.arange(round(16_000 * seconds))
    wave = sum(np.sin(t / k + k) for k in (9, 13, 31)) * 0.15
    return (wave + np.random.default_rng(0).normal(0, 1e-4, len(t))).astype(np.float32)


def test_a_filter_is_stable_and_rings_at_the_pitches_of_the_past():
    past = chord(10.0)
    weights = coefficients(past, ModelConfig(**(vars(CONFIG) | {"order": 256})))[:, 0]
    roots = np.roots(np.concatenate([[1.0], -weights[::-1]]))
    assert (np.abs(roots) < 1).all()
    ringing = np.angle(roots[np.argsort(-np.abs(roots))[:6]])
    np.testing.assert_allclose(np.sort(ringing[ringing > 0]), [1 / 31, 1 / 13, 1 / 9], atol=1e-3)


@pytest.mark.parametrize("past", [np.zeros(0), np.zeros(5000), np.ones(3)])
def test_a_past_without_information_is_predicted_by_the_mean_spectrum(past):
    weights = coefficients(past, CONFIG)
    assert np.isfinite(weights).all()
    if not past.any():
        np.testing.assert_array_equal(weights, coefficients(np.zeros(0), CONFIG))


def test_several_values_ahead_stand_on_those_foretold():
    past = chord(2.0).astype(np.float64)
    one, several = coefficients(past, CONFIG)[:, 0], coefficients(past, CONFIG, ahead=40)
    known = past[-32:].tolist()
    for place in range(40):
        known.append(np.dot(known[-32:], one))
        assert past[-32:] @ several[:, place] == pytest.approx(known[-1], abs=1e-9)


@pytest.mark.parametrize(("codec", "frame"), SOUND_CASES)
def test_only_the_past_is_known(codec, frame):
    config = ModelConfig(**(vars(CONFIG) | {"frame": frame}))
    sequence = CODECS[codec].encode(chord(2.2))
    other = sequence.copy()
    other[33_000:] = CODECS[codec].encode(np.full(len(other) - 33_000, 0.7, np.float32))
    mine, theirs = (own_prediction(SPECS[codec], config, s) for s in (sequence, other))
    np.testing.assert_array_equal(mine[:32_999], theirs[:32_999])  # of steps 1 to 32,999
    apart = mine - CODECS[codec].to_samples(sequence)[1:]
    # By the mean spectrum alone for a second, then by a filter of its own
    usual = [np.sqrt(np.mean(np.square(part))) for part in (apart[100:16_000], apart[16_000:])]
    assert usual[1] < 0.7 * usual[0] < 0.1


@pytest.mark.parametrize("codec", SOUND_CODECS)
def test_windows_and_copies_predict_what_the_whole_does(codec):
    config = ModelConfig(**(vars(CONFIG) | {"frame": 4}))
    sequences = [CODECS[codec].encode(chord(seconds)) for seconds in (1.3, 1.1)]
    context = OwnPrediction(SPECS[codec], config, 3)
    for slot, sequence in enumerate(sequences):
        context.begin(slot, sequence)
    steps = np.zeros((3, 12_000, 1))
    context.skip(steps[:, :4000])
    first = steps[:, :8000]
    found = [copy.deepcopy(context).window(first, first), context.window(steps, steps)]
    found = [known.features for known in found]
    np.testing.assert_array_equal(found[0], found[1][:, :8000])
    for slot, sequence in enumerate(sequences):
        whole = own_prediction(SPECS[codec], config, sequence) / config.scale
        np.testing.assert_allclose(found[1][slot, :, 0], whole[4000:16_000], atol=1e-5)
    assert not found[1][2].any()
    assert not context.window(first, first).features[1, 1600:].any()  # behind the end
