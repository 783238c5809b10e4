"""Pieces on their way through GENERATE in bulk: which wait, and what became of each.

It decides, and `on_ray` does it. This module knows pieces and records; it knows nothing of Ray.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deep_piano.errors import DeepPianoError, one_line
from deep_piano.generate.ranking import ranked
from deep_piano.generate.records import Key, Record, Records
from deep_piano.generate.tasks import Run, known_of
from deep_piano.infra.cluster import metrics
from deep_piano.infra.progress import Progress
from deep_piano.infra.storage.folder import Entry

logger = logging.getLogger(__name__)

_LOSSES = 2  # a piece that was lost with so many composers, alone with each, is given up


@dataclass
class Slot:
    """A composer, as far as pieces are concerned.

    Attributes
    ----------
    composing : set of Key
    alone : bool
        What it composes is quarantined: nothing else is given to it.
    answered_after : int or None
        How many composers had been lost when this one last answered.
    """

    composing: set[Key] = field(default_factory=set)
    alone: bool = False
    answered_after: int | None = None


class OnTheWay:
    """The pieces of a run.

    A seed is read, its takes wait for a composer, are composed, compared where only the best are
    kept, and written. What a composer was at work on when it was lost is quarantined: it is
    composed with nothing beside it, and given up where it is lost again and again.

    Parameters
    ----------
    run : Run
    records : Records
        Of the pieces that are there.
    max_failures : int, optional
        How many pieces may fail.

    Attributes
    ----------
    records : Records
    to_write : deque of (Key, take)
        Pieces that are composed, to be written.
    unkept : list of Record
        New ones, which are to be kept and removed from here.
    """

    def __init__(self, run: Run, records: Records, *, max_failures: int | None = None) -> None:
        self._run, self._settings, self._max_failures = run, run.road.settings, max_failures
        self.records = records
        self.to_write: deque[tuple[Key, Any]] = deque()
        self.unkept: list[Record] = []
        self._stamps: dict[str, str] = {}
        self._left: Counter[str] = Counter()  # takes of each seed that are on the way
        self._unread: dict[str, Sequence[int]] = {}
        self._seeds: dict[str, tuple[Any, dict[str, str]]] = {}  # with the files written of each
        self._ready: deque[Key] = deque()
        self._quarantine: deque[Key] = deque()
        self._losses: dict[Key, int] = {}  # how often each was lost alone
        self._composers_lost = 0
        self._compared: defaultdict[str, dict[int, Any]] = defaultdict(dict)
        self._failures, self._failure = 0, ""
        self._made, self._asked, self._music_s = 0, 0, 0.0
        self._seeds_read, self._seeds_to_read = 0, 0

    def __len__(self) -> int:
        return self._left.total()

    def missing(self, entries: Iterable[Entry]) -> list[tuple[str, list[int]]]:
        """Return the seeds and takes that are to be made; note those that cannot be."""
        todo = []
        for entry in entries:
            self._stamps[entry.name] = entry.stamp
            takes = list(range(self._settings.takes))
            there = [(entry.name, take) in self.records for take in takes]
            if self._settings.keep is None:  # otherwise all are needed to tell the best
                takes = [take for take in takes if not there[take]]
            elif all(there):
                takes = []
            self._asked += len(takes)
            if entry.problem:
                self._fail(entry.name, takes, entry.problem)
            elif takes:
                todo.append((entry.name, takes))
        self._seeds_to_read = len(todo)
        return todo

    def begin(self, name: str, takes: Sequence[int]) -> None:
        """Take note that a seed is being read for these takes."""
        self._left[name] = len(takes)
        self._unread[name] = takes

    def read(self, name: str, seed: Any, files: dict[str, str]) -> None:
        """Take note of a seed: its takes are ready to be composed."""
        self._seeds_read += 1
        self._seeds[name] = seed, files
        self._ready.extend((name, take) for take in self._unread.pop(name))

    def unreadable(self, name: str, reason: str) -> None:
        """Take note that a seed could not be read."""
        self._seeds_read += 1
        self._fail(name, self._unread.pop(name), reason)

    def seed(self, name: str) -> Any:
        """Return a seed that was read."""
        return self._seeds[name][0]

    def give(self, slot: Slot, most: int) -> dict[Key, Any] | None:
        """Return the seeds of what a composer is to begin beside what it has; None: nothing at all.

        After a loss it must answer before it gets more: a whole node may have been lost, and a
        piece is not quarantined for having been given to a composer that was lost already.
        """
        new: list[Key] = []
        if slot.answered_after == self._composers_lost:
            if self._quarantine and not slot.composing:
                new.append(self._quarantine.popleft())
            elif not slot.alone:
                while self._ready and len(slot.composing) + len(new) < most:
                    new.append(self._ready.popleft())
            if not new and not slot.composing:
                return None
        slot.alone |= any(key in self._losses for key in new)
        slot.composing |= set(new)
        return {key: self.seed(key[0]) for key in new}

    def composed(self, slot: Slot, takes: dict[Key, Any]) -> None:
        """Take note of what a composer has answered."""
        slot.answered_after = self._composers_lost
        slot.composing -= takes.keys()
        slot.alone = slot.alone and bool(slot.composing)
        for key, take in takes.items():
            metrics.count("deep_piano_notes", take.new_notes)
            if self._settings.keep is None:
                self.to_write.append((key, take))
            else:
                self._compared[key[0]][key[1]] = take
                self._keep_best(key[0])

    def lost(self, slot: Slot) -> None:
        """Take note that a composer was lost, with what it was at work on."""
        self._composers_lost += 1
        for key in sorted(slot.composing):
            self._losses[key] = self._losses.get(key, 0) + slot.alone
            if self._losses[key] < _LOSSES:
                self._quarantine.append(key)
            else:
                self._fail(key[0], [key[1]], "the process that composed it died, again and again")

    def written(self, record: Record) -> None:
        """Take note of a piece that is there."""
        files = self._seeds[record.seed][1] | record.files
        self._done(replace(record, files=files, seed_stamp=self._stamps[record.seed]))

    def unwritten(self, key: Key, reason: str) -> None:
        """Take note of a piece that could not be written."""
        self._fail(key[0], [key[1]], reason)

    def require_few_failures(self) -> None:
        """Raise `DeepPianoError` where more pieces failed than may."""
        limit = self._max_failures
        if limit is not None and self._failures > limit:
            raise DeepPianoError(
                f"stopped: {self._failures} pieces failed and {limit} may (one is of "
                f"{self._failure}). What was made is kept, and the same command goes on from here: "
                "mend or remove such seeds, or raise max_failures."
            )

    @property
    def progress(self) -> Progress:
        """How far the run is: what is read, until the first piece is there."""
        music_s = self._music_s
        if not music_s and self._seeds_read < self._seeds_to_read:
            return Progress("reading", self._seeds_read, self._seeds_to_read, self._failures)
        return Progress(
            "writing pieces", self._made, self._asked, self._failures, duration_s=music_s
        )

    def counts(self, slots: Iterable[Slot]) -> dict[str, int]:
        """Return how many pieces are where; `slots` are all composers."""
        ahead = {
            "reading": sum(self._left[name] for name in self._unread),
            "ready": len(self._ready) + len(self._quarantine),
            "composing": sum(len(slot.composing) for slot in slots),
            "comparing": sum(len(takes) for takes in self._compared.values()),
        }
        return ahead | {"finishing": len(self) - sum(ahead.values())}

    def _keep_best(self, name: str) -> None:
        """Have the best takes of a seed written, once the last of them is composed."""
        if len(self._compared[name]) < self._left[name]:
            return
        takes = [take for _, take in sorted(self._compared.pop(name).items())]
        for place, take in enumerate(ranked(takes)):
            if place < (self._settings.keep or len(takes)):
                self.to_write.append(((name, take.index), take))
            else:
                known = known_of(self._run, name, self.seed(name), take)
                reason, stamp = f"place {place + 1} of {len(takes)}", self._stamps[name]
                self._done(Record(**known, status="left out", reason=reason, seed_stamp=stamp))

    def _fail(self, name: str, takes: Iterable[int], reason: str) -> None:
        reason, stamp = one_line(reason), self._stamps[name]
        for take in takes:
            self._done(Record(name, take + 1, "failed", reason, seed_stamp=stamp))

    def _done(self, record: Record) -> None:
        self.records.add(record)
        self.unkept.append(record)
        _tell(record)
        self._made += 1
        self._music_s += record.seconds
        if record.failed:
            self._failures += 1
            self._failure = self._failure or f"{one_line(record.seed)}: {record.reason}"
        name = record.seed
        self._left[name] -= 1
        if self._left[name] <= 0:
            del self._left[name]
            self._seeds.pop(name, None)
        elif name in self._compared:  # a take that failed is not waited for
            self._keep_best(name)


def _tell(record: Record) -> None:
    """Log what became of a piece, and count it."""
    logger.log(
        logging.WARNING if record.failed else logging.INFO,
        "%s, take %d: %s",
        one_line(record.seed),
        record.take,
        record.reason or record.status,
        extra=dict(
            stage="generate",
            event=record.status,
            seed=record.seed,
            take=record.take,
            reason=record.reason,
            duration_s=record.seconds,
            notes=record.notes,
        ),
    )
    metrics.count("deep_piano_pieces", outcome=record.status)
