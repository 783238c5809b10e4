"""A bounded number of tasks at work on Ray, and how long nothing may be heard of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, TypeVar, cast

from deep_piano.errors import DeepPianoError
from deep_piano.infra.cluster.connection import _PATIENCE_S, total

Item = TypeVar("Item")

_PAUSE_S = 0.25


class Silence:
    """Bounds how long nothing may be heard of what is at work.

    Ray starts work anew whose process or node died. A node that hangs, or a network that was cut,
    may leave it waiting for what will never come.

    Parameters
    ----------
    limit_s : float
    setting : str
        The setting that says so.
    """

    def __init__(self, limit_s: float, setting: str) -> None:
        self._limit_s, self._setting = limit_s, setting
        self._sign: object = None
        self.end()

    def end(self) -> None:
        """Say that something was heard."""
        self._since = time.monotonic()

    def require_short(self, at_work: int, sign: object = None) -> None:
        """Raise `DeepPianoError` where it lasts too long; another `sign` than last time ends it."""
        if sign != self._sign:
            self._sign = sign
            self.end()
        if time.monotonic() - self._since > self._limit_s:
            raise DeepPianoError(
                f"nothing was heard for {self._limit_s:g} s of the {at_work} tasks at work: a node "
                "hangs, is cut off, or has no room for them (`ray status` shows the nodes). What "
                "was done is kept, and the same command goes on from here; "
                f"{self._setting} says how long to wait."
            )


def completed(
    submit: Callable[[Item], Any],
    items: Iterable[Item | None],
    *,
    in_flight: Callable[[], int],
    silence: Silence,
    meanwhile: Callable[[], object] = lambda: None,
) -> Generator[tuple[Item, Any], None, None]:
    """Yield items with their results as they complete, a bounded number of them at work.

    Parameters
    ----------
    submit : callable
        Starts the work on an item, a task or a call of an actor, and returns its ``ObjectRef``.
    items : iterable
        Drawn from as places become free. Where what completes decides over what comes next, None
        says that there is nothing at this moment: it is drawn from again once something completed,
        or a moment later.
    in_flight : callable
        Returns the most that may be at work, or wait for a worker; it may change.
    silence : Silence
        Bounds how long nothing may be heard of it.
    meanwhile : callable
        Called every few seconds in which nothing completes; where it returns something else than
        before, that is heard of the work.

    Yields
    ------
    item, result
        The result is an exception, not raised, where Ray or the task failed. When the caller stops
        early, tasks at work are cancelled; an actor's calls end with the actor.

    Raises
    ------
    DeepPianoError
        When nothing is heard for too long.
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
    """Return how many tasks keep the cluster busy: one at work on a CPU, and one ready."""
    return 2 * max(1, round(total("CPU")))


def next_done(references: Iterable[Any]) -> list[Any]:
    """Wait a few seconds for tasks or calls; return all that are done, once one is.

    What Ray takes to look grows with their number, so that each look must take all it finds.
    """
    import ray

    pending = list(references)
    if not ray.wait(pending, num_returns=1, timeout=_PATIENCE_S)[0]:
        return []
    done: list[Any] = ray.wait(pending, num_returns=len(pending), timeout=0)[0]
    return done


def outcome(reference: Any) -> Any:
    """Return what a completed task or call gave: its result, or the exception that it ended with.

    Of a task that raised, that is what it raised; of one that was lost, Ray's own exception.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return error.cause if isinstance(error.cause, Exception) else error
    except ray.exceptions.RayError as error:
        return error
