from __future__ import annotations

import pytest

from deep_piano.analysis.note_figures import (
    FEWEST_PITCH_CLASSES,
    LONGEST_SILENCE_S,
    MOST_REPETITIONS,
)
from deep_piano.generate.ranking import best_first


def take(*, judge=0.0, loop=3, silence_s=1.0, classes=5.0):
    return {
        "judge_log_odds": judge,
        "fewest_pitch_classes": classes,
        "longest_loop": loop,
        "longest_silence_s": silence_s,
    }


@pytest.mark.parametrize(
    ("takes", "order"),
    [
        ([], []),
        ([take()], [0]),
        ([take(), take()], [0, 1]),
        ([take(judge=-1), take(judge=1)], [1, 0]),
        ([take(judge=2), take(judge=-1), take(judge=1)], [0, 2, 1]),
        ([take(judge=1, loop=MOST_REPETITIONS + 1), take()], [1, 0]),
        ([take(judge=1, classes=FEWEST_PITCH_CLASSES - 0.1), take()], [1, 0]),
        ([take(judge=1, classes=FEWEST_PITCH_CLASSES), take()], [0, 1]),
        ([take(judge=1, silence_s=LONGEST_SILENCE_S + 0.1), take()], [1, 0]),
        ([take(judge=1, loop=MOST_REPETITIONS, silence_s=LONGEST_SILENCE_S), take()], [0, 1]),
    ],
)
def test_the_best_take_comes_first(takes, order):
    assert best_first(takes) == order
