"""What sections wish for, in TensorFlow: for the loop that XLA compiles (`decoding.notes_xla`).

`decoding.sections` is the reference, and says what is wished for.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deep_piano.codecs.notes import ONSET, ONSET_CLASSES, ONSETS, PITCH, PITCHES
from deep_piano.decoding.rules import Piece
from deep_piano.decoding.sections import (
    CHORD_STEPS,
    KEYS,
    KEYS_APART,
    LATEST_GAP,
    NEAR_CLASSES,
    NEAR_STEPS,
    ONSET_SHARE,
    VELOCITIES_APART,
    Aims,
    Wishes,
)
from deep_piano.decoding.xla import MANY, Rows

Pair = tuple[tf.Tensor, tf.Tensor]


def section_row(piece: Piece) -> Rows:
    """Return what a piece's section wishes for; see `decoding.sections`."""
    wishes = piece.course.wishes or Wishes.none()
    begins, ends, ahead = wishes.ramp
    return {
        "latest": piece.course.stop,  # onset before the next section or the last chord
        "ramp": (begins, ends),
        **_aims_row("aimed", wishes.aims),
        **_aims_row("ahead", ahead),
        "theme_when": wishes.when,
        "theme_keys": wishes.keys,
        "theme_left": wishes.left,
        "theme_last": wishes.last,
        "theme_lag": wishes.lag,
        "strength": wishes.strength,
        "vary": wishes.vary,
        "since": 0,  # notes of the section
        "pulls": wishes.pulls,
    }


def _aims_row(name: str, aims: Aims) -> Rows:
    return {f"{name}_{field}": value for field, value in aims._asdict().items()}


def aims_at(rows: Rows) -> Aims:
    """Return what pieces are led to; see `Wishes.at`."""
    begins, ends = tf.unstack(rows["ramp"], axis=1)
    share = tf.clip_by_value((rows["now"] - begins) / (ends - begins), 0.0, 1.0)[:, None]

    def between(name: str) -> tf.Tensor:
        aims, ahead = rows[f"aimed_{name}"], rows[f"ahead_{name}"]
        return aims + tf.cast(share, aims.dtype) * (ahead - aims)

    return Aims(*map(between, Aims._fields))


def wish(rows: Rows, drawn: list[tf.Tensor], heard: Pair) -> tf.Tensor:
    """Return what is added to the logits of the next field; see `Wishes.of`."""
    index, now, strength = len(drawn), rows["now"], rows["strength"]
    levels, left = rows["levels"], rows["theme_left"]
    aims = aims_at(rows)
    pulls = rows["pulls"] * (aims.levels - levels[:, 1:] / levels[:, :1])
    register, loudness = tf.unstack(tf.cast(pulls, tf.float32)[:, :, None], axis=1)
    if index == ONSET:
        found = _wished_onset(rows)
    elif index == PITCH:
        at = (now + drawn[ONSET])[:, None]
        when = rows["theme_when"]
        due = left & (tf.abs(when - at) <= NEAR_STEPS)
        apart = tf.where(due, tf.abs(when + _late(rows, when) - at), MANY)
        first = apart == tf.reduce_min(apart, 1, keepdims=True)
        weight = tf.where(first, strength[:, None], strength[:, None] / 2)
        weight = tf.where(due, weight, 0.0)
        found = aims.of_key + register * KEYS_APART + _at_keys(rows["theme_keys"], weight)
        key, lag = heard
        avoided = ~tf.reduce_any(due, 1) & (lag > rows["since"])
        found -= tf.where((avoided[:, None]) & (key[:, None] == KEYS), rows["vary"][:, None], 0.0)
    else:
        found = loudness * VELOCITIES_APART
    return tf.where(rows["in_chord"][:, None], 0.0, found)


def is_due(rows: Rows) -> tf.Tensor:
    """Return whether a note of a passage is due, shape (pieces, 1); see `Wishes.due_in`."""
    return _due_in(rows) <= LATEST_GAP


def _due_in(rows: Rows) -> tf.Tensor:
    now, when = rows["now"][:, None], rows["theme_when"]
    due = rows["theme_left"] & (when >= now - NEAR_STEPS)
    first = tf.reduce_min(tf.where(due, when, MANY), 1, keepdims=True)
    return tf.maximum(first + _late(rows, first) - now, 0)


def _wished_onset(rows: Rows) -> tf.Tensor:
    gap = _due_in(rows)
    apart = np.arange(ONSETS) - tf.gather(ONSET_CLASSES, tf.minimum(gap, LATEST_GAP))
    near = tf.maximum(1 - tf.cast(tf.abs(apart), tf.float32) / NEAR_CLASSES, 0)
    found = rows["strength"][:, None] * (ONSET_SHARE * near)
    return tf.where(gap <= LATEST_GAP, found, 0.0)


def _late(rows: Rows, when: tf.Tensor) -> tf.Tensor:
    """See `Wishes._late`."""
    last, lag = rows["theme_last"][:, None], rows["theme_lag"][:, None]
    return tf.where(when - last <= CHORD_STEPS, lag, 0)


def _at_keys(keys: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return the largest weight of each key, shape (pieces, 88)."""
    pieces, notes = keys.shape
    piece = np.repeat(np.arange(pieces), notes)
    place = tf.stack([piece, tf.reshape(keys, [-1])], 1)
    nothing = tf.zeros([pieces, PITCHES])
    return tf.tensor_scatter_nd_max(nothing, place, tf.reshape(weight, [-1]))


def take_theme(rows: Rows, now: tf.Tensor, pitch: tf.Tensor) -> Rows:
    """Take note of a key that was struck; see `Wishes.take`."""
    when = rows["theme_when"]
    due = rows["theme_left"] & (tf.abs(when - now[:, None]) <= NEAR_STEPS)
    mine = due & (rows["theme_keys"] == pitch[:, None])
    is_mine = tf.reduce_any(mine, 1)
    first = tf.argmax(tf.cast(due, tf.int32), 1)[:, None] == np.arange(due.shape[1])
    over = tf.where(is_mine[:, None], mine, due & first)
    last = tf.gather(when, tf.argmax(tf.cast(mine, tf.int32), 1), batch_dims=1)
    last = tf.where(is_mine, last, rows["theme_last"])
    return {
        "theme_left": rows["theme_left"] & ~over,
        "theme_last": last,
        "theme_lag": tf.where(is_mine, now - last, rows["theme_lag"]),
    }
