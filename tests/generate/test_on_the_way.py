"""Pieces on their way, without Ray: which wait, which are quarantined, what becomes of each."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from deep_piano.config.sections import GenerateConfig
from deep_piano.errors import DeepPianoError
from deep_piano.generate.on_the_way import OnTheWay, Slot
from deep_piano.generate.records import Record, Records
from deep_piano.generate.tasks import Run
from deep_piano.infra.storage.folder import Entry

SEED = SimpleNamespace(digest="ab", seconds=10.0)


@dataclass(frozen=True)
class Take:
    index: int
    figures: dict
    known: dict
    new_notes: int = 90
    ranking: tuple = ()


def take(index, *, judge=0.0):
    figures = {"judge_log_odds": judge, "fewest_pitch_classes": 5.0}
    figures |= {"longest_loop": 1, "longest_silence_s": 1.0}
    known = {"notes": 100, "figures": figures}
    return Take(index, figures, known)


def begun(*names, records=(), max_failures=None, problems=(), **settings):
    """Return pieces of which all seeds have been read, and what was missing."""
    road = SimpleNamespace(
        settings=GenerateConfig(**settings),
        checkpoint=SimpleNamespace(digest="cd"),
        only_new=False,
    )
    state = OnTheWay(Run(None, None, "mid", road), Records(records), max_failures=max_failures)
    entries = [
        Entry(name, 1, f"stamp of {name}", problem=name in problems and "odd") for name in names
    ]
    todo = state.missing(entries)
    for name, takes in todo:
        state.begin(name, takes)
        state.read(name, SEED, {f"{name}/seed.mp3": "ef"})
    return state, todo


def answered(state, *slots):
    """Have composers answer that have nothing."""
    for slot in slots:
        assert state.give(slot, 9) == {}
        state.composed(slot, {})


def test_takes_wait_until_a_composer_has_room_and_are_written():
    state, _ = begun("a", "b", takes=2)
    slot = Slot()
    answered(state, slot)
    assert list(state.give(slot, 3)) == [("a", 0), ("a", 1), ("b", 0)]
    assert state.counts([slot]) == {
        "reading": 0,
        "ready": 1,
        "composing": 3,
        "comparing": 0,
        "finishing": 0,
    }
    state.composed(slot, {("a", 1): take(1)})
    assert list(state.give(slot, 3)) == [("b", 1)]
    key, made = state.to_write.popleft()
    assert (key, made.index) == (("a", 1), 1)
    state.written(Record("a", 2, "done", files={"a/take-2.mid": "gh"}))
    [record] = state.unkept
    assert record == state.records["a", 1]
    assert record.seed_stamp == "stamp of a"
    assert record.files == {"a/take-2.mid": "gh", "a/seed.mp3": "ef"}
    assert (len(state), state.progress.done, state.progress.total) == (3, 1, 4)


def test_a_composer_with_nothing_to_do_is_not_asked_and_a_new_one_answers_first():
    state, _ = begun("a")
    first, second = Slot(), Slot()
    answered(state, first, second)
    assert list(state.give(first, 4)) == [("a", 0)]
    assert state.give(first, 4) == {}  # it goes on
    assert state.give(second, 4) is None


def test_only_what_is_missing_is_made():
    there = Record("a", 1, "done")
    assert begun("a", "b", records=[there], takes=2)[1] == [("a", [1]), ("b", [0, 1])]
    # The best can only be told from all of them.
    assert begun("a", records=[there], takes=2, keep=1)[1] == [("a", [0, 1])]
    both = [there, Record("a", 2, "left out")]
    assert begun("a", records=both, takes=2, keep=1)[1] == []


def test_what_was_lost_is_composed_alone_and_given_up_the_second_time():
    state, _ = begun("a", "b", "c")
    slot, other = Slot(), Slot()
    answered(state, slot, other)
    assert len(state.give(slot, 2)) == 2
    state.lost(slot)
    slot = Slot()
    assert state.give(other, 2) == {}  # whoever is left must answer again before it gets more
    answered(state, slot)
    assert list(state.give(slot, 2)) == [("a", 0)]
    assert slot.alone
    assert state.give(slot, 2) == {}  # nothing beside it
    state.composed(slot, {("a", 0): take(0)})
    assert not slot.alone
    assert list(state.give(slot, 2)) == [("b", 0)]
    for _ in range(2):  # lost among others once, and alone twice
        state.lost(slot)
        slot = Slot()
        answered(state, slot)
        given = list(state.give(slot, 2))
    assert given == [("c", 0)]
    assert not slot.alone
    assert state.records["b", 0].failed
    assert "died, again and again" in state.records["b", 0].reason


def test_the_best_takes_are_written_and_the_others_left_out():
    state, _ = begun("a", takes=3, keep=1)
    slot = Slot()
    answered(state, slot)
    state.give(slot, 9)
    state.composed(slot, {("a", 2): take(2, judge=1.0), ("a", 0): take(0)})
    assert not state.to_write
    state.composed(slot, {("a", 1): take(1, judge=-1.0)})
    assert [key for key, _ in state.to_write] == [("a", 2)]
    left_out = {record.take: record for record in state.unkept}
    assert left_out.keys() == {1, 2}
    assert {record.status for record in left_out.values()} == {"left out"}
    assert left_out[2].reason == "place 3 of 3"
    assert (left_out[2].seed_sha256, left_out[2].checkpoint_sha256) == ("ab", "cd")
    assert left_out[2].seed_seconds == 10.0


def test_a_take_that_failed_is_not_waited_for():
    state, _ = begun("a", takes=2, keep=1)
    slot = Slot()
    answered(state, slot)
    state.give(slot, 9)
    state.composed(slot, {("a", 0): take(0)})
    assert not state.to_write
    state.unwritten(("a", 1), "a reason")
    assert [key for key, _ in state.to_write] == [("a", 0)]
    assert state.records["a", 1].reason == "a reason"


def test_every_seed_that_cannot_be_read_fails_and_too_many_are_an_error():
    state, todo = begun("a", "b", "c", takes=2, problems=["b"], max_failures=3)
    assert [name for name, _ in todo] == ["a", "c"]
    assert state.records["b", 1].reason == "odd"
    state.require_few_failures()
    state, _ = begun("a", "b", takes=2, problems=["b", "a"], max_failures=3)
    with pytest.raises(DeepPianoError, match=r"stopped: 4 pieces failed and 3 may .*of a: odd"):
        state.require_few_failures()
    assert len(state) == 0


def test_it_is_told_how_much_is_read_until_the_first_piece_is_there():
    road = SimpleNamespace(settings=GenerateConfig(), checkpoint=None, only_new=False)
    state = OnTheWay(Run(None, None, "mid", road), Records())
    entries = [Entry(name, 1, "stamp") for name in ("a", "b", "c")]
    for name, takes in state.missing(entries):
        state.begin(name, takes)
    told = []
    for name in ("a", "b"):
        state.read(name, SEED, {})
        told.append((state.progress.what, state.progress.done, state.progress.total))
    assert told == [("reading", 1, 3), ("reading", 2, 3)]
    state.written(Record("a", 1, "done", seconds=20.0))
    assert (state.progress.what, state.progress.done) == ("writing pieces", 1)
