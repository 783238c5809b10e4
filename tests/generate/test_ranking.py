from __future__ import annotations

import pytest

from deep_piano.analysis.note_figures import (
    FEWEST_PITCH_CLASSES,
    LONGEST_SILENCE_S,
    MOST_REPETITIONS,
)
from deep_piano.config.sections import GenerateConfig
from deep_piano.decoding.open import open_decoder
from deep_piano.generate.piece import decode_takes, road_of
from deep_piano.generate.ranking import best_first, ranked
from deep_piano.infra.progress import no_progress
from deep_piano.music.midi import write_midi
from tests.support.fakes import arpeggios, random_checkpoint


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


@pytest.mark.parametrize(
    "kind", [{}, {"between": [12.0, 17.0]}, {"remix": "rhythm"}, {"remix": "pitches"}]
)
def test_takes_of_every_kind_are_ranked(tmp_path, rng, kind):
    write_midi(tmp_path / "piece.mid", arpeggios(20, rng=rng))
    few = {"seconds": 20, "candidates": 1, "takes": 2}
    settings = GenerateConfig.model_validate(few | kind)
    road = road_of(random_checkpoint(), settings, tmp_path / "out.mid")
    seed = road.read(tmp_path / "piece.mid", no_progress)
    takes = decode_takes(road, open_decoder(road.checkpoint, settings), seed)
    ranking = ranked(takes)[0].ranking
    assert sorted(row["take"] for row in ranking) == [1, 2]
    assert ranking[0]["judge_log_odds"] > ranking[1]["judge_log_odds"]
