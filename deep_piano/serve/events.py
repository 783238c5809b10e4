"""What has happened, in order, for every page that listens: nothing is missed by a reload."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

KEPT: Final = 1000
_QUEUED: Final = 4 * KEPT


class Event(NamedTuple):
    """Something that happened: a name for `Last-Event-ID`, and JSON."""

    id: str
    data: str


class Events:
    """The last events, and who listens. All of it runs in one event loop.

    An event's name has a part of this server's run, so that one of an earlier run is not taken for
    one of this.
    """

    def __init__(self) -> None:
        self._run = secrets.token_hex(4)
        self._count = 0
        self._log: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[asyncio.Queue[Event | None]] = set()

    @property
    def last(self) -> str:
        """The name of the last event."""
        return f"{self._run}-{self._count}"

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Tell everybody who listens."""
        self._count += 1
        event = Event(self.last, json.dumps(facts))
        self._log.append(event)
        for listener in self._listeners:
            if listener.qsize() < _QUEUED:  # a page that hangs asks again when it comes back
                listener.put_nowait(event)

    def since(self, name: str) -> list[Event] | None:
        """Return what came after an event; None where that is not known any more."""
        run, _, number = name.partition("-")
        if run != self._run or not number.isdecimal():
            return None
        missed = self._count - int(number)
        if not 0 <= missed <= len(self._log):
            return None
        return list(self._log)[len(self._log) - missed :]

    def listen(self) -> asyncio.Queue[Event | None]:
        """Return a queue of what happens from now on; None in it is the end."""
        listener: asyncio.Queue[Event | None] = asyncio.Queue()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: asyncio.Queue[Event | None]) -> None:
        """Stop listening."""
        self._listeners.discard(listener)

    def end(self) -> None:
        """Send everybody away."""
        for listener in self._listeners:
            listener.put_nowait(None)
