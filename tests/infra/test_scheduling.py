"""The limit of time without progress on Ray; tests/chaos/ shows it with processes that hang."""

from __future__ import annotations

import threading

import pytest

from deep_piano.errors import DeepPianoError, InputError
from deep_piano.infra.cluster import connection
from deep_piano.infra.cluster.scheduling import Silence
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
        assert self.may_end.wait(60)
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
