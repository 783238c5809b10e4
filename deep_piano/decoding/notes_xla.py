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

from deep_piano.analysis.note_figures import (
    DRONE_NOTES,
    LONGEST_PATTERN_NOTES,
    MOST_REPETITIONS,
)
from deep_piano.analysis.originality import Index
from deep_piano.codecs.base import IMPOSSIBLE
from deep_piano.codecs.note_context import NoteContext
from deep_piano.codecs.note_kernels import ContextState
from deep_piano.codecs.notes import (
    CLASSES,
    DURATION,
    LOG_WIDTHS,
    ONSET,
    ONSET_STEPS,
    PITCH,
    PITCHES,
    STEPS_PER_SECOND,
    VALUES,
    VELOCITIES,
    VELOCITY,
)
from deep_piano.decoding.base import Decoder, InputKernel, Sampling, arranged
from deep_piano.decoding.ending import FINAL_CHORD_NOTES, LONGEST, LOUD, ROLL_STEPS
from deep_piano.decoding.loops import WAITS
from deep_piano.decoding.notes_xla_apart import apart_row, take_apart, without_copies
from deep_piano.decoding.notes_xla_context import advance, heard, of_field
from deep_piano.decoding.notes_xla_given import (
    free_keys,
    given_or,
    given_row,
    is_given,
    must_wait,
    take_given,
)
from deep_piano.decoding.notes_xla_sections import aims_at, played, section_row, wish
from deep_piano.decoding.rules import (
    FADING,
    FORGETTING,
    LARGEST_SHARE,
    LEAST_VARIETY,
    LONGEST_NOTE,
    MOST_NOTES_AT_ONCE,
    NEAR,
    WAITING,
    NoteContinuation,
    NoteTask,
    Piece,
)
from deep_piano.decoding.sections import CLASSES as PITCH_CLASSES
from deep_piano.decoding.sections import HEARD_RUN, KEYS
from deep_piano.decoding.xla import lstm_layers, product, where
from deep_piano.models.checkpoint import Checkpoint

NOTES_A_CALL: Final = 64
_FIELDS: Final = 4
_NEVER: Final = -1
_MANY: Final = 2**62

Pair = tuple[Any, Any]
Rows = dict[str, Any]
"""One row a piece: what its rules need to know."""


class NoteDecoderXla(Decoder[NoteTask, NoteContinuation]):
    """Pieces decoded side by side, as by `NoteDecoder`, in a fixed number of slots.

    Parameters
    ----------
    checkpoint : Checkpoint
    sampling : mapping of str to Sampling
    guidance : mapping of str to float, optional
    hold_density : float
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
        *,
        width: int,
        notes_a_call: int = NOTES_A_CALL,
    ) -> None:
        fields = [field.name for field in checkpoint.spec.fields]
        strengths = [(guidance or {}).get(field, 1.0) for field in fields]
        draws = [sampling[field] for field in fields]
        self._loop = _Loop(checkpoint, draws, strengths, hold_density)
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
        self._write(slot, _first_row(piece) | given_row(piece, self._notes))
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
            self._rows["left"][slot] = min(piece.waits_at - len(piece.made), _MANY)
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
                row = section_row(piece) | _chord_row(piece)
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


def _as_tensor(value: Any) -> tf.Tensor | None:
    return None if value is None else tf.convert_to_tensor(value)


def _on_host(tensors: Rows) -> dict[str, NDArray[Any]]:
    """Return arrays that may be written to."""
    return {name: np.array(tensor) for name, tensor in tensors.items()}


def _first_row(piece: Piece) -> Rows:
    """Return what the rules know of a piece before its first note."""
    pitches, waits, runs = piece.loops.as_rows()
    return (
        {
            "running": True,
            "late": False,  # it waits for its next section or last chord to be begun
            "left": _MANY,  # notes until it waits to be looked at
            "coming": np.array(piece.coming),
            "now": piece.now,
            "seed_end": piece.seed_end,
            "end": piece.end,
            "begun": False,
            "struck": piece.struck,
            "lately": piece.lately,
            "density": piece.density,
            "note_share": piece.note_share,
            "pitches": pitches,
            "waits": waits,
            "runs": runs,
            "levels": piece.levels,
        }
        | section_row(piece)
        | _chord_row(piece)
    )


def _chord_row(piece: Piece) -> Rows:
    """Return what the rules know of a piece's last chord before it is struck."""
    nothing = np.zeros(PITCHES, bool)
    chord = piece.chord
    return {
        "in_chord": chord is not None,
        "when": chord.when if chord else np.zeros(len(ONSET_STEPS), bool),
        "free": chord.free if chord else nothing,
        "triad": chord.triad if chord else nothing,
        "chord_onset": _NEVER,
        "chord_notes": 0,
    }


