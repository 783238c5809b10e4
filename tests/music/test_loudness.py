"""Loudness and peaks of what is written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano.music import loudness

SR = 8000
CEILING = 10 ** (-1 / 20)


def plucked(*, seconds=8.0, level=0.1, sr=SR, every_s=0.5):
    """Decaying tones: peaks far above their loudness, as a piano has them."""
    t = np.arange(round(seconds * sr)) / sr
    tone = np.sin(2 * np.pi * 300 * t) * np.exp(-((t % every_s) * 8))
    return (level * np.stack([tone, 0.7 * tone], axis=1)).astype(np.float32)


@pytest.mark.parametrize("level", [2e-3, 0.01, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("sr", [8000, 44_100])
def test_any_level_comes_out_at_the_target(level, sr):
    result = loudness.normalise(plucked(level=level, sr=sr), sr=sr)
    assert loudness.integrated_lufs(result, sr=sr) == pytest.approx(-16, abs=0.5)
    assert np.abs(result).max() <= CEILING * (1 + 1e-6)
    assert result.dtype == np.float32
    assert result.shape == (8 * sr, 2)


@pytest.mark.parametrize("target_lufs", [-30.0, -23.0, -14.0])
def test_other_targets(target_lufs):
    result = loudness.normalise(plucked(), sr=SR, target_lufs=target_lufs, peak_dbfs=-3)
    assert loudness.integrated_lufs(result, sr=SR) == pytest.approx(target_lufs, abs=0.5)
    assert np.abs(result).max() <= 10 ** (-3 / 20) * (1 + 1e-6)


def test_without_peaks_it_is_one_gain_and_nothing_else():
    samples = plucked(level=0.5)
    result = loudness.normalise(samples, sr=SR, target_lufs=-30)
    loud = np.abs(samples) > 0.01
    ratio = result[loud] / samples[loud]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


def test_peaks_beyond_reach_stay_below_the_ceiling():
    clicks = np.zeros((5 * SR, 2), np.float32)
    clicks[::SR] = 1.0
    result = loudness.normalise(clicks, sr=SR)
    assert np.isfinite(result).all()
    assert np.abs(result).max() <= CEILING * (1 + 1e-6)


def test_the_limiter_keeps_the_stereo_image():
    samples = plucked(level=3.0)
    result = loudness.normalise(samples, sr=SR, target_lufs=-12)
    loud = np.abs(samples[:, 0]) > 0.1
    np.testing.assert_allclose(result[loud, 1] / result[loud, 0], 0.7, rtol=1e-3)


@pytest.mark.parametrize("shape", [(0, 2), (100, 2), (SR, 2), (SR,)])
def test_silence_comes_back_as_it_is(shape):
    result = loudness.normalise(np.zeros(shape, np.float32), sr=SR)
    assert result.shape == shape
    assert not result.any()


def test_too_short_for_a_loudness_is_only_limited():
    samples = np.full((SR // 4, 2), 2.0, np.float32)
    result = loudness.normalise(samples, sr=SR)
    np.testing.assert_allclose(result, CEILING, rtol=1e-5)
    quiet = np.full((SR // 4, 2), 0.01, np.float32)
    np.testing.assert_array_equal(loudness.normalise(quiet, sr=SR), quiet)


def test_mono_and_the_same_bytes_twice():
    samples = plucked(level=2.0)[:, 0]
    first = loudness.normalise(samples, sr=SR)
    assert first.shape == samples.shape
    assert first.tobytes() == loudness.normalise(samples, sr=SR).tobytes()


def test_the_input_is_left_alone():
    samples = plucked(level=2.0)
    before = samples.copy()
    loudness.normalise(samples, sr=SR)
    np.testing.assert_array_equal(samples, before)


@pytest.mark.parametrize("sr", [8000, 11_025, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_is_that_of_pyloudnorm(rng, sr, channels):
    import pyloudnorm

    # From silence to full scale, so that both gates leave blocks out; no whole number of steps.
    swell = np.linspace(0, 1, 7 * sr + 13)[:, None] ** 6
    samples = (swell * rng.normal(0, 0.2, (len(swell), channels))).astype(np.float32)
    known = pyloudnorm.Meter(sr).integrated_loudness(samples)
    assert loudness.integrated_lufs(samples, sr=sr) == pytest.approx(known, abs=1e-5)


def test_the_limiter_is_a_minimum_and_a_mean(rng):
    from scipy import ndimage

    level = rng.lognormal(-1, 0.8, 5000).astype(np.float32)
    ahead, hold = 20, 150  # at a kilohertz
    needed = 1 / np.maximum(level, np.float32(1))
    width, size = hold + ahead + 1, ahead + 1
    lowest = ndimage.minimum_filter1d(
        needed, width, mode="constant", cval=1.0, origin=(hold - ahead) // 2
    )
    mean = ndimage.uniform_filter1d(lowest, size, mode="nearest", origin=(size - 1) // 2)
    gain = loudness._limits(level, 1.0, 1.0, sr=1000)
    np.testing.assert_allclose(gain, mean, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1999), st.floats(1.01, 50)), max_size=12),
    st.integers(300, 3000),
)
def test_the_limiter_never_lets_a_peak_through(peaks, sr):
    level = np.full(2000, 0.2, np.float32)
    for position, height in peaks:
        level[position] = height
    gain = loudness._limits(level, 1.0, 1.0, sr=sr)
    gain = np.ones(2000) if gain is None else gain
    assert (gain * level).max() <= 1 + 1e-5
    assert gain.min() > 0
    assert gain.max() <= 1 + 1e-6


def test_the_limiter_acts_only_around_a_peak():
    level = np.full(4 * SR, 0.5, np.float32)
    level[2 * SR] = 2.0
    gain = loudness._limits(level, 1.0, 1.0, sr=SR)
    assert gain[2 * SR] == pytest.approx(0.5)
    touched = np.flatnonzero(gain < 1 - 1e-4) / SR - 2
    assert touched[0] == pytest.approx(-0.02, abs=0.002)
    assert touched[-1] == pytest.approx(0.17, abs=0.002)
    assert np.abs(np.diff(gain)).max() < 0.01
