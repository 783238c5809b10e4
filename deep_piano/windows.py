"""Recordings become batches of windows: the last N steps and, for each, the next one.

Every slot of a batch plays one recording from its start to its end, window after window, so that
a recurrent network can carry its state from one window to the next (truncated backpropagation
through time). This module knows sequences and their context; it knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.notes import NoteContext, encode
from deep_piano.notes import HIGHEST_PITCH, LOWEST_PITCH, Notes


@dataclass(frozen=True)
class Batch:
    """One window in every slot.

    Attributes
    ----------
    steps : ndarray of int32, shape (batch, window, fields)
        What has been heard.
    context : ndarray of float32, shape (batch, window, context_size)
        What is known beside it, after each step.
    targets : ndarray of int32, shape (batch, window, fields)
        The step after each step.
    weights : ndarray of float32, shape (batch, window)
        1 where there is a target, 0 behind a recording's end.
    keep : ndarray of float32, shape (batch,)
        0 where a new recording begins, so that the carried state must be dropped.
    """

    steps: NDArray[np.int32]
    context: NDArray[np.float32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    keep: NDArray[np.float32]


@dataclass(frozen=True)
class Augmentation:
    """How far a recording may be bent each time it is played.

    Attributes
    ----------
    transpose_semitones : int
        Up or down at most, as far as the keyboard reaches.
    tempo_range : float
        0.1: from a tenth slower to a tenth faster.
    """

    transpose_semitones: int = 6
    tempo_range: float = 0.1

    def apply(self, notes: Notes, rng: np.random.Generator) -> Notes:
        """Return a bent copy."""
        notes = notes.copy()
        lowest, highest = int(notes["pitch"].min()), int(notes["pitch"].max())
        down = max(-self.transpose_semitones, LOWEST_PITCH - lowest)
        up = min(self.transpose_semitones, HIGHEST_PITCH - highest)
        notes["pitch"] = notes["pitch"] + rng.integers(down, up + 1)
        tempo = np.exp(rng.uniform(-1, 1) * np.log1p(self.tempo_range))
        notes["onset"] *= tempo
        notes["offset"] *= tempo
        return notes


def training_batches(
    recordings: list[Notes],
    *,
    batch: int,
    window: int,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Yield batches without end; each recording is played once before any is played again.

    Half of the recordings begin somewhere in their first half, since seeds do too. The seed's
    length varies, and in half of them the end of the piece is not known.
    """

    def playlist() -> Iterator[_Stream]:
        while True:
            for index in rng.permutation(len(recordings)):
                notes = augmentation.apply(recordings[index], rng)
                if rng.random() < 0.5:
                    notes = notes[rng.integers(0, len(notes) // 2) :]
                seed_seconds = rng.uniform(3, 15) if rng.random() < 0.9 else None
                yield _Stream.of(notes, seed_seconds, ends=rng.random() < 0.5)

    return _ahead(_batches(playlist(), batch, window))


def validation_batches(
    recordings: list[Notes], *, batch: int, window: int, seed_seconds: float = 10.0
) -> Iterator[Batch]:
    """Yield batches that play every recording once, as it is, its end unknown."""
    longest_first = sorted(recordings, key=len, reverse=True)
    return _batches(
        (_Stream.of(notes, seed_seconds, ends=False) for notes in longest_first), batch, window
    )


@dataclass
class _Stream:
    sequence: NDArray[np.int32]
    seed_seconds: float | None
    end_seconds: float | None
    position: int = 0

    @classmethod
    def of(cls, notes: Notes, seed_seconds: float | None, *, ends: bool) -> _Stream:
        notes = notes.copy()
        start = notes["onset"][0]
        notes["onset"] -= start
        notes["offset"] -= start
        end = float(notes["offset"].max()) if ends else None
        return cls(encode(notes), seed_seconds, end)


def _batches(playlist: Iterator[_Stream], batch: int, window: int) -> Iterator[Batch]:
    slots: list[_Stream | None] = [None] * batch
    context = NoteContext(batch)
    while True:
        steps = np.zeros((batch, window, 4), np.int32)
        targets = np.zeros((batch, window, 4), np.int32)
        weights = np.zeros((batch, window), np.float32)
        keep = np.ones(batch, np.float32)
        for slot in range(batch):
            stream = slots[slot]
            if stream is None or stream.position + 1 >= len(stream.sequence):
                stream = slots[slot] = next(playlist, None)
                keep[slot] = 0
                if stream is None:
                    continue
                context.start(
                    slot, seed_seconds=stream.seed_seconds, end_seconds=stream.end_seconds
                )
            piece = stream.sequence[stream.position : stream.position + window + 1]
            length = len(piece) - 1
            steps[slot, :length], targets[slot, :length] = piece[:-1], piece[1:]
            weights[slot, :length] = 1
            stream.position += length
        if not weights.any():
            return
        features = np.empty((batch, window, NoteContext.size), np.float32)
        for step in range(window):
            features[:, step] = context.advance(steps[:, step])
        yield Batch(steps, features, targets, weights, keep)


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Prepare the next batch while this one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch
