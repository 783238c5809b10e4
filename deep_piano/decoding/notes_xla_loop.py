"""The graph of `decoding.notes_xla`: network, context, rules and draws, note after note.

`decoding.notes` is the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from deep_piano.codecs.base import IMPOSSIBLE
from deep_piano.codecs.note_kernels import ContextState
from deep_piano.codecs.notes import CLASSES, DURATION, LOG_WIDTHS, ONSET, VALUES
from deep_piano.decoding.base import InputKernel, Sampling, arranged
from deep_piano.decoding.notes_xla_beat import to_the_beat
from deep_piano.decoding.notes_xla_context import advance, heard, of_field
from deep_piano.decoding.notes_xla_given import given_or
from deep_piano.decoding.notes_xla_rules import allowed_classes, is_late, is_over, pull, take
from deep_piano.decoding.notes_xla_sections import wish
from deep_piano.decoding.rules import WAITING
from deep_piano.decoding.sections import HEARD_RUN
from deep_piano.decoding.xla import Rows, lstm_layers, product, where
from deep_piano.models.checkpoint import Checkpoint

Pair = tuple[Any, Any]


class Loop:
    """The graph; `streams` is how many streams each piece has in it.

    Parameters
    ----------
    checkpoint : Checkpoint
    sampling : list of Sampling
    guidance : list of float
        One a field.
    hold_density, hold_beat : float
        As for `decoding.notes.NoteDecoder`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        sampling: list[Sampling],
        guidance: list[float],
        hold_density: float,
        hold_beat: float,
    ) -> None:
        self._sampling, self._guidance = sampling, guidance
        self._hold_density, self._hold_beat = hold_density, hold_beat
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
            late = choosing & is_late(rows, step[:, ONSET])
            over = choosing & is_over(rows, step[:, ONSET])
            going, taken = at_work & ~late & ~over, choosing & ~late & ~over
            made = {
                name: made[name].write(t, value)
                for name, value in (("steps", step), ("nats", nats), ("taken", taken))
            }
            rows = where(taken, take(rows, step, table), rows)
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
                guided += self._hold_density * pull(rows)[:, None] * WAITING
                if self._hold_beat:
                    guided = to_the_beat(rows, guided, self._hold_beat)
            if index != DURATION:
                guided += wish(rows, drawn, heard(one, HEARD_RUN))
            chance = tf.gather(chances, rows["used"] + index, batch_dims=1)
            choice = _draw(guided, chance, allowed_classes(rows, drawn, values, table), sampling)
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


def _as_tensor(value: Any) -> tf.Tensor | None:
    return None if value is None else tf.convert_to_tensor(value)
