"""MinHash, compiled: a corpus of MIDI has a hundred million pairs of landmarks.

This module knows columns of notes and tokens; what they mean stands in `fingerprint`. It loads
Numba when it is imported, and compiles on first use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis import mixing, tempo_kernels
from deep_piano.analysis.tempo_kernels import following
from deep_piano.infra.compiling import compiler

Whole = NDArray[np.uint64]

_AT_ONCE = 4096  # pairs: they stay in the cache
_MOST = np.uint64(0xFFFFFFFFFFFFFFFF)

compiled = compiler(__file__, mixing.__file__, tempo_kernels.__file__)
mixed = compiled(mixing.mixed)


@compiled
def landmarks(
    time_s: NDArray[np.float64],
    pitch: Whole,
    near_s: float,
    far_s: float,
    most: int,
    one_in: int,
) -> Any:
    """Return when landmarks are, and which: a note with each of the next ones, one in so many.

    Parameters
    ----------
    time_s : ndarray, shape (n,), ascending
    pitch : ndarray of uint64, shape (n,)
    near_s, far_s : float
        How far the other note may be from the first: from `near_s` to less than `far_s`.
    most : int
        No note is the first of more of them than that, which are then the nearest.
    one_in : int
        How many there are for one that is kept, always the same ones.
    """
    found = np.empty(len(time_s) * most, np.uint64)
    at_s = np.empty(len(time_s) * most)
    count = start = 0
    for first in range(len(time_s)):
        start, end = following(time_s, first, start, near_s, far_s, most)
        for second in range(start, end):
            landmark = pitch[first] << np.uint64(7) | pitch[second]
            if mixed(landmark) % np.uint64(one_in) == np.uint64(0):
                found[count], at_s[count] = landmark, time_s[first]
                count += 1
    return at_s[:count], found[:count]


@compiled
def of_landmarks(
    at_s: NDArray[np.float64],
    landmark: Whole,
    near_s: float,
    far_s: float,
    most: int,
    step_s: float,
    multipliers: Whole,
    fewest: int,
) -> Any:
    """Return the MinHash of the pairs of landmarks that are so far apart: see `of_tokens`."""
    least = np.full(len(multipliers), _MOST)
    seen, pairs = np.empty(fewest, np.uint64), np.empty(_AT_ONCE + most, np.uint64)
    different = start = count = 0
    for first in range(len(at_s)):
        start, end = following(at_s, first, start, near_s, far_s, most)
        for second in range(start, end):
            steps = np.uint64((at_s[second] - at_s[first]) / step_s)
            pair = landmark[first] << np.uint64(30) | landmark[second] << np.uint64(16)
            pairs[count] = pair | steps
            count += 1
        if count >= _AT_ONCE or first == len(at_s) - 1:
            different = _take(pairs[:count], least, multipliers, seen, different)
            count = 0
    return least, different


@compiled
def of_tokens(tokens: Whole, multipliers: Whole, fewest: int) -> Any:
    """Return the least value of each hash function over tokens, and how many of these differ.

    Parameters
    ----------
    tokens : ndarray of uint64, shape (n,)
        What they hold is lost.
    multipliers : ndarray of uint64, shape (m,)
        Odd; each makes a hash function.
    fewest : int
        No more different ones are counted.

    Returns
    -------
    least : ndarray of uint64, shape (m,)
    different : int
    """
    least, seen = np.full(len(multipliers), _MOST), np.empty(fewest, np.uint64)
    return least, _take(tokens, least, multipliers, seen, 0)


@compiled
def _take(tokens: Whole, least: Whole, multipliers: Whole, seen: Whole, different: int) -> int:
    """Take tokens in; return how many different ones there were, up to as many as `seen` holds."""
    for token in tokens:
        if different == len(seen):
            break
        new = True
        for place in range(different):
            new = new and seen[place] != token
        if new:
            seen[different] = token
            different += 1
    for place in range(len(tokens)):
        tokens[place] = mixed(tokens[place])
    for function in range(len(multipliers)):
        low, multiplier = least[function], multipliers[function]
        for place in range(len(tokens)):
            value = tokens[place] * multiplier
            low = value if value < low else low  # four times as quick as `min`
        least[function] = low
    return different
