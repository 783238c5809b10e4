from __future__ import annotations

import numpy as np
import pytest

from deep_piano.analysis.judge import FIGURES, Judge, judged_figures, mean_score
from deep_piano.analysis.texture import TEXTURES
from tests.support.fakes import arpeggios


def stump(figure, threshold):
    """Return a judge of one tree that looks at one figure: -1 below the threshold, else 1."""
    return Judge(
        np.array([[figure, 0, 0]], np.int32),
        np.array([[threshold, 0.0, 0.0]]),
        np.array([[1, 1, 2]], np.int32),
        np.array([[2, 1, 2]], np.int32),
        np.array([[0.0, -1.0, 1.0]]),
    )


def test_a_row_goes_down_each_tree_to_a_leaf():
    deep = Judge(  # figure 0 above 1, then figure 2 above 5; the second tree is a leaf
        np.array([[0, 0, 2, 0, 0], [0, 0, 0, 0, 0]], np.int32),
        np.array([[1.0, 0, 5.0, 0, 0], [0.0, 0, 0, 0, 0]]),
        np.array([[1, 1, 3, 3, 4], [0, 0, 0, 0, 0]], np.int32),
        np.array([[2, 1, 4, 3, 4], [0, 0, 0, 0, 0]], np.int32),
        np.array([[0, 1.0, 0, 2.0, 3.0], [0.5, 0, 0, 0, 0]]),
    )
    rows = np.zeros((3, FIGURES))
    rows[:, 0], rows[:, 2] = [1, 2, 2], [9, 5, 6]
    np.testing.assert_array_equal(deep.score(rows), [1.5, 2.5, 3.5])


def test_what_has_too_few_notes_is_the_worst():
    rows = np.zeros((2, FIGURES))
    rows[1, 7] = np.nan
    np.testing.assert_array_equal(stump(0, -1.0).score(rows), [1.0, -np.inf])


def test_a_judge_comes_back_from_its_arrays():
    judge = stump(3, 0.25)
    again = Judge.of(judge.arrays())
    assert all(np.array_equal(again.arrays()[name], a) for name, a in judge.arrays().items())


@pytest.mark.parametrize(
    "change",
    [
        {"left": np.array([[1, 1, 9]], np.int32)},
        {"right": np.array([[-1, 1, 2]], np.int32)},
        {"figure": np.array([[FIGURES, 0, 0]], np.int32)},
        {"value": np.zeros((1, 4))},
        {"more": np.zeros(1)},
    ],
)
def test_other_arrays_are_refused(change):
    with pytest.raises(ValueError, match="judge"):
        Judge.of(stump(0, 0.0).arrays() | change)


def test_the_figures_are_of_the_last_moments(rng):
    seed = arpeggios(10, rng=rng)
    later = arpeggios(60, rng=rng)
    later = later[later["onset"] >= 10]
    figures = judged_figures(seed, later, now_s=40.0)
    assert figures.shape == (FIGURES,)
    assert np.isfinite(figures).all()
    until_then = later[later["onset"] < 40]
    np.testing.assert_array_equal(judged_figures(seed, until_then, now_s=40.0), figures)
    assert not np.isfinite(judged_figures(seed, later[:0], now_s=40.0)).all()


def test_a_continuation_is_judged_every_ten_seconds_up_to_its_last_chord(rng):
    seed, piece = arpeggios(10, rng=rng), arpeggios(40, rng=rng)
    later = piece[piece["onset"] >= 10]
    judge = stump(TEXTURES.index("pitch, mean"), 60.0)
    moments = [20.0, 30.0, 40.0]
    last_s = float(later["onset"].max())
    figures = [judged_figures(seed, later, now_s=s) for s in moments if s < last_s]
    assert len(figures) >= 2
    assert mean_score(judge, seed, later, from_s=10.0) == judge.score(np.array(figures)).mean()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_is_too_short_to_judge_is_undecided(rng, count):
    few = arpeggios(4, rng=rng)[:count]
    assert mean_score(stump(0, -1.0), few, few, from_s=0.0) == 0.0
