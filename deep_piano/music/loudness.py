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

_BLOCK_S, _STEP_S, _STEPS_A_BLOCK = 0.4, 0.1, 4  # of the gate of BS.1770
_GATE, _RELATIVE_GATE = 10 ** ((-70 + 0.691) / 10), 0.1  # power at -70 LUFS; -10 LU
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
    from deep_piano.music.loudness_kernels import apply_gains, largest

    ceiling = 10 ** (peak_dbfs / 20)
    channels = _channels(samples)
    level = largest(channels)
    peak = float(level.max(initial=0))
    if peak < _SILENT_PEAK:
        return samples.copy()
    power = _Power(channels, sr=sr)
    # Measured as loud as it can be without limiting, so that the standard's gate at -70 LUFS
    # tells the rests of a piece from its music, however quietly it comes in.
    gain_db = 20 * math.log10(ceiling / peak)
    loudness = power.lufs(ceiling / peak)
    limits = None
    if not math.isfinite(loudness):
        gain = 1.0
        limits = _limits(level, gain, ceiling, sr=sr)
    elif target_lufs <= loudness:  # nothing to limit
        gain = 10 ** ((gain_db + target_lufs - loudness) / 20)
    else:
        # From there on the limiter takes loudness away: the more gain, the less a decibel brings.
        slope = _FIRST_SLOPE
        for _ in range(_ROUNDS):
            step_db = min((target_lufs - loudness) / slope, _LARGEST_STEP_DB)
            gain_db += step_db
            gain = 10 ** (gain_db / 20)
            limits = _limits(level, gain, ceiling, sr=sr)
            before, loudness = loudness, power.lufs(gain, limits, ceiling)
            if abs(target_lufs - loudness) < _CLOSE_ENOUGH_DB:
                break
            slope = min(1.0, max(0.2, (loudness - before) / step_db))
    if limits is None:
        return samples * np.float32(gain)
    return apply_gains(channels, np.float32(gain), limits, np.float32(ceiling)).reshape(
        samples.shape
    )


def integrated_lufs(samples: Samples, *, sr: int) -> float:
    """Return the loudness of a whole piece in LUFS (ITU-R BS.1770); -inf where there is none.

    Channels count alike, as the left and the right one do.
    """
    return _Power(_channels(samples), sr=sr).lufs()


class _Power:
    """Samples, shape (n, channels), whose loudness is measured with one gain or another."""

    def __init__(self, channels: Samples, *, sr: int) -> None:
        self._channels, self._sr = channels, sr
        steps = round((len(channels) / sr - _BLOCK_S) / _STEP_S) + _STEPS_A_BLOCK
        self._edges = (np.arange(max(0, steps) + 1) * (_STEP_S * sr)).astype(np.int64)

    def lufs(
        self,
        gain: float = 1.0,
        limits: Samples | None = None,
        ceiling: float = math.inf,
    ) -> float:
        """Return the loudness with a gain, and that of a limiter; -inf where there is none."""
        from deep_piano.music.loudness_kernels import filtered_power

        if len(self._channels) < _BLOCK_S * self._sr:
            return -math.inf
        power = filtered_power(
            *(
                self._channels,
                np.float32(gain),
                np.empty(0, np.float32) if limits is None else limits,
            ),
            *(np.float32(ceiling), _k_weighting(self._sr), self._edges),
        )
        sums = np.cumsum(np.pad(power.sum(axis=1), (1, 0)))
        blocks = (sums[_STEPS_A_BLOCK:] - sums[:-_STEPS_A_BLOCK]) / (_BLOCK_S * self._sr)
        blocks = blocks[blocks > _GATE]
        if len(blocks):
            blocks = blocks[blocks > _RELATIVE_GATE * blocks.mean()]
        return -0.691 + 10 * math.log10(blocks.mean()) if len(blocks) else -math.inf


def _channels(samples: Samples) -> Samples:
    channels = samples[:, None] if samples.ndim == 1 else samples
    return np.ascontiguousarray(channels, np.float32)


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
    from scipy.signal import oaconvolve

    from deep_piano.music.loudness_kernels import filtered_power

    every = np.arange(len(samples) + 1)
    one, unlimited = np.float32(1), np.empty(0, np.float32)
    power = filtered_power(_channels(samples), one, unlimited, one, _k_weighting(sr), every)
    power = power.sum(axis=1)
    window = np.hanning(max(3, round(window_s * sr)))
    smooth = oaconvolve(power, window / window.sum(), mode="same")[: len(power)]
    return -0.691 + 10 * np.log10(np.maximum(smooth, 1e-12))


@functools.cache
def _k_weighting(sr: int) -> NDArray[np.float64]:
    """Return the two filters of BS.1770, a shelf for the head and a high-pass: b0, b1, b2, a1, a2.

    The standard gives them at 48 kHz; here they follow from their frequencies, by R.
    Bristow-Johnson's formulae.
    """

    def angle(hz: float, q: float) -> tuple[float, float]:
        omega = 2 * math.pi * hz / sr
        return math.cos(omega), math.sin(omega) / (2 * q)

    cos, alpha = angle(1500.0, 1 / math.sqrt(2))
    a = 10 ** (4.0 / 40)
    root = 2 * math.sqrt(a) * alpha
    shelf = (
        a * ((a + 1) + (a - 1) * cos + root),
        -2 * a * ((a - 1) + (a + 1) * cos),
        a * ((a + 1) + (a - 1) * cos - root),
        (a + 1) - (a - 1) * cos + root,
        2 * ((a - 1) - (a + 1) * cos),
        (a + 1) - (a - 1) * cos - root,
    )
    cos, alpha = angle(38.0, 0.5)
    high_pass = ((1 + cos) / 2, -(1 + cos), (1 + cos) / 2, 1 + alpha, -2 * cos, 1 - alpha)
    rows = [[number / row[3] for number in (*row[:3], *row[4:])] for row in (shelf, high_pass)]
    return np.array(rows)


def _limits(level: Samples, gain: float, ceiling: float, *, sr: int) -> Samples | None:
    """Return the limiter's gain for each sample, shape (n,); None where no sample needs it.

    It is the mean, over the look-ahead before the sample, of the lowest gain that anything from
    there to the look-ahead's end needs. Each of these is low enough for the sample itself, hence
    so is their mean.
    """
    from deep_piano.music.loudness_kernels import limiter_gains

    if not level.max(initial=0) * np.float32(gain) > ceiling:
        return None
    ahead, hold = max(1, round(_LOOK_AHEAD_S * sr)), round(_HOLD_S * sr)
    return limiter_gains(level, np.float32(gain), np.float32(ceiling), ahead, hold)
