"""Votes of blind comparisons, summed up with an interval."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deep_piano.errors import InputError
from deep_piano.generate.votes import Comparison, read_votes, table, wilson
from tests.support.commands import made, refused, run


def vote(first, second, preferred, *, heard=(9.0, 9.0), **more):
    """Return a vote; a side is its run, its take and perhaps its checkpoint."""
    names = ("run", "take", "checkpoint")
    sides = [dict(zip(names, side, strict=False)) for side in (first, second)]
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


def named(path):
    return {one.names: one.preferred for one in read_votes([path])[0]}


def test_runs_of_one_name_are_told_apart_by_their_checkpoints(tmp_path):
    mine, yours, other = ("a", 1, 64 * "1"), ("a", 1, 64 * "2"), ("b", 1, 64 * "1")
    path = saved(tmp_path / "v.json", vote(mine, other, "first"), vote(other, yours, "first"))
    assert named(path) == {("a (11111111)", "b"): (1, 0), ("a (22222222)", "b"): (0, 1)}
    path = saved(tmp_path / "v.json", vote(mine, other, "first"), vote(other, ("a", 1), "first"))
    assert named(path) == {("a (11111111)", "b"): (1, 0), ("a (unknown)", "b"): (0, 1)}


def test_takes_of_several_runs_are_told_apart(tmp_path):
    def takes(run, *checkpoint):
        return vote((run, 2, *checkpoint), (run, 10, *checkpoint), "first")

    path = saved(tmp_path / "v.json", takes("a", "1"), vote(OLD, NEW, "first"))
    assert named(path) == {("take 2", "take 10"): (1, 0), ("new", "old"): (0, 1)}
    path = saved(tmp_path / "v.json", takes("a", "1"), takes("b", "1"), takes("b", "2"))
    assert named(path) == {
        ("take 2 of a", "take 10 of a"): (1, 0),
        ("take 2 of b (1)", "take 10 of b (1)"): (1, 0),
        ("take 2 of b (2)", "take 10 of b (2)"): (1, 0),
    }


def test_what_was_saved_twice_counts_once(tmp_path):
    votes = [
        vote(OLD, NEW, "first"),
        vote(OLD, NEW, "first", seed="b.mp3"),
        vote(OLD, NEW, "first", heard=(9.0, 9.1)),
        vote(OLD, NEW, "second"),
        vote(OLD, NEW, "first", heard=(0.0, 1.0)),
    ]
    early, late = saved(tmp_path / "1.json", *votes[1:]), saved(tmp_path / "2.json", *votes)
    [comparison], unheard = read_votes([early, late, late])
    assert (comparison.preferred, unheard) == ((1, 3), 1)


def test_two_listeners_who_agree_are_two(tmp_path):
    votes = [vote(OLD, NEW, "first", voted=f"2026-11-30T12:00:0{n}.000Z") for n in range(2)]
    [found], _ = read_votes([saved(tmp_path / "a.json", *votes)])
    assert found.preferred == (0, 2)


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


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (vote(OLD, NEW, "first", heard=(float("nan"), 9.0)), r"votes\.1\.heard_s\.0: .*finite"),
        (vote(OLD, NEW, "first", heard=(9.0, float("inf"))), r"votes\.1\.heard_s\.1: .*finite"),
        (vote(OLD, NEW, "first", heard=(9.0, -1.0)), r"votes\.1\.heard_s\.1: .*0"),
        (vote(OLD, NEW, "first", enough_s=[-1.0, 0.0]), r"votes\.1\.enough_s\.0: .*0"),
        (vote(OLD, NEW, "first", heard=(9.0,)), r"votes\.1\.heard_s"),
        (vote(OLD, NEW, "first", heard=(9.0, 9.0, 9.0)), r"votes\.1\.heard_s"),
        (vote(OLD, ("new", 0), "first"), r"votes\.1\.second\.take: .*1"),
        (vote(OLD, OLD, "first"), r"votes\.1: .*both sides are one piece"),
    ],
)
def test_a_vote_that_no_page_saves_is_refused(tmp_path, wrong, why):
    path = saved(tmp_path / "v.json", vote(OLD, NEW, "first"), wrong)
    with pytest.raises(InputError, match=rf"v\.json is not a file of votes: {why}.*has saved"):
        read_votes([path])


def test_the_command(desk):
    saved(Path("v.json"), vote(OLD, NEW, "first"), vote(OLD, NEW, "first", heard=(0, 0.5)))
    lines = made(run("votes", "v.json")).splitlines()
    assert lines[2] == "| new | old | 0 of 1 | 0% | 0% to 79% | 0 |"
    assert lines[-1] == "left out: 1 votes given before both pieces were heard"
    saved(Path("v.json"), vote(OLD, NEW, "first", heard=(0, 0.5)))
    refused(run("votes", "v.json"), "no vote counts: 1 were given before both")
