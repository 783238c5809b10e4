"""How pieces are told from what pianists play: by a forest, and by distributions of figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.texture import FEWEST_NOTES, TEXTURES, excerpts, pulse, texture
from deep_piano.music.notes import Notes

FOLDS = 5
_GRID = 512

_LOG_S = np.log(np.geomspace(0.01, 4, 12))
_INTERVALS = np.array([-18, -11, -8, -6, -4, -2, -0.5, 0.5, 2.5, 4.5, 6.5, 8.5, 11.5, 18.5])
_LOUDER = np.array([-24, -12, -6, -2, 3, 7, 13, 25])
_TURNS = np.array([-0.5, 0.5])
_HABITS = sum(len(edges) + 1 for edges in (_LOG_S, _LOG_S, _INTERVALS, _LOUDER, _TURNS))


def habits(notes: Notes) -> NDArray[np.float64]:
    """Return what `texture` does not look at, and so no judge: how often an excerpt does what.

    Returns
    -------
    ndarray of float64, shape (53,)
        Shares of the gaps between notes and of the durations, by their logarithm; of the intervals
        from note to note, and of the steps in velocity; and of the pairs of successive intervals
        that go on, turn, or stay. NaN with fewer than `FEWEST_NOTES` notes.
    """
    if len(notes) < FEWEST_NOTES:
        return np.full(_HABITS, np.nan)
    gap, duration = np.diff(notes["onset"]), notes["offset"] - notes["onset"]
    interval = np.diff(notes["pitch"].astype(int))
    louder = np.diff(notes["velocity"].astype(int))
    turn = np.sign(interval[1:]) * np.sign(interval[:-1])
    pairs = (
        (np.log(gap + 0.005), _LOG_S),
        (np.log(duration + 0.005), _LOG_S),
        (interval, _INTERVALS),
        (louder, _LOUDER),
        (turn, _TURNS),
    )
    return np.concatenate(
        [
            np.bincount(np.digitize(values, edges), minlength=len(edges) + 1) / len(values)
            for values, edges in pairs
        ]
    )


def told_apart(
    real: Sequence[Notes],
    ours: Sequence[Notes],
    *,
    figures: Callable[[Notes], NDArray[np.float64]] = texture,
    cut: Callable[[Notes], Iterable[Notes]] = excerpts,
    random_state: int = 0,
) -> float:
    """Return how well a forest tells excerpts of pieces from excerpts of real ones.

    A classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017): balanced accuracy on pieces that
    it has not seen, by some figures of an excerpt. 0.5: it cannot tell them apart; NaN where there
    are too few pieces, or none of one kind in a fold.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GroupKFold, cross_val_score

    rows, labels, groups = [], [], []
    for group, (label, notes) in enumerate([*((0, p) for p in real), *((1, p) for p in ours)]):
        for part in cut(notes):
            row = figures(part)
            if np.isfinite(row).all():
                rows.append(row)
                labels.append(label)
                groups.append(group)
    if len(set(groups)) < 2 * FOLDS:
        return float("nan")
    known = np.array(labels)
    folds = list(GroupKFold(FOLDS).split(rows, known, groups))
    if any(len(set(known[part])) < 2 for fold in folds for part in fold):
        return float("nan")
    forest = RandomForestClassifier(
        300, min_samples_leaf=3, random_state=random_state, class_weight="balanced"
    )
    scores = cross_val_score(forest, np.array(rows), known, cv=folds, scoring="balanced_accuracy")
    return float(scores.mean())


def overlapped_areas(real: Sequence[Notes], ours: Sequence[Notes]) -> dict[str, float]:
    """Return for each of `TEXTURES` the overlapped area of pieces and real ones.

    The densities are of the distances within the real ones, and from the real ones to ours (L.-C.
    Yang and A. Lerch, "On the evaluation of generative models in music", Neural Computing and
    Applications 32, 2020). 1: the same; NaN where there are fewer than three of either.
    """
    known, mine = (_figures(parts) for parts in (real, ours))
    if min(len(known), len(mine)) < 3:
        return dict.fromkeys(TEXTURES, float("nan"))
    return {
        name: _overlapped(known[:, place], mine[:, place]) for place, name in enumerate(TEXTURES)
    }


def _figures(parts: Sequence[Notes]) -> NDArray[np.float64]:
    rows = np.array([texture(part) for part in parts]).reshape(-1, len(TEXTURES))
    found: NDArray[np.float64] = rows[np.isfinite(rows).all(1)]
    return found


def _overlapped(known: NDArray[np.float64], mine: NDArray[np.float64]) -> float:
    from scipy.stats import gaussian_kde

    within = np.abs(known[:, None] - known)[np.triu_indices(len(known), 1)]
    between = np.abs(known[:, None] - mine).ravel()
    if not within.std() or not between.std():
        return float(within.std() == between.std())
    lowest = min(within.min(), between.min())
    grid = np.linspace(lowest, max(within.max(), between.max()), _GRID)
    densities = [gaussian_kde(distances)(grid) for distances in (within, between)]
    return float(np.trapezoid(np.minimum(*densities), grid))


def mean_pulse(pieces: Iterable[Notes]) -> float:
    """Return the mean over pieces of the mean `pulse` of a piece's excerpts; NaN where none has."""
    means = []
    for notes in pieces:
        found = [pulse(part) for part in excerpts(notes) if len(part) >= FEWEST_NOTES]
        means += [np.mean(found)] if found else []
    return float(np.mean(means)) if means else float("nan")


def density_drift(notes: Notes) -> float:
    """Return how much denser the denser half of a part is than the other, in notes a second.

    The halves are of equal time, by onsets.

    Returns
    -------
    float
        1 or more; infinite where one half is empty, 1 where both are.
    """
    if not len(notes):
        return 1.0
    first, last = float(notes["onset"][0]), float(notes["onset"][-1])
    early = int(np.searchsorted(notes["onset"], (first + last) / 2, side="right"))
    few, many = sorted((early, len(notes) - early))
    return many / few if few else (1.0 if many <= 1 else math.inf)
