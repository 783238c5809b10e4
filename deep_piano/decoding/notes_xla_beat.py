"""The beat of a piece in TensorFlow: for the loop that XLA compiles (`decoding.notes_xla`).

`decoding.beat` is the reference, and says what is expected and why.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import tensorflow as tf

from deep_piano.codecs.notes import ONSETS
from deep_piano.decoding.beat import (
    CORRECTION,
    EXPECTED,
    FLOOR,
    INTERVALS_FADE,
    KEPT_FADES,
    LATER,
    LEAST,
    MOST_PULL,
    NOISE,
    OF_NOW,
    REACH,
    SETTLED,
    SHORTEST,
    SMEAR,
)
from deep_piano.decoding.notes_xla_sections import is_due
from deep_piano.decoding.rules import Piece
from deep_piano.decoding.xla import Rows

_AROUND: Final = 1024  # points of a Fourier transform: `REACH` and `EXPECTED` together are fewer
_SMEAR: Final = np.pad(SMEAR, (0, REACH - len(SMEAR)))
_PLACES: Final = np.arange(REACH)
_LATER: Final = np.arange(ONSETS) >= LATER
_LONG: Final = (_PLACES >= SHORTEST).astype(np.float64)


def beat_row(piece: Piece) -> Rows:
    """Return what is known of a piece's beat before its first note."""
    beat = piece.beat
    return {
        "near": beat.near,
        "intervals": beat.intervals,
        "together": beat.together,
        "kept": beat.kept,
        "of_seed": beat.of_seed,
        "expected": beat.expected().astype(np.float32),
    }


def to_the_beat(rows: Rows, logits: tf.Tensor, strength: float) -> tf.Tensor:
    """Tilt the logits of onsets; see `beat.to_the_beat`."""
    missing = rows["of_seed"] - rows["kept"][:, 1] / rows["kept"][:, 0]
    pull = tf.clip_by_value(rows["of_seed"] + CORRECTION * missing, 0.0, MOST_PULL)
    led = rows["in_chord"] | is_due(rows)[:, 0]
    pull = tf.where(led, 0.0, strength * tf.cast(pull, tf.float32))
    tilted = logits + pull[:, None] * rows["expected"]
    before, after = (
        tf.reduce_logsumexp(tf.where(_LATER, some, -np.inf), 1, keepdims=True)
        for some in (logits, tilted)
    )
    return tilted + tf.where(_LATER, before - after, 0.0)


def _expected(near: tf.Tensor, intervals: tf.Tensor) -> tf.Tensor:
    """Return how much each next onset is expected, (pieces, ONSETS); see `Beat.expected`."""
    mean = tf.reduce_mean(intervals[:, SHORTEST:], 1, keepdims=True)
    often = tf.cast(tf.maximum(intervals - mean, 0.0) ** 2, tf.float32)
    near = tf.cast(near, tf.float32)
    coming = tf.signal.rfft(often, [_AROUND]) * tf.math.conj(tf.signal.rfft(near, [_AROUND]))
    support = tf.signal.irfft(coming, [_AROUND])
    now = tf.maximum(support[:, :1], 0.0)
    support = tf.maximum(support[:, EXPECTED] - now * OF_NOW.astype(np.float32), 0.0)
    mean = tf.maximum(tf.reduce_mean(support, 1, keepdims=True), LEAST * now)
    any_is = mean > NOISE * tf.reduce_max(often, 1, keepdims=True)
    share = support / tf.where(any_is, mean, 1.0)
    found = tf.where(any_is, tf.math.log((share + FLOOR) / (1 + FLOOR)), 0.0)
    return tf.pad(found, [[0, 0], [EXPECTED.start, ONSETS - EXPECTED.stop]])


def take_beat(rows: Rows, gap: tf.Tensor) -> Rows:
    """Note an onset of every piece; see `Beat.take`."""
    counts = (rows["now"] >= SETTLED) & (gap >= EXPECTED.start) & (gap < EXPECTED.stop)
    expected = tf.gather(rows["expected"], tf.minimum(gap, EXPECTED.stop), batch_dims=1)
    came = tf.stack([tf.ones_like(expected), expected], 1)
    kept = rows["kept"] * tf.gather(KEPT_FADES, gap)[:, None]
    kept += tf.cast(came, tf.float64) * tf.cast(counts, tf.float64)[:, None]
    together = rows["together"] * tf.cast(gap < LATER, tf.float64)
    weight = (tf.sqrt(together + 1) - tf.sqrt(together))[:, None]
    place = _PLACES - gap[:, None]
    near = tf.gather(rows["near"], tf.maximum(place, 0), batch_dims=1)
    near *= tf.cast(place >= 0, tf.float64)
    intervals = rows["intervals"] * tf.gather(INTERVALS_FADE, gap)[:, None]
    intervals += weight * near * _LONG
    near += weight * _SMEAR
    return {
        "near": near,
        "intervals": intervals,
        "together": together + 1,
        "kept": kept,
        "expected": _expected(near, intervals),
    }
