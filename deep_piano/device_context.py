"""What `NoteContext` knows, in TensorFlow: for the loop that XLA compiles (`device_composer`).

`codecs.note_kernels` is the reference, and has the names of what streams have heard.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deep_piano.codecs.note_kernels import Heard
from deep_piano.codecs.notes import (
    CANDIDATES,
    CHORD_STEPS,
    COPIES,
    DURATION,
    DURATION_CLASSES,
    DURATIONS,
    END_S,
    GAP_BIN,
    GAP_BINS,
    GAP_SHARE,
    KEY_S,
    LONGEST_DURATION,
    LONGEST_ONSET,
    LOWEST_PITCH_CLASS,
    MOST_SECONDS,
    ONSET,
    ONSET_CLASSES,
    ONSETS,
    PITCH,
    PITCHES,
    RATE_S,
    RECENT_S,
    REMEMBERED_NOTES,
    RUN_BUCKETS,
    SEED_BINS,
    SEED_DURATION_BIN,
    SEED_GAP_BIN,
    SEED_GROUPS,
    STEPS_PER_SECOND,
    VELOCITIES,
    VELOCITY,
)
from deep_piano.device import where

Pair = tuple[tf.Tensor, tf.Tensor]


def advance(heard: Heard, steps: tf.Tensor) -> tuple[Heard, Pair]:
    """Take in one note of every stream; return what is known then, and of the onset that comes."""
    heard = _take(heard, steps)
    return heard, (_features(heard), _classes(heard))


def _take(heard: Heard, steps: tf.Tensor) -> Heard:
    gap, pitch = steps[:, ONSET], steps[:, PITCH]
    velocity, duration = steps[:, VELOCITY], steps[:, DURATION]
    key = tf.one_hot(pitch, PITCHES, True, False)
    pitch_class = tf.one_hot((pitch + LOWEST_PITCH_CLASS) % 12, 12)
    now = heard.now + gap
    end = now + duration
    shared = tf.reduce_any(heard.until == end[:, None], 1)
    begins = (heard.notes == 0) | (gap > CHORD_STEPS)
    ioi = tf.where(begins, tf.minimum(now - heard.group, LONGEST_ONSET), 0)
    gaps = heard.gaps * (1 - GAP_SHARE) + GAP_SHARE * tf.one_hot(tf.gather(GAP_BIN, ioi), GAP_BINS)
    past, runs, recalled = _remember(heard, pitch, steps)
    gap_s = _seconds(gap)
    loudness = tf.cast(velocity + 1, tf.float32) / VELOCITIES
    after = heard._replace(
        now=now,
        notes=heard.notes + 1,
        group=tf.where(begins, now, heard.group),
        last=pitch,
        struck=tf.where(key, now[:, None], heard.struck),
        until=tf.where(key, end[:, None], heard.until),
        order=tf.where(key, heard.notes[:, None] + 1, heard.order),
        loudness=tf.where(key, loudness[:, None], heard.loudness),
        recent=heard.recent * tf.exp(gap_s / -RECENT_S)[:, None] + pitch_class,
        rate=heard.rate * tf.exp(gap_s / -RATE_S) + 1 / RATE_S,
        gaps=where(begins & (heard.notes > 0), gaps, heard.gaps),
        past=past,
        runs=runs,
        recalled=recalled,
    )
    sums, seed = _of_seed(after, pitch_class, steps, shared, begins, ioi)
    return after._replace(sums=sums, seed=seed)


def _remember(heard: Heard, pitch: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, ...]:
    count = heard.notes
    interval = tf.where(count > 0, pitch - heard.last, 0)
    latest = tf.stack([interval, *(steps[:, f] for f in (ONSET, VELOCITY, DURATION))], 1)
    latest = tf.cast(latest, tf.int16)
    past = tf.concat([latest[:, :, None], heard.past[:, :, :-1]], 2)
    intervals = past[:, 0]
    lag = np.arange(REMEMBERED_NOTES)
    led = (lag >= 1) & (lag < tf.minimum(count, REMEMBERED_NOTES)[:, None])
    led &= heard.remembers[:, None] & (count >= 2)[:, None]
    again = tf.where(intervals == intervals[:, :1], heard.runs + 1, 0)
    runs = tf.where(led, again, heard.runs)
    first, found = _longest(tf.where(led, runs, 0))
    # What follows a place stands one lag nearer.
    following = tf.concat([intervals[:, :1], intervals[:, :-1]], 1)
    promised = tf.gather(following, first, batch_dims=1)
    others = led & found[:, None] & (following != promised[:, None])
    second, _ = _longest(tf.where(others, runs, 0))
    return past, runs, tf.stack([first, second], 1)


def _longest(runs: tf.Tensor) -> Pair:
    """Return the first lag of the longest run, 0 if none, and whether there is one."""
    lag = tf.argmax(runs, 1)
    found = tf.reduce_max(runs, 1) > 0
    return tf.where(found, lag, 0), found


def _of_seed(
    heard: Heard,
    pitch_class: tf.Tensor,
    steps: tf.Tensor,
    shared: tf.Tensor,
    begins: tf.Tensor,
    ioi: tf.Tensor,
) -> Pair:
    """Add a note to the sums over the seed, and tell of it when it has ended."""
    hearing = (heard.seed_end >= 0) & (heard.seed[:, 15] == 0)
    duration = tf.maximum(steps[:, DURATION], 1)
    one = tf.ones_like(heard.rate)
    loud = tf.cast(steps[:, VELOCITY], tf.float32) / VELOCITIES
    high = tf.cast(steps[:, PITCH], tf.float32) / PITCHES
    length = tf.cast(tf.math.log(tf.cast(duration, tf.float64)) / 8, tf.float32)
    flags = [tf.cast(flag, tf.float32) for flag in (shared, begins)]
    moments = tf.stack([one, loud, length, loud * loud, high, high * high, *flags], 1)
    of_gap = tf.one_hot(tf.gather(SEED_GAP_BIN, ioi), SEED_BINS)
    of_gap = where(begins & (heard.sums[:, 19] > 0), of_gap, tf.zeros_like(of_gap))
    of_length = tf.one_hot(tf.gather(SEED_DURATION_BIN, steps[:, DURATION]), SEED_BINS)
    note = tf.concat([pitch_class, moments, of_length, of_gap], 1)
    sums = where(hearing, heard.sums + note, heard.sums)
    count, chords = tf.maximum(sums[:, 12:13], 1), tf.maximum(sums[:, 19:20], 1)
    seconds = tf.maximum(_seconds(heard.seed_end), 1.0)[:, None]
    harmony, pace, touch, lengths, register = tf.split(heard.told, SEED_GROUPS, 1)

    def mean(column: int) -> tf.Tensor:
        return sums[:, column : column + 1] / count

    def spread(first: int, second: int) -> tf.Tensor:
        return tf.sqrt(tf.maximum(mean(second) - mean(first) ** 2, 0.0)) * 4

    known = [
        harmony * sums[:, :12] / count,
        pace * tf.math.log1p(count / seconds) / 3,
        touch * mean(13),
        lengths * mean(14),
        one[:, None],
        touch * spread(13, 15),
        register * mean(16),
        register * spread(16, 17),
        lengths * mean(18),
        pace * count / chords / 4,
        lengths * sums[:, 20 : 20 + SEED_BINS] / count,
        pace * sums[:, 20 + SEED_BINS :] / tf.maximum(chords - 1, 1),
        heard.told,
    ]
    ended = hearing & (heard.now >= heard.seed_end)
    return sums, where(ended, tf.concat(known, 1), heard.seed)


def _features(heard: Heard) -> tf.Tensor:
    now = heard.now[:, None]
    age_s = tf.minimum(_seconds(now - heard.struck), MOST_SECONDS)
    known = tf.cast(heard.end >= 0, tf.float32)[:, None]
    left_s = _seconds(tf.maximum(heard.end - heard.now, 0))[:, None]
    return tf.concat(
        [
            tf.exp(-age_s),
            tf.cast(heard.until > now, tf.float32),
            heard.recent / tf.reduce_sum(heard.recent, 1, keepdims=True),
            heard.seed[:, :16],
            tf.math.log1p(heard.rate)[:, None] / 3,
            tf.exp(-left_s / np.array(END_S, np.float32)) * known,
            known,
            heard.loudness * tf.exp(age_s / -KEY_S),
            heard.gaps,
            heard.seed[:, 16:],
            _ends(heard.until - now, LONGEST_ONSET, ONSET_CLASSES, ONSETS),
        ],
        1,
    )


def _ends(left: tf.Tensor, longest: int, table: Any, size: int) -> tf.Tensor:
    """Return which classes hold an end that is so many steps away."""
    near = (left > 0) & (left <= longest)
    found = tf.where(near, tf.gather(table, tf.clip_by_value(left, 0, longest)), -1)
    return tf.reduce_max(tf.one_hot(found, size), 1)


def _classes(heard: Heard) -> tf.Tensor:
    found = [_recalled_pitch(heard, i) for i in range(CANDIDATES)]
    for i in range(CANDIDATES):
        onset = tf.gather(ONSET_CLASSES, _recalled(heard, i, 1))
        found += [tf.where(heard.recalled[:, i] > 0, onset, ONSETS), _run_bucket(heard, i)]
    return tf.stack(found, 1)


def _recalled(heard: Heard, candidate: int, row: int) -> tf.Tensor:
    """Return a value of the note that followed where a candidate was found."""
    place = tf.maximum(heard.recalled[:, candidate] - 1, 0)
    return tf.cast(tf.gather(heard.past[:, row], place, batch_dims=1), tf.int64)


def _recalled_pitch(heard: Heard, candidate: int) -> tf.Tensor:
    promised = heard.last + _recalled(heard, candidate, 0)
    there = (heard.recalled[:, candidate] > 0) & (promised >= 0) & (promised < PITCHES)
    return tf.where(there, promised, PITCHES)


def _run_bucket(heard: Heard, candidate: int) -> tf.Tensor:
    lag = heard.recalled[:, candidate]
    run = tf.cast(tf.gather(heard.runs, lag, batch_dims=1), tf.int64)
    bucket = tf.math.count_nonzero(run[:, None] >= np.array(RUN_BUCKETS), 1)
    return tf.where(lag > 0, bucket, 0)


def of_field(heard: Heard, chosen: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return what is known of the field after those chosen: features, classes, and candidates."""
    field, nothing = len(chosen), tf.zeros([heard.now.shape[0], 0])
    no_candidates = tf.zeros([heard.now.shape[0], 0], tf.int64)
    if field == PITCH:
        return nothing, _of_pitch(heard, chosen[ONSET]), no_candidates
    known = _of_touch(heard, chosen[PITCH], field)
    if field == VELOCITY:
        return nothing, known, no_candidates
    left = heard.until - heard.now[:, None] - chosen[ONSET][:, None]
    ends = _latest_ends(heard, left)
    classes = tf.where(ends > 0, tf.gather(DURATION_CLASSES, ends), DURATIONS)
    features = _ends(left, LONGEST_DURATION, DURATION_CLASSES, DURATIONS)
    return features, tf.concat([known, classes], 1), ends


