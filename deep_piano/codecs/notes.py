"""The `notes` codec: one step a note.

A sequence is an integer array of shape (n, 4): onset, pitch, velocity and duration, in the order in
which a model predicts them. Onset and duration are whole steps of a grid of 10 ms; the onset is
counted from the onset of the note before. Short values have a class of their own each, long ones
share classes that grow geometrically. Pitch and velocity are classes: 88 keys, and 32 velocities of
4, as in Performance RNN (Oore et al. 2018, "This Time with Feeling", arXiv:1808.03715).

This module knows note arrays; it knows nothing of audio, files or networks. What is known beside
the notes stands in `note_context`.
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
SEED_SECONDS: Final = (3.0, 15.0)  # what seeds to train on last

_EXACT_STEPS = 128  # up to here every step of the grid has a class of its own
_GROWTH = 1.06

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
"""Shape (onset classes,): the steps that each class stands for, when it is drawn."""
DURATION_STEPS: Final = (_DURATION_EDGES[:-1] + _DURATION_EDGES[1:] - 1) // 2
"""Shape (duration classes,): the steps that each class stands for, when it is drawn."""
VALUES: Final = (ONSET_STEPS, np.arange(PITCHES), np.arange(VELOCITIES), DURATION_STEPS)
"""A field: what each class stands for, when it is drawn."""
ONSETS: Final = len(ONSET_STEPS)
DURATIONS: Final = len(DURATION_STEPS)
ONSET_CLASSES: Final = np.searchsorted(_ONSET_EDGES, np.arange(LONGEST_ONSET + 1), "right") - 1
"""Shape (`LONGEST_ONSET` + 1,): the class of each onset."""
DURATION_CLASSES: Final = (
    np.searchsorted(_DURATION_EDGES, np.maximum(1, np.arange(LONGEST_DURATION + 1)), "right") - 1
)
"""Shape (`LONGEST_DURATION` + 1,): the class of each duration; there is none of 0 steps."""


def _bins(longest: int, bins: int) -> NDArray[np.int64]:
    """Return for each number of steps its place among bins that grow geometrically."""
    steps = np.maximum(1, np.arange(longest + 1))
    return np.minimum((np.log(steps) / np.log(longest) * bins).astype(np.int64), bins - 1)


ONSET, PITCH, VELOCITY, DURATION = range(4)
CLASSES: Final = {ONSET: ONSET_CLASSES, DURATION: DURATION_CLASSES}
"""The class of each value, of the fields in which several values share one."""
LOG_WIDTHS: Final = (
    np.log(np.diff(_ONSET_EDGES)),
    np.zeros(PITCHES),
    np.zeros(VELOCITIES),
    np.log(np.diff(_DURATION_EDGES)),
)
"""A field: log of the grid cells in each class; adding it gives nats on the 10 ms grid."""

# What is known beside the notes: see `note_context`.
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
CHORD_SPAN: Final = 63  # semitones from its lowest key, in which a chord's keys are remembered
CANDIDATES: Final = 2
COPIES: Final = 4
RUN_BUCKETS: Final = (1, 2, 3, 4, 5, 7, 9, 13, 17, 33)
SEED_GROUPS: Final = 5
SEED_SUMS: Final = 20 + 2 * SEED_BINS
SEED_FEATURES: Final = 21 + 2 * SEED_BINS + SEED_GROUPS
OF_SEED: Final = 16  # of these stand among the features behind `recent`; the rest, behind `gaps`
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
    """Turn notes into a sequence.

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
    """Return the classes of a sequence's steps: what a network is asked to tell apart.

    Parameters
    ----------
    sequence : ndarray of int, shape (..., k)
        All four fields, or the first of them.

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
    """Turn a sequence into notes.

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
    """Return the notes from the one with index `start` on, which now begins at time zero."""
    found = sequence[start:].copy()
    found[:1, ONSET] = 0
    return found


def bend(sequence: Sequence, augmentation: Augmentation, rng: np.random.Generator) -> Sequence:
    """Transpose, hurry, strengthen and mishear notes by chance, as far as the keyboard reaches.

    Parameters
    ----------
    sequence : ndarray of int, shape (n, 4)
    augmentation : Augmentation
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int32, shape (n or fewer, 4)
        The notes keep their order. Transcription misses some; nothing else does.
    """
    semitones, tempo = augmentation.transpose_semitones, augmentation.tempo_range
    pitch, velocity = sequence[:, PITCH].astype(int), sequence[:, VELOCITY].astype(int)
    down, up = max(-semitones, -pitch.min()), min(semitones, PITCHES - 1 - pitch.max())
    transposed = rng.integers(down, up + 1)
    hurried = np.exp(rng.uniform(-1, 1) * np.log1p(tempo))
    louder = round(rng.uniform(-1, 1) * augmentation.velocity_range * VELOCITIES)
    # Times are summed up before they are rounded, so that the errors do not add up.
    onset = np.rint(np.cumsum(sequence[:, ONSET]) * hurried).astype(np.int64)
    offset = np.rint((np.cumsum(sequence[:, ONSET]) + sequence[:, DURATION]) * hurried)
    duration = offset.astype(np.int64) - onset  # notes that end together still do
    velocity += louder
    kept = np.ones(len(sequence), bool)
    if rng.random() < augmentation.transcription_noise:
        count = int(
            np.searchsorted(onset, onset[0] + rng.uniform(*SEED_SECONDS) * STEPS_PER_SECOND)
        )
        kept[:count] = _mishear(duration[:count], velocity[:count], rng)
    bent = np.empty((int(kept.sum()), 4), np.int32)
    bent[:, ONSET] = _within(np.diff(onset[kept], prepend=0), ONSET)
    bent[:, PITCH] = pitch[kept] + transposed
    bent[:, VELOCITY] = np.clip(velocity[kept], 0, VELOCITIES - 1)
    bent[:, DURATION] = _within(duration[kept], DURATION)
    return bent


def garble(sequence: Sequence, share: float, rng: np.random.Generator) -> Sequence:
    """Replace values by those of other notes of the piece, by chance.

    A network that has heard errors in training is led astray less by its own, which it hears
    when it composes (scheduled sampling, Bengio et al. 2015, has the network's draws instead).

    Parameters
    ----------
    sequence : ndarray of int, shape (n, 4)
    share : float
        Of the values, each field for itself.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int32, shape (n, 4)
        The first note is as it was.
    """
    garbled = np.array(sequence, np.int32)
    for field in range(garbled.shape[1]):
        wrong = rng.random(len(sequence)) < share
        wrong[:1] = False
        garbled[wrong, field] = rng.choice(sequence[:, field], int(wrong.sum()))
    return garbled


def _mishear(
    duration: NDArray[np.int64], velocity: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Change notes as `music.transcription` changes them; return which of them it hears at all.

    By 24 beginnings of held-out recordings, rendered and transcribed (docs/training.md): it
    misses 7 % of the notes and adds next to none, its onsets are right to half a step of the grid,
    its durations are shorter and scattered, and its velocities differ from recording to recording
    as much as from note to note. The first note is always heard.
    """
    badness = rng.uniform(0, 2)  # of this recording; 1 is what was measured
    stretched = np.exp(rng.normal(-0.2 * badness, 0.45 * badness, len(duration)))
    duration[:] = np.rint(duration * stretched)
    velocity += np.rint(
        rng.normal(rng.normal(0, 1.8 * badness), 1.6 * badness, len(velocity))
    ).astype(int)
    heard = rng.random(len(duration)) >= 0.07 * badness
    heard[:1] = True
    return heard