class _Loop:
    """The graph: network, context, rules and draws, note after note."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        sampling: list[Sampling],
        guidance: list[float],
        hold_density: float,
    ) -> None:
        self._sampling, self._guidance = sampling, guidance
        self._hold_density = hold_density
        # Streams of a piece: one that knows of the seed, and where it is guided one that does not.
        self.streams = 1 if all(strength == 1 for strength in guidance) else 2
        self._head_units = checkpoint.config.head_units
        self._fields, self._columns = checkpoint.spec.fields, checkpoint.spec.columns
        self._weights = tf.nest.map_structure(tf.Variable, arranged(checkpoint))
        self._compiled = tf.function(self._run, jit_compile=True, autograph=False)

    def __call__(self, *arguments: Any) -> tuple[Any, ContextState, Rows, Rows]:
        """Return the LSTM's state, the context's, the pieces' rows, and what was made.

        Parameters
        ----------
        state : list of pair of tensor, shape (streams, units)
            h and c of each layer.
        fresh : bool, shape (streams,)
            Where a piece begins: the state is dropped.
        context : ContextState
        rows : mapping of str to tensor
        given : int, shape (notes, pieces, fields)
            The next notes of each seed.
        given_count : int, shape (pieces,)
            How many they are.
        chances : float64, shape (pieces, fields * notes)
        table : tensor or None
            From `Index.table`, where pieces are kept apart from a corpus.
        """
        return self._compiled(*tf.nest.map_structure(_as_tensor, arguments))

    def _run(
        self,
        state: Any,
        fresh: tf.Tensor,
        context: ContextState,
        rows: Rows,
        given: tf.Tensor,
        given_count: tf.Tensor,
        chances: tf.Tensor,
        table: tf.Tensor | None,
    ) -> tuple[Any, ContextState, Rows, Rows]:
        notes, pieces, fields = given.shape
        state = tf.nest.map_structure(lambda x: tf.where(fresh[:, None], 0.0, x), state)
        made = {
            "steps": tf.TensorArray(tf.int64, notes, element_shape=[pieces, fields]),
            "nats": tf.TensorArray(tf.float64, notes, element_shape=[pieces]),
            "taken": tf.TensorArray(tf.bool, notes, element_shape=[pieces]),
        }

        def note(t: tf.Tensor, state: Any, context: ContextState, rows: Rows, made: Rows) -> Any:
            """Take every piece one note further; one that is late takes the note back."""
            steps = tf.repeat(rows["coming"], self.streams, axis=0)
            next_context, known = advance(context, steps)
            next_state, hidden = self._step(state, steps, known)
            at_work = rows["running"] & (rows["left"] > 0)
            choosing = at_work & (t >= given_count)
            step, nats = self._choose(rows, hidden, next_context, known, chances, table)
            late = choosing & _is_late(rows, step[:, ONSET])
            over = choosing & _is_over(rows, step[:, ONSET])
            going, taken = at_work & ~late & ~over, choosing & ~late & ~over
            made = {
                name: made[name].write(t, value)
                for name, value in (("steps", step), ("nats", nats), ("taken", taken))
            }
            rows = where(taken, _take(rows, step, table), rows)
            rows |= {
                "running": rows["running"] & ~late & ~over,
                "late": rows["late"] | late,
                "left": rows["left"] - _count(taken),
                "coming": where(going & ~taken, given[t], rows["coming"]),
                # One that is late has drawn an onset, and draws it again when it goes on.
                "used": rows["used"] + fields * _count(taken) + _count(late),
            }
            going = tf.repeat(going, self.streams)
            state, context = where(going, (next_state, next_context), (state, context))
            return t + 1, state, context, rows, made

        _, state, context, rows, made = tf.while_loop(
            lambda t, *_: t < notes, note, (tf.constant(0), state, context, rows, made)
        )
        return state, context, rows, {name: array.stack() for name, array in made.items()}

    def _step(self, state: Any, steps: tf.Tensor, known: Pair) -> tuple[Any, tf.Tensor]:
        """Take one step; see `Engine.step`."""
        weights = self._weights
        classes = _in_classes(tf.unstack(steps, axis=1))
        x = _input(weights.input, classes, *known) + weights.bias
        state, x = lstm_layers(x, state, weights.norms, weights.lstms)
        return state, product(x, weights.hidden)

    def _choose(
        self,
        rows: Rows,
        hidden: tf.Tensor,
        context: Any,
        known: Pair,
        chances: tf.Tensor,
        table: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Draw the next note of each piece, field by field, and say what it costs in nats."""
        drawn: list[tf.Tensor] = []
        total = tf.constant(0.0, tf.float64)
        # The streams of a piece have the same notes before them.
        one = ContextState(*(tensor[:: self.streams] for tensor in context))
        features, classes = (
            tensor[:: self.streams, place]
            for tensor, place in zip(known, self._columns[1], strict=True)
        )
        values = tf.constant(VALUES[ONSET][None])
        for index, (field, sampling, strength) in enumerate(
            zip(self._fields, self._sampling, self._guidance, strict=True)
        ):
            if index:
                features, classes, candidates = of_field(one, drawn)
                values = tf.tile(VALUES[index][None], [candidates.shape[0], 1])
                values = tf.concat([values, candidates], 1)
            logits = self._logits(hidden, drawn, features, classes)
            own = guided = logits[:, 0]
            if strength != 1:
                guided = logits[:, 1] + strength * (own - logits[:, 1])
            if index == ONSET:
                guided += self._hold_density * _pull(rows)[:, None] * WAITING
            if index != DURATION:
                guided += wish(rows, drawn, heard(one, HEARD_RUN))
            chance = tf.gather(chances, rows["used"] + index, batch_dims=1)
            choice = _draw(guided, chance, _allowed(rows, drawn, values, table), sampling)
            if index == ONSET:
                value = tf.gather(VALUES[ONSET], choice)
            else:
                value = tf.gather(values, choice, batch_dims=1)
            value = given_or(rows, index, value)
            drawn.append(value)
            target = _in_classes(drawn)[-1]
            copied = values[:, field.size :] == value[:, None]
            total += tf.cast(_nats(own, target, copied, LOG_WIDTHS[index]), tf.float64)
        return tf.stack(drawn, 1), total

    def _logits(
        self, hidden: tf.Tensor, chosen: list[tf.Tensor], features: tf.Tensor, classes: tf.Tensor
    ) -> tf.Tensor:
        """Return the logits of the next field, of shape (pieces, streams, outputs)."""
        index, width, weights = len(chosen), self._head_units, self._weights
        field = self._fields[index]
        x = hidden[:, index * width : (index + 1) * width]
        known = _input(weights.known[index], _in_classes(chosen), features, classes)
        x += tf.repeat(known, self.streams, axis=0)
        logits = product(tf.nn.relu(x), weights.heads[index])
        logits = tf.reshape(logits, [-1, self.streams, logits.shape[1]])
        if not field.copies:
            return logits
        missing = (classes[:, field.candidates] == field.no_candidate)[:, None]
        own, copies = logits[..., : field.size], logits[..., field.size :]
        return tf.concat([own, tf.where(missing, IMPOSSIBLE, copies)], 2)


