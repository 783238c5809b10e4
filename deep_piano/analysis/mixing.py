"""The last mixing of MurmurHash3 (Appleby), by which a number of 64 bits becomes its hash."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

SHIFT: Final = np.uint64(33)
FACTORS: Final = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))


def mixed(x: Any) -> Any:
    """Return hashes of uint64 in which every bit depends on every bit of x."""
    for factor in FACTORS:
        x = (x ^ (x >> SHIFT)) * factor
    return x ^ (x >> SHIFT)
