"""Tables of splits, as spreadsheets and scripts write them, and the files that their rows name.

A name in a table is often not the file's own: it has another suffix or none, another case, another
form of the same letters (macOS keeps é as two characters), backslashes, or a folder before it.
Names are compared as they are first, and without these differences where that names nothing. This
module knows names and tables; it opens no file.
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from deep_piano.errors import InputError, one_line
from deep_piano.music.recordings import is_recording

SPLITS: Final = ("train", "validation", "test")
TABLE_SUFFIXES: Final = frozenset({".csv", ".tsv"})

SPELLINGS: Final = {
    **{split: split for split in SPLITS},
    **dict.fromkeys(("valid", "val", "dev", "development"), "validation"),
    **{"training": "train", "testing": "test"},
}
_DELIMITERS = ",;\t|"
_TITLE_LINES = 20  # that may stand before the headings: comments, a title, nothing
_OUTSIDE = re.compile(r"/|[A-Za-z]:/|\.\./")
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*(?:\r\n|\r|\n)', re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """A table that gives files their splits.

    Attributes
    ----------
    name : str
        Of its file, within the corpus.
    headings : tuple of str
        Of its columns, in lower case; empty where it has none.
    rows : tuple of tuple of str
    split : int
        The column that says which split.
    """

    name: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    split: int

    @property
    def naming(self) -> list[int]:
        """The columns whose heading says that they name files."""
        return [i for i, heading in enumerate(self.headings) if _names_files(heading)]


def read_table(name: str, data: bytes) -> Table | None:
    """Understand a file as a table of splits; None where it is none.

    Any of comma, semicolon, tab and bar may separate its columns; it may be UTF-8, UTF-16 or
    Windows-1252, and begin with comments. The column of splits is the one with the heading `split`,
    or the one that holds nothing but names of splits.

    Raises
    ------
    InputError
        When it is a table of splits and cannot be parsed.
    """
    text = _text(data)
    declared = _SEPARATOR.match(text)
    if declared:
        text = text[declared.end() :]
    for delimiter in declared[1] if declared else _DELIMITERS:
        rows = _rows(text, delimiter)
        try:
            top = list(islice(rows, _TITLE_LINES))
        except csv.Error:
            continue
        found = _heading(top)
        if found is None:
            continue
        try:
            body = [*top[found[0] :], *rows]
        except csv.Error as error:
            raise InputError(
                f"{one_line(name)} cannot be read as CSV: {error}. Mend it."
            ) from error
        return Table(name, found[1], tuple(row for row in body if not _is_comment(row)), found[2])
    return None


class Listed:
    """The splits that tables give to the files of a corpus.

    Parameters
    ----------
    files : iterable of str
        The names of the corpus's files.
    root : str
        The corpus's own name: names in a table may begin with it.
    """

    def __init__(self, files: Iterable[str], root: str) -> None:
        self._files = tuple(files)
        self._stems = {_stem(name) for name in self._files}
        self._root = root
        # By the name as it is, normalised, and without its suffix: each to its splits and tables.
        self._found: tuple[dict[str, dict[str, str]], ...] = ({}, {}, {})
        self._tables: list[tuple[Table, int]] = []

    def __bool__(self) -> bool:
        return bool(self._tables)

    @property
    def matched(self) -> int:
        """How many rows name a file."""
        return sum(matched for _, matched in self._tables)

    def add(self, table: Table) -> None:
        """Take in a table.

        Raises
        ------
        InputError
            When it names an unknown split.
        """
        columns = range(max(map(len, table.rows), default=0))
        others = [column for column in columns if column != table.split]
        rows = list(self._named(table, table.naming))
        if not any(names for names, _ in rows):
            rows = list(self._named(table, others))
        for names, said in rows:
            for name in names:
                split = _spelt(said, table.name, name)
                for found, key in zip(self._found, (name, _key(name), _stem(name)), strict=True):
                    found.setdefault(key, {})[split] = table.name
        self._tables.append((table, sum(bool(names) for names, _ in rows)))

    def of(self, name: str) -> str | None:
        """Return the split of a file; None where no row names it.

        Raises
        ------
        InputError
            When rows give it several.
        """
        for found, key in zip(self._found, (name, _key(name), _stem(name)), strict=True):
            splits = found.get(key, {})
            if len(splits) > 1:
                raise InputError(
                    f"{one_line(name)} is given the splits {' and '.join(sorted(splits))} by "
                    f"{' and '.join(sorted({one_line(table) for table in splits.values()}))}. "
                    "Give it one, or choose the split hash."
                )
            if splits:
                return next(iter(splits))
        return None

    def doubts(self) -> list[str]:
        """Return, for each table that may be amiss, how many rows and files it leaves unmatched."""
        unnamed = [name for name in self._files if self.of(name) is None]
        found = []
        for table, matched in self._tables:
            folder = posixpath.dirname(table.name)
            below = f"{folder}/" if folder else ""
            there = [name for name in self._files if name.startswith(below)]
            left = [name for name in unnamed if name.startswith(below)]
            if matched and not left:
                continue
            text = (
                f"{one_line(table.name)}: {matched:,} of its {len(table.rows):,} rows name a file "
                f"of the corpus, and {len(left):,} of {len(there):,} files beside it are named by "
                "no row"
            )
            if left:
                text += f", such as {one_line(left[0])}"
            if not matched and table.rows:
                text += f"; its first row is {one_line(', '.join(table.rows[0]))!r}"
            found.append(text)
        return found

    def _named(self, table: Table, columns: Sequence[int]) -> Iterator[tuple[list[str], str]]:
        """Yield, row by row, the files that some columns name, and what stands for the split."""
        for row in table.rows:
            cells = [row[column] for column in columns if column < len(row)]
            names = [name for cell in cells if (name := self._place(cell, table.name)) is not None]
            yield names, row[table.split] if table.split < len(row) else ""

    def _place(self, cell: str, table: str) -> str | None:
        """Return the name, within the corpus, that a cell gives; None where no file is like it."""
        beside = posixpath.dirname(table)
        name = posixpath.normpath(cell.strip().replace("\\", "/"))
        places = [posixpath.join(beside, cell), posixpath.join(beside, name), name]
        parts = name.split("/")
        tails = ["/".join(parts[first:]) for first in range(1, len(parts))]
        if _OUTSIDE.match(name):  # a path of this machine or of another: its end names the file
            places += tails
        else:
            above = zip(parts, tails, strict=False)
            places += [tail for part, tail in above if _key(part) == _key(self._root)]
        return next((place for place in places if _stem(place) in self._stems), None)


def _text(data: bytes) -> str:
    """Decode a text of unknown encoding."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    if data[1:2] == b"\0":
        return data.decode("utf-16-le", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _rows(text: str, delimiter: str) -> Iterator[tuple[str, ...]]:
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
        yield tuple(row)


def _heading(top: Sequence[Sequence[str]]) -> tuple[int, tuple[str, ...], int] | None:
    """Return where the rows begin, the headings, and the column of splits."""
    for line, row in enumerate(top):
        headings = tuple(cell.strip(" \t#\"'").lower() for cell in row)
        if len(row) > 1 and "split" in headings:
            return line + 1, headings, headings.index("split")
    rows = [row for row in top if not _is_comment(row)]
    if not rows:
        return None
    for column in range(len(rows[0])):
        said = [row[column].strip().lower() if column < len(row) else "" for row in rows]
        if len(rows[0]) > 1 and len(said) > 1 and all(value in SPELLINGS for value in said[1:]):
            begin = top.index(rows[0])
            if said[0] in SPELLINGS:  # its first row is one already
                return begin, (), column
            return begin + 1, tuple(cell.strip().lower() for cell in rows[0]), column
    return None


def _is_comment(row: Sequence[str]) -> bool:
    return not any(cell.strip() for cell in row) or (
        row[0].lstrip().startswith("#") and not any(row[1:])
    )


def _names_files(heading: str) -> bool:
    return heading.endswith("filename") or heading in ("name", "file", "path")


def _spelt(split: str, table: str, name: str) -> str:
    known = SPELLINGS.get(split.strip().lower())
    if known is None:
        raise InputError(
            f"{one_line(table)} gives {one_line(name)} the split {split!r}. Use one of "
            f"{', '.join(SPLITS)}."
        )
    return known


def _key(name: str) -> str:
    """Return a name without what differs between systems: the form and the case of its letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _stem(name: str) -> str:
    """Return a normalised name without the suffix of a recording."""
    key = _key(name)
    return posixpath.splitext(key)[0] if is_recording(key) else key
