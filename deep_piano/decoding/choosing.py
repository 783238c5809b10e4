"""Choosing while a piece is decoded: of the candidates without a fault the most pianist-like.

Each piece is decoded several times side by side. After about ten seconds of music a judge compares
the candidates, and all go on from the best one, each by chances of its own: what drifts is dropped
where it begins to. This module knows pieces and judges; it knows nothing of networks, and serves
both engines of notes alike.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np

from deep_piano.analysis.judge import Judge, judged_figures
from deep_piano.analysis.note_figures import has_fault
from deep_piano.decoding.base import Decoder
from deep_piano.decoding.note_task import NoteContinuation, NoteTask
from deep_piano.decoding.rules import Piece
from deep_piano.music.notes import Notes

SPAN_S: Final = 10.0
"""How much music lies between two choices, at the seed's density."""
FEWEST_NOTES: Final = 16

Place = tuple[Hashable, int]


class Branching(Protocol):
    """What a decoder of notes offers for its pieces to be chosen among."""

    def add(self, name: Hashable, task: NoteTask) -> None:
        """See `Decoder`."""

    def step(self) -> dict[Hashable, NoteContinuation]:
        """See `Decoder`; a piece that has `Piece.waits_at` notes waits."""

    @property
    def done_s(self) -> float:
        """See `Decoder`."""

    def piece(self, name: Hashable) -> Piece:
        """Return a piece that is being decoded."""

    def branch(self, name: Hashable, chances: Mapping[Hashable, np.random.Generator]) -> None:
        """Put pieces where one of them is; each goes on by chances of its own."""


@dataclass
class _Candidates:
    """The candidates of a piece.

    Attributes
    ----------
    task : NoteTask
    names : list of Place
        Those of its candidates.
    notes : int
        Between two choices.
    from_s : float
        When the last one was made, on the seed's clock.
    states : list of Piece
        The candidates since the last choice, those that are done among them.
    done : dict of Place to NoteContinuation
    open : bool
        Whether there is to be another choice before the end.
    """

    task: NoteTask
    names: list[Place]
    notes: int
    from_s: float
    states: list[Piece] = field(default_factory=list)
    done: dict[Place, NoteContinuation] = field(default_factory=dict)
    open: bool = True


class ChoosingDecoder(Decoder[NoteTask, NoteContinuation]):
    """Pieces decoded side by side, each chosen among candidates as it comes.

    The chances of a candidate come from its task's by `numpy.random.Generator.spawn`, and choices
    are made after fixed numbers of notes: a piece is the same on both engines, whatever is beside
    it.

    Parameters
    ----------
    decoder : Branching
    judge : Judge
    candidates : int
        Of each piece; at least 2.
    """

    def __init__(self, decoder: Branching, judge: Judge, candidates: int) -> None:
        self._decoder, self._judge, self._count = decoder, judge, candidates
        self._pieces: dict[Hashable, _Candidates] = {}

    def __len__(self) -> int:
        return len(self._pieces)

    @property
    def done_s(self) -> float:
        """How far all pieces have come together, in seconds."""
        ended = sum(
            piece.task.seconds * len(piece.done) for piece in self._pieces.values() if piece.done
        )
        return (self._decoder.done_s + ended) / self._count

    def add(self, name: Hashable, task: NoteTask) -> None:
        """Begin a piece: see `Decoder`."""
        names = [(name, number) for number in range(self._count)]
        notes = max(FEWEST_NOTES, round(task.manner_density * SPAN_S))
        piece = _Candidates(task, names, notes, task.seed_seconds)
        for place, rng in zip(names, task.rng.spawn(self._count), strict=True):
            self._decoder.add(place, replace(task, rng=rng))
        self._pieces[name] = piece
        self._wait(piece)

    def step(self) -> dict[Hashable, NoteContinuation]:
        """Take every piece some notes further: see `Decoder`."""
        for place, continuation in self._decoder.step().items():
            self._pieces[place[0]].done[place] = continuation  # type: ignore[index]
        complete = {}
        for name, piece in self._pieces.items():
            if len(piece.done) == len(piece.names):
                complete[name] = self._best_of(piece)
            elif piece.open:
                self._look_at(piece)
        for name in complete:
            del self._pieces[name]
        return complete

    def _look_at(self, piece: _Candidates) -> None:
        """Choose where all candidates wait; no more when one of them comes to its end."""
        if piece.done or any(state.is_closing for state in piece.states):
            piece.open = False
            for state in piece.states:
                state.waits_at = math.inf
        elif all(len(state.made) >= state.waits_at for state in piece.states):
            self._choose(piece)

    def _choose(self, piece: _Candidates) -> None:
        spans = [(state.notes(), state.now_s) for state in piece.states]
        best = best_of(self._judge, piece.task, spans, piece.from_s)
        piece.from_s = piece.states[best].now_s
        chances = piece.task.rng.spawn(len(piece.names))
        self._decoder.branch(piece.names[best], dict(zip(piece.names, chances, strict=True)))
        self._wait(piece)

    def _wait(self, piece: _Candidates) -> None:
        piece.states = [self._decoder.piece(name) for name in piece.names]
        for state in piece.states:
            state.waits_at = len(state.made) + piece.notes

    def _best_of(self, piece: _Candidates) -> NoteContinuation:
        ends = [piece.done[name] for name in piece.names]
        if (given := piece.task.given) is not None and given.from_s is not None:
            # The span that is filled leads to what follows: by its likelihood; of equals the first.
            return min(ends, key=lambda end: end.nats_after or math.inf)
        # Where the last chord begins: it is the rules', and the same for all.
        spans = [(end.notes, float(end.notes["onset"][-1])) for end in ends]
        return ends[best_of(self._judge, piece.task, spans, piece.from_s)]


def best_of(judge: Judge, task: NoteTask, spans: list[tuple[Notes, float]], from_s: float) -> int:
    """Return which candidate goes on.

    Parameters
    ----------
    judge : Judge
    task : NoteTask
    spans : list of (ndarray, float)
        The notes that each has made, and where it is, on the seed's clock.
    from_s : float
        When the last choice was made.

    Returns
    -------
    int
        Of those without a fault since then, or of all where none is, the one that the judge likes
        best; of equals the first.
    """
    given = task.seed[len(task.manner) :]
    figures = [
        judged_figures(task.manner, np.concatenate([given, notes]), now_s=now_s)
        for notes, now_s in spans
    ]
    scores = judge.score(np.array(figures))
    good = [not has_fault(notes, from_s=from_s) for notes, _ in spans]
    return max(range(len(spans)), key=lambda place: (good[place], scores[place]))
