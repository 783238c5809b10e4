"""What keeps a piece apart from a corpus, for the loop that XLA compiles (`decoding.notes_xla`).

`decoding.apart` is the reference, and says in which order notes count. A corpus may have a run that
has grams in a row which it has. So of a piece's past two things are enough: its last ways, and how
many grams in a row the corpus has up to there. The host is not asked.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import tensorflow as tf

from deep_piano.analysis.mixing import FACTORS, SHIFT
from deep_piano.analysis.originality import BETWEEN, FNV_PRIME, wait_of, way
from deep_piano.codecs.notes import LONGEST_ONSET, PITCHES
from deep_piano.decoding.rules import Piece
from deep_piano.decoding.sections import KEYS
from deep_piano.decoding.xla import Rows, where

_NONE: Final = -1
_WAITS: Final = np.array([wait_of(steps) for steps in range(LONGEST_ONSET + 1)])


def apart_row(piece: Piece, gram: int) -> Rows:
    """Return what a piece shares with a corpus before its first note: nothing."""
    task = piece.task
    return {
        "ways": np.full(gram - 1, int(BETWEEN)),  # the last ones before the chord
        "shared": 0,  # grams in a row up to there that the corpus has
        "too_many": task.most_shared - gram + 1 if task.corpus is not None else 0,  # 0: never
        "top": _NONE,  # the highest key before the chord
        "chord_wait": 0,
    }


def without_copies(
    rows: Rows, table: tf.Tensor, choices: list[tf.Tensor], onset: tf.Tensor
) -> tf.Tensor:
    """Return the keys of the first choice that has any which keeps the piece apart.

    Parameters
    ----------
    rows : mapping of str to tensor
    table : tensor
        From `Index.table`.
    choices : list of tensor of bool, shape (pieces, 88)
    onset : tensor of int64, shape (pieces,)

    Returns
    -------
    tensor of bool, shape (pieces, 88)
        See `Apart.without_copies`.
    """
    struck, later = rows["struck"], onset[:, None] > 0
    count = tf.math.count_nonzero(struck, 1)[:, None]
    lower = tf.math.cumsum(tf.cast(struck, tf.int64), 1, exclusive=True)
    # A way adds one gram at most: most pieces are nowhere near, and nothing is looked up.
    far = rows["shared"][:, None] + count + 1 < rows["too_many"][:, None]
    far |= rows["too_many"][:, None] == 0
    _, copies = _through(
        rows,
        table,
        at=tf.where(later, count, lower),
        ends=tf.where(far, tf.zeros_like(count), count + 1),
        onset=onset[:, None],
    )
    found = choices[0]
    for free in reversed(choices):
        left = free & ~copies
        found = tf.where(tf.reduce_any(left, 1, keepdims=True), left, found)
    return found


def take_apart(rows: Rows, table: tf.Tensor, onset: tf.Tensor) -> Rows:
    """Take note that a key is struck, before the chord that it may end is forgotten.

    See `Apart.take`.
    """
    count = tf.math.count_nonzero(rows["struck"], 1)
    ended = (onset > 0) & (count > 0)
    nothing = tf.zeros_like(count)
    after, _ = _through(
        rows,
        table,
        at=nothing[:, None] + PITCHES,  # no other key
        ends=tf.where(ended, count, nothing)[:, None],
        onset=nothing[:, None],
    )
    after = {name: value[:, 0] for name, value in after.items()}
    after["chord_wait"] = tf.gather(_WAITS, onset)
    return where(ended, after, {name: rows[name] for name in after})


def _through(
    rows: Rows, table: tf.Tensor, *, at: tf.Tensor, ends: tf.Tensor, onset: tf.Tensor
) -> tuple[Rows, tf.Tensor]:
    """Go through the chord, upwards, with each of some keys where it would be struck.

    Parameters
    ----------
    rows : mapping of str to tensor
    table : tensor
    at : tensor of int64, shape (pieces, keys)
        At which place each key comes, from 0.
    ends : tensor of int64, shape (pieces, 1)
        Before which place to stop.
    onset : tensor of int64, shape (pieces, 1)
        Above 0 the keys come after the chord; only the way to them is new.

    Returns
    -------
    mapping of str to tensor, shape (pieces, keys, ...)
        What stands in `rows` of a piece once it is there.
    tensor of bool, shape (pieces, keys)
        Where a new way completes a run that is too long.
    """
    shape, too_many = at.shape, rows["too_many"][:, None]
    chord = tf.sort(tf.where(rows["struck"], KEYS, PITCHES), 1)
    keys, wait = KEYS[None, : shape[1]], tf.gather(_WAITS, onset)

    def walk(place: tf.Tensor, now: Rows, copies: tf.Tensor) -> Any:
        below, here = (
            tf.gather(chord, tf.clip_by_value(n, 0, PITCHES - 1), axis=1)[:, None]
            for n in (place - 1, place)
        )
        key = tf.where(place < at, here, tf.where(place == at, keys, below))
        waited = tf.where((place == at) & (onset > 0), wait, 0)
        waited = tf.where(place == 0, rows["chord_wait"][:, None], waited)
        there = (place < ends) & (now["top"] != _NONE)
        latest: Any = way(now["top"], key, waited)
        ways = tf.concat([now["ways"], latest[:, :, None]], 2)
        whole = ways[:, :, 0] != int(BETWEEN)
        shared = tf.where(whole & _holds(table, ways), now["shared"] + 1, 0)
        is_new = there & ((onset == 0) | (place == at))
        copies |= is_new & (shared >= too_many) & (too_many > 0)
        after = {
            "ways": tf.where(there[:, :, None], ways[:, :, 1:], now["ways"]),
            "shared": tf.where(there, shared, now["shared"]),
            "top": tf.where(place < ends, key, now["top"]),
        }
        return place + 1, after, copies

    begin = {
        name: tf.broadcast_to(rows[name][:, None], [*shape, *rows[name].shape[1:]])
        for name in ("ways", "shared", "top")
    }
    _, after, copies = tf.while_loop(
        lambda place, *_: place < tf.reduce_max(ends),
        walk,
        (tf.constant(0, tf.int64), begin, tf.zeros(shape, tf.bool)),
    )
    return after, copies


def _holds(table: tf.Tensor, ways: tf.Tensor) -> tf.Tensor:
    """Say which grams a corpus has: bits of a Bloom filter, or the hashes of all, in order."""
    gram = _hashed(ways)
    if table.dtype == tf.uint8:
        return _has_bits(table, gram)
    if table.shape[0] == 0:
        return tf.zeros(gram.shape, tf.bool)
    low = tf.zeros(gram.shape, tf.int64)
    for bit in reversed(range(table.shape[0].bit_length())):
        high = low + (1 << bit)
        there = tf.gather(table, tf.minimum(high, table.shape[0] - 1)) <= gram
        low = tf.where((high < table.shape[0]) & there, high, low)
    return tf.gather(table, low) == gram


def _hashed(ways: tf.Tensor) -> tf.Tensor:
    """Return a number for each run of ways along the last axis; see `originality.grams_of`."""
    gram = tf.zeros(ways.shape[:-1], tf.uint64)
    for token in tf.unstack(tf.cast(ways, tf.uint64), axis=-1):
        gram = (gram ^ token) * FNV_PRIME
    return gram


def _has_bits(table: tf.Tensor, gram: tf.Tensor) -> tf.Tensor:
    """See `CompactIndex.holds`."""
    shifted = tf.bitwise.right_shift
    for factor in FACTORS:
        gram = (gram ^ shifted(gram, SHIFT)) * factor
    gram ^= shifted(gram, SHIFT)
    found = tf.ones(gram.shape, tf.bool)
    for half in (gram, shifted(gram, np.uint64(32))):
        place = tf.cast(half & np.uint64(8 * table.shape[0] - 1), tf.int64)
        byte = tf.cast(tf.gather(table, place // 8), tf.int64)
        found &= shifted(byte, 7 - place % 8) % 2 == 1
    return found
