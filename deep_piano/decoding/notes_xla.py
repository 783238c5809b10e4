"""Decoding notes on a GPU: the whole loop, note after note, is one graph compiled by XLA.

`notes.NoteDecoder` is the reference: the same network, rules and chances, and but for the rounding
of sums the same pieces. Here a call of the graph takes all pieces some dozens of notes further.
Between two calls the host begins new pieces, fills up what they need (notes of seeds, chances),
collects what is complete, and estimates the key of a piece that is about to strike its last chord:
until that is known, its slot waits.

There is a fixed number of slots, and the empty ones are computed too: the graph has the same shapes
whatever is in it, so that a piece does not depend on the pieces beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from deep_piano.analysis.originality import Index
from deep_piano.codecs.note_context import NoteContext
from deep_piano.codecs.note_kernels import ContextState
from deep_piano.decoding.base import Decoder, Sampling
from deep_piano.decoding.note_task import NoteContinuation, NoteTask
from deep_piano.decoding.notes_xla_apart import apart_row
from deep_piano.decoding.notes_xla_given import given_row
from deep_piano.decoding.notes_xla_loop import Loop
from deep_piano.decoding.notes_xla_rules import chord_row, first_row
from deep_piano.decoding.notes_xla_sections import section_row
from deep_piano.decoding.rules import Piece
from deep_piano.decoding.xla import MANY, Rows
from deep_piano.models.checkpoint import Checkpoint

NOTES_A_CALL: Final = 64
_FIELDS: Final = 4


class NoteDecoderXla(Decoder[NoteTask, NoteContinuation]):
    """Pieces decoded side by side, as by `NoteDecoder`, in a fixed number of slots.

    Parameters
    ----------
    checkpoint : Checkpoint
    sampling : mapping of str to Sampling
    guidance : mapping of str to float, optional
    hold_density, hold_beat : float
        As for `NoteDecoder`.
    width : int
        How many pieces there may be at once. Sums depend on it, and on nothing else.
    notes_a_call : int
        How many notes each piece gets in a call of the graph.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        sampling: Mapping[str, Sampling],
        guidance: Mapping[str, float] | None = None,
        hold_density: float = 0.0,
        hold_beat: float = 0.0,
        *,
        width: int,
        notes_a_call: int = NOTES_A_CALL,
    ) -> None:
        fields = [field.name for field in checkpoint.spec.fields]
        strengths = [(guidance or {}).get(field, 1.0) for field in fields]
        draws = [sampling[field] for field in fields]
        self._loop = Loop(checkpoint, draws, strengths, hold_density, hold_beat)
        self._pieces: list[Piece | None] = [None] * width
        self._notes = notes_a_call
        streams = width * self._loop.streams
        self._context = NoteContext(streams)
        layers = range(checkpoint.config.layers)
        nothing = np.zeros((streams, checkpoint.config.units), np.float32)
        self._state = [(tf.constant(nothing), tf.constant(nothing)) for _ in layers]
        self._fresh = np.ones(streams, bool)
        self._rows: dict[str, NDArray[Any]] = {}
        self._chances = np.zeros((width, _FIELDS * notes_a_call))
        # What pieces are kept apart from, as it is looked up on the device.
        self._corpus: Index | None = None
        self._most_shared, self._gram = 0, 0
        self._table: tf.Tensor | None = None

    def __len__(self) -> int:
        return sum(piece is not None for piece in self._pieces)

    @property
    def done_s(self) -> float:
        """How far all pieces have come together, in seconds."""
        return sum(piece.now_s for _, piece in self._at_work())

    def add(self, name: Hashable, task: NoteTask) -> None:
        """Begin a piece: see `Decoder`; all that are kept apart are of one corpus and limit."""
        slot = self._pieces.index(None)
        self._look_up(task)
        piece = self._pieces[slot] = Piece(name, task)
        self._write(slot, first_row(piece) | given_row(piece, self._notes))
        if self._table is not None:
            self._write(slot, apart_row(piece, self._gram))
        self._chances[slot] = task.rng.random(self._chances.shape[1])
        streams = range(slot * self._loop.streams, (slot + 1) * self._loop.streams)
        piece.begin_context(self._context, streams)
        self._fresh[streams] = True

    def _look_up(self, task: NoteTask) -> None:
        """Put on the device what the pieces to come are kept apart from."""
        known = task.corpus is self._corpus and task.most_shared == self._most_shared
        if task.corpus is None or known:
            return
        assert all(piece.apart is None for _, piece in self._at_work())
        self._corpus, self._most_shared = task.corpus, task.most_shared
        self._gram, entries = task.corpus.table(task.most_shared)
        self._table = tf.constant(entries)
        for slot, piece in self._at_work():
            self._write(slot, apart_row(piece, self._gram))

    def piece(self, name: Hashable) -> Piece:
        """Return a piece that is being decoded."""
        return next(piece for _, piece in self._at_work() if piece.name == name)

    def branch(self, name: Hashable, chances: Mapping[Hashable, np.random.Generator]) -> None:
        """Put pieces where one of them is: see `NoteDecoder.branch`."""
        slots = {piece.name: slot for slot, piece in self._at_work()}
        source, streams = slots[name], self._loop.streams
        piece, origin = self.piece(name), np.arange(len(self._pieces) * streams)
        for twin, rng in chances.items():
            slot = slots[twin]
            self._pieces[slot] = piece.branch(twin, rng)
            for array in self._rows.values():
                array[slot] = array[source]
            self._chances[slot] = rng.random(self._chances.shape[1])
            for stream in range(streams):
                origin[slot * streams + stream] = source * streams + stream
        self._state = tf.nest.map_structure(lambda x: tf.gather(x, origin), self._state)
        self._context.arrange(origin)

    def step(self) -> dict[Hashable, NoteContinuation]:
        """Take every piece some notes further: see `Decoder`."""
        given = np.zeros((self._notes, len(self._pieces), _FIELDS), np.int64)
        given_count = np.zeros(len(self._pieces), np.int32)
        for slot, piece in self._at_work():
            of_seed = piece.of_seed(self._notes)
            given_count[slot] = len(of_seed)
            given[: len(of_seed), slot] = of_seed
            if piece.giving is not None:
                self._write(slot, given_row(piece, self._notes))
            self._rows["left"][slot] = min(piece.waits_at - len(piece.made), MANY)
        self._state, context, rows, made = self._loop(
            self._state,
            self._fresh,
            self._context.state,
            {**self._rows, "used": np.zeros(len(self._pieces), np.int64)},
            given,
            given_count,
            self._chances,
            self._table,
        )
        self._fresh[:] = False
        self._context.state = ContextState(*map(np.array, context))
        rows, made = _on_host(rows), _on_host(made)
        used = rows.pop("used")
        self._rows = rows
        done = {}
        for slot, piece in self._at_work():
            mine = self._chances[slot]
            fresh = piece.task.rng.random(used[slot])
            self._chances[slot] = np.concatenate([mine[used[slot] :], fresh])
            taken = made["taken"][:, slot]
            piece.now = int(rows["now"][slot])
            piece.density, piece.levels = float(rows["density"][slot]), rows["levels"][slot].copy()
            piece.hear(made["steps"][taken, slot].tolist())
            piece.nats_before += float(made["nats"][taken, slot].sum())
            if rows["late"][slot]:
                piece.turn()
                row = section_row(piece) | chord_row(piece)
                self._write(slot, row | {"late": False, "running": True})
            elif not rows["running"][slot]:
                done[piece.name] = piece.continuation()
                self._pieces[slot] = None
        return done

    def _at_work(self) -> Iterator[tuple[int, Piece]]:
        for slot, piece in enumerate(self._pieces):
            if piece is not None:
                yield slot, piece

    def _write(self, slot: int, row: Rows) -> None:
        for name, value in row.items():
            if name not in self._rows:
                value = np.asarray(value)
                self._rows[name] = np.zeros((len(self._pieces), *value.shape), value.dtype)
            self._rows[name][slot] = value


def _on_host(tensors: Rows) -> dict[str, NDArray[Any]]:
    """Return arrays that may be written to."""
    return {name: np.array(tensor) for name, tensor in tensors.items()}
