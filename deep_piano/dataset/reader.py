"""Reads a dataset for training and scoring, one row group at a time.

This module knows manifests and shards; it knows nothing of windows or networks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deep_piano.codecs.base import SequenceSpec
from deep_piano.codecs.registry import Codec, codec_of
from deep_piano.dataset.manifest import read_manifest
from deep_piano.dataset.rows import Row
from deep_piano.dataset.shards import SHARDS, read_rows, read_steps
from deep_piano.errors import DeepPianoError, InputError, one_line
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.open import open_folder


@dataclass(frozen=True)
class RowGroup:
    """Recordings of one split that are stored together in a shard.

    Attributes
    ----------
    shard : str
        The shard's name.
    index : int
        Of the row group within the shard.
    recordings, steps : int
        How many it holds.
    """

    shard: str
    index: int
    recordings: int
    steps: int


class Dataset:
    """A dataset, for reading. Use it as a context manager, which removes copies from S3.

    Parameters
    ----------
    folder : Folder or path
        A path may begin with ``s3://``.

    Raises
    ------
    InputError
        When the folder holds no dataset, or one of another version of the codec.
    """

    def __init__(self, folder: Folder | str | os.PathLike[str]) -> None:
        folder = folder if isinstance(folder, Folder) else open_folder(folder)
        manifest = read_manifest(folder)
        if manifest is None:
            raise InputError(
                f"{one_line(folder.uri)} is not a dataset: it has no manifest.json. Give a folder "
                "that `deep-piano prepare` has made of MIDI files or recordings."
            )
        self.folder, self.manifest = folder, manifest
        self.codec: Codec = codec_of(SequenceSpec.from_json(manifest.codec.to_json()))
        self.spec = self.codec.spec
        self._copies = ExitStack()
        self._paths: dict[str, Path] = {}
        self._lengths: dict[RowGroup, list[int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._copies.close()
        self._paths.clear()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content: codec and shards, independent of the place."""
        shards = [[shard.name, shard.sha256] for shard in self.manifest.shards]
        text = json.dumps([self.spec.bare.to_json(), shards], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def sr(self) -> int:
        """The sampling rate of the recordings, in Hz."""
        return self.manifest.settings.sr or self.codec.sr

    def row_groups(self, split: str) -> list[RowGroup]:
        """Return the row groups of a split, in the order of the manifest."""
        return [
            RowGroup(shard.name, index, group.recordings, group.steps)
            for shard in self.manifest.shards
            for index, group in enumerate(shard.row_groups)
            if group.split == split
        ]

    def require(self, split: str) -> list[RowGroup]:
        """Return the row groups of a split.

        Raises
        ------
        InputError
            When it holds no recording.
        """
        groups = self.row_groups(split)
        if not groups:
            others = ", ".join(
                f"{name} {sums.recordings}"
                for name, sums in sorted(self.manifest.totals.splits.items())
            )
            raise InputError(
                f"the split {split!r} of {one_line(self.folder.uri)} holds 0 recordings "
                f"({others}). Prepare more recordings, or other shares of the splits "
                "(prepare.validation_share)."
            )
        return groups

    def lengths(self, group: RowGroup) -> list[int]:
        """Return the steps of each recording of a row group, without reading sequences."""
        if group not in self._lengths:
            self._lengths[group] = self._read(group, read_steps)
            self._require_as_promised(group, self._lengths[group])
        return self._lengths[group]

    def rows(self, group: RowGroup) -> list[Row]:
        """Return the recordings of a row group."""
        rows = self._read(group, lambda path, index: list(read_rows(path, groups=[index])))
        self._require_as_promised(group, [len(row.sequence) for row in rows])
        return rows

    def recordings(self, split: str) -> Iterator[Row]:
        """Yield the recordings of a split, with one row group in memory at a time."""
        for group in self.row_groups(split):
            yield from self.rows(group)

    def by_corpus(self, split: str, *, shortest_s: float = 0.0) -> dict[str, list[Row]]:
        """Return the recordings of a split by their corpora.

        Those shorter than `shortest_s` seconds are left out. All are in memory at once, in the
        order of their names: a dataset that was prepared by another version has the same order.
        """
        corpora: dict[str, list[Row]] = {}
        for row in sorted(self.recordings(split), key=lambda row: row.name):
            if row.duration_s >= shortest_s:
                corpora.setdefault(row.corpus, []).append(row)
        return dict(sorted(corpora.items()))

    def _require_as_promised(self, group: RowGroup, lengths: Sequence[int]) -> None:
        """Raise where a row group does not match the manifest."""
        if (len(lengths), sum(lengths)) != (group.recordings, group.steps):
            raise self._broken(group, "its recordings do not match the manifest")

    def _read(self, group: RowGroup, read: Callable[[Path, int], list[Any]]) -> list[Any]:
        """Read from a row group; a shard in S3 is fetched once, as a whole."""
        import pyarrow as pa

        name = f"{SHARDS}/{group.shard}"
        if group.shard not in self._paths:
            self._paths[group.shard] = self._copies.enter_context(self.folder.local(name))
        try:
            return read(self._paths[group.shard], group.index)
        except (pa.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
            raise self._broken(group, error) from error

    def _broken(self, group: RowGroup, why: object) -> DeepPianoError:
        return DeepPianoError(
            f"{self.folder.place(f'{SHARDS}/{group.shard}')} is broken: {one_line(why)}. Run "
            "`prepare` again as before, with --rebuild: it reads what is broken again."
        )
