"""Summaries of descriptors over all recordings: counts, means, extremes, histograms.

This module knows columns of numbers, with None for unknown ones; it knows nothing of files or of
how a summary is shown. A summary does not depend on the order of the recordings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

HISTOGRAM_EDGES: Mapping[str, tuple[int, ...]] = {
    "duration_s": (
        *(0, 5, 10, 15, 25, 40, 60, 90, 120, 180),
        *(240, 360, 600, 900, 1200, 1800, 2700, 3600, 7200),
    ),
    "tempo_bpm": tuple(range(40, 221, 10)),
    "density_per_s": tuple(range(19)),
    "loudness_lufs": tuple(range(-48, -11, 2)),
}
"""Edges of the bins of each histogram; the outermost bins include all values beyond."""

_VECTORS = ("chroma", "mfcc")
_DECIMALS = 6


def summarise(columns: Mapping[str, Iterable[Any]]) -> dict[str, Any]:
    """Summarise the descriptors of a dataset's recordings.

    Parameters
    ----------
    columns : mapping of str to iterable
        One value a recording for each descriptor, None (or NaN, or infinite) where it is unknown:
        `key` holds names ("E minor"), `mfcc` and `chroma` hold vectors of one length each, every
        other column holds numbers.

    Returns
    -------
    dict
        JSON-ready, by name of the descriptor. For `key`, the count of each name, the most frequent
        first. For a vector, ``{"count", "mean": [...]}``. For a number, ``{"count", "mean", "min",
        "max"}``, None where no value is known, and for those of `HISTOGRAM_EDGES`
        ``"histogram": {"edges": [...], "counts": [...]}``. `count` is the number of known values.

    Examples
    --------
    >>> summarise({"notes": [10, 20, None]})
    {'notes': {'count': 2, 'mean': 15.0, 'min': 10.0, 'max': 20.0}}
    """
    return {name: _summarise(name, columns[name]) for name in sorted(columns)}


def _summarise(name: str, values: Iterable[Any]) -> dict[str, Any]:
    if name == "key":
        names = Counter(str(value) for value in values if value is not None)
        return dict(sorted(names.items(), key=lambda item: (-item[1], item[0])))
    if name in _VECTORS:
        rows = np.array([row for row in values if row is not None], float)
        rows = rows[np.isfinite(rows).all(axis=-1)] if rows.size else rows
        columns = rows.T if len(rows) else ()
        return {"count": len(rows), "mean": [_mean(column) for column in columns]}
    known_length = isinstance(values, Sequence | np.ndarray)
    numbers = np.asarray(values if known_length else list(values), float)
    numbers = numbers[np.isfinite(numbers)]  # None has become NaN
    summary: dict[str, Any] = {
        "count": len(numbers),
        "mean": _mean(numbers) if len(numbers) else None,
        "min": _rounded(numbers.min()) if len(numbers) else None,
        "max": _rounded(numbers.max()) if len(numbers) else None,
    }
    if name in HISTOGRAM_EDGES:
        edges = HISTOGRAM_EDGES[name]
        counts, _ = np.histogram(np.clip(numbers, edges[0], edges[-1]), edges)
        summary["histogram"] = {"edges": list(edges), "counts": counts.tolist()}
    return summary


def _mean(numbers: NDArray[np.float64]) -> float:
    return _rounded(math.fsum(numbers.tolist()) / len(numbers))  # fsum: independent of the order


def _rounded(value: float) -> float:
    return round(float(value), _DECIMALS) + 0.0  # never -0.0
