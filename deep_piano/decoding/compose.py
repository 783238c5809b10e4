"""Seeds' notes become pieces' notes: the network hears a seed, then goes on, many pieces at once.

Pieces are decoded side by side, and each is the same whatever pieces are beside it; what they may
become is `piece_rules`' business. This module knows notes and the engine; it knows nothing of
audio or files.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.note_context import NoteContext
from deep_piano.codecs.notes import (
    DURATION_CLASSES,
    LOG_WIDTHS,
    ONSET,
    STEPS_PER_SECOND,
    VALUES,
    classes,
)
from deep_piano.decoding.notes import Engine, Sampling
from deep_piano.decoding.rules import WAITING, Commission, Continuation, Piece
from deep_piano.train.likelihood import nats


class Composer:
    """Pieces in the making, any number of them, that come and go as they please.

    Parameters
    ----------
    engine : Engine
    sampling : mapping of str to Sampling
        One a field.
    guidance : mapping of str to float, optional
        A field: how far its logits go from what the network says that knows nothing of the seed to
        what it says that does, and beyond (classifier-free guidance, Ho and Salimans 2022,
        arXiv:2207.12598). 1, also where a field is not named: as the network learned it. With any
        other each piece is heard twice.
    hold_density : float
        How strongly a piece that leaves its seed's density is pulled back (`Piece.pull`); 0: it
        goes where it goes.
    """

    def __init__(
        self,
        engine: Engine,
        sampling: Mapping[str, Sampling],
        guidance: Mapping[str, float] | None = None,
        hold_density: float = 0.0,
    ) -> None:
        self._engine = engine
        self._hold_density = np.float32(hold_density)
        self._sampling = [sampling[field.name] for field in engine.spec.fields]
        self._guidance = [(guidance or {}).get(field.name, 1.0) for field in engine.spec.fields]
        # Streams of a piece: one that knows of the seed, and where it is guided one that does not.
        self._streams = 1 if all(strength == 1 for strength in self._guidance) else 2
        self._pieces: list[Piece] = []
        self._state = engine.start(0)
        self._context = NoteContext(0)

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, name: Hashable, commission: Commission) -> None:
        """Begin a piece; `step` says its name when it is done."""
        self._arrange([*range(len(self)), -1])
        piece = Piece(name, commission)
        self._pieces.append(piece)
        count = self._streams * len(self)
        piece.begin_context(self._context, range(count - self._streams, count))

    @property
    def composed_s(self) -> float:
        """How far all pieces in the making have come together, in seconds."""
        return sum(piece.now for piece in self._pieces) / STEPS_PER_SECOND

    def step(self) -> dict[Hashable, Continuation]:
        """Take every piece one note further.

        Returns
        -------
        dict of name to Continuation
            Those that are complete. They are no longer in the making.
        """
        coming = [piece.coming for piece in self._pieces for _ in range(self._streams)]
        steps = np.array(coming, np.int32).reshape(-1, 4)
        known = self._context.advance(steps)
        heard = self._engine.hear(self._state, classes(steps), known)
        choosing = np.array(
            [index for index, piece in enumerate(self._pieces) if piece.heard()], np.int64
        )
        if len(choosing):
            self._choose(choosing, heard)
        done = {piece.name: piece.continuation() for piece in self._pieces if piece.done}
        if done:
            left = [index for index, piece in enumerate(self._pieces) if not piece.done]
            self._pieces = [self._pieces[index] for index in left]
            self._arrange(left)
        return done

    def _arrange(self, order: list[int]) -> None:
        """Keep the streams of the pieces of these indices, in this order; -1 is a new one."""
        streams = [
            piece if piece < 0 else piece * self._streams + stream
            for piece in order
            for stream in range(self._streams)
        ]
        self._state.arrange(streams)
        self._context.arrange(streams)

    def _choose(self, choosing: NDArray[np.int64], heard: NDArray[np.float32]) -> None:
        """Draw the next note of the pieces of these indices; `heard` has all streams' rows."""
        nothing = np.empty((len(choosing), 0), np.int64)
        onset = self._draw(choosing, heard, nothing, nothing)
        pieces = [self._pieces[index] for index in choosing]
        steps = onset.value.tolist()
        late = [i for i, piece in enumerate(pieces) if piece.is_late(steps[i])]
        if late:  # it is time for their last chords: the time is drawn again, among theirs
            for i in late:
                pieces[i].begin_last_chord()
            again = self._draw(choosing[late], heard, nothing[late], nothing[late])
            onset.place[late], onset.value[late] = again
        chosen, known_classes = onset.value[:, None], onset.place[:, None]
        for _field in range(1, len(self._sampling)):
            drawn = self._draw(choosing, heard, chosen, known_classes)
            chosen = np.concatenate([chosen, drawn.value[:, None]], 1)
            known_classes = np.concatenate([known_classes, drawn.place[:, None]], 1)
        for piece, step in zip(pieces, chosen.tolist(), strict=True):
            piece.take(step)

    def _draw(
        self,
        choosing: NDArray[np.int64],
        heard: NDArray[np.float32],
        chosen: NDArray[np.int64],
        known_classes: NDArray[np.int64],
    ) -> Drawn:
        """Draw the field after those that are chosen; `known_classes` are the classes of these."""
        index, streams = chosen.shape[1], self._streams
        field, strength = self._engine.spec.fields[index], self._guidance[index]
        pieces = [self._pieces[piece] for piece in choosing]
        rows = (choosing[:, None] * streams + np.arange(streams)).reshape(-1)
        # The streams of a piece have the same notes before them.
        known, candidates = self._context.of_field(rows[::streams], chosen)
        values = _values(index, candidates)
        allowed = np.stack(
            [
                piece.allowed(step, mine)
                for piece, step, mine in zip(pieces, chosen.tolist(), values, strict=True)
            ]
        )
        chances = np.array([piece.chance() for piece in pieces])
        if streams > 1:
            known = known.repeated(streams)
            known_classes = np.repeat(known_classes, streams, axis=0)
        logits = self._engine.logits(heard[rows], known_classes, known)
        own = guided = logits[::streams]
        if strength != 1:
            without_seed = logits[1::2]
            guided = without_seed + np.float32(strength) * (own - without_seed)
        if index == ONSET:
            pulls = np.array([piece.pull() for piece in pieces], np.float32)
            guided = guided + self._hold_density * pulls[:, None] * WAITING
        place = self._sampling[index].draw_each(guided, chances, allowed)
        copied = None
        if field.copies:
            value = np.take_along_axis(values, place[:, None], 1)[:, 0]
            place, copied = DURATION_CLASSES[value], candidates == value[:, None]
        else:
            value = VALUES[index][place]
        losses = nats(field, LOG_WIDTHS[index], own, place, copied)
        for piece, loss in zip(pieces, losses.tolist(), strict=True):
            piece.nats[index] = loss
        return Drawn(place, value)


class Drawn(NamedTuple):
    """What was drawn of a field, one a piece: classes, and the values that they stand for."""

    place: NDArray[np.int64]
    value: NDArray[np.int64]


def _values(index: int, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what the classes of a field stand for in each piece, shape (pieces, outputs)."""
    values = np.broadcast_to(VALUES[index], (len(candidates), len(VALUES[index])))
    return np.concatenate([values, candidates], 1) if candidates.shape[1] else values
