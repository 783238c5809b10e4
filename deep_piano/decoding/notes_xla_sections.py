"""What sections wish for, in TensorFlow: for the loop that XLA compiles (`decoding.notes_xla`).

`decoding.sections` is the reference, and says what is wished for.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deep_piano.codecs.notes import ONSET, ONSET_CLASSES, ONSETS, PITCH, PITCHES
from deep_piano.decoding.rules import Piece
from deep_piano.decoding.sections import (
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
from deep_piano.decoding.xla import Rows

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
        due = left & (tf.abs(rows["theme_when"] - at) <= NEAR_STEPS)
        weight = tf.where(due, strength[:, None], 0.0)
        found = aims.of_key + register * KEYS_APART + _at_keys(rows["theme_keys"], weight)
        key, lag = heard
        avoided = ~tf.reduce_any(due, 1) & (lag > rows["since"])
        found -= tf.where((avoided[:, None]) & (key[:, None] == KEYS), rows["vary"][:, None], 0.0)
    else:
        found = loudness * VELOCITIES_APART
    return tf.where(rows["in_chord"][:, None], 0.0, found)


def _wished_onset(rows: Rows) -> tf.Tensor:
    now, when = rows["now"][:, None], rows["theme_when"]
    due = rows["theme_left"] & (when >= now - NEAR_STEPS)
    gap = tf.reduce_min(tf.where(due, tf.maximum(when - now, 0), LATEST_GAP + 1), 1)
    apart = np.arange(ONSETS) - tf.gather(ONSET_CLASSES, tf.minimum(gap, LATEST_GAP))[:, None]
    near = tf.maximum(1 - tf.cast(tf.abs(apart), tf.float32) / NEAR_CLASSES, 0)
    found = rows["strength"][:, None] * (ONSET_SHARE * near)
    return tf.where((gap <= LATEST_GAP)[:, None], found, 0.0)


def _at_keys(keys: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return the largest weight of each key, shape (pieces, 88)."""
    pieces, notes = keys.shape
    piece = np.repeat(np.arange(pieces), notes)
    place = tf.stack([piece, tf.reshape(keys, [-1])], 1)
    nothing = tf.zeros([pieces, PITCHES])
    return tf.tensor_scatter_nd_max(nothing, place, tf.reshape(weight, [-1]))


def played(rows: Rows, now: tf.Tensor, pitch: tf.Tensor) -> tf.Tensor:
    """Return which notes of a theme are no longer left; see `Wishes.take`."""
    due = rows["theme_left"] & (tf.abs(rows["theme_when"] - now[:, None]) <= NEAR_STEPS)
    mine = due & (rows["theme_keys"] == pitch[:, None])
    first = tf.argmax(tf.cast(due, tf.int32), 1)[:, None] == np.arange(due.shape[1])
    return tf.where(tf.reduce_any(mine, 1, keepdims=True), mine, due & first)
