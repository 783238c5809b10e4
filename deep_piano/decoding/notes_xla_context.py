"""What `NoteContext` knows, in TensorFlow: for the loop that XLA compiles (`decoding.notes_xla`).

`codecs.note_kernels` is the reference, and says what is kept of each stream.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deep_piano.codecs.note_kernels import (
    CHORDS,
    COUNT,
    HIGH,
    HIGH_SQUARED,
    KNOWN,
    LENGTH,
    LOUD,
    LOUD_SQUARED,
    OF_DURATION,
    OF_GAP,
    SHARED,
    ContextState,
)
from deep_piano.codecs.notes import (
    CANDIDATES,
    CHORD_SCALE,
    CHORD_SPAN,
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
    LENGTH_SCALE,
    LONGEST_DURATION,
    LONGEST_ONSET,
    LOWEST_PITCH_CLASS,
    MOST_SECONDS,
    OF_SEED,
    ONSET,
    ONSET_CLASSES,
    ONSETS,
    PACE_SCALE,
    PITCH,
    PITCHES,
    RATE_S,
    RECENT_S,
    REMEMBERED_CHORDS,
    REMEMBERED_NOTES,
    RUN_BUCKETS,
    RUN_SCALE,
    SEED_BINS,
    SEED_DURATION_BIN,
    SEED_GAP_BIN,
    SEED_GROUPS,
    SPREAD_SCALE,
    STEPS_PER_SECOND,
    VELOCITIES,
    VELOCITY,
)
from deep_piano.decoding.xla import where

Pair = tuple[tf.Tensor, tf.Tensor]


def advance(state: ContextState, steps: tf.Tensor) -> tuple[ContextState, Pair]:
    """Take in one note of every stream; return what is known then, and of the onset that comes."""
    state = _take(state, steps)
    return state, (_features(state), _classes(state))


def _take(state: ContextState, steps: tf.Tensor) -> ContextState:
    gap, pitch = steps[:, ONSET], steps[:, PITCH]
    velocity, duration = steps[:, VELOCITY], steps[:, DURATION]
    key = tf.one_hot(pitch, PITCHES, True, False)
    pitch_class = tf.one_hot((pitch + LOWEST_PITCH_CLASS) % 12, 12)
    now = state.now + gap
    end = now + duration
    shared = tf.reduce_any(state.until == end[:, None], 1)
    begins = (state.notes == 0) | (gap > CHORD_STEPS)
    ioi = tf.where(begins, tf.minimum(now - state.group, LONGEST_ONSET), 0)
    gaps = state.gaps * (1 - GAP_SHARE) + GAP_SHARE * tf.one_hot(tf.gather(GAP_BIN, ioi), GAP_BINS)
    past, runs, recalled = _remember(state, pitch, steps)
    gap_s = _seconds(gap)
    loudness = tf.cast(velocity + 1, tf.float32) / VELOCITIES
    after = state._replace(
        now=now,
        notes=state.notes + 1,
        group=tf.where(begins, now, state.group),
        last=pitch,
        struck=tf.where(key, now[:, None], state.struck),
        until=tf.where(key, end[:, None], state.until),
        order=tf.where(key, state.notes[:, None] + 1, state.order),
        loudness=tf.where(key, loudness[:, None], state.loudness),
        recent=state.recent * tf.exp(gap_s / -RECENT_S)[:, None] + pitch_class,
        rate=state.rate * tf.exp(gap_s / -RATE_S) + 1 / RATE_S,
        gaps=where(begins & (state.notes > 0), gaps, state.gaps),
        past=past,
        runs=runs,
        recalled=recalled,
    )
    after = _remember_chord(after, pitch, begins)
    sums, seed = _of_seed(after, pitch_class, steps, shared, begins, ioi)
    return after._replace(sums=sums, seed=seed)


def _remember(state: ContextState, pitch: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, ...]:
    count = state.notes
    interval = tf.where(count > 0, pitch - state.last, 0)
    latest = tf.stack([interval, *(steps[:, f] for f in (ONSET, VELOCITY, DURATION))], 1)
    latest = tf.cast(latest, tf.int16)
    past = tf.concat([latest[:, :, None], state.past[:, :, :-1]], 2)
    intervals = past[:, 0]
    lag = np.arange(REMEMBERED_NOTES)
    led = (lag >= 1) & (lag < tf.minimum(count, REMEMBERED_NOTES)[:, None])
    led &= state.remembers[:, None] & (count >= 2)[:, None]
    again = tf.where(intervals == intervals[:, :1], state.runs + 1, 0)
    runs = tf.where(led, again, state.runs)
    first, found = _longest(tf.where(led, runs, 0))
    # What follows a place stands one lag nearer.
    following = tf.concat([intervals[:, :1], intervals[:, :-1]], 1)
    promised = tf.gather(following, first, batch_dims=1)
    others = led & found[:, None] & (following != promised[:, None])
    second, _ = _longest(tf.where(others, runs, 0))
    return past, runs, tf.stack([first, second], 1)


def _remember_chord(state: ContextState, pitch: tf.Tensor, begins: tf.Tensor) -> ContextState:
    lag = np.arange(REMEMBERED_CHORDS)
    one = tf.ones_like(pitch)

    def again(chords: tf.Tensor, count: tf.Tensor) -> Pair:
        led = (lag >= 1) & (lag < tf.minimum(count, REMEMBERED_CHORDS)[:, None] - 1)
        led &= state.remembers[:, None]
        same = (chords[:, 0] == chords[:, 0, :1]) & (chords[:, 2] == chords[:, 2, :1])
        return led, same

    led, same = again(state.chords, state.chord)
    runs = tf.where(
        led & begins[:, None], tf.where(same, state.chord_runs + 1, 0), state.chord_runs
    )
    shifted = tf.concat([state.chords[:, :, :1], state.chords[:, :, :-1]], 2)
    chords = where(begins, shifted, state.chords)
    lowest, keys = state.chords[:, 1, 0], state.chords[:, 2, 0]
    down, up = tf.maximum(lowest - pitch, 0), tf.maximum(pitch - lowest, 0)
    joined = tf.where(down > 0, _moved_up(keys, down) | one, keys | _moved_up(one, up))
    lowest = tf.where(begins, pitch, tf.minimum(lowest, pitch))
    keys = tf.where(begins, one, joined)
    last = tf.stack([lowest - chords[:, 1, 1], lowest, keys], 1)
    chords = tf.concat([last[:, :, None], chords[:, :, 1:]], 2)
    count = state.chord + tf.cast(begins, tf.int64)
    led, same = again(chords, count)
    whole, _ = _longest(tf.where(led & same, runs + 1, 0))
    before, _ = _longest(tf.where(led, runs, 0))
    return state._replace(
        chord=count, chords=chords, chord_runs=runs, chords_recalled=tf.stack([whole, before], 1)
    )


def _moved_up(keys: tf.Tensor, semitones: tf.Tensor) -> tf.Tensor:
    """Return a chord's keys so many bits higher, as far as its span reaches."""
    within = tf.minimum(semitones, CHORD_SPAN - 1)
    moved = tf.bitwise.left_shift(keys, within) & ((1 << CHORD_SPAN) - 1)
    return tf.where(semitones < CHORD_SPAN, moved, 0)


