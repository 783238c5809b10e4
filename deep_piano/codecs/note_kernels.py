"""The computation of `NoteContext`, compiled by Numba: advance by a note, compute its context.

This module loads Numba when it is imported, and compiles on first use (`compiling`).
`decoding.notes_xla_context` has the same in TensorFlow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs import notes
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
    SPREAD_SCALE,
    STEPS_PER_SECOND,
    VELOCITIES,
    VELOCITY,
)
from deep_piano.infra.compiling import compiler

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class ContextState(NamedTuple):
    """The state of each stream; every array has the stream as its first axis.

    Attributes
    ----------
    now, notes, group, last : ndarray of int64, shape (streams,)
        The last onset, how many notes there were, when the last chord (or single note) began, and
        the last key.
    struck, until, order : ndarray of int64, shape (streams, 88)
        Of each key: when it was struck last, until when it sounds, and the how manieth note it was.
    loudness : ndarray of float32, shape (streams, 88)
        The velocity of that note, from 0 to 1.
    recent, rate, gaps : ndarray of float32, shape (streams, 12), (streams,), (streams, bins)
        Decaying counts of pitch classes, of notes a second, and of gaps between chords.
    sums : ndarray of float32, shape (streams, seed sums)
        Of the seed so far.
    seed : ndarray of float32, shape (streams, seed features)
        What is told of the seed, once it has ended.
    told : ndarray of float32, shape (streams, 5)
        Which groups of the seed's features are told: 1 or 0.
    seed_end, end : ndarray of int64, shape (streams,)
        When the seed and the piece end; -1: not known.
    past : ndarray of int16, shape (streams, 4, `REMEMBERED_NOTES`)
        The notes, the latest first: interval to the note before, onset, velocity and duration.
    runs : ndarray of int16, shape (streams, `REMEMBERED_NOTES`)
        For each lag: how many intervals in a row were those of so many notes before.
    recalled : ndarray of int64, shape (streams, `CANDIDATES`)
        The lags of the longest runs, 0 where there is none.
    chord : ndarray of int64, shape (streams,)
        How many chords there were, a single note being one too.
    chords : ndarray of int64, shape (streams, 3, `REMEMBERED_CHORDS`)
        The chords, the latest first: interval of the lowest key to that of the chord before, the
        lowest key, and which keys from there on belong to it, a bit a semitone.
    chord_runs : ndarray of int16, shape (streams, `REMEMBERED_CHORDS`)
        For each lag: how many chords in a row, before the last one, were those of so many before.
    chords_recalled : ndarray of int64, shape (streams, 2)
        The lags of the longest runs of chords, 0 where there is none: with the last chord as if it
        were whole, and without it.
    remembers : ndarray of bool, shape (streams,)
        Whether anything is recalled.
    """

    now: Ints
    notes: Ints
    group: Ints
    last: Ints
    struck: Ints
    until: Ints
    order: Ints
    loudness: Floats
    recent: Floats
    rate: Floats
    gaps: Floats
    sums: Floats
    seed: Floats
    told: Floats
    seed_end: Ints
    end: Ints
    past: NDArray[np.int16]
    runs: NDArray[np.int16]
    recalled: Ints
    chord: Ints
    chords: Ints
    chord_runs: NDArray[np.int16]
    chords_recalled: Ints
    remembers: NDArray[np.bool_]


# Columns of the sums over the seed: pitch classes, then these, then bins of durations and gaps.
COUNT, LOUD, LENGTH, LOUD_SQUARED, HIGH, HIGH_SQUARED, SHARED, CHORDS = range(12, 20)
OF_DURATION, OF_GAP = 20, 20 + SEED_BINS
# Columns of the seed's features: pitch classes, then these, then the same bins, and groups.
_PACE, _TOUCH, _LENGTHS, KNOWN = range(12, 16)
_TOUCH_SPREAD, _REGISTER, _REGISTER_SPREAD, _SHARED, _CHORD_SIZE = range(16, 21)
_LOUDNESS = 2 * PITCHES + 12 + OF_SEED + 1 + len(END_S) + 1

compiled = compiler(__file__, notes.__file__)
inner = compiler(__file__, notes.__file__, inner=True)


@inner
def _run_bucket(run: int) -> int:
    bucket = 0
    while bucket < len(RUN_BUCKETS) and run >= RUN_BUCKETS[bucket]:
        bucket += 1
    return bucket


@inner
def take(state: ContextState, s: int, step: Any) -> None:
    """Advance stream `s` by one note."""
    gap, pitch = step[ONSET], step[PITCH]
    velocity, duration = step[VELOCITY], step[DURATION]
    now = state.now[s] + gap
    end = now + duration
    count = state.notes[s]
    begins = count == 0 or gap > CHORD_STEPS
    alike = 0
    for key in range(PITCHES):
        alike += state.until[s, key] == end
    ioi = 0
    if begins:
        ioi = min(now - state.group[s], LONGEST_ONSET)
        if count > 0:
            for i in range(GAP_BINS):
                state.gaps[s, i] *= np.float32(1 - GAP_SHARE)
            state.gaps[s, GAP_BIN[ioi]] += np.float32(GAP_SHARE)
        state.group[s] = now
    _remember(state, s, count, pitch, gap, velocity, duration)
    _remember_chord(state, s, pitch, begins)
    state.now[s] = now
    state.notes[s] = count + 1
    state.last[s] = pitch
    state.struck[s, pitch] = now
    state.until[s, pitch] = end
    state.order[s, pitch] = count + 1
    state.loudness[s, pitch] = np.float32(velocity + 1) / np.float32(VELOCITIES)
    gap_s = np.float32(gap) / np.float32(STEPS_PER_SECOND)
    fade = np.exp(gap_s / np.float32(-RECENT_S))
    for i in range(12):
        state.recent[s, i] *= fade
    pitch_class = (pitch + LOWEST_PITCH_CLASS) % 12
    state.recent[s, pitch_class] += np.float32(1)
    fade = np.exp(gap_s / np.float32(-RATE_S))
    state.rate[s] = state.rate[s] * fade + np.float32(1 / RATE_S)
    if state.seed_end[s] >= 0 and state.seed[s, KNOWN] == 0:
        _sum_up(state, s, pitch, velocity, duration, alike > 0, begins, ioi)
        if now >= state.seed_end[s]:
            _tell_of_seed(state, s)


@inner
def _remember(
    state: ContextState, s: int, count: int, pitch: int, gap: int, velocity: int, duration: int
) -> None:
    """Lengthen or end the runs, and find the longest two that predict different notes."""
    past, runs = state.past[s], state.runs[s]
    interval = np.int16(pitch - state.last[s]) if count > 0 else np.int16(0)
    kept = min(count, REMEMBERED_NOTES - 1)
    for i in range(4):
        row = past[i]
        for age in range(kept, 0, -1):
            row[age] = row[age - 1]
    past[0, 0], past[1, 0] = interval, gap
    past[2, 0], past[3, 0] = velocity, duration
    state.recalled[s, :] = 0
    if count < 2 or not state.remembers[s]:
        return
    intervals = past[0]
    # The first note has no interval, so a lag that leads to it matches nothing.
    lags = min(count, REMEMBERED_NOTES)
    longest = np.int16(0)
    for lag in range(1, lags):
        run = np.int16(runs[lag] + np.int16(1)) if intervals[lag] == interval else np.int16(0)
        runs[lag] = run
        longest = max(longest, run)
    if longest == 0:
        return
    first = 1
    while runs[first] != longest:
        first += 1
    state.recalled[s, 0] = first
    promised = intervals[first - 1]
    longest = np.int16(0)
    second = 0
    for lag in range(1, lags):
        if runs[lag] > longest and intervals[lag - 1] != promised:
            longest = runs[lag]
            second = lag
    state.recalled[s, 1] = second


@inner
def _remember_chord(state: ContextState, s: int, pitch: int, begins: bool) -> None:
    """Begin a chord or add a key to the last one, and find the longest runs of chords."""
    chords, runs, recalled = state.chords[s], state.chord_runs[s], state.chords_recalled[s]
    intervals, lowest, keys = chords[0], chords[1], chords[2]
    count = state.chord[s]
    if begins:
        if state.remembers[s]:
            for lag in range(1, min(count, REMEMBERED_CHORDS) - 1):
                again = intervals[lag] == intervals[0] and keys[lag] == keys[0]
                runs[lag] = np.int16(runs[lag] + np.int16(1)) if again else np.int16(0)
        for i in range(3):
            row = chords[i]
            for age in range(min(count, REMEMBERED_CHORDS - 1), 0, -1):
                row[age] = row[age - 1]
        count += 1
        state.chord[s] = count
        lowest[0], keys[0] = pitch, 1
    elif pitch < lowest[0]:
        keys[0] = _moved_up(keys[0], lowest[0] - pitch) | 1
        lowest[0] = pitch
    else:
        keys[0] |= _moved_up(1, pitch - lowest[0])
    intervals[0] = lowest[0] - lowest[1]
    recalled[:] = 0
    if not state.remembers[s]:
        return
    whole, before = 0, 0
    for lag in range(1, min(count, REMEMBERED_CHORDS) - 1):
        run = runs[lag]
        if run > before:
            before, recalled[1] = run, lag
        if run >= whole and intervals[lag] == intervals[0] and keys[lag] == keys[0]:
            whole, recalled[0] = run + 1, lag


@inner
def _moved_up(keys: int, semitones: int) -> int:
    """Return a chord's keys shifted up by some semitones, within its span."""
    if semitones >= CHORD_SPAN:
        return 0
    return (keys << semitones) & ((1 << CHORD_SPAN) - 1)


