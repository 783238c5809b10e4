"""The files of a corpus by name and content, and which split each belongs to.

This module knows names and tables of names; it opens no recording.
"""

from __future__ import annotations

import csv
import hashlib
import io
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from deep_piano.config.sections import PrepareConfig
from deep_piano.errors import InputError
from deep_piano.infra.storage.folder import Entry, Folder
from deep_piano.music.recordings import _suffix, is_midi

SPLITS: Final = ("train", "validation", "test")

_SPELLINGS = {**{split: split for split in SPLITS}, "valid": "validation", "val": "validation"}
_LARGEST_TABLE = 64 * 2**20


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
    entries : iterable of Entry
        What the folder holds. Every ``.csv`` with a column `split` is a table of splits; its
        other columns whose name ends in ``filename``, or is ``name``, ``file`` or ``path``,
        name files beside it.
    settings : PrepareConfig

    Raises
    ------
    InputError
        When a table names an unknown split, or there is none and the settings ask for one.
    """

    def __init__(self, folder: Folder, entries: Iterable[Entry], settings: PrepareConfig) -> None:
        self._by_folder = settings.split in ("auto", "folder")
        self._pattern = re.compile(settings.group) if settings.group else None
        self._listed: dict[str, str] = {}
        if settings.split in ("auto", "metadata"):
            for entry in entries:
                if _suffix(entry.name) == ".csv" and 0 < entry.size <= _LARGEST_TABLE:
                    self._listed |= _read_table(folder, entry.name)
        if settings.split == "metadata" and not self._listed:
            raise InputError(
                f"{folder.uri} holds no CSV file with a column 'split', and the split was to come "
                "from one. Add it, or choose another of auto, hash and folder."
            )

    def of(self, name: str) -> str | None:
        """Return the split of a file, None where its hash is to decide."""
        listed = self._listed.get(name)
        if listed or not self._by_folder:
            return listed
        top, slash, _ = name.partition("/")
        return _SPELLINGS.get(top.lower()) if slash else None

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


def _read_table(folder: Folder, name: str) -> dict[str, str]:
    """Return the splits that a CSV file gives to the files beside it; none where it is no table."""
    data = folder.read_bytes(name)
    if b"split" not in data.partition(b"\n")[0]:
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name} cannot be read as UTF-8 CSV: {error}. Mend it.") from error
    if not rows or "split" not in rows[0]:
        return {}
    found = {}
    for row in rows:
        for column, value in row.items():
            if value and column and _names_files(column):
                found[posixpath.join(posixpath.dirname(name), value)] = _spelt(row["split"], name)
    return found


def _names_files(column: str) -> bool:
    return column.endswith("filename") or column in ("name", "file", "path")


def _spelt(split: str, table: str) -> str:
    known = _SPELLINGS.get((split or "").strip().lower())
    if known is None:
        raise InputError(
            f"{table} gives a file the split {split!r}. Use one of {', '.join(SPLITS)}."
        )
    return known
