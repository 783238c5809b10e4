from __future__ import annotations

import json
import math

import pytest

from deep_piano.train.evaluation import MINE, Evaluation, Score

SCORES = [
    Score("a", MINE, {"onset": 2.0, "pitch": 3.0}, 100, 25.0),
    Score("a", "unigram", {"onset": 3.0, "pitch": 4.0}, 100, 25.0),
]


def evaluation(**changes):
    facts = {
        **{"checkpoint": "c", "dataset": "d", "split": "test", "step_name": "note"},
        **{"continuous": False, "scores": SCORES},
    }
    return Evaluation(**facts | changes)


def test_nats_are_summed_and_converted():
    [mine, _] = SCORES
    assert mine.total == 5.0
    assert mine.per_second == 20.0
    row = evaluation().table().splitlines()[2]
    assert row == "| a | this checkpoint | 100 | 5.000 | 20.000 | 148.413 | 2.000 | 3.000 |"


def test_published_figures_are_in_the_same_unit():
    published = evaluation().published
    assert published["Performance RNN (Huang et al. 2018, Table 3)"] == pytest.approx(
        8.132, abs=1e-3
    )
    assert published["Music Transformer (Hawthorne et al. 2018)"] == pytest.approx(7.599, abs=1e-3)
    assert "8.132" in evaluation().table()


def test_every_row_of_the_table_has_every_column():
    for found in (
        evaluation(),
        evaluation(step_name="sample", scores=[Score(".", MINE, {"sample": 1.0}, 10, 1.0)]),
        evaluation(
            step_name="sample", continuous=True, scores=[Score(".", MINE, {"sample": 1e-6}, 9, 1.0)]
        ),
    ):
        lines = found.table().splitlines()
        assert len({line.count(" | ") for line in lines}) == 1


def test_sound_is_told_in_bits():
    nats = 2 * math.log(2)
    found = evaluation(step_name="sample", scores=[Score(".", MINE, {"sample": nats}, 10, 1.0)])
    head, _, row = found.table().splitlines()
    assert head.endswith("| perplexity | bits |")
    assert row.endswith("| 4.000 | 2.000 |")


def test_a_network_that_diverged_is_in_the_table():
    scores = [Score("a", MINE, {"pitch": 720.0}, 10, 10.0)]
    row = evaluation(scores=scores).table().splitlines()[2]
    assert row == "| a | this checkpoint | 10 | 720.000 | 720.000 | inf | 1,039 |"


def test_json_holds_what_the_table_shows():
    found = json.loads(evaluation().to_json())
    assert found["scores"][0]["total"] == 5.0
    assert found["scores"][1]["losses"] == {"onset": 3.0, "pitch": 4.0}
    assert found["unit"] == "nats a note"
    assert len(found["published"]) == 2
