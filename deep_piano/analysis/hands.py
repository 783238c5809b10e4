"""Which hand plays which note.

Pure NumPy; knows nothing of files or notation programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_HOMES: Final = (48.0, 67.0)  # where the hands lie when they have nothing to do, MIDI pitches
_SPAN: Final = 12  # semitones that a hand reaches with ease
_STRAIN: Final = 4.0  # of a semitone beyond it, beside one of movement
_FOLLOWS, _RETURNS = 0.2, 0.03  # how much of the way a hand moves with each chord
_APART: Final = 8


def left_hand(chords: Sequence[NDArray[np.integer]]) -> list[int]:
    """Return how many of the lowest notes of each chord are the left hand's.

    Each hand stays near where it was, reaches no farther than an octave if that can be helped, and
    never crosses the other within a chord.

    Parameters
    ----------
    chords : sequence of ndarray
        The pitches that are struck together, ascending, in the order of time.

    Examples
    --------
    >>> left_hand([np.array([36, 60, 64]), np.array([72]), np.array([43])])
    [1, 0, 1]
    """
    left, right = _HOMES
    counts = []
    for chord in chords:
        pitches = np.asarray(chord, float)
        parts = [
            _effort(pitches[:count], left) + _effort(pitches[count:], right)
            for count in range(len(pitches) + 1)
        ]
        count = int(np.argmin(parts))
        counts.append(count)
        if count:
            left += _FOLLOWS * (float(pitches[:count].mean()) - left)
        if count < len(pitches):
            right += _FOLLOWS * (float(pitches[count:].mean()) - right)
        left += _RETURNS * (_HOMES[0] - left)
        right += _RETURNS * (_HOMES[1] - right)
        left = min(left, right - _APART)
    return counts


def _effort(pitches: NDArray[np.float64], place: float) -> float:
    if not len(pitches):
        return 0.0
    beyond = max(0.0, float(np.ptp(pitches)) - _SPAN)
    return float(np.abs(pitches - place).sum()) + _STRAIN * beyond
