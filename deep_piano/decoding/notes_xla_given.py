"""Given notes in TensorFlow: for the loop that XLA compiles (`decoding.notes_xla`).

`decoding.given` is the reference, and says what is given. Before each call of the graph the host
hands over the notes that may be given in it.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deep_piano.codecs.notes import PITCHES
from deep_piano.decoding.given import CLEAR_STEPS, FREE
from deep_piano.decoding.rules import Piece
from deep_piano.decoding.sections import KEYS
from deep_piano.decoding.xla import MANY, Rows


def given_row(piece: Piece, most: int) -> Rows:
    """Return what is given of the next notes of a piece, so many at most."""
    row: Rows = {
        "given_at": 0,
        "given_left": MANY,
        "given_steps": np.full((most, 4), FREE, np.int64),
        "given_spans": np.full((most, 2), np.nan),
        "given_waits": np.zeros(most, bool),
        "sounds_until": np.full(PITCHES, -np.inf),
        "struck_at": np.full(PITCHES, np.inf),
        "first_until": MANY,
    }
    giving = piece.giving
    if giving is None:
        return row
    row["sounds_until"], row["struck_at"] = giving.sounds_until, giving.given.struck_at
    if giving.first is None:
        return row | {"first_until": piece.final[0]}
    steps = giving.coming(most, piece.now)
    row["given_left"] = giving.left
    row["given_steps"][: len(steps)] = steps
    coming = slice(giving.next, giving.next + len(steps))
    row["given_spans"][: len(steps)] = giving.given.spans[coming]
    row["given_waits"][: len(steps)] = giving.waits[coming]
    return row


def is_given(rows: Rows) -> tf.Tensor:
    """Say of which pieces the next note is given, in part or altogether."""
    return rows["given_left"] < MANY


def given_or(rows: Rows, index: int, drawn: tf.Tensor) -> tf.Tensor:
    """Return the value of a field of the next note: as it is given, or as it was drawn."""
    given = _next(rows, "given_steps")[:, index]
    return tf.where(given == FREE, drawn, given)


def must_wait(rows: Rows) -> tf.Tensor:
    """See `Giving.must_wait`."""
    return _next(rows, "given_waits")


def free_keys(rows: Rows, onset: tf.Tensor) -> tf.Tensor:
    """See `Giving.free_keys`."""
    exactly = _next(rows, "given_spans")[:, 0]
    at = tf.cast(rows["now"] + onset, tf.float64)
    when = tf.where(tf.math.is_nan(exactly), at, exactly)[:, None]
    return (rows["sounds_until"] <= when) & (rows["struck_at"] > when + CLEAR_STEPS)


def take_given(rows: Rows, pitch: tf.Tensor) -> Rows:
    """See `Giving.take`."""
    until = _next(rows, "given_spans")[:, 1:]
    mine = ~tf.math.is_nan(until) & (pitch[:, None] == KEYS)
    count = tf.cast(is_given(rows), rows["given_at"].dtype)
    left = rows["given_left"] - count
    return {
        "sounds_until": tf.where(mine, until, rows["sounds_until"]),
        "given_at": rows["given_at"] + count,
        "given_left": left,
        "running": rows["running"] & (left > 0),
    }


def _next(rows: Rows, name: str) -> tf.Tensor:
    return tf.gather(rows[name], rows["given_at"], batch_dims=1)