def _of_pitch(heard: Heard, onset: tf.Tensor) -> tf.Tensor:
    found = []
    for i in range(CANDIDATES):
        joins = _recalled(heard, i, 1) <= CHORD_STEPS
        agrees = (heard.recalled[:, i] > 0) & (joins == (onset <= CHORD_STEPS))
        pitch = _recalled_pitch(heard, i)
        found.append(tf.where(agrees, pitch + PITCHES + 1, pitch))
        found.append(_run_bucket(heard, i))
    return tf.stack(found, 1)


def _of_touch(heard: Heard, pitch: tf.Tensor, field: int) -> tf.Tensor:
    value = tf.fill(
        [heard.now.shape[0]], tf.cast(VELOCITIES if field == VELOCITY else DURATIONS, tf.int64)
    )
    bucket = tf.zeros_like(heard.now)
    for i in reversed(range(CANDIDATES)):
        agrees = (heard.recalled[:, i] > 0) & (_recalled_pitch(heard, i) == pitch)
        mine = _recalled(heard, i, 2 if field == VELOCITY else 3)
        mine = mine if field == VELOCITY else tf.gather(DURATION_CLASSES, mine)
        value = tf.where(agrees, mine, value)
        bucket = tf.where(agrees, _run_bucket(heard, i), bucket)
    return tf.stack([value, bucket], 1)


def _latest_ends(heard: Heard, left: tf.Tensor) -> tf.Tensor:
    """Return the steps to the last struck keys' distinct ends, 0 where there are no more."""
    open_ = (left > 0) & (left <= LONGEST_DURATION)
    found = []
    for _ in range(COPIES):
        which = tf.argmax(tf.where(open_, heard.order, 0), 1)
        end = tf.where(
            tf.reduce_any(open_, 1), tf.gather(left, which, batch_dims=1), tf.zeros_like(heard.now)
        )
        open_ &= left != end[:, None]
        found.append(end)
    return tf.stack(found, 1)


def _seconds(steps: tf.Tensor) -> tf.Tensor:
    return tf.cast(steps, tf.float32) / STEPS_PER_SECOND
