from __future__ import annotations

import numpy as np
import pytest

from deep_piano.report.spectra import chroma_image, envelope, mel_image, mel_rows

SR = 16_000


def tone(hz, seconds=2.0, level=0.3):
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * SR)) / SR)).astype(np.float32)


def test_the_envelope_holds_every_sample():
    samples = tone(440)
    samples[12_345] = -0.9
    low, high, rms = envelope(samples, 100)
    assert len(low) == len(high) == len(rms) == 100
    assert low.min() == samples.min()
    assert high.max() == samples.max()
    assert rms[10] == pytest.approx(0.3 / np.sqrt(2), rel=0.02)
    assert np.argmin(low) == 12_345 * 100 // len(samples)


def test_a_tone_lies_at_its_frequency():
    image = mel_image(tone(1000), 50, sr=SR)
    assert image.shape == (128, 50)
    (row,) = mel_rows([1000], sr=SR)[1]
    assert abs(np.argmax(image[:, 25]) + 0.5 - row) <= 1.5
    assert image.max() == pytest.approx(1)
    assert image.min() == 0


def test_only_ticks_within_the_image_are_given():
    assert mel_rows([250, 4000, 8000], sr=8000)[0] == [250]
    assert mel_rows([250, 4000, 8000], sr=44_100)[0] == [250, 4000]


def test_chroma_follows_the_notes():
    samples = np.concatenate([tone(440), tone(523.25), np.zeros(SR, np.float32)])
    image = chroma_image(samples, 100, sr=SR)
    assert image.shape == (12, 100)
    assert np.argmax(image[:, 20]) == 9
    assert np.argmax(image[:, 60]) == 0
    assert image[:, 95].max() == 0


def test_noise_far_below_the_music_is_no_chord(rng):
    samples = np.concatenate([tone(440), (1e-5 * rng.standard_normal(2 * SR)).astype(np.float32)])
    image = chroma_image(samples, 100, sr=SR)
    assert image[9, 20] == pytest.approx(1)
    assert image[:, 70:].max() < 0.05


@pytest.mark.parametrize("length", [1, 3, 400, 30_000])
def test_silence_of_any_length_is_paper(length):
    samples = np.zeros(length, np.float32)
    for image in (mel_image(samples, 90, sr=SR), chroma_image(samples, 90, sr=SR)):
        assert image.shape[1] == min(length, 90)
        assert not image.any()


def test_a_long_sound_is_measured_whole():
    """More frames than a block holds, and a click between two columns' middles."""
    samples = np.zeros(60 * SR, np.float32)
    samples[round(41.3 * SR)] = 1.0
    image = mel_image(samples, 20, sr=SR)
    assert np.flatnonzero(image.any(axis=0)).tolist() == [13]
