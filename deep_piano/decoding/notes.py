"""Notes go on without TensorFlow: logits of the next step, draws, and many pieces at once.

The engine is NumPy over the checkpoint's own arrays. One step reads every weight once, which is
what bounds it; a graph would have to win back TensorFlow's import first. A stream's numbers do not
depend on the streams beside it, to the last bit: products are `kernels.Kernel`'s, and everything
else goes row by row. `tests/decoding/test_notes_engine.py` holds it to the Keras model.

Pieces are decoded side by side, and each is the same whatever pieces are beside it; what they may
become is `rules`' business. This module knows notes and checkpoints; it knows nothing of audio or
files.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import IMPOSSIBLE, Part, nats, rearranged
from deep_piano.codecs.note_context import NoteContext, with_and_without_seed
from deep_piano.codecs.notes import (
    CLASSES,
    DURATION,
    DURATION_CLASSES,
    LOG_WIDTHS,
    ONSET,
    PITCH,
    VALUES,
    classes,
)
from deep_piano.decoding.base import (
    Decoder,
    InputKernel,
    Sampling,
    arranged,
)
from deep_piano.decoding.beat import to_the_beat
from deep_piano.decoding.constants import NORM_EPSILON
from deep_piano.decoding.given import FREE
from deep_piano.decoding.note_task import NoteContinuation, NoteTask
from deep_piano.decoding.rules import WAITING, Piece
from deep_piano.decoding.sections import HEARD_RUN
from deep_piano.infra.kernels import Array, Kernel
from deep_piano.models.checkpoint import Checkpoint


@dataclass
class State:
    """What the LSTM layers carry: h and c, each of shape (layers, batch, units)."""

    h: Array
    c: Array

    def arrange(self, order: Sequence[int]) -> None:
        """Keep the streams of these indices, in this order; -1 is a new one."""
        self.h, self.c = (rearranged(array, order, axis=1) for array in (self.h, self.c))

    def copy(self, stream: int, to: Sequence[int]) -> None:
        """Put streams where one of them is."""
        for array in (self.h, self.c):
            array[:, to] = array[:, [stream]]


class Engine:
    """The network of a checkpoint, one step at a time.

    Parameters
    ----------
    checkpoint : Checkpoint
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.spec, self.config = checkpoint.spec, checkpoint.config
        weights = arranged(checkpoint)
        self._input = _Input(weights.input, weights.bias)
        self._norms = weights.norms
        self._lstms = [Kernel(*pair) for pair in weights.lstms]
        self._hidden = Kernel(*weights.hidden)
        self._known = [_Input(known) for known in weights.known]
        self._heads = [Kernel(*pair) for pair in weights.heads]

    def start(self, batch: int) -> State:
        """Return the state before the first step."""
        shape = (self.config.layers, batch, self.config.units)
        return State(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def step(self, state: State, steps: NDArray[np.int32], known: Part) -> Array:
        """Take one step into the state.

        Parameters
        ----------
        state : State
            Changed in place.
        steps : ndarray of int, shape (batch, fields)
            Classes.
        known : Part, of shape (batch, ...)
            What is known after the step, and of the first field of the next one.

        Returns
        -------
        ndarray of float32, shape (batch, fields * head_units)
            What `logits` needs: what each head makes of it, before the fields that are chosen.
        """
        x = self._input(steps, known)
        units = self.config.units
        for layer, kernel in enumerate(self._lstms):
            h, c = state.h[layer], state.c[layer]
            z = kernel(np.concatenate([_normalise(x, *self._norms[layer]), h], 1))
            np.tanh(z, out=z)
            gates = z[:, : 3 * units]  # input, forget, output: the logistic function by tanh
            gates += 1
            gates *= 0.5
            c *= z[:, units : 2 * units]
            c += z[:, :units] * z[:, 3 * units :]
            np.multiply(np.tanh(c), z[:, 2 * units : 3 * units], out=h)
            x += h
        return self._hidden(_normalise(x, *self._norms[-1]))

    def logits(self, hidden: Array, chosen: NDArray[np.integer[Any]], known: Part) -> Array:
        """Return the logits of the next field.

        Parameters
        ----------
        hidden : ndarray of float32, shape (batch, fields * head_units)
            From `step`.
        chosen : ndarray of int, shape (batch, k)
            The classes of the first k fields of the step that is being decoded.
        known : Part, of shape (batch, ...)
            What is known of the field.

        Returns
        -------
        ndarray of float32, shape (batch, outputs of field k)
        """
        index, width = chosen.shape[1], self.config.head_units
        field = self.spec.fields[index]
        x = self._known[index](chosen, known)
        x += hidden[:, index * width : (index + 1) * width]
        logits = self._heads[index](np.maximum(x, 0, out=x))
        if field.copies:
            missing = known.classes[:, field.candidates] == field.no_candidate
            logits[:, field.size :][missing] = IMPOSSIBLE
        return logits


class _Input:
    """The product of a kernel with its inputs, one-hot but for the features."""

    def __init__(self, kernel: InputKernel, bias: Array | None = None) -> None:
        given = len(kernel.features) > 0 or bias is not None
        self._features = Kernel(kernel.features, bias) if given else None
        self._table, self._starts = kernel.table, kernel.starts

    def __call__(self, classes: NDArray[np.integer[Any]], known: Part) -> Array:
        rows = np.concatenate([classes, known.classes], 1) + self._starts
        # (batch, inputs, outputs), summed input after input whatever the batch is
        x: Array = np.add.reduce(self._table[rows], 1)
        return x if self._features is None else x + self._features(known.features)


def _normalise(x: Array, gamma: Array, beta: Array) -> Array:
    """Layer normalisation (Ba, Kiros and Hinton 2016) of each row."""
    share = np.float32(1 / x.shape[1])
    x = np.subtract(x, np.add.reduce(x, 1, keepdims=True) * share)
    x *= 1 / np.sqrt(np.add.reduce(x * x, 1, keepdims=True) * share + np.float32(NORM_EPSILON))
    x *= gamma
    x += beta
    return x


class NoteDecoder(Decoder[NoteTask, NoteContinuation]):
    """Pieces decoded side by side on a CPU, any number of them.

    Parameters
    ----------
    engine : Engine
    sampling : mapping of str to Sampling
        One a field.
    guidance : mapping of str to float, optional
        A field: how far its logits go from what the network says that knows nothing of the seed to
        what it says that does, and beyond (classifier-free guidance, Ho and Salimans 2022,
        arXiv:2207.12598). 1, also where a field is not named: as the network learned it. With any
        other each piece has two streams.
    hold_density : float
        How strongly a piece that leaves its seed's density is pulled back (`Piece.pull`); 0: it
        goes where it goes.
    hold_beat : float
        How strongly onsets are pulled to the beat (`Piece.beat_pull`); 0: not at all.
    """

    def __init__(
        self,
        engine: Engine,
        sampling: Mapping[str, Sampling],
        guidance: Mapping[str, float] | None = None,
        hold_density: float = 0.0,
        hold_beat: float = 0.0,
    ) -> None:
        self._engine = engine
        self._hold_density = np.float32(hold_density)
        self._hold_beat = hold_beat
        self._sampling = [sampling[field.name] for field in engine.spec.fields]
        self._guidance = [(guidance or {}).get(field.name, 1.0) for field in engine.spec.fields]
        # Streams of a piece: one that knows of the seed, and where it is guided one that does not.
        self._streams = 1 if all(strength == 1 for strength in self._guidance) else 2
        self._pieces: list[Piece] = []
        self._state = engine.start(0)
        self._context = NoteContext(0)

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, name: Hashable, task: NoteTask) -> None:
        """Begin a piece: see `Decoder`."""
        self._arrange([*range(len(self)), -1])
        piece = Piece(name, task)
        piece.begin_context(self._context, range(len(self), len(self) + 1))
        self._pieces.append(piece)

    @property
    def done_s(self) -> float:
        """How far all pieces have come together, in seconds."""
        return sum(piece.now_s for piece in self._pieces)

    def piece(self, name: Hashable) -> Piece:
        """Return a piece that is being decoded."""
        return self._pieces[self._index(name)]

    def branch(self, name: Hashable, chances: Mapping[Hashable, np.random.Generator]) -> None:
        """Put pieces where one of them is; each goes on by chances of its own.

        Parameters
        ----------
        name : hashable
            The piece that the others, which are being decoded too, become copies of.
        chances : mapping of hashable to numpy.random.Generator
            Of the pieces that go on from there.
        """
        source = self._index(name)
        piece, places = self._pieces[source], [self._index(twin) for twin in chances]
        for place, (twin, rng) in zip(places, chances.items(), strict=True):
            self._pieces[place] = piece.branch(twin, rng)
        self._context.copy(source, places)
        for stream in range(self._streams):
            to = [place * self._streams + stream for place in places]
            self._state.copy(source * self._streams + stream, to)

    def _index(self, name: Hashable) -> int:
        return next(index for index, piece in enumerate(self._pieces) if piece.name == name)

    def step(self) -> dict[Hashable, NoteContinuation]:
        """Take every piece one note further: see `Decoder`."""
        steps = np.array([piece.coming for piece in self._pieces], np.int32).reshape(-1, 4)
        known = self._context.advance(steps)
        if self._streams > 1:
            steps, known = np.repeat(steps, 2, 0), with_and_without_seed(known)
        hidden = self._engine.step(self._state, classes(steps), known)
        choosing = np.array(
            [index for index, piece in enumerate(self._pieces) if piece.fed()], np.int64
        )
        if len(choosing):
            self._choose(choosing, hidden)
        done = {piece.name: piece.continuation() for piece in self._pieces if piece.done}
        if done:
            left = [index for index, piece in enumerate(self._pieces) if not piece.done]
            self._pieces = [self._pieces[index] for index in left]
            self._arrange(left)
        return done

    def _arrange(self, order: list[int]) -> None:
        """Keep what the pieces of these indices have, in this order; -1 is a new one."""
        self._context.arrange(order)
        streams = [
            piece if piece < 0 else piece * self._streams + stream
            for piece in order
            for stream in range(self._streams)
        ]
        self._state.arrange(streams)

    def _choose(self, choosing: NDArray[np.int64], hidden: NDArray[np.float32]) -> None:
        """Draw the next note of the pieces of these indices; `hidden` has all streams' rows."""
        pieces = [self._pieces[index] for index in choosing]
        onset = self._draw_onsets(choosing, hidden)
        for i, piece in enumerate(pieces):
            piece.done = piece.is_over(int(onset.value[i]))
        going = np.array([not piece.done for piece in pieces])
        if not going.any():
            return
        choosing, pieces = choosing[going], [piece for piece in pieces if not piece.done]
        chosen, known_classes = onset.value[going, None], onset.place[going, None]
        for _field in range(1, len(self._sampling)):
            drawn = self._draw(choosing, hidden, chosen, known_classes)
            chosen = np.concatenate([chosen, drawn.value[:, None]], 1)
            known_classes = np.concatenate([known_classes, drawn.place[:, None]], 1)
        for piece, step in zip(pieces, chosen.tolist(), strict=True):
            piece.take(step)

    def _draw_onsets(self, choosing: NDArray[np.int64], hidden: NDArray[np.float32]) -> Drawn:
        """Draw when the next notes come; again where it is time for something else before."""
        nothing = np.empty((len(choosing), 0), np.int64)
        onset = self._draw(choosing, hidden, nothing, nothing)
        pieces = [self._pieces[index] for index in choosing]
        steps = onset.value.tolist()
        late = [i for i, piece in enumerate(pieces) if piece.is_late(steps[i])]
        while late:  # it is time for their next sections or last chords
            for i in late:
                pieces[i].turn()
            again = self._draw(choosing[late], hidden, nothing[late], nothing[late])
            onset.place[late], onset.value[late] = again
            late = [i for i in late if pieces[i].is_late(int(onset.value[i]))]
        return onset

    def _draw(
        self,
        choosing: NDArray[np.int64],
        hidden: NDArray[np.float32],
        chosen: NDArray[np.int64],
        known_classes: NDArray[np.int64],
    ) -> Drawn:
        """Draw the field after those that are chosen; `known_classes` are the classes of these."""
        index = chosen.shape[1]
        field, strength = self._engine.spec.fields[index], self._guidance[index]
        pieces = [self._pieces[piece] for piece in choosing]
        known, candidates = self._context.of_field(choosing, chosen)
        values = _values(index, candidates)
        allowed = np.empty(values.shape, bool)
        for row, (piece, step) in enumerate(zip(pieces, chosen.tolist(), strict=True)):
            allowed[row] = piece.allowed(step, values[row])
        chances = np.array([piece.chance() for piece in pieces])
        streams = 1 if strength == 1 else self._streams
        rows = (choosing[:, None] * self._streams + np.arange(streams)).reshape(-1)
        if streams > 1:  # they have the same notes before them
            known = known.repeated(streams)
            known_classes = np.repeat(known_classes, streams, axis=0)
        logits = self._engine.logits(hidden[rows], known_classes, known)
        own = guided = logits[::streams]
        if strength != 1:
            without_seed = logits[1::2]
            guided = without_seed + np.float32(strength) * (own - without_seed)
        guided = self._led(pieces, choosing, chosen, guided)
        place = self._sampling[index].draw_each(guided, chances, allowed)
        copied = None
        if field.copies:
            value = np.take_along_axis(values, place[:, None], 1)[:, 0]
            place, copied = DURATION_CLASSES[value], candidates == value[:, None]
        else:
            value = VALUES[index][place]
        given = np.array([piece.given(index) for piece in pieces])
        if (given != FREE).any():
            value = np.where(given == FREE, value, given)
            own_class = CLASSES[index][value] if index in CLASSES else value
            place = np.where(given == FREE, place, own_class)
            copied = candidates == value[:, None] if field.copies else None
        losses = nats(field, LOG_WIDTHS[index], own, place, copied)
        for piece, loss in zip(pieces, losses.tolist(), strict=True):
            piece.nats[index] = loss
        return Drawn(place, value)

    def _led(
        self,
        pieces: list[Piece],
        choosing: NDArray[np.int64],
        chosen: NDArray[np.int64],
        logits: Array,
    ) -> Array:
        """Return the logits of the next field with what its pieces are pulled to and wish for."""
        index = chosen.shape[1]
        if index == ONSET:
            pulls = np.array([piece.pull() for piece in pieces], np.float32)
            logits = logits + self._hold_density * pulls[:, None] * WAITING
            if self._hold_beat:
                pulls = np.array([piece.beat_pull() for piece in pieces])
                expected = np.stack([piece.beat.expected() for piece in pieces])
                logits = to_the_beat(logits, self._hold_beat * pulls[:, None] * expected)
        if index == DURATION or all(piece.course.wishes is None for piece in pieces):
            return logits
        heard = [(-1, 0)] * len(pieces)
        if index == PITCH:
            heard = self._context.heard(choosing, HEARD_RUN).tolist()
        led = logits.copy()
        for row, (piece, step) in enumerate(zip(pieces, chosen.tolist(), strict=True)):
            wish = piece.wish(step, *heard[row])
            if wish is not None:
                led[row] += wish
        return led


class Drawn(NamedTuple):
    """What was drawn of a field, one a piece: classes, and the values that they stand for."""

    place: NDArray[np.int64]
    value: NDArray[np.int64]


def _values(index: int, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what the classes of a field stand for in each piece, shape (pieces, outputs)."""
    own = len(VALUES[index])
    values = np.empty((len(candidates), own + candidates.shape[1]), np.int64)
    values[:, :own], values[:, own:] = VALUES[index], candidates
    return values
