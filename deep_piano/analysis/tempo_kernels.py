"""How often times are how far apart, compiled. It loads Numba when it is imported."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.infra.compiling import compiler

compiled = compiler(__file__)


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
        while start < len(time_s) and time_s[start] < time_s[first] + near_s:
            start += 1
        for second in range(start, min(start + most, len(time_s))):
            if time_s[second] >= time_s[first] + far_s:
                break
            steps = int(np.rint((time_s[second] - time_s[first]) / step_s))
            count[steps] += 1
            longest = max(longest, steps)
    return count[: longest + 1]
