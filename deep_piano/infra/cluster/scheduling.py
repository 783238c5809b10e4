"""Runs a bounded number of tasks on Ray, with a limit of time without progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, TypeVar, cast

from deep_piano.errors import DeepPianoError
from deep_piano.infra.cluster.connection import POLL_S, total

Item = TypeVar("Item")

_PAUSE_S = 0.25


class Silence:
    """Limits the time without progress.

    Ray restarts work whose process or node was lost. Where a node hangs or is disconnected, Ray may
    wait for ever.

    Parameters
    ----------
    limit_s : float
    setting : str
        The name of the setting, for the error.
    """

    def __init__(self, limit_s: float, setting: str) -> None:
        self._limit_s, self._setting = limit_s, setting
        self._sign: object = None
        self.end()

    def end(self) -> None:
        """Record progress."""
        self._since = time.monotonic()

    def require_short(self, at_work: int, sign: object = None) -> None:
        """Raise `DeepPianoError` past the limit; a `sign` other than the last one is progress."""
        if sign != self._sign:
            self._sign = sign
            self.end()
        if time.monotonic() - self._since > self._limit_s:
            raise DeepPianoError(
                f"no progress for {self._limit_s:g} s of the {at_work} tasks at work: a node "
                "hangs, is disconnected, or has no room for them (`ray status` shows the nodes). "
                "Finished work is kept, and the same command resumes; "
                f"{self._setting} sets the limit."
            )


def completed(
    submit: Callable[[Item], Any],
    items: Iterable[Item | None],
    *,
    in_flight: Callable[[], int],
    silence: Silence,
    meanwhile: Callable[[], object] = lambda: None,
) -> Generator[tuple[Item, Any], None, None]:
    """Yield items with their results as they complete, with a bounded number at work.

    Parameters
    ----------
    submit : callable
        Starts the work on an item, a task or a call of an actor, and returns its ``ObjectRef``.
    items : iterable
        Read as places become free. Where later items depend on results, it may yield None for
        "nothing yet": it is read again once something has completed, or a moment later.
    in_flight : callable
        Returns the largest number at work or waiting for a worker; it may change.
    silence : Silence
        Limits the time without progress.
    meanwhile : callable
        Called every few seconds in which nothing completes; a changed return value is progress.

    Yields
    ------
    item, result
        The result is an exception, not raised, where Ray or the task failed. When the caller stops
        early, the tasks at work are cancelled; calls of an actor end with the actor.

    Raises
    ------
    DeepPianoError
        When there is no progress for too long.
    """
    import ray

    waiting: dict[Any, Item] = {}
    remaining, ended = iter(items), object()
    silence.end()
    try:
        while True:
            item: Item | object | None = None
            while len(waiting) < in_flight():
                item = next(remaining, ended)
                if item is None or item is ended:
                    break
                waiting[submit(cast(Item, item))] = cast(Item, item)
            if not waiting:
                if item is ended:
                    return
                time.sleep(_PAUSE_S)
                continue
            if not (done := next_done(waiting)):
                silence.require_short(len(waiting), meanwhile())
            for reference in done:
                silence.end()
                yield waiting.pop(reference), outcome(reference)
    finally:
        for reference in waiting:
            with suppress(ValueError):  # an actor's call
                ray.cancel(reference, force=True)


def busy() -> int:
    """Return how many tasks keep the cluster busy: two for each CPU, one of them waiting."""
    return 2 * max(1, round(total("CPU")))


def next_done(references: Iterable[Any]) -> list[Any]:
    """Wait a few seconds for tasks or calls; return all finished ones, once one is.

    The cost of `ray.wait` grows with the number of references, so each call takes all it finds.
    """
    import ray

    pending = list(references)
    if not ray.wait(pending, num_returns=1, timeout=POLL_S)[0]:
        return []
    done: list[Any] = ray.wait(pending, num_returns=len(pending), timeout=0)[0]
    return done


def outcome(reference: Any) -> Any:
    """Return the result of a completed task or call, or the exception that it ended with.

    That is the task's own exception where it raised one, and Ray's where the worker was lost.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return error.cause if isinstance(error.cause, Exception) else error
    except ray.exceptions.RayError as error:
        return error