def _in_classes(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return the classes of a step's fields, or of the first of them; see `codecs.notes`."""
    return [
        tf.gather(CLASSES[field], value) if field in CLASSES else value
        for field, value in enumerate(values)
    ]


def _input(
    kernel: InputKernel, fields: list[tf.Tensor], features: tf.Tensor, classes: tf.Tensor
) -> tf.Tensor:
    """Return the product of a kernel with its inputs, one-hot but for the features."""
    x = features @ kernel.features
    columns = [*fields, *tf.unstack(classes, axis=1)]
    for place, column in enumerate(columns):
        x += tf.gather(kernel.table, column + kernel.starts[place])
    return x


def _count(flags: tf.Tensor) -> tf.Tensor:
    return tf.cast(flags, tf.int64)


def _nats(
    logits: tf.Tensor, target: tf.Tensor, copied: tf.Tensor, log_widths: NDArray[np.float64]
) -> tf.Tensor:
    """Return what values cost; see `codecs.base.nats`."""
    said = tf.gather(logits, target, batch_dims=1)
    said -= tf.gather(log_widths.astype(np.float32), target)
    ways = tf.where(copied, logits[:, len(log_widths) :], IMPOSSIBLE)
    said = tf.reduce_logsumexp(tf.concat([said[:, None], ways], 1), 1)
    return tf.reduce_logsumexp(logits, 1) - said


def _draw(
    logits: tf.Tensor, chances: tf.Tensor, allowed: tf.Tensor, sampling: Sampling
) -> tf.Tensor:
    """Draw a class for each piece; see `Sampling.draw_each`."""
    weights = tf.cast(logits, tf.float64) / sampling.temperature
    weights = tf.where(allowed, weights, -np.inf)
    weights = tf.exp(weights - tf.reduce_max(weights, 1, keepdims=True))
    if sampling.min_p:
        weights *= tf.cast(weights >= sampling.min_p, tf.float64)
    if sampling.top_k or sampling.top_p < 1:
        others = weights[:, None, :]
        heavier = others > weights[:, :, None]  # [piece, i, j]: j is likelier than i
        kept = tf.ones_like(weights, tf.bool)
        if sampling.top_k:
            kept = tf.math.count_nonzero(heavier, 2) < sampling.top_k
        if sampling.top_p < 1:
            whole = tf.reduce_sum(tf.where(kept, weights, 0.0), 1, keepdims=True)
            before = tf.reduce_sum(tf.where(heavier, others, 0.0), 2)
            kept &= before < sampling.top_p * whole
        weights = tf.where(kept, weights, 0.0)
    # A sum up to each class as a product with zeros and ones, which costs little: all are added up
    # in one order, so that a class without weight adds nothing, and is not drawn.
    size = weights.shape[1]
    mass = weights @ np.triu(np.ones((size, size)))
    return tf.math.count_nonzero(mass <= chances[:, None] * mass[:, -1:], 1)


def _allowed(
    rows: Rows, drawn: list[tf.Tensor], values: tf.Tensor, table: tf.Tensor | None
) -> tf.Tensor:
    """Return the classes of the next field that obey the rules; see `Piece.allowed`."""
    index = len(drawn)
    if index == PITCH:
        return _allowed_keys(rows, drawn[ONSET], table)
    in_last_chord = {ONSET: rows["when"], VELOCITY: LOUD, DURATION: LONGEST}[index]
    if index == ONSET:
        before = _allowed_onsets(rows)
    elif index == VELOCITY:
        before = np.ones(VELOCITIES, bool)
    else:
        left = rows["end"] - rows["now"] - drawn[ONSET]
        left = tf.where(is_given(rows), tf.constant(LONGEST_NOTE, left.dtype), left)
        before = (values > 0) & (values <= tf.minimum(left, LONGEST_NOTE)[:, None])
    return tf.where(rows["in_chord"][:, None], in_last_chord, before)


def _allowed_keys(rows: Rows, onset: tf.Tensor, table: tf.Tensor | None) -> tf.Tensor:
    """See `Piece._allowed_keys`."""
    every = (onset[:, None] > 0) | ~rows["struck"]
    silent = every & free_keys(rows, onset)
    every = tf.where(tf.reduce_any(silent, 1, keepdims=True), silent, every)
    in_last_chord = rows["in_chord"][:, None]
    free = _without_drone(rows, _without_one_more(rows, every), onset)
    free = tf.where(in_last_chord, rows["free"], free)
    if table is None:
        return free
    other = tf.where(in_last_chord, rows["triad"] & every, every)
    return without_copies(rows, table, [free, other, every], onset)


def _allowed_onsets(rows: Rows) -> tf.Tensor:
    onsets = rows["now"][:, None] + ONSET_STEPS
    seed_end = rows["seed_end"][:, None]
    gaps = onsets >= seed_end
    soonest = tf.reduce_min(tf.where(gaps, onsets, onsets.dtype.max), 1, keepdims=True)
    latest = tf.minimum(
        tf.maximum(soonest, seed_end + STEPS_PER_SECOND), rows["first_until"][:, None]
    )
    first = gaps & (onsets <= latest)
    full = tf.math.count_nonzero(rows["struck"], 1) >= MOST_NOTES_AT_ONCE
    full |= must_wait(rows)
    return tf.where(rows["begun"][:, None], NEAR & (~full[:, None] | (ONSET_STEPS > 0)), first)


def _without_one_more(rows: Rows, free: tf.Tensor) -> tf.Tensor:
    """Leave out keys that would repeat a pattern too often; see `Loops.without_one_more`."""
    lengths = np.arange(1, LONGEST_PATTERN_NOTES + 1)
    too_often = (rows["runs"] + 2) // lengths >= MOST_REPETITIONS
    barred = tf.reduce_any(too_often[:, :, None] & (rows["pitches"][:, :, None] == KEYS), 1)
    left = free & ~barred
    return tf.where(tf.reduce_any(left, 1, keepdims=True), left, free)


def _without_drone(rows: Rows, free: tf.Tensor, onset: tf.Tensor) -> tf.Tensor:
    """Leave out keys that would make a drone; see `Piece._without_drone`."""
    lately = rows["lately"]
    total = tf.reduce_sum(lately, 1)
    share = lately / total[:, None]
    entropy = -tf.reduce_sum(share * tf.math.log(tf.where(share > 0, share, 1.0)), 1)
    left = free & tf.gather(lately < LARGEST_SHARE * total[:, None], PITCH_CLASSES, axis=1)
    drones = (total * tf.gather(FORGETTING, onset) >= DRONE_NOTES) & tf.reduce_any(left, 1)
    drones &= tf.exp(entropy) < LEAST_VARIETY
    return tf.where(drones[:, None], left, free)


def _pull(rows: Rows) -> tf.Tensor:
    """See `Piece.pull`."""
    target, free, strength = tf.unstack(aims_at(rows).density, axis=1)
    apart = tf.math.log(rows["density"]) - target
    pull = tf.cast(strength * (apart - tf.clip_by_value(apart, -free, free)), tf.float32)
    return tf.where(rows["in_chord"], 0.0, pull)


def _is_late(rows: Rows, onset: tf.Tensor) -> tf.Tensor:
    """See `Piece.is_late`."""
    closing = rows["in_chord"] | is_given(rows)
    return ~closing & (rows["now"] + onset > rows["latest"])


def _is_over(rows: Rows, onset: tf.Tensor) -> tf.Tensor:
    """See `Piece.is_over`."""
    last = rows["chord_onset"] + ROLL_STEPS
    return rows["in_chord"] & (rows["chord_notes"] > 0) & (rows["now"] + onset > last)


def _take(rows: Rows, step: tf.Tensor, table: tf.Tensor | None) -> Rows:
    """Write a note down for every piece; see `Piece.take`."""
    gap, pitch = step[:, ONSET], step[:, PITCH]
    now = rows["now"] + gap
    same_moment = rows["begun"] & (gap == 0)
    key = pitch[:, None] == KEYS
    after = rows | {
        "coming": step,
        "now": now,
        "since": rows["since"] + 1,
        "begun": tf.ones_like(rows["begun"]),
        "struck": (rows["struck"] & same_moment[:, None]) | key,
        "lately": rows["lately"] * tf.gather(FORGETTING, gap)[:, None]
        + tf.one_hot(tf.gather(PITCH_CLASSES, pitch), 12, dtype=tf.float64),
        "density": rows["density"] * tf.gather(FADING, gap) + rows["note_share"],
        "levels": rows["levels"] * tf.gather(FADING, gap)[:, None]
        + tf.cast(tf.stack([tf.ones_like(now), pitch, step[:, VELOCITY]], 1), tf.float64),
        "theme_left": rows["theme_left"] & ~played(rows, now, pitch),
    }
    after |= _take_into_loops(rows, pitch, tf.gather(WAITS, gap)) | take_given(rows, pitch)
    if table is not None:
        after |= take_apart(rows, table, gap)
    return where(rows["in_chord"], after | _take_into_chord(after, pitch), after)


def _take_into_loops(rows: Rows, pitch: tf.Tensor, wait: tf.Tensor) -> Rows:
    """See `Loops.take`."""
    pitch, wait = pitch[:, None], wait[:, None]
    again = (rows["pitches"] == pitch) & (rows["waits"] == wait)
    return {
        "pitches": tf.concat([pitch, rows["pitches"][:, :-1]], 1),
        "waits": tf.concat([wait, rows["waits"][:, :-1]], 1),
        "runs": tf.where(again, rows["runs"] + 1, 0),
    }


def _take_into_chord(rows: Rows, pitch: tf.Tensor) -> Rows:
    """Take note of one more key of the last chord; see `Chord.take`."""
    now, pitch = rows["now"], pitch[:, None]
    first = rows["chord_onset"] == _NEVER
    onset = tf.where(first, now, rows["chord_onset"])
    free = tf.where(first[:, None], rows["triad"] & (pitch + 3 <= KEYS), rows["free"])
    free &= tf.abs(KEYS - pitch) > 2
    notes = rows["chord_notes"] + 1
    return {
        "running": (notes < FINAL_CHORD_NOTES) & tf.reduce_any(free, 1),
        "when": tf.ones_like(rows["when"]) & NEAR,
        "free": free,
        "chord_onset": onset,
        "chord_notes": notes,
    }
