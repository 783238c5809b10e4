"""An index of a corpus that is small enough to ship: a bit for each hash of a few notes.

A Bloom filter (Bloom 1970, doi:10.1145/362686.362692) of every `GRAM` tokens in a row. A run that
the corpus holds has all its grams there and is always found. One that it does not hold is taken for
one where all its grams seem to be there: a gram that is not there seems so about once in eight
times, five in a row about once in 30,000. So what a piece shares is said as "at most". Nothing of
the corpus can be read from it. This module knows tokens of `originality` and bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.mixing import mixed
from deep_piano.analysis.originality import (
    CorpusIndex,
    SharedRun,
    Table,
    Tokens,
    grams_of,
    tokens_of,
)
from deep_piano.codecs.notes import Sequence
from deep_piano.errors import InputError, one_line
from deep_piano.infra.storage.atomic import atomic_path

GRAM: Final = 8
"""Tokens of a gram: nine notes."""
FEWEST_NOTES: Final = 12
"""Of a run that may be allowed: one more has five grams, so that chance hardly ever bars it."""

_LEAST_BITS = 4  # of the index a note
_SMALLEST = 2**10  # bits


@dataclass(frozen=True)
class CompactIndex:
    """Which grams a corpus has.

    Attributes
    ----------
    bits : ndarray of uint8, shape (n,)
        Eight to a byte, the first the highest; n is a power of two.
    recordings, notes : int
        Of the corpus.
    dataset : str
        Digest of the dataset that it was made of.
    """

    exact: ClassVar[bool] = False
    gram: ClassVar[int] = GRAM
    fewest_notes: ClassVar[int] = FEWEST_NOTES

    bits: NDArray[np.uint8]
    recordings: int
    notes: int
    dataset: str

    @classmethod
    def build(cls, recordings: Iterable[tuple[str, Sequence]], *, dataset: str = "") -> Self:
        """Index recordings, given as their names and sequences."""
        parts = [tokens_of(sequence) for _, sequence in recordings]
        notes = sum(len(part) + 1 for part in parts)
        size = _SMALLEST
        while size < _LEAST_BITS * notes:
            size *= 2
        bits = np.zeros(size, bool)
        for part in parts:
            bits[_places(part, size)] = True
        return cls(np.packbits(bits), len(parts), notes, dataset)

    def longest_run(self, sequence: Sequence) -> SharedRun:
        """Return the longest run of notes that a sequence may share with the corpus, nameless.

        It shares none that is longer; 0 where none has `GRAM` + 1 notes.

        Parameters
        ----------
        sequence : ndarray of int, shape (n, 4)
        """
        there = self._has(tokens_of(sequence))
        edges = np.flatnonzero(np.diff(np.r_[False, there, False].astype(np.int8)))
        longest = int((edges[1::2] - edges[::2]).max(initial=0))
        return SharedRun(longest + GRAM if longest else 0, "")

    def holds(self, runs: Tokens) -> NDArray[np.bool_]:
        """Say which runs of tokens may stand in a recording: see `originality.Index`.

        Parameters
        ----------
        runs : ndarray of uint16, shape (n, tokens)
            Of `GRAM` + 1 notes or more.
        """
        return np.logical_and.reduce(self._has(runs), -1)

    def table(self, most: int) -> Table:
        """Return the bits: see `originality.Index`."""
        return Table(self.gram, self.bits)

    def _has(self, tokens: Tokens) -> NDArray[np.bool_]:
        """Say which grams may be there, shape (..., tokens - GRAM + 1)."""
        places = _places(tokens, 8 * len(self.bits))
        bits = self.bits[places >> 3] >> (7 - (places & 7)).astype(np.uint8) & 1
        first, second = bits.astype(bool)
        both: NDArray[np.bool_] = first & second
        return both

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what `of` takes."""
        counts = np.array([self.recordings, self.notes], np.int64)
        dataset = np.frombuffer(self.dataset.encode(), np.uint8)
        return {"bits": self.bits, "counts": counts, "dataset": dataset}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the index of these arrays.

        Raises
        ------
        ValueError
            When they are not an index's.
        """
        if arrays.keys() != {"bits", "counts", "dataset"}:
            raise ValueError(f"a compact index has no {sorted(arrays)}")
        bits, counts, dataset = (arrays[name] for name in ("bits", "counts", "dataset"))
        size = 8 * len(bits) if bits.ndim == 1 else 0
        if (
            [array.dtype for array in (bits, counts, dataset)] != [np.uint8, np.int64, np.uint8]
            or size < _SMALLEST
            or size & (size - 1)
            or counts.shape != (2,)
            or counts.min() < 0
            or dataset.ndim != 1
        ):
            raise ValueError("its parts do not belong together")
        recordings, notes = counts.tolist()
        return cls(bits, recordings, notes, dataset.tobytes().decode())

    def save(self, path: Path, *, replace: bool = True) -> None:
        """Write the index to a file, whole or not at all: see `atomic_path`."""
        from safetensors.numpy import save_file

        with atomic_path(path, replace=replace) as temporary:
            save_file(self.arrays(), temporary)


def open_index(path: Path) -> CorpusIndex | CompactIndex:
    """Read an index of either kind.

    Raises
    ------
    InputError
        When the file is none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            about = file.metadata() or {}
        return CompactIndex.of(arrays) if "bits" in arrays else CorpusIndex.of(arrays, about)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{one_line(path)} is not an index of a corpus: {one_line(error)}. Give one that "
            "`deep-piano index` made of a dataset."
        ) from error


def _places(tokens: Tokens, size: int) -> NDArray[np.int64]:
    """Return where the bits of grams are, shape (2, ..., tokens - GRAM + 1)."""
    whole = max(0, tokens.shape[-1] - GRAM + 1)
    grams = mixed(grams_of(tokens, GRAM)[..., :whole])  # both halves depend on every token
    mask = np.uint64(size - 1)
    return np.stack([grams & mask, (grams >> np.uint64(32)) & mask]).astype(np.int64)
