"""The limit of time without progress on Ray; tests/chaos/ shows it with processes that hang."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest

from deep_piano.errors import DeepPianoError, InputError
from deep_piano.infra.cluster import connection
from deep_piano.infra.cluster.scheduling import Silence, completed
from deep_piano.train.on_ray import fit_with_reports


@pytest.fixture
def clock(monkeypatch):
    """Time that stands still, until a test sets it: a list of the seconds."""
    seconds = [1000.0]
    monkeypatch.setattr(connection.time, "monotonic", lambda: seconds[0])
    return seconds


def test_it_may_last_so_long_and_no_longer(clock):
    silence = Silence(60, "bulk.silence_seconds")
    clock[0] += 60
    silence.require_short(3)
    clock[0] += 1
    with pytest.raises(
        DeepPianoError, match=r"for 60 s of the 3 tasks .* bulk.silence_seconds sets the limit"
    ) as caught:
        silence.require_short(3)
    assert not isinstance(caught.value, InputError)


def test_any_progress_ends_it(clock):
    silence = Silence(60, "prepare.silence_seconds")
    clock[0] += 50
    silence.end()
    clock[0] += 50
    silence.require_short(1, [])
    silence.require_short(1, [12.0])  # a recording was transcribed
    clock[0] += 50
    silence.require_short(1, [12.0])
    clock[0] += 50
    with pytest.raises(DeepPianoError, match="for 60 s"):
        silence.require_short(1, [12.0])


class News:
    """The first worker's reports, in place of Ray's queue; then nothing."""

    def __init__(self, *told, then):
        self._told, self._then = list(told), then

    def get(self, timeout):
        from ray.util.queue import Empty

        if self._told:
            return self._told.pop(0)
        self._then()
        raise Empty

    def qsize(self):
        return len(self._told)

    def get_nowait_batch(self, count):
        return [self._told.pop(0) for _ in range(count)]


class Trainer:
    def __init__(self, outcome=None):
        self.may_end, self._outcome = threading.Event(), outcome

    def fit(self):
        assert self.may_end.wait(250)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def test_a_training_without_progress_ends(clock):
    def wait():
        clock[0] += 25

    trainer, told = Trainer(), []
    silence = Silence(60, "train.silence_seconds")
    clock[0] += 50
    with pytest.raises(DeepPianoError, match=r"for 60 s of the 2 tasks .* train.silence_seconds"):
        fit_with_reports(trainer, News("an update", then=wait), told.append, silence, 2)
    assert told == ["an update"]
    assert clock[0] == 1000 + 50 + 3 * 25
    trainer.may_end.set()


def test_a_training_gives_what_its_trainer_gives_and_the_last_news_are_told():
    trainer, told = Trainer("done"), []
    silence = Silence(60, "train.silence_seconds")
    trainer.may_end.set()
    assert (
        fit_with_reports(trainer, News(1, 2, 3, then=lambda: None), told.append, silence, 2)
        == "done"
    )
    assert told == [1, 2, 3]


def test_a_training_fails_as_its_trainer_does():
    trainer = Trainer(ValueError("no workers"))
    silence = Silence(60, "train.silence_seconds")
    with pytest.raises(ValueError, match="no workers"):
        fit_with_reports(trainer, News(then=trainer.may_end.set), print, silence, 2)


@pytest.fixture
def ray(monkeypatch):
    """A stand-in for Ray: each reference is its result, and is done as soon as it is waited for."""

    class Failed(Exception):
        pass

    def cancel(reference, *, force):
        if reference == "a call":
            raise ValueError("force=True is not supported for actor tasks.")
        fake.cancelled.append(reference)

    fake = SimpleNamespace(
        wait=lambda pending, num_returns, timeout: (pending[:1], pending[1:]),
        get=lambda reference: reference,
        cancel=cancel,
        cancelled=[],
        exceptions=SimpleNamespace(RayTaskError=Failed, RayError=Failed),
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr("deep_piano.infra.cluster.scheduling._PAUSE_S", 0)
    return fake


def results(items, *, most=2):
    def submit(item):
        return item.upper()

    silence = Silence(60, "bulk.silence_seconds")
    return completed(submit, items, in_flight=lambda: most, silence=silence)


def test_every_item_has_its_result_and_so_many_are_at_work(ray):
    drawn = []
    source = (drawn.append(item) or item for item in "abcd")
    found = []
    for item, result in results(source):
        found.append((item, result))
        assert len(drawn) - len(found) <= 1
    assert found == [(item, item.upper()) for item in "abcd"]


def test_what_completes_decides_what_comes_next(ray):
    waiting, done = ["a"], []

    def jobs():
        while len(done) < 3:
            yield waiting.pop() if waiting else None
            if done == ["a"]:
                yield None  # nothing is at work, nor can be begun yet
                yield "b"

    for item, _ in results(jobs()):
        done.append(item)
        if item == "b":
            waiting.append("c")
    assert done == ["a", "b", "c"]


def test_who_stops_early_leaves_no_task_and_lets_actors_be(ray):
    silence = Silence(60, "bulk.silence_seconds")
    items = ["x", "a call", "b"]
    working = completed(str, items, in_flight=lambda: 9, silence=silence)
    assert next(working) == ("x", "x")
    working.close()
    assert ray.cancelled == ["b"]
