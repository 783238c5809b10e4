"""The `notes` codec: one step a note.

A sequence is an integer array of shape (n, 4): onset, pitch, velocity and duration, in the order in
which a model predicts them. Onset and duration are whole steps of a grid of 10 ms; the onset is
counted from the onset of the note before. Each short value is a class of its own; long ones share
classes that grow geometrically. Pitch and velocity are classes: 88 keys, and 32 bins of 4
velocities, as in Performance RNN (Oore et al. 2018, "This Time with Feeling", arXiv:1808.03715).

This module knows note arrays; it knows nothing of audio, files or networks. `note_context` has the
context of the notes.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deep_piano.codecs.base import Augmentation, Beside, Field, SequenceSpec
from deep_piano.music.notes import HIGHEST_PITCH, LOWEST_PITCH, Notes, make_notes

STEPS_PER_SECOND: Final = 100
PITCHES: Final = HIGHEST_PITCH - LOWEST_PITCH + 1
VELOCITIES: Final = 32
LONGEST_ONSET: Final = 800
LONGEST_DURATION: Final = 2000
"""In steps; longer ones are cut."""
SEED_SECONDS: Final = (3.0, 15.0)  # lengths of seeds in training

_EXACT_STEPS = 128  # up to here every step of the grid has its own class
_GROWTH = 1.06
_STRAY_STEPS = 3.0  # of a note that comes a little early or late: their standard deviation

Sequence = NDArray[np.int32]


def _edges(first: int, longest: int) -> NDArray[np.int64]:
    """Return the lower edges of the classes from `first` steps on, and the upper end, in steps."""
    edges = list(range(first, _EXACT_STEPS + 1))
    while edges[-1] < longest + 1:
        edges.append(min(longest + 1, max(edges[-1] + 1, round(edges[-1] * _GROWTH))))
    return np.array(edges)


_ONSET_EDGES = _edges(0, LONGEST_ONSET)
_DURATION_EDGES = _edges(1, LONGEST_DURATION)
ONSET_STEPS: Final = (_ONSET_EDGES[:-1] + _ONSET_EDGES[1:] - 1) // 2
"""Shape (onset classes,): the steps that each class decodes to."""
DURATION_STEPS: Final = (_DURATION_EDGES[:-1] + _DURATION_EDGES[1:] - 1) // 2
"""Shape (duration classes,): the steps that each class decodes to."""
VALUES: Final = (ONSET_STEPS, np.arange(PITCHES), np.arange(VELOCITIES), DURATION_STEPS)
"""By field: the value that each class decodes to."""
ONSETS: Final = len(ONSET_STEPS)
DURATIONS: Final = len(DURATION_STEPS)
ONSET_CLASSES: Final = np.searchsorted(_ONSET_EDGES, np.arange(LONGEST_ONSET + 1), "right") - 1
"""Shape (`LONGEST_ONSET` + 1,): the class of each onset."""
DURATION_CLASSES: Final = (
    np.searchsorted(_DURATION_EDGES, np.maximum(1, np.arange(LONGEST_DURATION + 1)), "right") - 1
)
"""Shape (`LONGEST_DURATION` + 1,): the class of each duration; there is none of 0 steps."""


def fading(seconds: float) -> NDArray[np.float64]:
    """Return what each onset, in steps, leaves of what fades to a share of 1/e in so many seconds.

    Returns
    -------
    ndarray of float64, shape (LONGEST_ONSET + 1,)
    """
    return np.exp(-np.arange(LONGEST_ONSET + 1) / (seconds * STEPS_PER_SECOND))


def _bins(longest: int, bins: int) -> NDArray[np.int64]:
    """Return for each number of steps its place among bins that grow geometrically."""
    steps = np.maximum(1, np.arange(longest + 1))
    return np.minimum((np.log(steps) / np.log(longest) * bins).astype(np.int64), bins - 1)


ONSET, PITCH, VELOCITY, DURATION = range(4)
CLASSES: Final = {ONSET: ONSET_CLASSES, DURATION: DURATION_CLASSES}
"""The class of each value, for the fields in which values share classes."""
LOG_WIDTHS: Final = (
    np.log(np.diff(_ONSET_EDGES)),
    np.zeros(PITCHES),
    np.zeros(VELOCITIES),
    np.log(np.diff(_DURATION_EDGES)),
)
"""By field: log of the grid cells in each class; adding it gives nats on the 10 ms grid."""

# The context of the notes: see `note_context`.
LOWEST_PITCH_CLASS: Final = LOWEST_PITCH % 12
CHORD_STEPS: Final = 3  # notes this close belong to one chord
MOST_SECONDS, KEY_S, RECENT_S, RATE_S = 30.0, 4.0, 8.0, 4.0
END_S: Final = (2.0, 8.0, 32.0)
LENGTH_SCALE, PACE_SCALE, SPREAD_SCALE, CHORD_SCALE, RUN_SCALE = 8, 3, 4, 4, 2  # to about 0 to 1
GAP_BINS, GAP_SHARE = 48, 0.1
GAP_BIN: Final = _bins(LONGEST_ONSET, GAP_BINS)
SEED_BINS: Final = 8
SEED_GAP_BIN: Final = _bins(LONGEST_ONSET, SEED_BINS)
SEED_DURATION_BIN: Final = _bins(LONGEST_DURATION, SEED_BINS)
"""Shape (steps,): where gaps between chords and durations are counted."""
REMEMBERED_NOTES: Final = 4096
REMEMBERED_CHORDS: Final = 2048
CHORD_SPAN: Final = 63  # semitones above its lowest key that the memory keeps of a chord
CANDIDATES: Final = 2
COPIES: Final = 4
RUN_BUCKETS: Final = (1, 2, 3, 4, 5, 7, 9, 13, 17, 33)
SEED_GROUPS: Final = 5
SEED_SUMS: Final = 20 + 2 * SEED_BINS
SEED_FEATURES: Final = 21 + 2 * SEED_BINS + SEED_GROUPS
OF_SEED: Final = 16  # of these come after `recent` among the features, the others after `gaps`
STEP_FEATURES: Final = 5 * PITCHES + 12 + 1 + len(END_S) + 1 + GAP_BINS + SEED_FEATURES
_RUNS = len(RUN_BUCKETS) + 1

SPEC: Final = SequenceSpec(
    codec="notes-2",
    fields=(
        Field(
            "onset",
            ONSETS,
            longest=LONGEST_ONSET,
            beside=Beside(ONSETS, (ONSETS + 1, _RUNS) * CANDIDATES),
        ),
        Field("pitch", PITCHES, beside=Beside(0, (2 * (PITCHES + 1), _RUNS) * CANDIDATES)),
        Field("velocity", VELOCITIES, beside=Beside(0, (VELOCITIES + 1, _RUNS))),
        Field(
            "duration",
            DURATIONS,
            longest=LONGEST_DURATION,
            beside=Beside(DURATIONS, (DURATIONS + 1, _RUNS, *[DURATIONS + 1] * COPIES)),
            copies=COPIES,
        ),
    ),
    beside=Beside(STEP_FEATURES, (PITCHES + 1,) * CANDIDATES),
)


def encode(notes: Notes) -> Sequence:
    """Encode notes as a sequence.

    Onsets and durations beyond the longest are cut to it. The first onset is counted from time
    zero.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`, sorted by onset

    Returns
    -------
    ndarray of int32, shape (n, 4)

    Examples
    --------
    >>> from deep_piano.music.notes import make_notes
    >>> encode(make_notes([0.0, 0.5], [1.0, 0.6], [60, 64], [80, 80])).tolist()
    [[0, 39, 20, 100], [50, 43, 20, 10]]
    """
    onset = np.rint(notes["onset"] * STEPS_PER_SECOND).astype(np.int64)
    duration = np.rint((notes["offset"] - notes["onset"]) * STEPS_PER_SECOND).astype(np.int64)
    sequence = np.empty((len(notes), 4), np.int32)
    sequence[:, ONSET] = _within(np.diff(onset, prepend=0), ONSET)
    sequence[:, PITCH] = notes["pitch"].astype(np.int32) - LOWEST_PITCH
    sequence[:, VELOCITY] = notes["velocity"] // (128 // VELOCITIES)
    sequence[:, DURATION] = _within(duration, DURATION)
    return sequence


def _within(steps: NDArray[np.int64], field: int) -> NDArray[np.int64]:
    least, most = (0, LONGEST_ONSET) if field == ONSET else (1, LONGEST_DURATION)
    return np.clip(steps, least, most)


def classes(sequence: Sequence) -> Sequence:
    """Return the classes of a sequence's steps, which a network predicts.

    Parameters
    ----------
    sequence : ndarray of int, shape (..., k)
        All four fields, or the first k.

    Returns
    -------
    ndarray of int32, shape (..., k)
    """
    found = np.array(sequence, np.int32)
    for field, table in CLASSES.items():
        if field < found.shape[-1]:
            found[..., field] = table[found[..., field]]
    return found


def decode(sequence: Sequence, *, start_s: float = 0.0) -> Notes:
    """Decode a sequence to notes.

    Parameters
    ----------
    sequence : ndarray of int, shape (n, 4)
    start_s : float
        The time in seconds from which the first onset is counted.

    Returns
    -------
    ndarray, dtype `NOTE`
    """
    onset = start_s + np.cumsum(sequence[:, ONSET]) / STEPS_PER_SECOND
    duration = sequence[:, DURATION] / STEPS_PER_SECOND
    velocity = velocity_of(sequence[:, VELOCITY])
    return make_notes(onset, onset + duration, sequence[:, PITCH] + LOWEST_PITCH, velocity)


def velocity_of(classes: ArrayLike) -> NDArray[np.int64]:
    """Return the MIDI velocity in the middle of each velocity class."""
    width = 128 // VELOCITIES
    return np.asarray(classes, np.int64) * width + width // 2


def excerpt(sequence: Sequence, start: int) -> Sequence:
    """Return the notes from index `start` on, the first at time zero."""
    found = sequence[start:].copy()
    found[:1, ONSET] = 0
    return found


def bend(sequence: Sequence, augmentation: Augmentation, rng: np.random.Generator) -> Sequence:
    """Change key, tempo and velocity at random, and add the errors of a transcription.

    Parameters
    ----------
    sequence : ndarray of int, shape (n, 4)
    augmentation : Augmentation
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int32, shape (n or fewer, 4)
        The notes keep their order. Only the errors of a transcription remove notes.
    """
    semitones, tempo = augmentation.transpose_semitones, augmentation.tempo_range
    pitch, velocity = sequence[:, PITCH].astype(int), sequence[:, VELOCITY].astype(int)
    down, up = max(-semitones, -pitch.min()), min(semitones, PITCHES - 1 - pitch.max())
    transposed = rng.integers(down, up + 1)
    stretch = np.exp(rng.uniform(-1, 1) * np.log1p(tempo))
    louder = round(rng.uniform(-1, 1) * augmentation.velocity_range * VELOCITIES)
    # Times are summed before rounding, so that rounding errors do not accumulate.
    onset = np.rint(np.cumsum(sequence[:, ONSET]) * stretch).astype(np.int64)
    offset = np.rint((np.cumsum(sequence[:, ONSET]) + sequence[:, DURATION]) * stretch)
    duration = offset.astype(np.int64) - onset  # notes that end together still do
    velocity += louder
    kept = np.ones(len(sequence), bool)
    if rng.random() < augmentation.transcription_noise:
        count = int(
            np.searchsorted(onset, onset[0] + rng.uniform(*SEED_SECONDS) * STEPS_PER_SECOND)
        )
        kept[:count] = _transcription_errors(duration[:count], velocity[:count], rng)
    bent = np.empty((int(kept.sum()), 4), np.int32)
    bent[:, ONSET] = _within(np.diff(onset[kept], prepend=0), ONSET)
    bent[:, PITCH] = pitch[kept] + transposed
    bent[:, VELOCITY] = np.clip(velocity[kept], 0, VELOCITIES - 1)
    bent[:, DURATION] = _within(duration[kept], DURATION)
    return bent


def garble(sequence: Sequence, share: float, rng: np.random.Generator) -> tuple[Sequence, Sequence]:
    """Put errors into the input of a network, and say what is then right.

    Errors in the training input make a network more robust to its own errors in closed loop.
    Scheduled sampling (Bengio et al. 2015) uses the network's own draws instead.

    A pitch, a velocity or a duration is replaced by that of another note. A note that comes at a
    wrong time comes between its neighbours, which stay where they are, as does its end: a network
    whose input was shifted from there on would learn that after an error the beat is another. It
    joins no chord that it did not belong to, and the inner notes of one stay.

    Parameters
    ----------
    sequence : ndarray of int, shape (n, 4)
    share : float
        Of the values of each field; fewer onsets move, as not every note has room to.
    rng : numpy.random.Generator

    Returns
    -------
    garbled : ndarray of int32, shape (n, 4)
        The input. The first note is unchanged.
    targets : ndarray of int32, shape (n, 4)
        The sequence, its onsets counted from the notes of the input.
    """
    garbled, targets = np.array(sequence, np.int32), np.array(sequence, np.int32)
    for field in (PITCH, VELOCITY, DURATION):
        wrong = _some(len(sequence), share, rng)
        garbled[wrong, field] = rng.choice(sequence[:, field], int(wrong.sum()))
    right = np.cumsum(sequence[:, ONSET], dtype=np.int64)
    onset = _astray(sequence[:, ONSET], right, _some(len(sequence), share, rng), rng)
    garbled[:, ONSET] = _within(np.diff(onset, prepend=0), ONSET)
    targets[1:, ONSET] = _within(right[1:] - onset[:-1], ONSET)
    same = garbled[:, DURATION] == sequence[:, DURATION]
    garbled[same, DURATION] = _within(garbled[same, DURATION] + (right - onset)[same], DURATION)
    return garbled, targets


def _some(count: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    chosen = rng.random(count) < share
    chosen[:1] = False
    return chosen


def _astray(
    gap: NDArray[np.int32],
    right: NDArray[np.int64],
    wrong: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return onsets, of which some are wrong: by little, or after another note's gap.

    All stay between the onsets beside them, and apart from those that they were apart from; the
    last is right.
    """
    onset = right.copy()
    for place in np.flatnonzero(wrong[:-1]).tolist():
        before, after = onset[place - 1], right[place + 1]
        earliest, latest = before + (gap[place] > 0), after - (gap[place + 1] > 0)
        if rng.random() < 0.5:
            astray = right[place] + round(rng.normal(0, _STRAY_STEPS))
        else:
            astray = before + rng.choice(gap)
        onset[place] = min(max(astray, earliest), latest)
    return onset


def _transcription_errors(
    duration: NDArray[np.int64], velocity: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Change durations and velocities as `music.transcription` does; return which notes it finds.

    Measured on the beginnings of 24 held-out recordings, rendered and transcribed
    (docs/training.md): it misses 7 % of the notes and adds almost none; its onsets are right to
    half a step of the grid; its durations are shorter and scattered; its velocities differ from
    recording to recording as much as from note to note. The first note is always found.
    """
    badness = rng.uniform(0, 2)  # of this recording; 1 is the measured mean
    stretched = np.exp(rng.normal(-0.2 * badness, 0.45 * badness, len(duration)))
    duration[:] = np.rint(duration * stretched)
    velocity += np.rint(
        rng.normal(rng.normal(0, 1.8 * badness), 1.6 * badness, len(velocity))
    ).astype(int)
    found = rng.random(len(duration)) >= 0.07 * badness
    found[:1] = True
    return found
