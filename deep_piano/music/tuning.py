"""How far a piano is tuned from A = 440 Hz, and what puts it right.

An old piano, or a tape at the wrong speed, lies between two keys: at 50 cents a transcription
misses two notes of three. A whole semitone is no mistuning but another key, so the estimate lies
between -50 and 50 cents. This module knows samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deep_piano.music.audio import Samples

CORRECTED_CENTS = 20
"""As much as a piano may be off before it is retuned: up to here as many notes are found."""

# Below 200 Hz a bin is as wide as a semitone, above 2,500 Hz a string is too stiff to be in tune.
_TUNED_HZ = (200.0, 2500.0)
_FAINTEST_PEAK_DB = 40.0  # below its frame's strongest
_DB_PER_NEPER = 8.686
_LEAST_STRENGTH = 0.3  # pianos have 0.5 and more, speech and noise at most 0.15
_BLOCKS, _BLOCK_S = 6, 10


def cents_off(samples: Samples, *, sr: int) -> int:
    """Estimate how far a recording is off the nearest semitones of A = 440 Hz.

    Parameters
    ----------
    samples : ndarray, shape (n,), dtype float32
        Mono; of a long recording a minute is looked at, in six places.
    sr : int
        Their sampling rate in Hz.

    Returns
    -------
    int
        Cents, -50 to 50; above 0 it is sharp. 0 where the sound keeps to no tuning.
    """
    semitones, strength = _estimated(samples, sr)
    return round(100 * semitones) if strength >= _LEAST_STRENGTH else 0


def keeps_tuning(samples: Samples, *, sr: int) -> bool:
    """Say whether a sound keeps to a tuning, as pianos do and speech and noise do not."""
    return _estimated(samples, sr)[1] >= _LEAST_STRENGTH


def correction_cents(samples: Samples, *, sr: int) -> int:
    """Return how far a recording is off where it is worth a correction, else 0; see `cents_off`."""
    cents = cents_off(samples, sr=sr)
    return cents if abs(cents) > CORRECTED_CENTS else 0


def retuned(samples: Samples, *, sr: int, cents: int) -> Samples:
    """Play a recording slower, or faster, so that what was `cents` sharp is in tune.

    It lasts `speed(cents)` times as long.
    """
    import soxr

    return np.asarray(soxr.resample(samples, sr, sr * speed(cents)), np.float32)


def speed(cents: float) -> float:
    """Return the ratio of two frequencies that are so many cents apart."""
    return float(2 ** (cents / 1200))


def tuning_of(magnitude: NDArray[np.float32], *, bin_hz: float) -> tuple[float, float]:
    """Return the tuning in semitones from A = 440 Hz (-0.5 to 0.5), and its strength (0 to 1).

    The strength is the length of the mean of unit vectors that turn once a semitone, one for each
    spectral peak from 200 to 2,500 Hz.

    Parameters
    ----------
    magnitude : ndarray, shape (bins, frames)
    bin_hz : float
        From one bin to the next.
    """
    low, high = (round(hz / bin_hz) for hz in _TUNED_HZ)
    # One more bin on either side, to tell a peak and to place it between bins by a parabola.
    band = np.maximum(magnitude[low - 1 : high + 1], 1e-9).T  # (frames, bins)
    np.log(band, out=band)
    before, here, after = band[:, :-2], band[:, 1:-1], band[:, 2:]
    loud = here.max(axis=1, initial=-np.inf, keepdims=True) - _FAINTEST_PEAK_DB / _DB_PER_NEPER
    frame, column = np.nonzero((here > before) & (here >= after) & (here > loud))
    before, here, after = (part[frame, column] for part in (before, here, after))
    offset = 0.5 * (before - after) / (before - 2 * here + after)
    semitone = 12 * np.log2((low + column + offset) * bin_hz / 440)
    weight = np.exp(here.astype(float))
    if not weight.sum() > 0:
        return 0.0, 0.0
    angle = np.float32(2 * np.pi) * (semitone % 1).astype(np.float32)
    mean = complex(weight @ np.cos(angle), weight @ np.sin(angle)) / weight.sum()
    return float(np.angle(mean) / (2 * np.pi)), min(1.0, abs(mean))


def _estimated(samples: Samples, sr: int) -> tuple[float, float]:
    """Return what `tuning_of` finds in a recording, or in six places of a long one."""
    block = _BLOCK_S * sr
    if len(samples) > _BLOCKS * block:
        places = np.linspace(0, len(samples) - block, _BLOCKS).astype(int)
        samples = np.concatenate([samples[place : place + block] for place in places])
    n_fft = 2 ** round(np.log2(sr / 10.77))  # bins of about 11 Hz
    padded = np.pad(samples, (n_fft // 2, n_fft // 2 + max(0, n_fft - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: n_fft // 4]
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    magnitude = np.abs(np.fft.rfft(frames * window)).T
    return tuning_of(magnitude, bin_hz=sr / n_fft)