def _longest(runs: tf.Tensor) -> Pair:
    """Return the first lag of the longest run, 0 if none, and whether there is one."""
    lag = tf.argmax(runs, 1)
    found = tf.reduce_max(runs, 1) > 0
    return tf.where(found, lag, 0), found


def _of_seed(
    state: ContextState,
    pitch_class: tf.Tensor,
    steps: tf.Tensor,
    shared: tf.Tensor,
    begins: tf.Tensor,
    ioi: tf.Tensor,
) -> Pair:
    """Add a note to the sums over the seed, and tell of it when it has ended."""
    counting = (state.seed_end >= 0) & (state.seed[:, KNOWN] == 0)
    duration = tf.maximum(steps[:, DURATION], 1)
    one = tf.ones_like(state.rate)
    loud = tf.cast(steps[:, VELOCITY], tf.float32) / VELOCITIES
    high = tf.cast(steps[:, PITCH], tf.float32) / PITCHES
    length = tf.cast(tf.math.log(tf.cast(duration, tf.float64)) / LENGTH_SCALE, tf.float32)
    flags = [tf.cast(flag, tf.float32) for flag in (shared, begins)]
    moments = tf.stack([one, loud, length, loud * loud, high, high * high, *flags], 1)
    of_gap = tf.one_hot(tf.gather(SEED_GAP_BIN, ioi), SEED_BINS)
    of_gap = where(begins & (state.sums[:, CHORDS] > 0), of_gap, tf.zeros_like(of_gap))
    of_length = tf.one_hot(tf.gather(SEED_DURATION_BIN, steps[:, DURATION]), SEED_BINS)
    note = tf.concat([pitch_class, moments, of_length, of_gap], 1)
    sums = where(counting, state.sums + note, state.sums)
    count = tf.maximum(sums[:, COUNT : COUNT + 1], 1)
    chords = tf.maximum(sums[:, CHORDS : CHORDS + 1], 1)
    seconds = tf.maximum(_seconds(state.seed_end), 1.0)[:, None]
    harmony, pace, touch, lengths, register = tf.split(state.told, SEED_GROUPS, 1)

    def mean(column: int) -> tf.Tensor:
        return sums[:, column : column + 1] / count

    def spread(first: int, second: int) -> tf.Tensor:
        return tf.sqrt(tf.maximum(mean(second) - mean(first) ** 2, 0.0)) * SPREAD_SCALE

    known = [
        harmony * sums[:, :12] / count,
        pace * tf.math.log1p(count / seconds) / PACE_SCALE,
        touch * mean(LOUD),
        lengths * mean(LENGTH),
        one[:, None],
        touch * spread(LOUD, LOUD_SQUARED),
        register * mean(HIGH),
        register * spread(HIGH, HIGH_SQUARED),
        lengths * mean(SHARED),
        pace * count / chords / CHORD_SCALE,
        lengths * sums[:, OF_DURATION:OF_GAP] / count,
        pace * sums[:, OF_GAP:] / tf.maximum(chords - 1, 1),
        state.told,
    ]
    ended = counting & (state.now >= state.seed_end)
    return sums, where(ended, tf.concat(known, 1), state.seed)


