"""Recordings become batches of windows: the last N steps and, for each, the next one.

Every slot of a batch plays one recording from its start to its end, window after window, so that
a recurrent network can carry its state from one window to the next (truncated backpropagation
through time). What a slot plays depends on the dataset, the settings and the random state only:
the batch of any update can be made without a record of earlier ones, and slots may be divided
among any number of workers. This module knows sequences and their context; it knows nothing of
networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import Augmentation, Context, Known, SequenceSpec
from deep_piano.codecs.registry import Codec
from deep_piano.config.sections import TrainConfig
from deep_piano.dataset.reader import Dataset, RowGroup
from deep_piano.errors import InputError, one_line

_FROM_THE_MIDDLE = 0.5  # share of plays: seeds come from anywhere in a piece
_GARBLED = 0.5  # share of plays whose input has noise


@dataclass(frozen=True)
class Batch:
    """One window in every slot.

    Attributes
    ----------
    steps : ndarray of int32, or of float32 where a field is continuous; (batch, window, fields)
        The input, in classes.
    known : Known, of shape (batch, window, columns)
        The context: after each step, and for each field given the fields before it.
    targets : ndarray of the dtype of `steps`, shape (batch, window, fields)
        The step after each step, in classes.
    weights : ndarray of float32, shape (batch, window)
        1 where there is a target, 0 after a recording's end and where the target is given.
    keep : ndarray of float32, shape (batch,)
        0 where the carried state must be reset: a new recording, or overlapping windows.
    """

    steps: NDArray[Any]
    known: Known
    targets: NDArray[Any]
    weights: NDArray[np.float32]
    keep: NDArray[np.float32]

    @property
    def inputs(self) -> list[NDArray[Any]]:
        """The inputs of a model from `build_model`: steps, then context and targets if any."""
        more = [array for array in (self.known.features, self.known.classes) if array.shape[-1]]
        more += [self.targets] if self.targets.shape[-1] > 1 else []
        return [self.steps, *more]


@dataclass
class _Stream:
    """A recording being played; `position` is the first step of its next window.

    The input may have noise; the sequence has the targets.
    """

    sequence: NDArray[Any]
    input: NDArray[Any]
    rng: np.random.Generator | None
    length: int  # as planned: augmentation may have shortened the sequence
    position: int = 0
    place: int = -1  # among the sequences to be scored
    given: int = 1  # first steps, which are not targets

    @property
    def ended(self) -> bool:
        return self.position + 1 >= self.length


class _Slot:
    """One slot of the global batch: an endless series of recordings.

    In each epoch the row groups are shuffled and divided among the slots, and each slot shuffles
    its recordings. Where there are fewer row groups than slots, slots share them.
    """

    def __init__(self, dataset: Dataset, groups: list[RowGroup], slot: int, settings: TrainConfig):
        self._dataset, self._groups = dataset, groups
        self._slot, self._settings = slot, settings
        self._hop = settings.hop or settings.window
        self._recordings = self._order()
        self._held: dict[tuple[RowGroup, int], NDArray[Any]] = {}
        self._plays = 0
        self._begin()

    def _order(self) -> Iterator[tuple[RowGroup, int, list[int]]]:
        """Yield recordings, as a row group and a row, and the rows still to come of the group."""
        slots, state = self._settings.batch, self._settings.random_state
        parts = -(-slots // len(self._groups))
        for epoch in count():
            order = np.random.default_rng([state, 0, epoch]).permutation(len(self._groups) * parts)
            for place in order[self._slot :: slots]:
                part, index = divmod(int(place), len(self._groups))
                group = self._groups[index]
                rng = np.random.default_rng([state, 1, epoch, index])
                rows = rng.permutation(group.recordings)[part::parts].tolist()
                for done, row in enumerate(rows):
                    yield group, row, rows[done:]

    def _begin(self) -> None:
        """Go to the next recording that has a window, without reading it."""
        while True:
            self._group, self._row, self._coming = next(self._recordings)
            random_state = [self._settings.random_state, 2, self._slot, self._plays]
            self._rng = np.random.default_rng(random_state)
            self._plays += 1
            length = self._dataset.lengths(self._group)[self._row]
            in_the_middle = length > 2 and self._rng.random() < _FROM_THE_MIDDLE
            self._start = int(self._rng.integers(0, length // 2)) if in_the_middle else 0
            self._windows = -(-(length - self._start - 1) // self._hop)
            if self._windows > 0:
                return

    def skip(self, windows: int) -> _Stream:
        """Return the stream after so many windows, without reading earlier ones."""
        while windows >= self._windows:
            windows -= self._windows
            self._begin()
        stream = self._stream()
        stream.position = windows * self._hop
        return stream

    def next(self) -> _Stream:
        """Return the next stream."""
        self._begin()
        return self._stream()

    def _stream(self) -> _Stream:
        if (self._group, self._row) not in self._held:
            rows = self._dataset.rows(self._group)
            self._held = {(self._group, row): rows[row].sequence for row in self._coming}
        sequence = self._held.pop((self._group, self._row))
        codec, settings = self._dataset.codec, self._settings
        augmentation = Augmentation(
            settings.transpose_semitones,
            settings.tempo_range,
            settings.velocity_range,
            settings.transcription_noise,
        )
        bent = codec.bend(codec.excerpt(sequence, self._start), augmentation, self._rng)
        noisy = targets = bent
        if settings.input_noise > 0 and self._rng.random() < _GARBLED:
            noisy, targets = codec.garble(bent, settings.input_noise, self._rng)
        return _Stream(targets, noisy, self._rng, len(sequence) - self._start)


@contextmanager
def training_batches(
    dataset: Dataset,
    settings: TrainConfig,
    *,
    step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    context: Callable[[int], Context] | None = None,
) -> Iterator[Iterator[Batch]]:
    """Yield an endless iterator of a worker's batches from an update on, prepared one ahead.

    Parameters
    ----------
    dataset : Dataset
    settings : TrainConfig
        Half of the plays begin somewhere in the first half of a recording, as seeds do.
    step : int
        Updates already made; their batches are skipped without being read.
    rank, world_size : int
        This worker's share is the slots ``rank::world_size``, and with them, where there are as
        many row groups as slots, the shuffled row groups ``rank::world_size``. `world_size` divides
        `settings.batch`.
    context : callable, optional
        Returns the `Context` of a number of streams; the codec's by default.

    Raises
    ------
    InputError
        When the dataset holds no recording to train on.
    """
    groups = dataset.require("train")
    if not any(group.steps > group.recordings for group in groups):
        raise InputError(
            f"no recording to train on in {one_line(dataset.folder.uri)} has more than one step. "
            "Prepare longer ones."
        )
    places = range(rank, settings.batch, world_size)
    slots = [_Slot(dataset, groups, place, settings) for place in places]
    windows = _Windows(
        dataset.codec,
        len(slots),
        settings.window,
        settings.hop or settings.window,
        lambda slot: slots[slot].next(),
        context or dataset.codec.context,
    )
    windows.resume([slot.skip(step) for slot in slots])
    with ThreadPoolExecutor(1, thread_name_prefix="windows") as pool:
        coming = pool.submit(next, windows)

        def ahead() -> Iterator[Batch]:
            nonlocal coming
            while True:
                batch = coming.result()
                coming = pool.submit(next, windows)
                yield batch

        yield ahead()


def held_out_batches(
    sequences: Sequence[NDArray[Any]],
    codec: Codec,
    *,
    batch: int,
    window: int,
    context: Callable[[int], Context] | None = None,
    given: int = 1,
) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
    """Yield batches that play every sequence once, without augmentation.

    With each batch comes the index of the sequence in each slot, -1 for none. The first `given`
    steps of a sequence have no weight as targets.
    """
    longest_first = iter(np.argsort([-len(sequence) for sequence in sequences], kind="stable"))

    def following(slot: int) -> _Stream | None:
        place = next(longest_first, None)
        if place is None:
            return None
        sequence = codec.excerpt(sequences[place], 0)
        return _Stream(sequence, sequence, None, len(sequence), place=int(place), given=given)

    windows = _Windows(codec, batch, window, window, following, context or codec.context)
    for window_batch in windows:
        places = [stream.place if stream else -1 for stream in windows.streams]
        yield window_batch, np.array(places)


class _Windows:
    """Cuts the streams of all slots into batches of windows."""

    def __init__(
        self,
        codec: Codec,
        batch: int,
        window: int,
        hop: int,
        following: Callable[[int], _Stream | None],
        context: Callable[[int], Context],
    ) -> None:
        self._codec, self._window, self._hop = codec, window, hop
        self._following = following
        self._context = context(batch)
        self.streams: list[_Stream | None] = [None] * batch

    def resume(self, streams: list[_Stream]) -> None:
        """Resume within streams: rebuild their context from their beginnings."""
        self.streams = list(streams)
        longest = max(stream.position for stream in streams)
        steps = self._empty(longest)
        begins: dict[int, list[int]] = {}
        for slot, stream in enumerate(streams):
            if stream.position:
                begin = longest - stream.position  # all arrive at their places together
                before = stream.input[:-1][: stream.position]  # the last one is a target only
                steps[slot, begin : begin + len(before)] = before
                begins.setdefault(begin, []).append(slot)
        edges = [*sorted(begins), longest]
        for begin, end in pairwise(edges):
            for slot in begins[begin]:
                self._context.begin(slot, streams[slot].input, streams[slot].rng)
            self._context.skip(steps[:, begin:end])

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        window, hop = self._window, self._hop
        steps, targets = self._empty(window), self._empty(window)
        weights = np.zeros(steps.shape[:2], np.float32)
        keep = np.full(len(steps), float(hop == window), np.float32)
        for slot, stream in enumerate(self.streams):
            if stream is None or stream.ended:
                stream = self.streams[slot] = self._following(slot)
                if stream is None:
                    keep[slot] = 0
                    continue
            if stream.position == 0:
                keep[slot] = 0
                self._context.begin(slot, stream.input, stream.rng)
            coming = stream.sequence[stream.position + 1 : stream.position + window + 1]
            length = len(coming)
            steps[slot, :length] = stream.input[stream.position : stream.position + length]
            targets[slot, :length] = coming
            weights[slot, max(0, stream.given - 1 - stream.position) : length] = 1
            stream.position += hop
        if all(stream is None for stream in self.streams):
            raise StopIteration
        known, classes = self._known(steps, targets), self._codec.classes
        return Batch(classes(steps), known, classes(targets), weights, keep)

    def _known(self, steps: NDArray[Any], targets: NDArray[Any]) -> Known:
        """Return the context of a window, and advance by a hop."""
        hop = self._hop
        first = self._context.window(steps[:, :hop], targets[:, :hop])
        if hop == self._window:
            return first
        ahead = copy.deepcopy(self._context)  # later windows begin with these steps
        rest = ahead.window(steps[:, hop:], targets[:, hop:])
        return Known(*(np.concatenate(both, axis=1) for both in zip(first, rest, strict=True)))

    def _empty(self, length: int) -> NDArray[Any]:
        spec = self._codec.spec
        return np.zeros((len(self.streams), length, len(spec.fields)), dtype_of(spec))


def dtype_of(spec: SequenceSpec) -> type[np.float32] | type[np.int32]:
    """Return the dtype of a codec's steps."""
    return np.float32 if spec.continuous else np.int32
