"""The `notes` codec: one step a note, and the context that a listener has beside it.

A sequence is an integer array of shape (n, 4): onset, pitch, velocity and duration classes, in
the order in which a model predicts them. Time lies on a grid of 10 ms. The onset is counted from
the onset of the note before; short values have a class of their own each, long ones share
classes that grow geometrically. Velocity has 32 classes of 4, as in Performance RNN (Oore et al.
2018, "This Time with Feeling", arXiv:1808.03715).

This module knows note arrays; it knows nothing of audio, files or networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deep_piano.codecs.base import Augmentation, Field, SequenceSpec, rearranged
from deep_piano.notes import HIGHEST_PITCH, LOWEST_PITCH, Notes, make_notes

STEPS_PER_SECOND: Final = 100
PITCHES: Final = HIGHEST_PITCH - LOWEST_PITCH + 1
VELOCITIES: Final = 32
LONGEST_ONSET_S: Final = 8.0
LONGEST_DURATION_S: Final = 20.0
SEED_SECONDS: Final = (3.0, 15.0)  # what seeds to train on last

_EXACT_STEPS = 128  # up to here every step of the grid has a class of its own
_GROWTH = 1.06
_HEARD = ("now", "struck", "until", "recent", "rate", "seed_sums", "seed", "seed_end", "end")

Sequence = NDArray[np.int32]


def _edges(first: int, longest_s: float) -> NDArray[np.int64]:
    """Return the lower edges of the classes from `first` steps on, and the upper end, in steps."""
    edges = list(range(first, _EXACT_STEPS + 1))
    end = round(longest_s * STEPS_PER_SECOND) + 1
    while edges[-1] < end:
        edges.append(min(end, max(edges[-1] + 1, round(edges[-1] * _GROWTH))))
    return np.array(edges)


_ONSET_EDGES = _edges(0, LONGEST_ONSET_S)
_DURATION_EDGES = _edges(1, LONGEST_DURATION_S)
ONSET_STEPS: Final = (_ONSET_EDGES[:-1] + _ONSET_EDGES[1:] - 1) // 2
"""Shape (onset classes,): the steps that each class stands for, when decoded."""
DURATION_STEPS: Final = (_DURATION_EDGES[:-1] + _DURATION_EDGES[1:] - 1) // 2
"""Shape (duration classes,): the steps that each class stands for, when decoded."""

ONSET, PITCH, VELOCITY, DURATION = range(4)
LOG_WIDTHS: Final = (
    np.log(np.diff(_ONSET_EDGES)),
    np.zeros(PITCHES),
    np.zeros(VELOCITIES),
    np.log(np.diff(_DURATION_EDGES)),
)
"""A field: log of the grid cells in each class; adding it gives nats on the 10 ms grid."""


def encode(notes: Notes) -> Sequence:
    """Turn notes into a sequence.

    Onsets and durations beyond the longest class are cut to it. The first onset is counted from
    time zero.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`, sorted by onset

    Returns
    -------
    ndarray of int32, shape (n, 4)

    Examples
    --------
    >>> from deep_piano.notes import make_notes
    >>> encode(make_notes([0.0, 0.5], [1.0, 0.6], [60, 64], [80, 80])).tolist()
    [[0, 39, 20, 99], [50, 43, 20, 9]]
    """
    onset = np.rint(notes["onset"] * STEPS_PER_SECOND).astype(np.int64)
    duration = np.rint((notes["offset"] - notes["onset"]) * STEPS_PER_SECOND).astype(np.int64)
    sequence = np.empty((len(notes), 4), np.int32)
    sequence[:, ONSET] = _classes(_ONSET_EDGES, np.diff(onset, prepend=0))
    sequence[:, PITCH] = notes["pitch"].astype(np.int32) - LOWEST_PITCH
    sequence[:, VELOCITY] = notes["velocity"] // (128 // VELOCITIES)
    sequence[:, DURATION] = _classes(_DURATION_EDGES, duration)
    return sequence


def _classes(edges: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    steps = np.clip(steps, edges[0], edges[-1] - 1)
    return np.searchsorted(edges, steps, side="right") - 1


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
    onset = start_s + np.cumsum(ONSET_STEPS[sequence[:, ONSET]]) / STEPS_PER_SECOND
    duration = DURATION_STEPS[sequence[:, DURATION]] / STEPS_PER_SECOND
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
    onset = np.rint(np.cumsum(ONSET_STEPS[sequence[:, ONSET]]) * hurried).astype(np.int64)
    duration = np.rint(DURATION_STEPS[sequence[:, DURATION]] * hurried).astype(np.int64)
    velocity += louder
    kept = np.ones(len(sequence), bool)
    if rng.random() < augmentation.transcription_noise:
        count = int(
            np.searchsorted(onset, onset[0] + rng.uniform(*SEED_SECONDS) * STEPS_PER_SECOND)
        )
        kept[:count] = _mishear(duration[:count], velocity[:count], rng)
    bent = np.empty((int(kept.sum()), 4), np.int32)
    bent[:, ONSET] = _classes(_ONSET_EDGES, np.diff(onset[kept], prepend=0))
    bent[:, PITCH] = pitch[kept] + transposed
    bent[:, VELOCITY] = np.clip(velocity[kept], 0, VELOCITIES - 1)
    bent[:, DURATION] = _classes(_DURATION_EDGES, duration[kept])
    return bent


def _mishear(
    duration: NDArray[np.int64], velocity: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Change notes as `transcribe` changes them; return which of them it hears at all.

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


class NoteContext:
    """What a listener knows beside the last note, for a batch of streams.

    Features, all causal, in the order of the columns:

    ====  =========================================================================
    size  feature
    ====  =========================================================================
    88    how lately each key was struck: exp(-seconds / 1)
    88    which keys still sound
    12    pitch classes of the last seconds (decaying over 8 s), as shares
    12    pitch classes of the seed, as shares (zero until the seed has ended)
    4     the seed's notes per second (log), mean velocity, mean duration (log); 1 = known
    1     notes per second of the last seconds (log, decaying over 4 s)
    4     seconds until the end: exp(-s / 2), exp(-s / 8), exp(-s / 32); 1 = known
    ====  =========================================================================

    Conditioning on a pitch-class histogram and a density follows Performance RNN's conditional
    models; without it an LSTM forgets its seed.

    Parameters
    ----------
    batch : int
        Number of streams.
    """

    size: Final = 2 * PITCHES + 12 + 12 + 4 + 1 + 4

    def __init__(self, batch: int) -> None:
        self._now = np.zeros(batch, np.int64)
        self._struck = np.full((batch, PITCHES), -(10**9))
        self._until = np.full((batch, PITCHES), -(10**9))
        self._recent = np.zeros((batch, 12), np.float32)
        self._rate = np.zeros(batch, np.float32)
        self._seed_sums = np.zeros((batch, 12 + 3), np.float32)
        self._seed = np.zeros((batch, 12 + 4), np.float32)
        self._seed_end = np.full(batch, -1)
        self._end = np.full(batch, -1)
        self._rows = np.arange(batch)
        self._features = np.zeros((batch, self.size), np.float32)

    def arrange(self, order: Iterable[int]) -> None:
        """Keep the streams of these indices, in this order; -1 is a new one, to be started."""
        order = list(order)
        for name, array in vars(self).items():
            setattr(self, name, rearranged(array, order))
        self._rows = np.arange(len(order))

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """What the streams have heard: arrays of shape (batch, ...), by name; it may be set."""
        return {name: getattr(self, f"_{name}") for name in _HEARD}

    @state.setter
    def state(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name in _HEARD:
            setattr(self, f"_{name}", arrays[name])

    def start(
        self, slot: int, *, seed_seconds: float | None = 10.0, end_seconds: float | None = None
    ) -> None:
        """Begin a new stream in `slot`.

        Parameters
        ----------
        slot : int
        seed_seconds : float or None
            When the seed ends, from the stream's zero; None: there is no seed to be known.
        end_seconds : float or None
            When the piece ends; None: not known.
        """
        for array in (self._now, self._recent, self._rate, self._seed_sums, self._seed):
            array[slot] = 0
        self._struck[slot] = self._until[slot] = -(10**9)
        steps = STEPS_PER_SECOND
        self._seed_end[slot] = -1 if seed_seconds is None else round(seed_seconds * steps)
        self._end[slot] = -1 if end_seconds is None else round(end_seconds * steps)

    def begin(self, slot: int, sequence: Sequence, rng: np.random.Generator | None = None) -> None:
        """Begin a sequence in `slot`.

        With `rng` it is one to train on: the seed is of 3 to 15 seconds, or in one of ten there is
        none, and in half of them the end of the piece is known. Without, it is one to be scored:
        the seed is of 10 seconds, and the end is not known.
        """
        if rng is None:
            self.start(slot)
            return
        seed_seconds = rng.uniform(*SEED_SECONDS) if rng.random() < 0.9 else None
        onset = np.cumsum(ONSET_STEPS[sequence[:, ONSET]])
        end = (onset + DURATION_STEPS[sequence[:, DURATION]]).max() / STEPS_PER_SECOND
        self.start(slot, seed_seconds=seed_seconds, end_seconds=end if rng.random() < 0.5 else None)

    def window(self, steps: Sequence) -> NDArray[np.float32]:
        """Hear a window of notes in every stream.

        Parameters
        ----------
        steps : ndarray of int, shape (batch, window, 4)

        Returns
        -------
        ndarray of float32, shape (batch, window, `size`)
            The features after each note.
        """
        features = np.empty((*steps.shape[:2], self.size), np.float32)
        for step in range(steps.shape[1]):
            features[:, step] = self.advance(steps[:, step])
        return features

    def skip(self, steps: Sequence) -> None:
        """Hear a window of notes; nobody asks for the features."""
        for step in range(steps.shape[1]):
            self.advance(steps[:, step])

    def advance(self, steps: Sequence) -> NDArray[np.float32]:
        """Hear one note in every stream.

        Parameters
        ----------
        steps : ndarray of int, shape (batch, 4)

        Returns
        -------
        ndarray of float32, shape (batch, `size`)
            The features after that note. The array is reused by the next call.
        """
        rows, pitch = self._rows, steps[:, PITCH]
        gap = ONSET_STEPS[steps[:, ONSET]]
        duration = DURATION_STEPS[steps[:, DURATION]]
        self._now += gap
        now = self._now
        self._struck[rows, pitch] = now
        self._until[rows, pitch] = now + duration
        gap_s = gap.astype(np.float32) / STEPS_PER_SECOND
        self._recent *= np.exp(gap_s / -8)[:, None]
        self._recent[rows, (pitch + LOWEST_PITCH) % 12] += 1
        self._rate = self._rate * np.exp(gap_s / -4) + np.float32(1 / 4)
        self._hear_seed(steps, duration)

        out = self._features
        age_s = (now[:, None] - self._struck).astype(np.float32) / STEPS_PER_SECOND
        out[:, :88] = np.exp(-np.minimum(age_s, 30))
        out[:, 88:176] = self._until > now[:, None]
        out[:, 176:188] = self._recent / self._recent.sum(1, keepdims=True)
        out[:, 188:204] = self._seed
        out[:, 204] = np.log1p(self._rate) / 3
        left_s = np.maximum(self._end - now, 0).astype(np.float32) / STEPS_PER_SECOND
        known = self._end >= 0
        for column, scale_s in zip((205, 206, 207), (2, 8, 32), strict=True):
            out[:, column] = np.exp(-left_s / scale_s) * known
        out[:, 208] = known
        return out

    def _hear_seed(self, steps: Sequence, duration: NDArray[np.int64]) -> None:
        hearing = (self._seed_end >= 0) & (self._seed[:, -1] == 0)
        if not hearing.any():
            return
        rows = self._rows[hearing]
        sums = self._seed_sums
        sums[rows, (steps[rows, PITCH] + LOWEST_PITCH) % 12] += 1
        sums[rows, 12] += 1
        sums[rows, 13] += steps[rows, VELOCITY] / VELOCITIES
        sums[rows, 14] += np.log(duration[rows]) / 8
        for slot in rows[self._now[rows] >= self._seed_end[rows]]:
            count = sums[slot, 12]
            seconds = max(self._seed_end[slot] / STEPS_PER_SECOND, 1.0)
            self._seed[slot, :12] = sums[slot, :12] / count
            self._seed[slot, 12] = np.log1p(count / seconds) / 3
            self._seed[slot, 13:15] = sums[slot, 13:15] / count
            self._seed[slot, 15] = 1


SPEC: Final = SequenceSpec(
    codec="notes-1",
    fields=(
        Field("onset", len(ONSET_STEPS)),
        Field("pitch", PITCHES),
        Field("velocity", VELOCITIES),
        Field("duration", len(DURATION_STEPS)),
    ),
    context_size=NoteContext.size,
)
