"""The contract of a folder, local or on S3.

A `Folder` is a small value that may be pickled and sent to another process or machine. This module
knows names and errors; it knows neither audio nor MIDI nor what a dataset is.

A *name* is the path of a file within its folder, with slashes, and always fit for UTF-8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from deep_piano.errors import DeepPianoError, FileError, InputError, one_line

_PROBE = ".deep-piano-probe"


@dataclass(frozen=True, slots=True)
class Entry:
    r"""One thing found in a folder.

    Attributes
    ----------
    name : str
        The path relative to the folder, with slashes.
    size : int
        Bytes; 0 where there is a problem.
    stamp : str
        Changes when the content does: the time of the last change in nanoseconds, or S3's ETag
        and time. "" where there is a problem.
    problem : str, optional
        Why it cannot be read; None for a file that can be tried.
    """

    name: str
    size: int
    stamp: str
    problem: str | None = None


@dataclass(frozen=True)
class Folder(ABC):
    """A place of files: what every implementation can do.

    Every method that takes a name raises ValueError where the name would lead outside; every
    method raises InputError where the folder, its permissions or the connection are at fault, and
    DeepPianoError where trouble outlasted the retries.

    Attributes
    ----------
    uri : str
        The folder as the user wrote it, for messages.
    """

    uri: str

    def entries(self, under: str = "") -> list[Entry]:
        """Return every file below the folder, or below a sub-folder of it, sorted by name.

        What cannot be read is there too, with its problem, and is never opened. Links are
        followed, except a link to a folder that holds the link.

        Raises
        ------
        InputError
            There is no such folder. A sub-folder that does not exist counts as empty.
        """
        under = under.rstrip("/")
        if under:
            require_inside(under)
        return sorted(self._found(under), key=lambda entry: entry.name)

    @abstractmethod
    def _found(self, under: str) -> Iterator[Entry]: ...

    @abstractmethod
    def local(self, name: str) -> AbstractContextManager[Path]:
        """Yield a path to read a file from, valid within the block.

        Raises
        ------
        FileError
            The file is missing or may not be read.
        """

    @abstractmethod
    def write(self, name: str, *, replace: bool = True) -> AbstractContextManager[Path]:
        """Yield a temporary path; publish it under a name when the block succeeds.

        Nobody sees half a file, and where the block fails nothing changes. Folders are made as
        they are needed.

        Raises
        ------
        InputError
            Without `replace`: the name is taken, perhaps by another run meanwhile.
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Tell whether there is a file of that name."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; one that is missing is fine."""

    @abstractmethod
    def inner(self, name: str) -> Folder:
        """Return a folder within this one; it need not exist yet."""

    def read_bytes(self, name: str) -> bytes:
        """Return what a file holds.

        Raises
        ------
        FileError
            As for `local`.
        """
        with self.local(name) as path, explained(f"read {self.place(name)}", FileError):
            return path.read_bytes()

    def require_writable(self) -> None:
        """Write an empty file and remove it, to fail now and not after hours of work.

        Raises
        ------
        InputError
            The folder cannot be written to.
        """
        with self.write(_PROBE):
            pass
        self.remove(_PROBE)

    def relative_url(self, name: str) -> str:
        """Return the URL of a file from a page within the folder (RFC 3986)."""
        return quote(name)

    def place(self, name: str) -> str:
        """Return the place of a file, in one line for messages."""
        return one_line(f"{self.uri.rstrip('/')}/{name}")


@contextmanager
def explained(doing: str, kind: type[InputError] = InputError) -> Iterator[None]:
    """Turn errors of the file system into one that says what could not be done."""
    try:
        yield
    except OSError as error:
        raise kind(f"cannot {doing}: {error.strerror}. Check it and its permissions.") from error


@contextmanager
def named(path: Path | str, name: str) -> Iterator[None]:
    """Replace `path` by `name` in the messages of errors of the block.

    Examples
    --------
    >>> with named(Path("/tmp/x/file.mid"), "one.mid"):
    ...     raise FileError("/tmp/x/file.mid is damaged.")
    Traceback (most recent call last):
    deep_piano.errors.FileError: one.mid is damaged.
    """
    try:
        yield
    except DeepPianoError as error:
        said, shown = str(error), one_line(name)
        for text in (str(path), one_line(path)):
            said = said.replace(text, shown)
        raise type(error)(said) from error


def require_inside(name: str) -> str:
    """Return a name that stays within its folder; raise ValueError for others."""
    if not name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise ValueError(f"{one_line(name)!r} is not the name of a file within a folder")
    name.encode()  # raises a ValueError too
    return name