@inner
def _sum_up(
    state: ContextState,
    s: int,
    pitch: int,
    velocity: int,
    duration: int,
    shared: bool,
    begins: bool,
    ioi: int,
) -> None:
    """Add a note to the sums over the seed."""
    sums = state.sums[s]
    loud, high = velocity / VELOCITIES, pitch / PITCHES
    sums[(pitch + LOWEST_PITCH_CLASS) % 12] += 1
    sums[COUNT] += 1
    sums[LOUD] += loud
    sums[LENGTH] += np.log(max(duration, 1)) / LENGTH_SCALE
    sums[LOUD_SQUARED] += loud * loud
    sums[HIGH] += high
    sums[HIGH_SQUARED] += high * high
    sums[SHARED] += shared
    sums[CHORDS] += begins
    sums[OF_DURATION + SEED_DURATION_BIN[duration]] += 1
    if begins and sums[CHORDS] > 1:
        sums[OF_GAP + SEED_GAP_BIN[ioi]] += 1


@inner
def _tell_of_seed(state: ContextState, s: int) -> None:
    """Compute the seed's features from the sums."""
    sums, seed, told = state.sums[s], state.seed[s], state.told[s]
    count = sums[COUNT]
    seconds = max(state.seed_end[s] / STEPS_PER_SECOND, 1.0)
    harmony, pace, touch, lengths, register = told[0], told[1], told[2], told[3], told[4]
    for i in range(12):
        seed[i] = harmony * sums[i] / count
    loud, high = sums[LOUD] / count, sums[HIGH] / count
    seed[_PACE] = pace * np.log1p(count / seconds) / PACE_SCALE
    seed[_TOUCH] = touch * loud
    seed[_LENGTHS] = lengths * sums[LENGTH] / count
    seed[KNOWN] = 1
    seed[_TOUCH_SPREAD] = (
        touch * np.sqrt(max(sums[LOUD_SQUARED] / count - loud**2, 0.0)) * SPREAD_SCALE
    )
    seed[_REGISTER] = register * high
    seed[_REGISTER_SPREAD] = (
        register * np.sqrt(max(sums[HIGH_SQUARED] / count - high**2, 0.0)) * SPREAD_SCALE
    )
    seed[_SHARED] = lengths * sums[SHARED] / count
    seed[_CHORD_SIZE] = pace * count / sums[CHORDS] / CHORD_SCALE
    bins = _CHORD_SIZE + 1
    gaps = max(sums[CHORDS] - 1, 1.0)
    for i in range(SEED_BINS):
        seed[bins + i] = lengths * sums[OF_DURATION + i] / count
        seed[bins + SEED_BINS + i] = pace * sums[OF_GAP + i] / gaps
    for i in range(len(told)):
        seed[bins + 2 * SEED_BINS + i] = told[i]


