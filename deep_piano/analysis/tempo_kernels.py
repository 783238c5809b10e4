"""How often times are how far apart, compiled. It loads Numba when it is imported."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.infra.compiling import compiler

compiled, inner = compiler(__file__), compiler(__file__, inner=True)


@inner
def following(
    time_s: NDArray[np.float64], first: int, start: int, near_s: float, far_s: float, most: int
) -> Any:
    """Return from which event to which the next ones lie that are `near_s` to `far_s` later.

    `start` is what that of the event before was, at first 0; there are no more than `most`.
    """
    while start < len(time_s) and time_s[start] < time_s[first] + near_s:
        start += 1
    end, last = start, min(start + most, len(time_s))
    while end < last and time_s[end] < time_s[first] + far_s:
        end += 1
    return start, end


@compiled
def distances(
    time_s: NDArray[np.float64], near_s: float, far_s: float, most: int, step_s: float
) -> Any:
    """Return how many pairs of events have each distance, from `near_s` to less than `far_s`.

    Parameters
    ----------
    time_s : ndarray, shape (n,), ascending
    near_s, far_s : float
        0 < near_s < far_s.
    most : int
        No event is the first of more pairs than that, which are then the nearest.
    step_s : float
        Distances are rounded to whole steps.

    Returns
    -------
    ndarray of int64, shape (m,)
        By steps, up to the longest distance that there is; at least one.
    """
    count = np.zeros(int(far_s / step_s) + 2, np.int64)
    longest = start = 0
    for first in range(len(time_s)):
        start, end = following(time_s, first, start, near_s, far_s, most)
        for second in range(start, end):
            steps = int(np.rint((time_s[second] - time_s[first]) / step_s))
            count[steps] += 1
            longest = max(longest, steps)
    return count[: longest + 1]
