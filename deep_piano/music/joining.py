"""A recording that goes over into a piano that plays on: one level, one tone, and no click.

This module knows samples; it knows nothing of notes or files.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.music.audio import Samples
from deep_piano.music.loudness import course_lufs, integrated_lufs

FADE_S: Final = 0.5
COLOUR_S: Final = 8.0
"""How long the piano takes to get from the recording's tone to its own."""

_GLIDE_S = 3.0  # the recording's level moves to that of the piano at the join
_MOMENT_S = 0.8
_LARGEST_STEP_DB = 6.0
_LARGEST_COLOUR_DB = 9.0
_TAPS = 2047
_LOWEST_HZ, _BANDS_AN_OCTAVE = 50.0, 3


def join(recording: Samples, played: Samples, *, join_s: float, sr: int) -> Samples:
    """Replace the beginning of a played piece by the recording that it continues.

    The recording is brought to the level of what is played at the same time. Up to the join it
    fades into that, equal in power; the tone of the recording fades from what follows.

    Parameters
    ----------
    recording : ndarray, shape (n,) or (n, 2), dtype float32
        From time zero on.
    played : ndarray, shape (m, 2), dtype float32
        The whole piece, its beginning the same notes as the recording.
    join_s : float
        When the recording has given way; less where it is shorter.
    sr : int
        Sampling rate of both, in Hz.

    Returns
    -------
    ndarray, shape (m, 2), dtype float32
        What is played where there is no recording, or it is silent.
    """
    if recording.ndim == 1:
        recording = np.repeat(recording[:, None], 2, axis=1)
    end = min(round(join_s * sr), len(recording), len(played))
    fade = min(round(FADE_S * sr), end // 4)
    recording, alike = recording[:end], played[:end]
    gain_db = integrated_lufs(alike, sr=sr) - integrated_lufs(recording, sr=sr)
    if not fade or not math.isfinite(gain_db):
        return played.copy()
    coloured = _coloured(recording, played, end=end, sr=sr)
    wanted_db = _louder_db(alike, recording, sr=sr, about_db=gain_db)
    course = np.clip((np.arange(end) - (end - fade)) / sr / _GLIDE_S + 1, 0, 1)
    own = recording * _gain(gain_db + course * (wanted_db - gain_db))
    out, into = _fades(own[end - fade :], coloured[end - fade : end])
    coloured[: end - fade] = own[: end - fade]
    coloured[end - fade : end] = out * own[end - fade :] + into * coloured[end - fade : end]
    return coloured


def _louder_db(
    louder: Samples, softer: Samples, *, sr: int, about_db: float = 0.0
) -> NDArray[np.float64]:
    """Return by how much the one is louder at each moment, within limits; shape (n,)."""
    courses = (course_lufs(each, sr=sr, window_s=_MOMENT_S) for each in (louder, softer))
    difference = np.subtract(*courses) - about_db
    return about_db + np.clip(difference, -_LARGEST_STEP_DB, _LARGEST_STEP_DB)


def _gain(level_db: NDArray[np.float64]) -> Samples:
    return (10 ** (level_db / 20))[:, None].astype(np.float32)


def _fades(before: Samples, after: Samples) -> tuple[Samples, Samples]:
    """Return the gains of a cross-fade that keeps the power, however alike the two are."""
    course = (np.arange(len(before)) + 0.5) / len(before) * (np.pi / 2)
    out, into = np.cos(course), np.sin(course)
    power = float(np.sqrt(np.square(before).sum() * np.square(after).sum()))
    alike = float((before * after).sum()) / power if power else 0.0
    gain = 1 / np.sqrt(1 + 2 * alike * out * into)
    return (out * gain)[:, None].astype(np.float32), (into * gain)[:, None].astype(np.float32)


def _coloured(recording: Samples, played: Samples, *, end: int, sr: int) -> Samples:
    """Return what is played in the tone of the recording up to its end, then less and less so."""
    from scipy.signal import firwin2, oaconvolve

    band_hz, colour_db = _colour(recording, played[:end], sr=sr)
    points = np.r_[0.0, band_hz, sr / 2]
    gains = 10 ** (np.r_[colour_db[0], colour_db, colour_db[-1]] / 20)
    taps = firwin2(_TAPS, points, gains, fs=sr)
    length = min(len(played), end + round(COLOUR_S * sr))
    filtered = oaconvolve(played[:length], taps[:, None], mode="same", axes=0)
    # Another tone, but at each moment as loud.
    filtered = filtered * _gain(_louder_db(played[:length], filtered, sr=sr))
    share = np.ones(length)
    share[end:] = (1 + np.cos(np.pi * np.arange(length - end) / (COLOUR_S * sr))) / 2
    mixed = played.copy()
    mixed[:length] += (share[:, None] * (filtered - played[:length])).astype(np.float32)
    return mixed


def _colour(
    recording: Samples, alike: Samples, *, sr: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how much more of each third of an octave the recording has: Hz, and dB about zero."""
    from scipy.signal import welch

    size = min(8192, len(alike))
    hz, theirs = welch(recording.mean(axis=1), sr, nperseg=size)
    _, ours = welch(alike.mean(axis=1), sr, nperseg=size)
    count = int(np.log2(0.45 * sr / _LOWEST_HZ) * _BANDS_AN_OCTAVE)
    centre = _LOWEST_HZ * 2 ** (np.arange(count + 1) / _BANDS_AN_OCTAVE)
    ratio_db, weight = np.zeros(len(centre)), np.zeros(len(centre))
    for band, middle in enumerate(centre):
        # An octave wide: it is the tone that is compared, not the partials.
        near = np.abs(np.log2(np.maximum(hz, 1) / middle)) <= 0.5
        power = theirs[near].sum(), ours[near].sum()
        if min(power) > 0:
            ratio_db[band], weight[band] = 10 * math.log10(power[0] / power[1]), power[1]
    if weight.any():
        ratio_db -= np.average(ratio_db, weights=np.sqrt(weight))
    return centre, np.clip(ratio_db, -_LARGEST_COLOUR_DB, _LARGEST_COLOUR_DB)