@inner
def describe(state: ContextState, s: int, features: Any, classes: Any) -> None:
    """Write the context after the last note: of the step, then of its first field.

    Shapes (`STEP_FEATURES` + onsets,) and (3 * `CANDIDATES`,) or longer.
    """
    now, second = state.now[s], np.float32(STEPS_PER_SECOND)
    total = np.float32(0)
    for i in range(12):
        total += state.recent[s, i]
    features[:] = 0
    for key in range(PITCHES):
        age_s = min(np.float32(now - state.struck[s, key]) / second, np.float32(MOST_SECONDS))
        features[key] = np.exp(-age_s)
        features[PITCHES + key] = state.until[s, key] > now
        features[_LOUDNESS + key] = state.loudness[s, key] * np.exp(-age_s / np.float32(KEY_S))
    at = 2 * PITCHES
    for i in range(12):
        features[at + i] = state.recent[s, i] / total
    at += 12
    for i in range(OF_SEED):
        features[at + i] = state.seed[s, i]
    at += OF_SEED
    features[at] = np.log1p(state.rate[s]) / np.float32(PACE_SCALE)
    if state.end[s] >= 0:
        left_s = np.float32(max(state.end[s] - now, 0)) / second
        for i in range(len(END_S)):
            features[at + 1 + i] = np.exp(-left_s / END_S[i])
        features[at + 1 + len(END_S)] = 1
    at = _LOUDNESS + PITCHES
    for i in range(GAP_BINS):
        features[at + i] = state.gaps[s, i]
    at += GAP_BINS
    for i in range(OF_SEED, state.seed.shape[1]):
        features[at + i - OF_SEED] = state.seed[s, i]
    at += state.seed.shape[1] - OF_SEED
    _promise_chords(state, s, features[at : at + 2 * PITCHES])
    at += 2 * PITCHES
    for key in range(PITCHES):
        left = state.until[s, key] - now
        if 0 < left <= LONGEST_ONSET:
            features[at + ONSET_CLASSES[left]] = 1
    for i in range(CANDIDATES):
        lag = state.recalled[s, i]
        classes[i] = _recalled_pitch(state, s, lag)
        classes[CANDIDATES + 2 * i] = (
            ONSETS if lag == 0 else ONSET_CLASSES[state.past[s, 1, lag - 1]]
        )
        classes[CANDIDATES + 2 * i + 1] = _run_bucket(state.runs[s, lag]) if lag else 0


