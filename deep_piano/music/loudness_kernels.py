"""The loops of loudness, compiled: the filtered power of samples, and the gain of a limiter.

A piece of three minutes has 16 million samples; each is looked at once a pass, and none is copied.
This module loads Numba when it is imported, and compiles on first use.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deep_piano.infra.compiling import compiler

_compiled, _inner = compiler(__file__), compiler(__file__, inner=True)


@_inner
def limited(sample: Any, gain: Any, limit: Any, ceiling: Any) -> Any:
    """Return a sample with its gain and the limiter's, within the ceiling."""
    return min(max(sample * gain * limit, -ceiling), ceiling)


@_compiled
def apply_gains(samples: Any, gain: Any, limits: Any, ceiling: Any) -> Any:
    """Return samples, shape (n, channels), with the limiter's gain of each, shape (n,)."""
    out = np.empty_like(samples)
    for i in range(len(samples)):
        for channel in range(samples.shape[1]):
            out[i, channel] = limited(samples[i, channel], gain, limits[i], ceiling)
    return out


@_compiled
def filtered_power(
    samples: Any, gain: Any, limits: Any, ceiling: Any, sections: Any, edges: Any
) -> Any:
    """Return the sums of squares of filtered samples between edges.

    Parameters
    ----------
    samples : ndarray of float32, shape (n, channels)
    gain, ceiling : float32
    limits : ndarray of float32, shape (n,) or (0,)
        The limiter's gains; none: without it.
    sections : ndarray of float64, shape (2, 5)
        Two filters of second order, one after the other: b0, b1, b2, a1, a2.
    edges : ndarray of int64, shape (m + 1,)
        Ascending, from 0 on.

    Returns
    -------
    ndarray of float64, shape (m, channels)
    """
    power = np.zeros((len(edges) - 1, samples.shape[1]))
    b0, b1, b2, a1, a2 = sections[0]
    d0, d1, d2, c1, c2 = sections[1]
    for channel in range(samples.shape[1]):
        s1 = s2 = t1 = t2 = 0.0
        for step in range(len(edges) - 1):
            total = 0.0
            for i in range(edges[step], min(edges[step + 1], len(samples))):
                if len(limits):
                    x = limited(samples[i, channel], gain, limits[i], ceiling)
                else:
                    x = samples[i, channel] * gain
                y = b0 * x + s1
                s1 = b1 * x - a1 * y + s2
                s2 = b2 * x - a2 * y
                z = d0 * y + t1
                t1 = d1 * y - c1 * z + t2
                t2 = d2 * y - c2 * z
                total += z * z
            power[step, channel] = total
    return power


@_compiled
def largest(samples: Any) -> Any:
    """Return the larger magnitude of the channels, shape (n,)."""
    out = np.empty(len(samples), np.float32)
    for i in range(len(samples)):
        level = abs(samples[i, 0])
        for channel in range(1, samples.shape[1]):
            level = max(level, abs(samples[i, channel]))
        out[i] = level
    return out


@_compiled
def limiter_gains(level: Any, gain: Any, ceiling: Any, ahead: int, hold: int) -> Any:
    """Return the mean, over `ahead` samples and this one, of the lowest gain needed around each.

    Parameters
    ----------
    level : ndarray of float32, shape (n,)
    gain, ceiling : float32
        A sample needs the gain that brings `level * gain` to the ceiling, and never more than 1.
    ahead, hold : int
        The lowest gain is that of `hold` samples before, to `ahead` samples after.

    Returns
    -------
    ndarray of float32, shape (n,)
    """
    count = len(level)
    needed = np.empty(count, np.float32)
    for i in range(count):
        needed[i] = ceiling / max(level[i] * gain, ceiling)
    # Samples whose gains ascend, the lowest in front: the others can never be the lowest again.
    waiting = np.empty(count, np.int32)
    first = last = 0
    out = np.empty(count, np.float32)
    recent = np.empty(ahead + 1, np.float32)
    place, total = 0, 0.0
    for coming in range(count + ahead):
        if coming < count:
            while first < last and needed[waiting[last - 1]] >= needed[coming]:
                last -= 1
            waiting[last] = coming
            last += 1
        i = coming - ahead
        if i < 0:
            continue
        if waiting[first] < i - hold:
            first += 1
        lowest = needed[waiting[first]]
        if i == 0:  # as if it had been so before
            recent[:] = lowest
            total = (ahead + 1) * np.float64(lowest)
        total += np.float64(lowest) - np.float64(recent[place])
        recent[place] = lowest
        place = 0 if place == ahead else place + 1
        out[i] = total / (ahead + 1)
    return out
