"""Votes of blind comparisons, summed up with an interval."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deep_piano.errors import InputError
from deep_piano.generate.votes import Comparison, read_votes, table, wilson
from tests.support.commands import made, refused, run


def vote(first, second, preferred, *, heard=(9.0, 9.0), **more):
    sides = [dict(zip(("run", "take"), side, strict=True)) for side in (first, second)]
    known = {"seed": "a.mp3", "first": sides[0], "second": sides[1], "preferred": preferred}
    return known | {"heard_s": list(heard)} | more


def saved(path, *votes):
    path.write_text(json.dumps({"page": "x", "votes": votes}))
    return path


OLD, NEW, THIRD = ("old", 1), ("new", 1), ("third", 1)


def test_votes_count_for_either_side_and_from_several_files(tmp_path):
    one = saved(tmp_path / "1.json", vote(OLD, NEW, "second"), vote(NEW, OLD, "first"))
    two = saved(
        tmp_path / "2.json",
        vote(OLD, NEW, "first"),
        vote(OLD, NEW, None),
        vote(THIRD, NEW, "second"),
        vote(("new", 1), ("new", 3), "first"),
    )
    found, unheard = read_votes([one, two])
    assert unheard == 0
    assert found == [
        Comparison(("new", "old"), (2, 1), 1),
        Comparison(("new", "third"), (1, 0), 0),
        Comparison(("take 1", "take 3"), (1, 0), 0),
    ]
    assert "| new | old | 2 of 3 | 67% | 21% to 94% | 1 |" in table(found)


@pytest.mark.parametrize(
    ("heard", "more", "counts"),
    [
        ((0.0, 9.0), {}, False),
        ((9.0, 4.9), {}, False),
        ((5.0, 5.0), {}, True),
        ((2.0, 2.0), {"enough_s": [2.0, 2.0]}, True),
        ((2.0, 1.9), {"enough_s": [2.0, 2.0]}, False),
    ],
)
def test_a_vote_counts_where_both_were_heard(tmp_path, heard, more, counts):
    path = saved(tmp_path / "v.json", vote(OLD, NEW, "first", heard=heard, **more))
    found, unheard = read_votes([path])
    assert (len(found), unheard) == (counts, not counts)


@pytest.mark.parametrize(
    ("successes", "trials", "interval"),
    [(0, 0, (0, 1)), (0, 10, (0, 0.278)), (10, 10, (0.722, 1)), (50, 100, (0.404, 0.596))],
)
def test_wilsons_interval(successes, trials, interval):
    assert wilson(successes, trials) == pytest.approx(interval, abs=0.001)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"votes": [{}]}', '{"votes": [7]}'])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(InputError, match=r"v\.json is not a file of votes.*has saved"):
        read_votes([tmp_path / "v.json"])
    with pytest.raises(InputError, match=r"cannot read .*gone"):
        read_votes([tmp_path / "gone"])


def test_the_command(desk):
    saved(Path("v.json"), vote(OLD, NEW, "first"), vote(OLD, NEW, "first", heard=(0, 0.5)))
    lines = made(run("votes", "v.json")).splitlines()
    assert lines[2] == "| new | old | 0 of 1 | 0% | 0% to 79% | 0 |"
    assert lines[-1] == "left out: 1 votes given before both pieces were heard"
    saved(Path("v.json"), vote(OLD, NEW, "first", heard=(0, 0.5)))
    refused(run("votes", "v.json"), "no vote counts: 1 were given before both")
