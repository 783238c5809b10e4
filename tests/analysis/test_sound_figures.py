from __future__ import annotations

import numpy as np
import pytest

from deep_piano.analysis.sound_figures import levels_db, likeness

SR = 16_000


def tone(hz, seconds=6.0, amplitude=0.1):
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(int(seconds * SR)) / SR)).astype("f4")


def test_a_tone_is_like_itself_and_unlike_noise(rng):
    same = likeness(tone(440), tone(440), sr=SR)
    assert same["chroma_cosine"] == pytest.approx(1, abs=1e-3)
    assert same["softest_db"] == pytest.approx(0, abs=0.1) == same["loudest_db"]
    noise = likeness(tone(440), rng.normal(0, 0.1, 6 * SR).astype("f4"), sr=SR)
    assert noise["flatness"] > 0.3 > 0.01 > noise["seed_flatness"]
    assert noise["chroma_cosine"] < 0.6


def test_silence_and_swelling_are_seen():
    rising = np.concatenate([tone(440, 3.0), tone(440, 3.0, 0.4)])
    found = likeness(tone(440), rising, sr=SR)
    assert found["loudest_db"] == pytest.approx(12.04, abs=0.1)
    assert likeness(tone(440), np.zeros(6 * SR, np.float32), sr=SR)["loudest_db"] < -90
    assert len(levels_db(tone(440, 10.0), sr=SR)) == 3


def test_peaks_lie_on_keys_or_between_them(rng):
    noise = rng.normal(0, 1e-4, 6 * SR)
    on = sum(tone(440 * 2 ** (key / 12)) for key in (-9, 0, 7, 15))
    between = sum(tone(440 * 2 ** ((key + 0.5) / 12)) for key in (-9, 0, 7, 15))
    found = likeness((on + noise).astype("f4"), (between + noise).astype("f4"), sr=SR)
    assert (found["peaks"], found["peaks_on_keys"]) == (4, 0)
    assert found["seed_peaks_on_keys"] == 1
    silence = likeness(tone(440), np.zeros(SR, np.float32), sr=SR)
    assert (silence["peaks"], silence["peaks_on_keys"]) == (0, 0)
