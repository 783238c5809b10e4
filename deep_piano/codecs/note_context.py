"""The context of the `notes` codec: features of the music so far.

This module knows sequences of notes; it knows nothing of networks. `note_kernels` computes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import Beside, Known, Part, rearranged
from deep_piano.codecs.notes import (
    CANDIDATES,
    COPIES,
    DURATION,
    DURATIONS,
    END_S,
    GAP_BINS,
    OF_SEED,
    ONSET,
    ONSETS,
    PITCHES,
    REMEMBERED_CHORDS,
    REMEMBERED_NOTES,
    SEED_FEATURES,
    SEED_GROUPS,
    SEED_SECONDS,
    SEED_SUMS,
    SPEC,
    STEP_FEATURES,
    STEPS_PER_SECOND,
    Sequence,
)

_LONG_AGO: Final = -(10**9)
_BEFORE_DURATION: Final = STEP_FEATURES + ONSETS
_FEATURES: Final = sum(beside.features for beside in SPEC.context)
_OF_ONSET: Final = SPEC.columns[1]
_CLASSES: Final = sum(len(beside.classes) for beside in SPEC.context)


def _places(**sizes: int) -> dict[str, slice]:
    ends = np.cumsum(list(sizes.values())).tolist()
    return {
        name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)
    }


FEATURES: Final = _places(
    struck=PITCHES,
    sounding=PITCHES,
    recent=12,
    seed=OF_SEED,
    rate=1,
    end=len(END_S) + 1,
    loudness=PITCHES,
    gaps=GAP_BINS,
    seed_texture=SEED_FEATURES - OF_SEED,
    next_chord=PITCHES,
    rest_of_chord=PITCHES,
    ends=ONSETS,
    ends_of_duration=DURATIONS,
)
"""The columns of each kind of feature, of the step and then of the fields."""


class NoteContext:
    """Features of the music so far, for a batch of streams.

    All of them are causal. After each note, in the order of the columns:

    ====  =========================================================================
    size  feature
    ====  =========================================================================
    88    how recently each key was struck: exp(-seconds / 1)
    88    which keys still sound
    12    pitch classes of the last seconds (decaying over 8 s), as shares
    16    the seed's pitch classes, as shares; notes per second (log), mean velocity,
          mean duration (log); 1 = known (all zero until the seed has ended)
    1     notes per second of the last seconds (log, decaying over 4 s)
    4     seconds until the end: exp(-s / 2), exp(-s / 8), exp(-s / 32); 1 = known
    88    velocity of each key's last note, decaying over 4 s
    48    gaps between chords, decaying by a tenth a chord, in geometric bins
    26    the seed's spread of velocity; mean and spread of pitch; share of notes that
          end with another; notes a chord; durations and gaps in eight bins each; and
          which of harmony, pace, touch, lengths and register are given
    176   the keys that followed the longest run of chords: of the next chord if the last
          one is complete, and those missing in it: log(1 + chords in the run) / 2
    160   when each sounding note will end, counted from the last onset, in classes of
          the onset
    ====  =========================================================================

    Given the onset, the duration's head sees when each sounding note will end, in classes of the
    duration, and the classes of the last struck `COPIES` of these ends, which it may copy.

    The memory is a match model, as in data compression: it finds the earlier place with the longest
    run of the same intervals, and what followed there (the latest of equals, and the longest run
    that predicts another note). Its horizon is `REMEMBERED_NOTES`. Runs of chords, each the
    interval of its lowest key and its keys above that, match where a chord's notes come in another
    order.

    Conditioning on a pitch-class histogram and a density follows Performance RNN's conditional
    models; without it an LSTM forgets its seed.

    Parameters
    ----------
    batch : int
        Number of streams.
    """

    def __init__(self, batch: int) -> None:
        from deep_piano.codecs.note_kernels import ContextState

        def zeros(*shape: int, dtype: Any = np.int64) -> NDArray[Any]:
            return np.zeros((batch, *shape), dtype)

        single = np.float32
        self.state = ContextState(
            now=zeros(),
            notes=zeros(),
            group=zeros(),
            last=zeros(),
            struck=zeros(PITCHES) + _LONG_AGO,
            until=zeros(PITCHES) + _LONG_AGO,
            order=zeros(PITCHES),
            loudness=zeros(PITCHES, dtype=single),
            recent=zeros(12, dtype=single),
            rate=zeros(dtype=single),
            gaps=zeros(GAP_BINS, dtype=single),
            sums=zeros(SEED_SUMS, dtype=single),
            seed=zeros(SEED_FEATURES, dtype=single),
            told=zeros(SEED_GROUPS, dtype=single),
            seed_end=zeros() - 1,
            end=zeros() - 1,
            past=zeros(4, REMEMBERED_NOTES, dtype=np.int16),
            runs=zeros(REMEMBERED_NOTES, dtype=np.int16),
            recalled=zeros(CANDIDATES),
            chord=zeros(),
            chords=zeros(3, REMEMBERED_CHORDS),
            chord_runs=zeros(REMEMBERED_CHORDS, dtype=np.int16),
            chords_recalled=zeros(2),
            remembers=zeros(dtype=bool),
        )
        self._known = _part(batch, SPEC.beside, SPEC.fields[ONSET].beside)

    def arrange(self, order: Iterable[int]) -> None:
        """Keep the streams with these indices, in this order; -1 is a new one, to be started."""
        order = list(order)
        self.state = type(self.state)(*(rearranged(array, order) for array in self.state))

    def copy(self, stream: int, to: list[int]) -> None:
        """Put streams where one of them is."""
        for array in self.state:
            array[to] = array[stream]

    def start(
        self,
        slot: int,
        *,
        seed_seconds: float | None = 10.0,
        end_seconds: float | None = None,
        told: Iterable[float] = (1,) * SEED_GROUPS,
        remembers: bool = True,
    ) -> None:
        """Begin a new stream in `slot`.

        Parameters
        ----------
        slot : int
        seed_seconds : float or None
            When the seed ends, from the beginning of the stream; None: no seed features.
        end_seconds : float or None
            When the piece ends; None: unknown.
        told : iterable of float
            Whether harmony, pace, touch, lengths and register of the seed are given: 1 or 0 each.
        remembers : bool
            Whether the memory is used.
        """
        state, steps = self.state, STEPS_PER_SECOND
        for array in state:
            array[slot] = 0
        state.struck[slot] = state.until[slot] = _LONG_AGO
        state.told[slot] = list(told)
        state.remembers[slot] = remembers
        state.seed_end[slot] = -1 if seed_seconds is None else round(seed_seconds * steps)
        state.end[slot] = -1 if end_seconds is None else round(end_seconds * steps)

    def begin(self, slot: int, sequence: Sequence, rng: np.random.Generator | None = None) -> None:
        """Begin a sequence in `slot`.

        With `rng` it is for training: the seed has 3 to 15 seconds, or is missing in one of ten;
        each group of its features is missing in one of ten; in one of ten there is no memory, and
        in half the end of the piece is known. Without `rng` it is for scoring: the seed has 10
        seconds, and the end is unknown.
        """
        if rng is None:
            self.start(slot)
            return
        seed_seconds = rng.uniform(*SEED_SECONDS) if rng.random() < 0.9 else None
        onset = np.cumsum(sequence[:, ONSET])
        end = (onset + sequence[:, DURATION]).max() / STEPS_PER_SECOND
        self.start(
            slot,
            seed_seconds=seed_seconds,
            end_seconds=end if rng.random() < 0.5 else None,
            told=(rng.random(SEED_GROUPS) < 0.9).astype(float),
            remembers=rng.random() < 0.9,
        )

    def window(self, steps: Sequence, coming: Sequence) -> Known:
        """Advance by a window of notes in every stream: see `Context`."""
        from deep_piano.codecs.note_kernels import window

        shape = steps.shape[:2]
        known = Known(
            np.zeros((*shape, _FEATURES), np.float32),
            np.zeros((*shape, _CLASSES), np.int32),
            np.zeros((*shape, COPIES), bool),
        )
        window(self.state, steps, coming, _BEFORE_DURATION, *known)
        return known

    def skip(self, steps: Sequence) -> None:
        """Advance by a window of notes in every stream, without returning the context."""
        from deep_piano.codecs.note_kernels import skip

        skip(self.state, steps)

    def advance(self, steps: Sequence) -> Part:
        """Advance by one note in every stream.

        Parameters
        ----------
        steps : ndarray of int, shape (streams, 4)

        Returns
        -------
        Part
            The context after it, and of the next onset. The next call with as many streams reuses
            the arrays.
        """
        from deep_piano.codecs.note_kernels import advance

        if len(self._known.features) != len(steps):
            self._known = _part(len(steps), SPEC.beside, SPEC.fields[ONSET].beside)
        advance(self.state, steps, self._known.features, self._known.classes)
        return self._known

    def heard(self, streams: NDArray[np.int64], least: int) -> NDArray[np.int64]:
        """Return where the last notes stood before, as far as so many in a row did.

        Parameters
        ----------
        streams : ndarray of int, shape (n,)
        least : int
            The shortest run of intervals that counts.

        Returns
        -------
        ndarray of int, shape (n, 2)
            The key that followed there, moved to here, -1 for none; and how many notes ago it was.
        """
        state = self.state
        lag = state.recalled[streams, 0]
        key = state.last[streams] + state.past[streams, 0, lag - 1]
        there = (lag > 0) & (state.runs[streams, lag] >= least) & (key >= 0) & (key < PITCHES)
        return np.stack([np.where(there, key, -1), lag], 1)

    def of_field(
        self, streams: NDArray[np.int64], chosen: NDArray[np.integer[Any]]
    ) -> tuple[Part, NDArray[np.int64]]:
        """Return the context of the next note's first field that is not yet chosen.

        Parameters
        ----------
        streams : ndarray of int, shape (n,)
        chosen : ndarray of int, shape (n, 0 to 3)
            The note's onset, pitch and velocity, as far as chosen.

        Returns
        -------
        Part
        ndarray of int, shape (n, copies of the field)
            The candidates for copying, 0 for none.
        """
        from deep_piano.codecs.note_kernels import of_field

        field = SPEC.fields[chosen.shape[1]]
        if chosen.shape[1] == ONSET:
            return self._known.of(streams, _OF_ONSET), np.zeros(chosen.shape, np.int64)
        part = _part(len(streams), field.beside)
        ends = np.zeros((len(streams), field.copies), np.int64)
        of_field(self.state, streams, chosen, part.features, part.classes, ends)
        return part, ends


def with_and_without_seed(known: Part) -> Part:
    """Return each stream's context of a step twice: as it is, then as if no seed was known."""
    twice = known.repeated(2)
    for kind in ("seed", "seed_texture"):
        twice.features[1::2, FEATURES[kind]] = 0
    return twice


def _part(streams: int, *parts: Beside) -> Part:
    """Return zeros for parts of `SequenceSpec.context`."""
    features = sum(part.features for part in parts)
    classes = sum(len(part.classes) for part in parts)
    return Part(np.zeros((streams, features), np.float32), np.zeros((streams, classes), np.int32))
