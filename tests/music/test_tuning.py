"""How far a piano is out of tune, and what puts it right."""

from __future__ import annotations

import numpy as np
import pytest

from deep_piano.music import tuning
from deep_piano.music.tuning import cents_off, correction_cents, keeps_tuning, retuned, speed
from tests.support.hostile import improvised, played
from tests.support.recordings import speech_like, white_noise

SR = 44_100


@pytest.fixture(scope="module")
def music():
    return played(improvised(12, random_state=3), sr=SR)


def detuned(samples, cents):
    return retuned(samples, sr=SR, cents=-cents)


@pytest.mark.parametrize("cents", [-45, -30, -10, 0, 12, 25, 44])
def test_the_tuning_is_estimated_to_a_cent(music, cents):
    assert cents_off(detuned(music, cents), sr=SR) == pytest.approx(cents, abs=1)


@pytest.mark.parametrize("hz", [415.3, 392.0, 466.16])
def test_whole_semitones_are_another_key_and_no_mistuning(music, hz):
    cents = 1200 * np.log2(hz / 440)
    assert abs(cents_off(detuned(music, cents), sr=SR)) <= 1
    assert correction_cents(detuned(music, cents), sr=SR) == 0


@pytest.mark.parametrize(("cents", "expected"), [(60, -40), (-60, 40), (150, -50), (75, -25)])
def test_the_nearest_semitone_counts(music, cents, expected):
    found = cents_off(detuned(music, cents), sr=SR)
    assert (found - expected + 50) % 100 - 50 == pytest.approx(0, abs=1)


@pytest.mark.parametrize(("cents", "worth_it"), [(19, False), (-19, False), (22, True)])
def test_a_little_is_left_as_it_is(music, cents, worth_it):
    assert bool(correction_cents(detuned(music, cents), sr=SR)) == worth_it


@pytest.mark.parametrize("cents", [-45, 30])
def test_what_was_retuned_is_in_tune_and_lasts_longer_by_as_much(music, cents):
    off = detuned(music, cents)
    put_right = retuned(off, sr=SR, cents=cents)
    assert abs(cents_off(put_right, sr=SR)) <= 1
    assert len(put_right) == pytest.approx(len(off) * speed(cents), abs=2)
    assert put_right.dtype == np.float32


def test_the_tuning_is_that_of_the_whole_recording(music):
    """A minute of noise at the beginning does not hide it."""
    off = np.concatenate([white_noise(30, level=1e-3), *[detuned(music, 35)] * 8])
    assert len(off) > 90 * SR
    assert cents_off(off, sr=SR) == pytest.approx(35, abs=1)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(SR), np.zeros(0), np.ones(100), white_noise(3), speech_like(5)],
    ids=["silence", "nothing", "a click", "noise", "speech"],
)
def test_what_keeps_to_no_tuning_is_not_corrected(samples):
    assert not keeps_tuning(samples.astype(np.float32), sr=SR)
    assert correction_cents(samples.astype(np.float32), sr=SR) == 0


@pytest.mark.parametrize("cents", [0, 50])
def test_music_keeps_to_a_tuning_however_far_off(music, cents):
    assert keeps_tuning(detuned(music, cents), sr=SR)


@pytest.mark.parametrize("sr", [16_000, 22_050, 48_000])
def test_any_rate_will_do(music, sr):
    import soxr

    off = soxr.resample(detuned(music, 30), SR, sr)
    assert cents_off(off, sr=sr) == pytest.approx(30, abs=1)


def test_an_octave_is_twice_as_fast():
    assert tuning.speed(1200) == 2