@inner
def _promise_chords(state: ContextState, s: int, features: Any) -> None:
    """Write the predicted keys of the next chord, and those missing in the last one."""
    lowest, keys, runs = state.chords[s, 1], state.chords[s, 2], state.chord_runs[s]
    lag = state.chords_recalled[s, 0]
    if lag:
        bottom = lowest[lag - 1] + lowest[0] - lowest[lag]
        strength = np.log1p(np.float32(runs[lag] + 1)) / np.float32(RUN_SCALE)
        for above in range(CHORD_SPAN):
            key = bottom + above
            if 0 <= key < PITCHES and keys[lag - 1] >> above & 1:
                features[key] = strength
    lag = state.chords_recalled[s, 1]
    if lag:
        bottom = lowest[lag] + lowest[1] - lowest[lag + 1]
        strength = np.log1p(np.float32(runs[lag])) / np.float32(RUN_SCALE)
        first = lowest[0] - bottom  # of the last chord's keys, counted from the predicted chord's
        for above in range(CHORD_SPAN):
            struck = keys[0] >> above & 1
            where = first + above
            if struck and not (0 <= where < CHORD_SPAN and keys[lag] >> where & 1):
                return
        for above in range(CHORD_SPAN):
            key, place = bottom + above, above - first
            struck = 0 <= place < CHORD_SPAN and keys[0] >> place & 1
            if 0 <= key < PITCHES and keys[lag] >> above & 1 and not struck:
                features[PITCHES + key] = strength


@inner
def _recalled_pitch(state: ContextState, s: int, lag: int) -> int:
    """Return the key that a candidate predicts; `PITCHES`: none."""
    if lag == 0:
        return PITCHES
    promised = state.last[s] + state.past[s, 0, lag - 1]
    return promised if 0 <= promised < PITCHES else PITCHES


@inner
def of_pitch(state: ContextState, s: int, onset: int, classes: Any) -> None:
    """Write the predicted keys, as other classes where they join a chord and the onset does not."""
    for i in range(CANDIDATES):
        lag = state.recalled[s, i]
        classes[2 * i] = _recalled_pitch(state, s, lag)
        classes[2 * i + 1] = 0
        if lag:
            joins = state.past[s, 1, lag - 1] <= CHORD_STEPS
            if joins == (onset <= CHORD_STEPS):
                classes[2 * i] += PITCHES + 1
            classes[2 * i + 1] = _run_bucket(state.runs[s, lag])


