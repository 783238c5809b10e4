"""Figures of the similarity of a continuation's sound and its seed's.

This module knows samples; it knows nothing of networks or files.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.infra.backend import load_librosa
from deep_piano.music.audio import Samples

LEVEL_WINDOW_S: Final = 3.0
"""Long enough that a rest does not count as loss of energy."""


def likeness(seed: Samples, new: Samples, *, sr: int) -> dict[str, float]:
    """Compare a continuation with its seed.

    Parameters
    ----------
    seed, new : ndarray, shape (n,) and (m,), dtype float32
    sr : int
        Their sampling rate in Hz.

    Returns
    -------
    dict of str to float
        ``softest_db``, ``loudest_db``: energy of 3 s, at its lowest and highest, against that of
        the seed. ``chroma_cosine``: of the mean chroma vectors, 1 for the same pitch classes.
        ``flatness`` and ``seed_flatness``: median spectral flatness, 0 for tones and 1 for noise.
        ``onsets_per_s`` and ``seed_onsets_per_s``. ``peaks``: of the mean spectrum from 100 to
        3,000 Hz, those 8 dB above what is around them. ``peaks_on_keys`` and
        ``seed_peaks_on_keys``: the share of them within 20 cents of a key of a piano at 440 Hz; by
        chance it would be 0.4.
    """
    apart = levels_db(new, sr=sr) - 10 * np.log10(max(1e-12, float(np.mean(np.square(seed)))))
    a, b = _chroma(seed, sr), _chroma(new, sr)
    cosine = a @ b / max(1e-12, float(np.linalg.norm(a) * np.linalg.norm(b)))
    peaks, on_keys = _peaks(new, sr)
    figures = {
        "softest_db": float(apart.min()),
        "loudest_db": float(apart.max()),
        "chroma_cosine": float(cosine),
        "flatness": _flatness(new),
        "seed_flatness": _flatness(seed),
        "onsets_per_s": _onsets_per_s(new, sr),
        "seed_onsets_per_s": _onsets_per_s(seed, sr),
        "peaks": peaks,
        "peaks_on_keys": on_keys,
        "seed_peaks_on_keys": _peaks(seed, sr)[1],
    }
    return {name: round(value, 5) for name, value in figures.items()}


def levels_db(samples: Samples, *, sr: int) -> NDArray[np.float64]:
    """Return the mean square of each stretch of `LEVEL_WINDOW_S`, in dB, made longer to fit all."""
    count = max(1, int(len(samples) / sr // LEVEL_WINDOW_S))
    parts = np.array_split(np.square(samples.astype(np.float64)), count)
    return 10 * np.log10(np.maximum(1e-12, [part.mean() for part in parts]))


def _chroma(samples: Samples, sr: int) -> NDArray[np.float64]:
    librosa = load_librosa()
    chroma = librosa.feature.chroma_stft(y=samples, sr=sr, n_fft=4096, tuning=0.0, norm=None)
    return np.asarray(chroma.mean(axis=1), np.float64)


def _flatness(samples: Samples) -> float:
    librosa = load_librosa()
    return float(np.median(librosa.feature.spectral_flatness(y=samples, amin=1e-12)))


def _onsets_per_s(samples: Samples, sr: int) -> float:
    onsets = load_librosa().onset.onset_detect(y=samples, sr=sr)
    return len(onsets) / max(1e-9, len(samples) / sr)


def _peaks(samples: Samples, sr: int) -> tuple[int, float]:
    """Return how many peaks the mean spectrum has, and the share of them at piano pitches."""
    from scipy.signal import find_peaks, medfilt, welch

    hz, power = welch(samples.astype(np.float64), sr, nperseg=min(len(samples), sr // 2))
    power = power[(hz > 100) & (hz < 3000)]
    hz = hz[(hz > 100) & (hz < 3000)]
    around = medfilt(power, 61)  # bins of 2 Hz: about a semitone at 1,000 Hz to either side
    places, _ = find_peaks(power, height=6.3 * around, distance=3)
    if not len(places):
        return 0, 0.0
    # The top of a parabola through a peak and its neighbours, in dB
    left, top, right = (np.log(power[places + step] + 1e-30) for step in (-1, 0, 1))
    shift = 0.5 * (left - right) / np.minimum(left - 2 * top + right, -1e-9)
    keys = 12 * np.log2((hz[places] + shift * (hz[1] - hz[0])) / 440)
    return len(places), float(np.mean(np.abs(keys - np.rint(keys)) < 0.2))
