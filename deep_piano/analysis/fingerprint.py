"""Fingerprints, which detect near-duplicates: several recordings of the same performance.

A fingerprint is a MinHash (A. Broder, "On the resemblance and containment of documents", 1997)
of features of a few seconds each: the share of equal values in two fingerprints estimates the
share of equal moments in two recordings (their Jaccard similarity). It finds a performance in
another encoding, slightly trimmed, louder, or exported with a few changed notes. It does not find
transpositions, other speeds, or clips of a longer recording. Another performance of the same score
is another recording, and is kept.

This module knows samples and note arrays; it knows nothing of files, settings or shards. The
chroma of sound is a matrix product: as in `descriptors`, the caller limits BLAS to one thread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.music.audio import Samples
from deep_piano.music.notes import Notes

VALUES = 64
THRESHOLD = 0.5

Fingerprint = NDArray[np.uint32]
"""Shape (64,); shape (0,) where a recording has too little content."""

_FEWEST_NOTES = 20
_FEWEST_TOKENS = 32

# Notes. A landmark is a note and one of the next few that are not of its chord. Its two pitches
# recur everywhere; but two landmarks some seconds apart, to 80 ms, are one performance's own.
# One landmark in sixteen is enough, always the same ones.
_LANDMARK_S, _NEXT_NOTES = (0.05, 2.0), 8
_ONE_LANDMARK_IN = 16
_APART_S, _NEXT_LANDMARKS = (4.0, 8.0), 64
_APART_STEP_S = 0.08
_MOST_NOTES = 100_000

# Sound. The two strongest pitch classes of a second, and of the four seconds after it.
_SOUND_HZ = 4000
_FFT, _HOP = 1024, 256
_FRAMES_AT_A_TIME = 512
_SMOOTHED_FRAMES = 16
_CLASSES, _GRAM = 2, 5
_PITCHES = (41, 89)  # four octaves from 87 Hz

_NOTHING = np.empty(0, np.uint32)
_MULTIPLIERS = np.random.SeedSequence(20250301).generate_state(VALUES, np.uint64) | np.uint64(1)


def of_notes(notes: Notes) -> Fingerprint:
    """Return the fingerprint of a note array.

    It depends on onsets and pitches, not on velocities, durations or the first onset.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`, sorted by onset

    Returns
    -------
    ndarray, shape (64,), dtype uint32
        Empty for fewer than 20 notes, or less than about 5 s of them.

    Examples
    --------
    >>> import numpy as np
    >>> from deep_piano.music.notes import make_notes
    >>> onset = np.arange(200) / 8
    >>> pitch = 40 + np.arange(200) ** 2 % 37
    >>> soft, loud = (make_notes(onset, onset + 0.1, pitch, [v] * 200) for v in (40, 90))
    >>> similarity(of_notes(soft), of_notes(loud))
    1.0
    """
    if len(notes) < _FEWEST_NOTES:
        return _NOTHING
    notes = notes[:_MOST_NOTES]
    from deep_piano.analysis import fingerprint_kernels as kernels  # they load Numba

    onset_s, pitch = notes["onset"].copy(), notes["pitch"].astype(np.uint64)
    at_s, landmark = kernels.landmarks(onset_s, pitch, *_LANDMARK_S, _NEXT_NOTES, _ONE_LANDMARK_IN)
    return _print(
        *kernels.of_landmarks(
            *(at_s, landmark, *_APART_S, _NEXT_LANDMARKS, _APART_STEP_S),
            *(_MULTIPLIERS, _FEWEST_TOKENS),
        )
    )


def of_audio(samples: Samples, *, sr: int) -> Fingerprint:
    """Return the fingerprint of a recording's sound.

    It depends on the two strongest pitch classes of each second, not on their loudness.

    Parameters
    ----------
    samples : ndarray, shape (n,), dtype float32
        Mono, finite; the whole recording.
    sr : int
        Sampling rate in Hz. Only fingerprints of the same rate compare.

    Returns
    -------
    ndarray, shape (64,), dtype uint32
        Empty where fewer than 32 moments differ: less than about 7 s, silence, a steady tone.
    """
    factor = max(1, sr // _SOUND_HZ)
    few = samples[: len(samples) // factor * factor].reshape(-1, factor)
    # The mean is a poor low-pass filter, but what little it lets through is always the same.
    slow = few @ np.full(factor, 1 / factor, np.float32)
    peak = np.abs(slow).max(initial=0)
    if len(slow) < _FFT or not peak > 0:
        return _NOTHING
    chroma = _chroma(slow / peak, sr=sr / factor)
    total = np.cumsum(chroma, axis=0, dtype=np.float64)
    smooth = total[_SMOOTHED_FRAMES:] - total[:-_SMOOTHED_FRAMES]
    strongest = np.sort(np.argsort(-smooth, axis=1, kind="stable")[:, :_CLASSES], axis=1)
    letter = (strongest @ (12 ** np.arange(_CLASSES))).astype(np.uint64)
    count = max(0, len(letter) - (_GRAM - 1) * _SMOOTHED_FRAMES)
    token = np.zeros(count, np.uint64)
    for place in range(_GRAM):
        start = place * _SMOOTHED_FRAMES
        token = token * np.uint64(12**_CLASSES) + letter[start : start + count]
    from deep_piano.analysis import fingerprint_kernels as kernels  # they load Numba

    return _print(*kernels.of_tokens(token, _MULTIPLIERS, _FEWEST_TOKENS))


def similarity(a: Fingerprint, b: Fingerprint) -> float:
    """Return the share of equal values, 0 to 1; 0 where one is empty."""
    return float(np.mean(a == b)) if len(a) and len(b) else 0.0


def near_duplicates(
    prints: Iterable[tuple[Any, str, Fingerprint]], *, threshold: float = THRESHOLD
) -> dict[str, tuple[str, float]]:
    """Find the recordings that are nearly the same as an earlier one.

    A recording is dropped when it is as similar as the threshold to one before it that stays.
    Only those are compared that agree in one of 32 pairs of values, so that the time grows with
    the recordings and not with their square: at a threshold of 0.4, one near-duplicate in 260
    that is no more similar than that stays, at 0.5 one in 10,000.

    Parameters
    ----------
    prints : iterable of (order key, id, fingerprint)
        In any order: they are taken by order key, then id. An empty fingerprint is like no other.
    threshold : float
        More than 0, at most 1.

    Returns
    -------
    dict of str to (str, float)
        For the id of every recording dropped, the first that stays and that it is similar to,
        and how much so.
    """
    some = sorted((one for one in prints if len(one[2])), key=lambda one: one[:2])
    if len(some) < 2:
        return {}
    names = [name for _, name, _ in some]
    values = np.stack([values for _, _, values in some])  # (n, 64)
    buckets: defaultdict[int, list[int]] = defaultdict(list)
    dropped: dict[str, tuple[str, float]] = {}
    for place, shared in enumerate(_shared_bands(values)):
        rivals = sorted({rival for band in shared for rival in buckets[band]})
        alike = np.mean(values[rivals] == values[place], axis=1)
        near = np.flatnonzero(alike >= threshold)
        if len(near):
            dropped[names[place]] = names[rivals[near[0]]], float(alike[near[0]])
            continue
        for band in shared:
            buckets[band].append(place)
    return dropped


def _shared_bands(values: NDArray[np.uint32]) -> Iterator[list[int]]:
    """Yield, for each fingerprint, numbers of the bands that it has in common with any other."""
    bands = np.ascontiguousarray(values).view(np.uint64)  # (n, 32)
    numbers = np.empty(bands.shape, np.int64)
    first = 0
    for column in range(bands.shape[1]):
        _, number, count = np.unique(bands[:, column], return_inverse=True, return_counts=True)
        numbers[:, column] = np.where(count[number] > 1, first + number, -1)
        first += len(count)
    for row in numbers:
        yield row[row >= 0].tolist()


def _chroma(samples: Samples, *, sr: float) -> NDArray[np.float32]:
    """Return the power of the pitch classes, from C, shape (frames, 12)."""
    from scipy import fft

    frames = np.lib.stride_tricks.sliding_window_view(samples, _FFT)[::_HOP]
    window = np.hanning(_FFT).astype(np.float32)
    pitch_classes = _chroma_filter(bin_hz=sr / _FFT)
    blocks = []
    for start in range(0, len(frames), _FRAMES_AT_A_TIME):  # an hour at once takes a gigabyte
        spectrum = fft.rfft(frames[start : start + _FRAMES_AT_A_TIME] * window, axis=1)
        blocks.append((spectrum.real**2 + spectrum.imag**2) @ pitch_classes)
    return np.concatenate(blocks)


def _chroma_filter(*, bin_hz: float) -> NDArray[np.float32]:
    """Return what turns a power spectrum into a chroma, shape (bins, 12).

    A triangle a semitone, of the same area at every pitch, folded into one octave.
    """
    frequency_hz = np.maximum(1, np.arange(_FFT // 2 + 1) * bin_hz)
    pitch = 69 + 12 * np.log2(frequency_hz / 440)
    triangle = np.maximum(0, 1 - np.abs(pitch[:, None] - np.arange(*_PITCHES)))
    area = np.maximum(triangle.sum(axis=0), np.finfo(float).tiny)
    return (triangle / area).reshape(len(pitch), -1, 12).sum(axis=1).astype(np.float32)


def _print(least: NDArray[np.uint64], different: int) -> Fingerprint:
    """Return a fingerprint of the least values of all hash functions; nothing of too few tokens."""
    return (least >> np.uint64(32)).astype(np.uint32) if different == _FEWEST_TOKENS else _NOTHING
