"""Whether a moment of a piece could be a pianist's: boosted trees over figures of its texture.

A judge is trained on real continuations of seeds and on those that a checkpoint makes
(`train.judging`); it chooses among candidates while a piece is decoded. This module knows figures
and trees; it knows nothing of networks or files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.note_figures import pitch_class_cosine
from deep_piano.analysis.texture import EXCERPT_S, TEXTURES, common_ends, pulse, texture
from deep_piano.music.notes import Notes

FIGURES: Final = 2 * len(TEXTURES) + 7
MOMENT_S: Final = 10.0


def judged_figures(seed: Notes, continuation: Notes, *, now_s: float) -> NDArray[np.float64]:
    """Return what a judge looks at: the last `EXCERPT_S` before a moment, and beside the seed.

    Parameters
    ----------
    seed, continuation : ndarray, dtype `NOTE`, sorted by onset
    now_s : float
        The moment, on the clock of both.

    Returns
    -------
    ndarray of float64, shape (FIGURES,)
        The figures of `texture`, the share of common ends and how many different keys are struck,
        in octaves (log2); all these less the seed's; the pitch-class cosine with the seed; and the
        pulse, and the pulse less the seed's, which came last, so that earlier judges still hold.
        NaN with too few notes.
    """
    notes = np.concatenate([seed, continuation])
    excerpt = notes[(notes["onset"] >= now_s - EXCERPT_S) & (notes["onset"] < now_s)]
    own, of_seed = _figures(excerpt), _figures(seed)
    own_pulse = pulse(excerpt)
    pulses = own_pulse, own_pulse - pulse(seed)
    return np.array([*own, *(own - of_seed), pitch_class_cosine(seed, excerpt), *pulses])


def mean_score(judge: Judge, seed: Notes, continuation: Notes, *, from_s: float) -> float:
    """Return how likely a whole continuation is a pianist's: the mean over its moments.

    Parameters
    ----------
    judge : Judge
    seed, continuation : ndarray, dtype `NOTE`, sorted by onset
    from_s : float
        When the continuation begins. It is looked at every `MOMENT_S` from there to its last onset,
        the last chord.

    Returns
    -------
    float
        Log-odds; 0, undecided, where there are too few notes to judge at every moment.
    """
    last_s = float(continuation["onset"].max(initial=from_s))
    moments = np.arange(from_s + MOMENT_S, last_s, MOMENT_S)
    if not len(moments):
        moments = np.array([last_s])
    figures = [judged_figures(seed, continuation, now_s=now_s) for now_s in moments]
    score = judge.score(np.array(figures))
    known = score[np.isfinite(score)]
    return float(known.mean()) if len(known) else 0.0


def _figures(notes: Notes) -> NDArray[np.float64]:
    keys = len(np.unique(notes["pitch"]))
    return np.array([*texture(notes), common_ends(notes), np.log2(max(keys, 1))])


@dataclass(frozen=True)
class Judge:
    """Boosted trees (Friedman 2001, doi:10.1214/aos/1013203451), arrays of shape (trees, nodes).

    Attributes
    ----------
    figure : ndarray of int32
        Which figure a node looks at.
    threshold : ndarray of float64
        A row whose figure is at most so large goes left.
    left, right : ndarray of int32
        The nodes below; a leaf stands below itself.
    value : ndarray of float64
        What a leaf adds to the score.
    """

    figure: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]

    def __post_init__(self) -> None:
        trees, nodes = self.figure.shape
        for name, array in self.arrays().items():
            if array.shape != (trees, nodes):
                raise ValueError(f"a judge's {name} is of shape {array.shape}")
        for name, end in (("figure", FIGURES), ("left", nodes), ("right", nodes)):
            array = getattr(self, name)
            if array.min() < 0 or array.max() >= end:
                raise ValueError(f"a judge's {name} is not below {end}")

    def score(self, figures: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how likely moments are a pianist's.

        Parameters
        ----------
        figures : ndarray, shape (n, FIGURES)
            From `judged_figures`.

        Returns
        -------
        ndarray of float64, shape (n,)
            Log-odds; -inf where there are too few notes to judge.
        """
        trees = np.arange(len(self.figure))
        moments = np.arange(len(figures))[:, None]
        node = np.zeros((len(figures), len(trees)), np.int64)
        while True:
            goes_left = figures[moments, self.figure[trees, node]] <= self.threshold[trees, node]
            below = np.where(goes_left, self.left[trees, node], self.right[trees, node])
            if np.array_equal(below, node):
                break
            node = below
        score = self.value[trees, node].sum(1)
        return np.where(np.isfinite(figures).all(1), score, -np.inf)

    @property
    def digest(self) -> str:
        """SHA-256 of the file in which a checkpoint stores it."""
        from safetensors.numpy import save

        return hashlib.sha256(save(self.arrays())).hexdigest()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name: what `of` takes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the judge of these arrays.

        Raises
        ------
        ValueError
            When they are not a judge's.
        """
        wanted = {field.name for field in fields(cls)}
        if arrays.keys() != wanted:
            raise ValueError(f"a judge has {sorted(wanted)}, not {sorted(arrays)}")
        return cls(**arrays)
