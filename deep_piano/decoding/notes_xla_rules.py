"""The rules of a piece in TensorFlow: for the loop that XLA compiles (`decoding.notes_xla`).

`decoding.rules` is the reference, and says what may come next and why.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import tensorflow as tf

from deep_piano.analysis.note_figures import (
    DRONE_NOTES,
    LONGEST_PATTERN_NOTES,
    MOST_REPETITIONS,
)
from deep_piano.codecs.notes import (
    DURATION,
    ONSET,
    ONSET_STEPS,
    PITCH,
    PITCHES,
    STEPS_PER_SECOND,
    VELOCITIES,
    VELOCITY,
)
from deep_piano.decoding.ending import FINAL_CHORD_NOTES, LONGEST, LOUD, ROLL_STEPS
from deep_piano.decoding.loops import WAITS
from deep_piano.decoding.notes_xla_apart import take_apart, without_copies
from deep_piano.decoding.notes_xla_beat import beat_row, take_beat
from deep_piano.decoding.notes_xla_given import free_keys, is_given, must_wait, take_given
from deep_piano.decoding.notes_xla_sections import aims_at, section_row, take_theme
from deep_piano.decoding.rules import (
    FADING,
    FORGETTING,
    LARGEST_SHARE,
    LEAST_VARIETY,
    LONGEST_NOTE,
    MOST_NOTES_AT_ONCE,
    MOST_PULL,
    NEAR,
    Piece,
)
from deep_piano.decoding.sections import CLASSES as PITCH_CLASSES
from deep_piano.decoding.sections import KEYS
from deep_piano.decoding.xla import MANY, Rows, where

_NEVER: Final = -1


def first_row(piece: Piece) -> Rows:
    """Return what the rules know of a piece before its first note."""
    pitches, waits, runs = piece.loops.as_rows()
    return (
        {
            "running": True,
            "late": False,  # it waits for its next section or last chord to be begun
            "left": MANY,  # notes until it waits to be looked at
            "coming": np.array(piece.coming),
            "now": piece.now,
            "seed_end": piece.seed_end,
            "end": piece.end,
            "begun": False,
            "struck": piece.struck,
            "lately": piece.lately,
            "density": piece.density,
            "note_share": piece.note_share,
            "fading": piece.fading,
            "pitches": pitches,
            "waits": waits,
            "runs": runs,
            "levels": piece.levels,
        }
        | beat_row(piece)
        | section_row(piece)
        | chord_row(piece)
    )


def chord_row(piece: Piece) -> Rows:
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


def allowed_classes(
    rows: Rows, drawn: list[tf.Tensor], values: tf.Tensor, table: tf.Tensor | None
) -> tf.Tensor:
    """Return which classes of the next field obey the rules; see `Piece.allowed`.

    Parameters
    ----------
    rows : mapping of str to tensor
    drawn : list of int64, shape (pieces,)
        The values of the fields before.
    values : int64, shape (pieces or 1, outputs)
        What the classes of the field stand for.
    table : tensor or None
        From `Index.table`, where pieces are kept apart from a corpus.

    Returns
    -------
    bool, shape (pieces or 1, outputs)
    """
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


def pull(rows: Rows) -> tf.Tensor:
    """Return how much late onsets gain in likelihood, shape (pieces,); see `Piece.pull`."""
    target, free, strength = tf.unstack(aims_at(rows).density, axis=1)
    apart = tf.math.log(rows["density"]) - target
    excess = apart - tf.clip_by_value(apart, -free, free)
    found = tf.clip_by_value(strength * excess, -MOST_PULL, MOST_PULL)
    return tf.where(rows["in_chord"], 0.0, tf.cast(found, tf.float32))


def is_late(rows: Rows, onset: tf.Tensor) -> tf.Tensor:
    """Say where an onset comes too late, shape (pieces,); see `Piece.is_late`."""
    closing = rows["in_chord"] | is_given(rows)
    return ~closing & (rows["now"] + onset > rows["latest"])


def is_over(rows: Rows, onset: tf.Tensor) -> tf.Tensor:
    """Say where an onset comes after the last chord, shape (pieces,); see `Piece.is_over`."""
    last = rows["chord_onset"] + ROLL_STEPS
    return rows["in_chord"] & (rows["chord_notes"] > 0) & (rows["now"] + onset > last)


def take(rows: Rows, step: tf.Tensor, table: tf.Tensor | None) -> Rows:
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
        "density": rows["density"] * tf.gather(FADING, gap) ** rows["fading"] + rows["note_share"],
        "levels": rows["levels"] * tf.gather(FADING, gap)[:, None]
        + tf.cast(tf.stack([tf.ones_like(now), pitch, step[:, VELOCITY]], 1), tf.float64),
    }
    after |= _take_into_loops(rows, pitch, tf.gather(WAITS, gap))
    after |= take_beat(rows, gap) | take_given(rows, pitch) | take_theme(rows, now, pitch)
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
