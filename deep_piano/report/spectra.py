"""Images of a sound: its extremes, its mel spectrogram and its chroma, by pixel column.

This module knows samples; it draws nothing. A pixel covers all of its sound, and the sound is
transformed in blocks, so that an hour needs no more memory than a minute.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deep_piano.infra.backend import load_librosa
from deep_piano.music.audio import Samples

Image = NDArray[np.float64]

MEL_RANGE_DB, CHROMA_RANGE_DB = 70, 10

_MEL_WINDOW_S, _MEL_BANDS, _HIGHEST_HZ = 0.09, 128, 8_000
_CHROMA_WINDOW_S = 0.36  # long enough to resolve semitones from the second octave up
_GONE_DB, _FADE_DB = 60.0, 20.0
_FAINTEST = 1e-6  # lower powers are silence, even at the peak
_BLOCK_FRAMES = 1024


def envelope(samples: Samples, columns: int) -> tuple[NDArray[np.floating], ...]:
    """Return the lowest sample, the highest and the RMS of each of at most `columns` columns."""
    columns = min(columns, len(samples))
    starts = np.arange(columns) * len(samples) // columns
    low, high = np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
    rms = [np.sqrt(np.mean(np.square(part))) for part in np.split(samples, starts[1:])]
    return low, high, np.array(rms)


def mel_image(samples: Samples, columns: int, *, sr: int) -> Image:
    """Return a mel spectrogram.

    Parameters
    ----------
    samples : ndarray, shape (n,), n > 0, dtype float32
        Mono, full scale 1.0.
    columns : int
        How many columns at most.
    sr : int
        Sampling rate in Hz.

    Returns
    -------
    ndarray, shape (128, columns)
        From 0 (`MEL_RANGE_DB` below the loudest, or silent) to 1; the lowest band first.
    """
    librosa = load_librosa()
    power = _mean_power(samples, columns, sr=sr, window_s=_MEL_WINDOW_S)
    mel = librosa.feature.melspectrogram(S=power, sr=sr, n_mels=_MEL_BANDS, fmax=_highest_hz(sr))
    return _scaled(mel, max(float(mel.max()), _FAINTEST), range_db=MEL_RANGE_DB)


def mel_rows(frequencies_hz: Sequence[float], *, sr: int) -> tuple[list[float], list[float]]:
    """Return the frequencies that are well within a `mel_image`, with the row of each."""
    librosa = load_librosa()
    within = [hz for hz in frequencies_hz if hz < 0.9 * _highest_hz(sr)]
    top = float(librosa.hz_to_mel(_highest_hz(sr)))
    return within, [float(librosa.hz_to_mel(hz)) / top * _MEL_BANDS for hz in within]


def chroma_image(samples: Samples, columns: int, *, sr: int) -> Image:
    """Return the strength of each pitch class relative to the strongest at the same time.

    Parameters
    ----------
    samples, columns, sr
        As for `mel_image`.

    Returns
    -------
    ndarray, shape (12, columns)
        From 0 (`CHROMA_RANGE_DB` below the strongest) to 1; C first. Moments that are almost silent
        fade, else a room's noise, being its own measure, would look as loud as the music.
    """
    librosa = load_librosa()
    power = _mean_power(samples, columns, sr=sr, window_s=_CHROMA_WINDOW_S)
    chroma = librosa.feature.chroma_stft(S=power, sr=sr, tuning=0.0, norm=None)
    strongest = np.maximum(chroma.max(axis=0), np.finfo(float).tiny)
    level = _scaled(strongest, max(float(strongest.max()), _FAINTEST), range_db=_GONE_DB)
    audible = np.minimum(level * _GONE_DB / _FADE_DB, 1)
    return _scaled(chroma, strongest, range_db=CHROMA_RANGE_DB) * audible


def _highest_hz(sr: int) -> float:
    return min(_HIGHEST_HZ, sr / 2)


def _mean_power(samples: Samples, columns: int, *, sr: int, window_s: float) -> Image:
    """Return the mean power spectrum of each column, shape (bins, columns)."""
    librosa = load_librosa()
    columns = min(columns, len(samples))
    size = 2 ** round(np.log2(window_s * sr))
    hop = min(size // 4, len(samples) // columns)
    frames = -(-len(samples) // hop)
    column = np.arange(frames) * hop * columns // len(samples)  # of each frame, by its middle
    total = np.zeros((columns, size // 2 + 1))
    for first in range(0, frames, _BLOCK_FRAMES):
        last = min(first + _BLOCK_FRAMES, frames)
        begin, end = first * hop - size // 2, (last - 1) * hop + size // 2
        block = samples[max(0, begin) : end]
        block = np.pad(block, (max(0, -begin), end - max(0, begin) - len(block)))
        spectra = librosa.stft(block, n_fft=size, hop_length=hop, center=False)
        reached, starts = np.unique(column[first:last], return_index=True)
        total[reached] += np.add.reduceat(np.square(np.abs(spectra)), starts, axis=1).T
    return (total / np.bincount(column, minlength=columns)[:, None]).T


def _scaled(power: Image, full: float | Image, *, range_db: float) -> Image:
    """Return power in dB, from 0 at `range_db` below `full` to 1 at `full`."""
    floor = 10 ** (-range_db / 10)
    return 1 + 10 * np.log10(np.maximum(power / full, floor)) / range_db
