"""The files of a corpus by name and content, and which split each belongs to.

This module knows names and tables of names; it opens no recording.
"""

from __future__ import annotations

import hashlib
import logging
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deep_piano.config.sections import PrepareConfig
from deep_piano.errors import InputError, one_line
from deep_piano.infra.storage.folder import Entry, Folder
from deep_piano.music.recordings import is_midi, is_skipped, suffix
from deep_piano.prepare.tables import SPELLINGS, SPLITS, TABLE_SUFFIXES, Listed, read_table

__all__ = ["SPLITS", "Source", "Splits", "hash_share", "hash_split", "sources_of"]

_LARGEST_TABLE = 64 * 2**20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One file of a corpus, by name and content.

    Attributes
    ----------
    name : str
        Its path within the corpus.
    size : int
        Bytes.
    sha256 : str
        Of its bytes.
    split : str or None
        The split that a table or its folder gives it; None: its hash decides.
    group : str or None
        Recordings of one group share a split; None: it is a group of its own.
    """

    name: str
    size: int
    sha256: str
    split: str | None = None
    group: str | None = None

    @property
    def is_midi(self) -> bool:
        """Whether its name says that it holds notes already."""
        return is_midi(self.name)


def sources_of(entries: Iterable[Entry], hashes: Mapping[str, str], splits: Splits) -> list[Source]:
    """Return the files whose hash is known, by name, with what the corpus says of their splits."""
    return [
        Source(e.name, e.size, hashes[e.name], splits.of(e.name), splits.group(e.name))
        for e in entries
        if e.name in hashes
    ]


class Splits:
    """Gives names their split, as far as the corpus itself says.

    Parameters
    ----------
    folder : Folder
    recordings, others : iterable of Entry
        What the folder holds, from `survey`. Every ``.csv`` or ``.tsv`` among the others with a
        column of splits is a table of splits; its columns whose name ends in ``filename``, or is
        ``name``, ``file`` or ``path``, or else any that do, name files beside it.
    settings : PrepareConfig

    Attributes
    ----------
    doubts : list of str
        How many rows and files did not find one another, for each table where some did not.

    Raises
    ------
    InputError
        When a table names an unknown split or gives a file several, or when the settings ask for
        tables and there is none, or none that names a file.
    """

    def __init__(
        self,
        folder: Folder,
        recordings: Iterable[Entry],
        others: Iterable[Entry],
        settings: PrepareConfig,
    ) -> None:
        self._by_folder = settings.split in ("auto", "folder")
        self._pattern = re.compile(settings.group) if settings.group else None
        root = posixpath.basename(folder.uri.rstrip("/"))
        self._listed = Listed((entry.name for entry in recordings), root)
        if settings.split in ("auto", "metadata"):
            for entry in others:
                if is_skipped(entry.name) or not 0 < entry.size <= _LARGEST_TABLE:
                    continue
                if suffix(entry.name) in TABLE_SUFFIXES:
                    table = read_table(entry.name, folder.read_bytes(entry.name))
                    if table is not None:
                        self._listed.add(table)
        self.doubts = self._listed.doubts()
        if settings.split == "metadata" and not self._listed.matched:
            found = "; ".join(self.doubts) or "it holds no CSV file with a column 'split'"
            raise InputError(
                f"no table gives the files of {one_line(folder.uri)} their splits, and the split "
                f"was to come from one: {found}. Mend or add it, or choose another of auto, hash "
                "and folder."
            )

    def tell(self) -> None:
        """Warn of rows and files that did not find one another."""
        for doubt in self.doubts:
            logger.warning("%s. Where no row names a file, its folder or hash decides.", doubt)

    def of(self, name: str) -> str | None:
        """Return the split of a file, None where its hash is to decide."""
        listed = self._listed.of(name)
        if listed or not self._by_folder:
            return listed
        top, slash, _ = name.partition("/")
        return SPELLINGS.get(top.lower()) if slash else None

    def group(self, name: str) -> str | None:
        """Return what the recordings that must share a split have in common."""
        found = self._pattern.search(name) if self._pattern else None
        return found[1] if found else None


def hash_share(key: str) -> float:
    """Return a number from 0 to 1 that depends on `key` alone."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hash_split(key: str, *, validation_share: float, test_share: float) -> str:
    """Return the split that the hash of `key` falls into."""
    share = hash_share(key)
    if share < validation_share:
        return "validation"
    return "test" if share >= 1 - test_share else "train"
