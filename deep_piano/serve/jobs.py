"""One warm worker process, and the queue before it.

This module knows processes and jobs; it knows nothing of HTTP and nothing of music.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import secrets
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final, Literal

from deep_piano.errors import DeepPianoError, InputError

MOST_WAITING: Final = 8
KEPT: Final = 50
"""Jobs that have ended and are still known."""

GRACE_S: Final = 1.0
"""How long a job has to end by itself before its process is killed."""

_TICK_S: Final = 0.05

State = Literal["waiting", "running", "done", "failed", "cancelled"]
logger = logging.getLogger(__name__)


class QueueFull(InputError):
    """Too many jobs are waiting."""


def _to_come() -> Future[Job]:
    """Return a future that whoever waits for it cannot cancel: asyncio would."""
    ended: Future[Job] = Future()
    ended.set_running_or_notify_cancel()
    return ended


@dataclass
class Job:
    """Something for the worker to do.

    Attributes
    ----------
    kind : str
    about : dict
        What the page is told of it from the beginning.
    task : object
        For the worker; it is pickled.
    finish : callable
        Given the worker's result; returns what the page is told of it. Nothing is kept before.
    undo : callable
        Removes what a job that did not finish has left.
    ended : Future
        Of the job itself, once nothing works on it any more.
    """

    kind: str
    about: dict[str, Any]
    task: Any
    finish: Callable[[Any], dict[str, Any]]
    undo: Callable[[], None]
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = "waiting"
    stage: str = ""
    share: float = 0.0
    message: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    to_be_ended: bool = False
    ended: Future[Job] = field(default_factory=_to_come)

    @property
    def facts(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "job": self.id,
            "kind": self.kind,
            "state": self.state,
            "stage": self.stage,
            "percent": int(100 * self.share),
            "message": self.message,
            "about": self.about,
            "result": self.result,
        }


class Jobs:
    """The queue, and the thread that gives one job after another to the worker process.

    Parameters
    ----------
    work : callable
        Run in the process with a `Connection` and `arguments`: see `worker.work`.
    arguments : tuple
    tell : callable
        Given a job whenever it has changed, in whatever thread.
    """

    def __init__(
        self, work: Callable[..., None], arguments: tuple[Any, ...], tell: Callable[[Job], None]
    ) -> None:
        self._work, self._arguments, self._tell = work, arguments, tell
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._known: dict[str, Job] = {}
        self._closed = False
        self._process = _Process(work, arguments)
        self._thread = threading.Thread(target=self._attend, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Job:
        """Put a job into the queue.

        Raises
        ------
        QueueFull
            When `MOST_WAITING` are in it.
        """
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                raise QueueFull(
                    f"{MOST_WAITING} jobs are waiting already. Wait for one to end, or cancel one."
                )
            self._waiting.append(job)
            self._known[job.id] = job
            ended = [one for one in self._known.values() if one.ended.done()]
            for old in ended[: max(0, len(ended) - KEPT)]:
                del self._known[old.id]
            self._changed.notify_all()
        self._tell(job)
        return job

    def get(self, name: str) -> Job | None:
        """Return a job by its id."""
        with self._changed:
            return self._known.get(name)

    @property
    def all(self) -> list[Job]:
        """The jobs that are known, the oldest first."""
        with self._changed:
            return list(self._known.values())

    def cancel(self, job: Job) -> None:
        """End a job: at once where it waits, within `GRACE_S` where it runs."""
        with self._changed:
            job.to_be_ended = True
            waits = job in self._waiting
            if waits:
                self._waiting.remove(job)
        if waits:
            self._end(job, "cancelled")

    def close(self) -> None:
        """End everything, and leave nothing that is half done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._process.kill()
        while self._waiting:
            self._end(self._waiting.popleft(), "cancelled")

    def _attend(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._waiting))
                if self._closed:
                    return
                job = self._waiting.popleft()
                job.state, job.stage = "running", "getting ready"
            self._tell(job)
            try:
                state, result = self._do(job)
                if state == "done":
                    job.result = job.finish(result)
                else:
                    job.message = str(result)
            except DeepPianoError as error:
                state, job.message = "failed", str(error)
            except Exception as error:
                logger.exception("a job failed unexpectedly")
                state, job.message = "failed", f"unexpected {type(error).__name__}: {error}"
            self._end(job, state)

    def _end(self, job: Job, state: State) -> None:
        if state != "done":
            with contextlib.suppress(OSError):
                job.undo()
        job.state, job.share = state, 1.0 if state == "done" else job.share
        job.ended.set_result(job)
        self._tell(job)

    def _do(self, job: Job) -> tuple[State, Any]:
        """Have the process do a job; return what became of it."""
        if not self._process.is_alive:
            self._process = _Process(self._work, self._arguments)
        process, until = self._process, None
        process.send((job.id, job.task))
        while True:
            if (job.to_be_ended or self._closed) and until is None:
                process.send((job.id, None))
                until = time.monotonic() + (0 if self._closed else GRACE_S)
            if until is not None and time.monotonic() > until:
                process.kill()
                return "cancelled", ""
            try:
                message = process.receive(_TICK_S)
            except (EOFError, OSError):
                process.kill()
                logger.warning("the worker process died; another one takes its place")
                return "failed", (
                    "the process that worked on it died: memory may have run out. Try fewer "
                    "takes or a shorter piece."
                )
            if message is None or message[0] != job.id:
                continue
            _, what, value = message
            if what == "progress":
                stage, share = value
                before = job.facts
                job.stage, job.share = stage, max(job.share, min(share, 0.99))  # it never falls
                if job.facts != before:
                    self._tell(job)
            else:
                return what, value


class _Process:
    """The worker process, and this end of the pipe to it."""

    def __init__(self, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")  # threads are running: no fork
        self._pipe: Connection
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=work, args=(theirs, *arguments), name="deep-piano worker", daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # `receive` notices that it has died
            self._pipe.send(message)

    def receive(self, timeout_s: float) -> Any:
        return self._pipe.recv() if self._pipe.poll(timeout_s) else None

    def kill(self) -> None:
        """End the process, and what it has started: it leads a group of its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            assert self._process.pid is not None
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._pipe.close()
