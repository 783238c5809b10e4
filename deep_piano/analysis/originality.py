"""The originality of a piece: the longest run of notes that it shares with a corpus.

Notes are equal if their step in pitch from the note before and the time since then, to the nearest
50 ms, are equal: transposition, loudness and length do not matter. Simultaneous notes are ordered
from the lowest to the highest. An index is exact here, and small in `compact_index`. This module
knows sequences of the codec `notes`; it knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.notes import ONSET, PITCH, PITCHES, Sequence
from deep_piano.infra.storage.atomic import atomic_path

SHORTEST_RUN: Final = 8
"""Notes; shorter runs are not looked for: any two pieces share some."""
BETWEEN: Final = np.uint16(0xFFFF)
"""Separates two recordings, and equals no note."""
FNV_PRIME: Final = np.uint64(0x100000001B3)
"""Of the hash FNV-1a (Fowler, Noll and Vo)."""

_GRID_STEPS = 5  # 50 ms
_LONGEST_WAIT = 158  # of such steps; it is part of what an index holds
_GRAM = SHORTEST_RUN - 1  # ways from a note to the next
_PAIRS_AT_ONCE = 2_000_000

Tokens = NDArray[np.uint16]


class SharedRun(NamedTuple):
    """What a piece shares with a corpus.

    Attributes
    ----------
    notes : int
        The longest run; 0 where none has `SHORTEST_RUN` notes.
    recording : str
        The first recording of the index that holds it; "" where there is none.
    """

    notes: int
    recording: str


class Index(Protocol):
    """What a piece is compared with: the notes of a corpus.

    Attributes
    ----------
    exact : bool
        Whether a run that it finds is there for certain. One that is there is always found.
    gram : int
        Tokens of the shortest run that `holds` can be asked for.
    fewest_notes : int
        Of the longest run that a piece can be asked to share.
    dataset : str
        Digest of the dataset that it was made of.
    """

    @property
    def exact(self) -> bool: ...  # noqa: D102
    @property
    def gram(self) -> int: ...  # noqa: D102
    @property
    def fewest_notes(self) -> int: ...  # noqa: D102
    @property
    def dataset(self) -> str: ...  # noqa: D102

    def longest_run(self, sequence: Sequence) -> SharedRun:
        """Return the longest run of notes that a sequence shares with the corpus."""

    def holds(self, runs: Tokens) -> NDArray[np.bool_]:
        """Say which runs of tokens, shape (n, tokens), stand in a recording; shape (n,)."""

    def table(self, most: int) -> Table:
        """Return what says whether it holds a run of so many tokens, for other engines."""


class Table(NamedTuple):
    """The grams of an index. It holds a run where it has all grams of it.

    Attributes
    ----------
    gram : int
        Tokens of a gram.
    entries : ndarray
        Of uint8: the bits of a `CompactIndex`. Of uint64: the hashes of all grams, in order.
    """

    gram: int
    entries: NDArray[Any]


def way(before: int, after: int, wait: int) -> int:
    """Return the way from a note to the next as a number; keys, and steps of 50 ms."""
    return (after - before + PITCHES - 1) * (_LONGEST_WAIT + 1) + wait


def wait_of(steps: int) -> int:
    """Return a time in steps of the codec's grid in steps of 50 ms."""
    return min((steps + _GRID_STEPS // 2) // _GRID_STEPS, _LONGEST_WAIT)


def tokens_of(sequence: Sequence) -> Tokens:
    """Return the way from each note to the next, as one number each.

    Parameters
    ----------
    sequence : ndarray of int, shape (n, 4)
        As `codecs.notes.encode` makes it.

    Returns
    -------
    ndarray of uint16, shape (n - 1,)
    """
    onset, pitch = np.cumsum(sequence[:, ONSET]), sequence[:, PITCH]
    order = np.lexsort((pitch, onset))
    interval = np.diff(pitch[order].astype(np.int64)) + PITCHES - 1
    wait = np.minimum((np.diff(onset[order]) + _GRID_STEPS // 2) // _GRID_STEPS, _LONGEST_WAIT)
    return (interval * (_LONGEST_WAIT + 1) + wait).astype(np.uint16)


@dataclass(frozen=True)
class CorpusIndex:
    """Every note of a corpus, ordered for finding runs.

    Attributes
    ----------
    tokens : ndarray of uint16, shape (n,)
        Of all recordings, one after another, something that equals no note behind each.
    order : ndarray of uint32, shape (n,)
        Places in `tokens`, sorted by what stands there and after.
    starts : ndarray of int64, shape (recordings,)
        Where in `tokens` each recording begins.
    names : list of str
        Of the recordings.
    dataset : str
        Digest of the dataset that it was made of.
    """

    exact: ClassVar[bool] = True
    gram: ClassVar[int] = _GRAM
    fewest_notes: ClassVar[int] = SHORTEST_RUN

    tokens: Tokens
    order: NDArray[np.uint32]
    starts: NDArray[np.int64]
    names: list[str]
    dataset: str

    @classmethod
    def build(cls, recordings: Iterable[tuple[str, Sequence]], *, dataset: str = "") -> Self:
        """Index recordings, given as their names and sequences."""
        parts: list[Tokens] = []
        names, starts, length = [], [], 0
        for name, sequence in recordings:
            names.append(name)
            starts.append(length)
            parts += [tokens_of(sequence), np.array([BETWEEN])]
            length += len(parts[-2]) + 1
        tokens = np.concatenate([*parts, np.full(_GRAM, BETWEEN)])
        order = np.argsort(grams_of(tokens, _GRAM), kind="stable").astype(np.uint32)
        return cls(tokens, order, np.array(starts, np.int64), names, dataset)

    @property
    def recordings(self) -> int:
        """How many recordings it holds."""
        return len(self.names)

    @property
    def notes(self) -> int:
        """How many notes it holds: one more than ways between them, a recording."""
        return int((self.tokens != BETWEEN).sum()) + len(self.names)

    def save(self, path: Path, *, replace: bool = True) -> None:
        """Write the index to a file, whole or not at all: see `atomic_path`."""
        from safetensors.numpy import save_file

        arrays = {"tokens": self.tokens, "order": self.order, "starts": self.starts}
        about = {"names": json.dumps(self.names), "dataset": self.dataset}
        with atomic_path(path, replace=replace) as temporary:
            save_file(arrays, temporary, metadata=about)

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, str]) -> Self:
        """Return the index of the arrays and the metadata that `save` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            When they are not an index's.
        """
        parts = {name: arrays[name] for name in ("tokens", "order", "starts")}
        index = cls(**parts, names=json.loads(about["names"]), dataset=about["dataset"])
        index._require_sound()
        return index

    def _require_sound(self) -> None:
        """Raise ValueError where one of its parts is not what the others are of."""
        shapes = [array.shape for array in (self.tokens, self.order, self.starts)]
        types = [array.dtype for array in (self.tokens, self.order, self.starts)]
        count, names = len(self.tokens), self.names
        if (
            types != [np.uint16, np.uint32, np.int64]
            or shapes != [(count,), (count,), (len(names),)]
            or not (count and all(isinstance(name, str) for name in names))
            or (self.tokens[-_GRAM:] != BETWEEN).any()
            or self.order.max() >= count
            or (np.diff(self.starts, prepend=-1, append=count) <= 0).any()
        ):
            raise ValueError("its parts do not belong together")

    def longest_run(self, sequence: Sequence) -> SharedRun:
        """Return the longest run of notes that a sequence shares with the corpus.

        Parameters
        ----------
        sequence : ndarray of int, shape (n, 4)
        """
        tokens = np.append(tokens_of(sequence), np.full(_GRAM, BETWEEN))
        grams = grams_of(tokens, _GRAM)[: max(0, len(tokens) - 2 * _GRAM + 1)]
        sorted_grams = self._sorted_grams
        first = np.searchsorted(sorted_grams, grams, side="left")
        count = np.searchsorted(sorted_grams, grams, side="right") - first
        longest, where = 0, 0
        asked = 0
        while asked < len(grams):
            # As many places of the piece as give no more pairs than fit into memory at once.
            room = np.searchsorted(np.cumsum(count[asked:]), _PAIRS_AT_ONCE, side="right")
            some = slice(asked, asked + max(1, int(room)))
            asked = some.stop
            mine = np.repeat(np.arange(len(grams))[some], count[some])
            within = np.arange(len(mine)) - np.repeat(
                np.cumsum(count[some]) - count[some], count[some]
            )
            theirs = self.order[np.repeat(first[some], count[some]) + within].astype(np.int64)
            length, place = self._extend(tokens, mine, theirs)
            if length > longest:
                longest, where = length, place
        if longest < _GRAM:
            return SharedRun(0, "")
        recording = int(np.searchsorted(self.starts, where, side="right")) - 1
        return SharedRun(longest + 1, self.names[recording])

    def holds(self, runs: Tokens) -> NDArray[np.bool_]:
        """Say which runs of tokens stand in a recording: see `Index`.

        Parameters
        ----------
        runs : ndarray of uint16, shape (n, tokens)
            Of `SHORTEST_RUN` notes or more.
        """
        grams = grams_of(runs, _GRAM)[:, 0]
        first = np.searchsorted(self._sorted_grams, grams, side="left")
        last = np.searchsorted(self._sorted_grams, grams, side="right")
        found = first < last
        for place in np.flatnonzero(found):
            there = self.order[first[place] : last[place]].astype(np.int64)
            for offset, token in enumerate(runs[place]):
                there = there[self.tokens[there + offset] == token]
            found[place] = len(there) > 0
        return found

    def table(self, most: int) -> Table:
        """Return the hashes of all runs of so many tokens: see `Index`."""
        parts = np.append(0, np.cumsum(self.tokens == BETWEEN))
        places = np.flatnonzero(parts[most:] == parts[: max(0, len(parts) - most)])
        grams = grams_of(self.tokens, most)[places]
        return Table(most, np.unique(grams))

    @cached_property
    def _sorted_grams(self) -> NDArray[np.uint64]:
        return grams_of(self.tokens, _GRAM)[self.order]

    def _extend(
        self, tokens: Tokens, mine: NDArray[np.int64], theirs: NDArray[np.int64]
    ) -> tuple[int, int]:
        """Return how many tokens the longest run of some pairs of places has, and where it is."""
        # A pair whose tokens before are equal too belongs to a longer run that begins there.
        before = (mine > 0) & (theirs > 0)
        before &= tokens[mine - 1] == self.tokens[theirs - 1]
        mine, theirs = mine[~before], theirs[~before]
        length, where = 0, 0
        while True:
            same = (tokens[mine + length] == self.tokens[theirs + length]) & (
                tokens[mine + length] != BETWEEN
            )
            mine, theirs = mine[same], theirs[same]
            if not len(mine):
                return length, where
            length, where = length + 1, int(theirs.min())


def grams_of(tokens: Tokens, length: int) -> NDArray[np.uint64]:
    """Return a number for each place: a hash of so many tokens from there on.

    Parameters
    ----------
    tokens : ndarray of uint16, shape (..., n)
    length : int
        Behind the last token stands what equals none.

    Returns
    -------
    ndarray of uint64, shape (..., n)
    """
    count = tokens.shape[-1]
    behind = [(0, 0)] * (tokens.ndim - 1) + [(0, length - 1)]
    padded = np.pad(tokens, behind, constant_values=BETWEEN).astype(np.uint64)
    grams = np.zeros(tokens.shape, np.uint64)
    for offset in range(length):  # FNV-1a, a token at a time
        grams ^= padded[..., offset : offset + count]
        grams *= FNV_PRIME
    return grams