@inner
def of_touch(state: ContextState, s: int, pitch: int, field: int, classes: Any) -> None:
    """Write the velocity or duration of the candidates that have this key."""
    classes[0] = VELOCITIES if field == VELOCITY else DURATIONS
    classes[1] = 0
    for i in range(CANDIDATES):
        lag = state.recalled[s, i]
        if lag and _recalled_pitch(state, s, lag) == pitch:
            if field == VELOCITY:
                classes[0] = state.past[s, 2, lag - 1]
            else:
                classes[0] = DURATION_CLASSES[state.past[s, 3, lag - 1]]
            classes[1] = _run_bucket(state.runs[s, lag])
            return


@inner
def of_duration(
    state: ContextState, s: int, onset: int, features: Any, classes: Any, ends: Any
) -> None:
    """Write when the sounding notes will end, counted from an onset.

    `ends` are the steps to the last struck keys' distinct ends, 0 where there are no more, and
    `classes` the same in classes.
    """
    features[:] = 0
    ends[:] = 0
    classes[:] = DURATIONS
    now = state.now[s] + onset
    for key in range(PITCHES):
        left = state.until[s, key] - now
        if 0 < left <= LONGEST_DURATION:
            features[DURATION_CLASSES[left]] = 1
    before = state.notes[s] + 1
    found = 0
    while found < COPIES:
        latest, which = 0, -1
        for key in range(PITCHES):
            left = state.until[s, key] - now
            if 0 < left <= LONGEST_DURATION and latest < state.order[s, key] < before:
                latest, which = state.order[s, key], key
        if which < 0:
            return
        before = latest
        left = state.until[s, which] - now
        again = False
        for i in range(found):
            again |= ends[i] == left
        if not again:
            ends[found] = left
            classes[found] = DURATION_CLASSES[left]
            found += 1


@compiled
def advance(state: ContextState, steps: Any, features: Any, classes: Any) -> None:
    """Advance every stream by a note, and write the context after it."""
    for s in range(len(steps)):
        take(state, s, steps[s])
        describe(state, s, features[s], classes[s])


@compiled
def of_field(
    state: ContextState, streams: Any, chosen: Any, features: Any, classes: Any, ends: Any
) -> None:
    """Write, for some streams, the context of the first field that is not yet chosen.

    Shapes (n,), (n, 1 to 3), and (n, ...) each; `ends` as `of_duration` has them.
    """
    field = chosen.shape[1]
    for i in range(len(streams)):
        s = streams[i]
        if field == PITCH:
            of_pitch(state, s, chosen[i, ONSET], classes[i])
        else:
            of_touch(state, s, chosen[i, PITCH], field, classes[i])
        if field == DURATION:
            of_duration(state, s, chosen[i, ONSET], features[i], classes[i, 2:], ends[i])


@compiled
def skip(state: ContextState, steps: Any) -> None:
    """Advance every stream by a window of notes, (streams, window, 4)."""
    for s in range(steps.shape[0]):
        for t in range(steps.shape[1]):
            take(state, s, steps[s, t])


@compiled
def window(
    state: ContextState,
    steps: Any,
    coming: Any,
    step_size: int,
    features: Any,
    classes: Any,
    copied: Any,
) -> None:
    """Advance by a window of notes; write the context after each of them, of all fields.

    `step_size` is how many of the features stand before those of the durations.
    """
    ends = np.zeros(COPIES, np.int64)
    of_step = 3 * CANDIDATES
    for s in range(steps.shape[0]):
        for t in range(steps.shape[1]):
            take(state, s, steps[s, t])
            known, following = classes[s, t], coming[s, t]
            describe(state, s, features[s, t, :step_size], known)
            of_pitch(state, s, following[ONSET], known[of_step:])
            at = of_step + 2 * CANDIDATES
            of_touch(state, s, following[PITCH], VELOCITY, known[at:])
            of_touch(state, s, following[PITCH], DURATION, known[at + 2 :])
            of_duration(
                state, s, following[ONSET], features[s, t, step_size:], known[at + 4 :], ends
            )
            for i in range(COPIES):
                copied[s, t, i] = ends[i] == following[DURATION]