def _features(state: ContextState) -> tf.Tensor:
    now = state.now[:, None]
    age_s = tf.minimum(_seconds(now - state.struck), MOST_SECONDS)
    known = tf.cast(state.end >= 0, tf.float32)[:, None]
    left_s = _seconds(tf.maximum(state.end - state.now, 0))[:, None]
    return tf.concat(
        [
            tf.exp(-age_s),
            tf.cast(state.until > now, tf.float32),
            state.recent / tf.reduce_sum(state.recent, 1, keepdims=True),
            state.seed[:, :OF_SEED],
            tf.math.log1p(state.rate)[:, None] / PACE_SCALE,
            tf.exp(-left_s / np.array(END_S, np.float32)) * known,
            known,
            state.loudness * tf.exp(age_s / -KEY_S),
            state.gaps,
            state.seed[:, OF_SEED:],
            *_promised_chords(state),
            _ends(state.until - now, LONGEST_ONSET, ONSET_CLASSES, ONSETS),
        ],
        1,
    )


def _promised_chords(state: ContextState) -> Pair:
    """Return the keys of the next chord, and those that the last one still lacks."""
    lowest, keys = state.chords[:, 1], state.chords[:, 2]
    whole, before = tf.unstack(state.chords_recalled, axis=1)

    def at(array: tf.Tensor, lag: tf.Tensor) -> tf.Tensor:
        return tf.gather(array, lag, batch_dims=1)

    def strength(lag: tf.Tensor, more: int) -> tf.Tensor:
        run = tf.cast(at(state.chord_runs, lag), tf.float32) + more
        return tf.where(lag > 0, tf.math.log1p(run) / RUN_SCALE, 0.0)[:, None]

    last = tf.maximum(whole - 1, 0)
    bottom = at(lowest, last) + lowest[:, 0] - at(lowest, whole)
    following = _keys(bottom, at(keys, last)) * strength(whole, 1)
    bottom = at(lowest, before) + lowest[:, 1] - at(lowest, before + 1)
    promised, struck = _keys(bottom, at(keys, before)), _keys(lowest[:, 0], keys[:, 0])
    fits = tf.reduce_all(struck <= promised, 1, keepdims=True)
    lacking = tf.where(fits, promised - struck, 0.0) * strength(before, 0)
    return following, lacking


