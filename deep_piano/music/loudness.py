"""Normalises loudness, without exceeding full scale.

This module knows samples; it knows nothing of notes or files.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from deep_piano.music.audio import Samples

TARGET_LUFS = -16.0
PEAK_DBFS = -1.0

_SHORTEST_S = 0.4  # one gating block of BS.1770
_LOOK_AHEAD_S = 0.02
_HOLD_S = 0.15
_SILENT_PEAK = 1e-5
_ROUNDS = 4
_CLOSE_ENOUGH_DB = 0.3
_FIRST_SLOPE = 0.85
_LARGEST_STEP_DB = 24.0


def figures(samples: Samples, *, sr: int) -> dict[str, float]:
    """Return the loudness in LUFS and the peak in dBFS of samples, shape (n, 2) or (n,)."""
    peak = float(np.abs(samples).max())
    return {
        "loudness_lufs": round(integrated_lufs(samples, sr=sr), 2),
        "peak_dbfs": round(20 * float(np.log10(max(peak, 1e-9))), 2),
    }


def normalise(
    samples: Samples,
    *,
    sr: int,
    target_lufs: float = TARGET_LUFS,
    peak_dbfs: float = PEAK_DBFS,
) -> Samples:
    """Bring samples to a loudness, with peaks held down by a look-ahead limiter.

    Parameters
    ----------
    samples : ndarray, shape (n, 2) or (n,), dtype float32
        Any level. Silence comes back as it is; less than 0.4 s has no loudness by the standard
        and is only kept below the peak.
    sr : int
        Sampling rate in Hz.
    target_lufs : float
        Integrated loudness wanted, in LUFS. It is reached to 0.3 dB, unless the peaks
        stand too far out for the limiter.
    peak_dbfs : float
        No sample of the result is beyond it.

    Returns
    -------
    ndarray, shape of `samples`, dtype float32

    References
    ----------
    ITU-R BS.1770-4 (loudness); P. Hämäläinen, "Smoothing of the control signal without clipped
    output in digital peak limiters", DAFx 2002 (the limiter).
    """
    ceiling = 10 ** (peak_dbfs / 20)
    peak = float(np.abs(samples).max(initial=0))
    if peak < _SILENT_PEAK:
        return samples.copy()
    # Measured as loud as it can be without limiting, so that the standard's gate at -70 LUFS
    # tells the rests of a piece from its music, however quietly it comes in.
    gain_db = 20 * math.log10(ceiling / peak)
    loudness = integrated_lufs(samples * np.float32(ceiling / peak), sr=sr)
    if not math.isfinite(loudness):
        return _limit(samples, ceiling, sr=sr)
    if target_lufs <= loudness:  # nothing to limit
        return samples * np.float32(10 ** ((gain_db + target_lufs - loudness) / 20))
    # From there on the limiter takes loudness away: the more gain, the less each decibel brings.
    slope, result = _FIRST_SLOPE, samples
    for _ in range(_ROUNDS):
        step_db = min((target_lufs - loudness) / slope, _LARGEST_STEP_DB)
        gain_db += step_db
        result = _limit(samples * np.float32(10 ** (gain_db / 20)), ceiling, sr=sr)
        before, loudness = loudness, integrated_lufs(result, sr=sr)
        if abs(target_lufs - loudness) < _CLOSE_ENOUGH_DB:
            break
        slope = min(1.0, max(0.2, (loudness - before) / step_db))
    return result


def integrated_lufs(samples: Samples, *, sr: int) -> float:
    """Return the loudness of a whole piece in LUFS (ITU-R BS.1770); -inf where there is none."""
    import pyloudnorm

    if len(samples) < _SHORTEST_S * sr or not samples.any():
        return -math.inf
    # It filters in float64 and keeps the result in the samples' own type: off by 1e-7 LU.
    return float(pyloudnorm.Meter(sr).integrated_loudness(samples))


def course_lufs(samples: Samples, *, sr: int, window_s: float) -> NDArray[np.float64]:
    """Return how loud samples are around each moment, shape (n,), in LUFS without a gate.

    Parameters
    ----------
    samples : ndarray, shape (n, 2) or (n,), dtype float32
    sr : int
        Sampling rate in Hz.
    window_s : float
        Length of the Hann window in which power is averaged.
    """
    from pyloudnorm import IIRfilter
    from scipy.signal import oaconvolve

    channels = samples[:, None] if samples.ndim == 1 else samples
    shelf = IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, sr, "high_shelf")
    high_pass = IIRfilter(0.0, 0.5, 38.0, sr, "high_pass")
    power = np.zeros(len(channels))
    for channel in channels.T.astype("f8"):
        power += np.square(high_pass.apply_filter(shelf.apply_filter(channel)))
    window = np.hanning(max(3, round(window_s * sr)))
    smooth = oaconvolve(power, window / window.sum(), mode="same")[: len(power)]
    return -0.691 + 10 * np.log10(np.maximum(smooth, 1e-12))


def _limit(samples: Samples, ceiling: float, *, sr: int) -> Samples:
    """Keep every sample within the ceiling, all channels by the same gain."""
    level = np.abs(samples)
    if level.ndim == 2:
        level = functools.reduce(np.maximum, level.T)  # eight times as fast as max(axis=1)
    if not level.max(initial=0) > ceiling:
        return samples.astype(np.float32)
    gain = _limiter_gain(level, ceiling, sr=sr)
    gained = samples * (gain if samples.ndim == 1 else gain[:, None])
    return np.clip(gained, -ceiling, ceiling, out=gained)  # for the last bit's rounding


def _limiter_gain(level: Samples, ceiling: float, *, sr: int) -> Samples:
    """Return the limiter's gain for each sample, shape (n,); never more than the sample needs.

    It is the mean, over the look-ahead before the sample, of the lowest gain that anything from
    there to the look-ahead's end needs. Each of these is low enough for the sample itself, hence
    so is their mean.
    """
    from scipy import ndimage

    needed = np.maximum(level, ceiling)
    np.divide(ceiling, needed, out=needed)
    ahead, hold = max(1, round(_LOOK_AHEAD_S * sr)), round(_HOLD_S * sr)
    # The window of the minimum reaches from `hold` samples back to `ahead` samples forward ...
    width = hold + ahead + 1
    lowest = ndimage.minimum_filter1d(
        needed, width, mode="constant", cval=1.0, origin=(hold - ahead) // 2
    )
    # ... and that of the mean from `ahead` samples back to now.
    size = ahead + 1
    return ndimage.uniform_filter1d(lowest, size, mode="nearest", origin=(size - 1) // 2)
