"""The queue before the worker process: order, progress, ends of every kind."""

from __future__ import annotations

import os
import threading
import time

import pytest

from deep_piano.errors import InputError
from deep_piano.serve.jobs import MOST_WAITING, Job, Jobs, QueueFull
from tests.support import errands

LONGEST_S = 60


class Told:
    """What is told of jobs."""

    def __init__(self):
        self.facts, self._changed = [], threading.Condition()

    def __call__(self, job):
        with self._changed:
            self.facts.append(job.facts)
            self._changed.notify_all()

    def wait(self, job, **wanted):
        with self._changed:
            assert self._changed.wait_for(
                lambda: any(
                    one["job"] == job.id and wanted.items() <= one.items() for one in self.facts
                ),
                LONGEST_S,
            ), self.facts


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def jobs(told):
    jobs = Jobs(errands.work, (), told)
    yield jobs
    jobs.close()


@pytest.fixture
def undone():
    return []


@pytest.fixture
def job(undone):
    def job(what, value=None, finish=lambda result: {"result": result}):
        new = Job("errand", {}, (what, value), finish, lambda: undone.append(new))
        return new

    return job


def ended(jobs, job):
    jobs.submit(job)
    return job.ended.result(LONGEST_S)


def test_one_process_does_one_job_after_another(jobs, job, undone):
    first, second = job("tell", []), job("tell", [])
    assert ended(jobs, first).result == ended(jobs, second).result
    assert (first.state, first.facts["percent"]) == ("done", 100)
    assert undone == []


def test_the_percentage_never_falls(jobs, job, told):
    one = job("tell", [0.1, 0.5, 0.2, 0.6, 0.0, 1.0])
    ended(jobs, one)
    percents = [facts["percent"] for facts in told.facts]
    assert percents == sorted(percents)
    assert {10, 50, 60, 99, 100} <= set(percents)


def test_eight_wait_and_no_more(jobs, job, told):
    running = jobs.submit(job("hang"))
    told.wait(running, stage="hanging")
    waiting = [jobs.submit(job("say", n)) for n in range(MOST_WAITING)]
    with pytest.raises(QueueFull, match="8 jobs are waiting already"):
        jobs.submit(job("say"))
    jobs.cancel(running)
    assert [one.ended.result(LONGEST_S).result["result"] for one in waiting] == [*range(8)]


def test_what_is_cancelled_ends_and_the_process_lives_on(jobs, job, told, undone):
    before = ended(jobs, job("tell", [])).result
    running, waiting = jobs.submit(job("wait")), jobs.submit(job("say"))
    told.wait(running, stage="waiting")
    jobs.cancel(waiting)
    assert waiting.ended.result(0).state == "cancelled"
    jobs.cancel(running)
    assert running.ended.result(LONGEST_S).state == "cancelled"
    assert undone == [waiting, running]
    assert ended(jobs, job("tell", [])).result == before


def test_who_waits_for_a_job_cannot_end_it(jobs, job, told):
    running, next_one = jobs.submit(job("wait")), jobs.submit(job("say", 3))
    told.wait(running, stage="waiting")
    assert not running.ended.cancel()
    assert not next_one.ended.cancel()
    jobs.cancel(running)
    assert running.ended.result(LONGEST_S).state == "cancelled"
    assert next_one.ended.result(LONGEST_S).result == {"result": 3}


def test_what_hangs_is_killed_and_another_process_goes_on(jobs, job, told, undone):
    before = ended(jobs, job("tell", [])).result["result"]
    running = jobs.submit(job("hang"))
    told.wait(running, stage="hanging")
    jobs.cancel(running)
    assert running.ended.result(LONGEST_S).state == "cancelled"
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert ended(jobs, job("tell", [])).result["result"] != before
    assert undone == [running]


@pytest.mark.parametrize(
    ("what", "value", "said"),
    [
        ("fail", "it is no piano.", "it is no piano."),
        ("die", None, "died: memory may have run out"),
    ],
)
def test_a_failure_costs_its_job_only(jobs, job, undone, what, value, said):
    failed = ended(jobs, job(what, value))
    assert failed.state == "failed"
    assert said in failed.message
    assert undone == [failed]
    assert ended(jobs, job("say", 3)).result == {"result": 3}


@pytest.mark.parametrize(
    ("error", "said"),
    [(InputError("no room."), "no room."), (KeyError("x"), "unexpected KeyError")],
)
def test_what_cannot_be_kept_has_failed(jobs, job, undone, error, said):
    def finish(result):
        raise error

    failed = ended(jobs, job("say", finish=finish))
    assert (failed.state, undone) == ("failed", [failed])
    assert said in failed.message


def test_at_the_end_all_is_undone(told, job, undone):
    jobs = Jobs(errands.work, (), told)
    running, waiting = jobs.submit(job("hang")), jobs.submit(job("say"))
    told.wait(running, stage="hanging")
    begun = time.monotonic()
    jobs.close()
    assert time.monotonic() - begun < LONGEST_S  # not the ten minutes that it would hang
    assert undone == [running, waiting]
    assert [one.state for one in jobs.all] == ["cancelled"] * 2