def _keys(bottom: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Return which keys of the keyboard a chord has: 1 or 0."""
    above = np.arange(PITCHES)[None] - bottom[:, None]
    bit = tf.bitwise.right_shift(
        tf.broadcast_to(keys[:, None], tf.shape(above)), tf.clip_by_value(above, 0, CHORD_SPAN - 1)
    )
    within = (above >= 0) & (above < CHORD_SPAN)
    return tf.cast(tf.where(within, bit & 1, 0), tf.float32)


def _ends(left: tf.Tensor, longest: int, table: Any, size: int) -> tf.Tensor:
    """Return which classes hold an end that is so many steps away."""
    near = (left > 0) & (left <= longest)
    found = tf.where(near, tf.gather(table, tf.clip_by_value(left, 0, longest)), -1)
    return tf.reduce_max(tf.one_hot(found, size), 1)


def _classes(state: ContextState) -> tf.Tensor:
    found = [_recalled_pitch(state, i) for i in range(CANDIDATES)]
    for i in range(CANDIDATES):
        onset = tf.gather(ONSET_CLASSES, _recalled(state, i, 1))
        found += [tf.where(state.recalled[:, i] > 0, onset, ONSETS), _run_bucket(state, i)]
    return tf.stack(found, 1)


def _recalled(state: ContextState, candidate: int, row: int) -> tf.Tensor:
    """Return a value of the note that followed where a candidate was found."""
    place = tf.maximum(state.recalled[:, candidate] - 1, 0)
    return tf.cast(tf.gather(state.past[:, row], place, batch_dims=1), tf.int64)


def _recalled_pitch(state: ContextState, candidate: int) -> tf.Tensor:
    promised = state.last + _recalled(state, candidate, 0)
    there = (state.recalled[:, candidate] > 0) & (promised >= 0) & (promised < PITCHES)
    return tf.where(there, promised, PITCHES)


def _run_bucket(state: ContextState, candidate: int) -> tf.Tensor:
    lag = state.recalled[:, candidate]
    run = tf.cast(tf.gather(state.runs, lag, batch_dims=1), tf.int64)
    bucket = tf.math.count_nonzero(run[:, None] >= np.array(RUN_BUCKETS), 1)
    return tf.where(lag > 0, bucket, 0)


def heard(state: ContextState, least: int) -> Pair:
    """Return the key that followed where the last notes stood before, and the lag of it.

    See `NoteContext.heard`; there is none, -1, where fewer in a row did.
    """
    key, lag = _recalled_pitch(state, 0), state.recalled[:, 0]
    run = tf.cast(tf.gather(state.runs, lag, batch_dims=1), tf.int64)
    return tf.where((run >= least) & (lag > 0) & (key < PITCHES), key, -1), lag


def of_field(
    state: ContextState, chosen: list[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return what is known of the field after those chosen: features, classes, and candidates."""
    field, nothing = len(chosen), tf.zeros([state.now.shape[0], 0])
    no_candidates = tf.zeros([state.now.shape[0], 0], tf.int64)
    if field == PITCH:
        return nothing, _of_pitch(state, chosen[ONSET]), no_candidates
    known = _of_touch(state, chosen[PITCH], field)
    if field == VELOCITY:
        return nothing, known, no_candidates
    left = state.until - state.now[:, None] - chosen[ONSET][:, None]
    ends = _latest_ends(state, left)
    classes = tf.where(ends > 0, tf.gather(DURATION_CLASSES, ends), DURATIONS)
    features = _ends(left, LONGEST_DURATION, DURATION_CLASSES, DURATIONS)
    return features, tf.concat([known, classes], 1), ends


def _of_pitch(state: ContextState, onset: tf.Tensor) -> tf.Tensor:
    found = []
    for i in range(CANDIDATES):
        joins = _recalled(state, i, 1) <= CHORD_STEPS
        agrees = (state.recalled[:, i] > 0) & (joins == (onset <= CHORD_STEPS))
        pitch = _recalled_pitch(state, i)
        found.append(tf.where(agrees, pitch + PITCHES + 1, pitch))
        found.append(_run_bucket(state, i))
    return tf.stack(found, 1)


def _of_touch(state: ContextState, pitch: tf.Tensor, field: int) -> tf.Tensor:
    value = tf.fill(
        [state.now.shape[0]], tf.cast(VELOCITIES if field == VELOCITY else DURATIONS, tf.int64)
    )
    bucket = tf.zeros_like(state.now)
    for i in reversed(range(CANDIDATES)):
        agrees = (state.recalled[:, i] > 0) & (_recalled_pitch(state, i) == pitch)
        mine = _recalled(state, i, 2 if field == VELOCITY else 3)
        mine = mine if field == VELOCITY else tf.gather(DURATION_CLASSES, mine)
        value = tf.where(agrees, mine, value)
        bucket = tf.where(agrees, _run_bucket(state, i), bucket)
    return tf.stack([value, bucket], 1)


def _latest_ends(state: ContextState, left: tf.Tensor) -> tf.Tensor:
    """Return the steps to the last struck keys' distinct ends, 0 where there are no more."""
    open_ = (left > 0) & (left <= LONGEST_DURATION)
    found = []
    for _ in range(COPIES):
        which = tf.argmax(tf.where(open_, state.order, 0), 1)
        end = tf.where(
            tf.reduce_any(open_, 1), tf.gather(left, which, batch_dims=1), tf.zeros_like(state.now)
        )
        open_ &= left != end[:, None]
        found.append(end)
    return tf.stack(found, 1)


def _seconds(steps: tf.Tensor) -> tf.Tensor:
    return tf.cast(steps, tf.float32) / STEPS_PER_SECOND
