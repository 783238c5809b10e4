"""A recording that goes over into what is played, on tones that decay as a piano's do."""

from __future__ import annotations

import numpy as np
import pytest

from deep_piano.music.joining import COLOUR_S, FADE_S, join
from deep_piano.music.loudness import course_lufs

SR = 16_000
JOIN_S, SECONDS = 8.0, 22.0


def tones(seconds, *, bright, level=0.2, every_s=0.25, seed=0):
    """Plucked tones of a few partials; `bright` is how strong the higher ones are."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * SR)) / SR
    mix = np.zeros(len(t))
    for start_s in np.arange(0, seconds - every_s, every_s):
        hz = 220 * 2 ** (rng.integers(0, 24) / 12)
        here = slice(round(start_s * SR), round((start_s + 1.5) * SR))
        own = t[here] - start_s
        tone = sum(bright**k * np.sin(2 * np.pi * hz * (k + 1) * own) for k in range(5))
        mix[here] += np.exp(-own * 4) * tone * level * rng.uniform(0.5, 1)
    return mix.astype(np.float32)


@pytest.fixture
def played():
    sound = tones(SECONDS, bright=0.3)
    return np.stack([sound, sound], axis=1)


@pytest.fixture
def recording():
    """The same notes on a brighter, much softer piano, with noise."""
    noise = np.random.default_rng(1).normal(0, 2e-5, round(JOIN_S * SR))
    return (0.1 * tones(SECONDS, bright=0.6)[: len(noise)] + noise).astype(np.float32)


def at(samples, begin_s, end_s):
    return samples[round(begin_s * SR) : round(end_s * SR)]


def excess_db(joined, played):
    """Return how much louder than the played piece it is around each moment."""
    courses = (course_lufs(each, sr=SR, window_s=1.0) for each in (joined, played))
    return np.subtract(*courses)


def test_it_begins_with_the_recording_and_ends_as_played(played, recording):
    joined = join(recording, played, join_s=JOIN_S, sr=SR)
    assert joined.shape == played.shape
    assert joined.dtype == np.float32
    own = at(joined, 0, JOIN_S - FADE_S - 3.5)
    assert np.corrcoef(own[:, 0], recording[: len(own)])[0, 1] > 0.9999
    late = JOIN_S + COLOUR_S + 0.5
    np.testing.assert_array_equal(at(joined, late, SECONDS), at(played, late, SECONDS))


def test_no_jump_in_loudness(played, recording):
    joined = join(recording, played, join_s=JOIN_S, sr=SR)
    louder_db = at(excess_db(joined, played), JOIN_S - 2, JOIN_S + 2)
    assert np.abs(louder_db).max() < 1.0
    # A recording 20 dB softer, put there as it is, would jump.
    as_it_is = np.r_[np.repeat(recording[:, None], 2, axis=1), at(played, JOIN_S, SECONDS)]
    assert np.abs(at(excess_db(as_it_is, played), JOIN_S - 2, JOIN_S + 2)).max() > 10


def test_no_click(played, recording):
    joined = join(recording, played, join_s=JOIN_S, sr=SR)
    steps = np.abs(np.diff(joined[:, 0], 2))
    near = at(steps, JOIN_S - FADE_S - 0.1, JOIN_S + 0.1).max()
    assert near < 1.1 * at(steps, 1, JOIN_S - 1).max()


def test_the_tone_goes_over_slowly(played, recording):
    def brightness_db(samples):
        power = np.abs(np.fft.rfft(samples[:, 0])) ** 2
        hz = np.fft.rfftfreq(len(samples), 1 / SR)
        return 10 * np.log10(power[hz > 1200].sum() / power[hz < 1200].sum())

    joined = join(recording, played, join_s=JOIN_S, sr=SR)
    own_db = brightness_db(np.repeat(recording[:, None], 2, axis=1))
    begins, ends = (JOIN_S, JOIN_S + 2), (JOIN_S + COLOUR_S, SECONDS)
    plain_db = [brightness_db(at(played, *where)) for where in (begins, ends)]
    joined_db = [brightness_db(at(joined, *where)) for where in (begins, ends)]
    assert own_db > plain_db[0] + 3
    assert joined_db[0] > plain_db[0] + 2
    assert joined_db[1] == pytest.approx(plain_db[1], abs=0.5)


@pytest.mark.parametrize("silent", [np.zeros(0, np.float32), np.zeros(5 * SR, np.float32)])
def test_of_silence_nothing_is_kept(played, silent):
    np.testing.assert_array_equal(join(silent, played, join_s=JOIN_S, sr=SR), played)


def test_a_stereo_recording_stays_stereo(played, recording):
    stereo = np.stack([recording, 0.2 * recording], axis=1)
    joined = at(join(stereo, played, join_s=JOIN_S, sr=SR), 0, 4)
    assert np.abs(joined[:, 0]).max() == pytest.approx(5 * np.abs(joined[:, 1]).max(), rel=1e-3)
