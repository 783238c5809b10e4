r"""Files that appear whole or not at all, and folders that lie here or on S3.

A `Folder` is a local folder or `s3://bucket/prefix`, and both keep one contract. It is a small
value that may be pickled and sent to another process or machine. This module knows names, bytes
and errors; it knows neither audio nor MIDI nor what a dataset is.

A *name* is the path of a file within its folder, with slashes, and always fit for UTF-8. Local
names are bytes: a byte that is not UTF-8 appears as `\xff`, and a backslash as `\x5c` only where
it would be taken for such an escape, so every file has one name and every name finds its file.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from deep_piano.errors import DeepPianoError, FileError, InputError, one_line
from deep_piano.infra.storage.bucket import ATTEMPTS, Bucket, without_password

logger = logging.getLogger(__name__)

_PROBE = ".deep-piano-probe"
_ESCAPE = re.compile(r"\\x(5c|[89a-f][0-9a-f])")
_LONGEST_SUFFIX = 32


def is_temporary(name: str) -> bool:
    """Tell whether a file's name, without its folder, is one of those that `atomic_path` makes."""
    return re.fullmatch(r"\.[0-9a-f]{12}\.tmp(\.[^.]*)?", name) is not None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, so that writers which choose a format by it work.

    Raises
    ------
    InputError
        When the folder cannot be written to.
    DeepPianoError
        When the disk is full.

    Examples
    --------
    >>> with atomic_path(Path("notes.txt")) as temporary:  # doctest: +SKIP
    ...     temporary.write_text("whole")
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise InputError(
            f"cannot write to {path.parent}: {error.strerror}. Choose another folder."
        ) from error
    try:
        with _room_required(path):
            yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _room_required(path: Path) -> Iterator[None]:
    """Say plainly that the disk was full, where what writes to a path has found that."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DeepPianoError(
            f"there is no room for {one_line(path)}: {error.strerror}. Make room, and run the same "
            "command again."
        ) from error


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
            There is no such folder. A sub-folder that does not exist is merely empty.
        """
        under = under.rstrip("/")
        if under:
            _require_inside(under)
        return sorted(self._found(under), key=lambda entry: entry.name)

    @abstractmethod
    def _found(self, under: str) -> Iterator[Entry]: ...

    @abstractmethod
    def local(self, name: str) -> AbstractContextManager[Path]:
        """Yield a path to read a file from; it may be gone after the block.

        Raises
        ------
        FileError
            The file is missing or may not be read.
        """

    @abstractmethod
    def write(self, name: str) -> AbstractContextManager[Path]:
        """Yield a temporary path; publish it under a name when the block succeeds.

        Nobody sees half a file, and where the block fails nothing changes. Folders are made as
        they are needed.
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Tell whether there is a file of that name."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; one that is missing is fine."""

    @abstractmethod
    def inner(self, name: str) -> Folder:
        """Return a folder within this one; it need not be there yet."""

    def read_bytes(self, name: str) -> bytes:
        """Return what a file holds.

        Raises
        ------
        FileError
            As for `local`.
        """
        with self.local(name) as path, _explained(f"read {self.place(name)}", FileError):
            return path.read_bytes()

    def require_writable(self) -> None:
        """Write an empty file and remove it: better to fail now than after hours of work.

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
        """Return where a file lies, in one line for messages."""
        return one_line(f"{self.uri.rstrip('/')}/{name}")


def open_folder(
    uri: str | os.PathLike[str],
    *,
    endpoint: str | None = None,
    region: str | None = None,
    attempts: int = ATTEMPTS,
) -> Folder:
    """Return the folder that a path or URI names. Nothing is read, sent or made yet.

    Parameters
    ----------
    uri : str or path
        A local path, `file:///path`, `s3://bucket` or `s3://bucket/prefix`.
    endpoint, region : str, optional
        Of an S3 service; boto3 finds them in the environment or the profile where not given.
    attempts : int
        How often a request to it is made before it has failed.

    Raises
    ------
    InputError
        The URI is of another kind or names no bucket.

    Examples
    --------
    >>> open_folder("s3://music/piano/").uri
    's3://music/piano'
    """
    text = os.fspath(uri)
    scheme, separator, rest = text.partition("://")
    shown = one_line(without_password(text))
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) or not separator:
        if not text or "\0" in text or text.startswith("s3:"):
            raise InputError(f"{shown!r} is no folder. Give a local folder or s3://bucket/prefix.")
        return LocalFolder(_escape(text), Path(text).absolute())
    if scheme.lower() == "file":
        host, slash, path = unquote(rest, errors="surrogateescape").partition("/")
        if host not in ("", "localhost") or not slash or "\0" in path:
            raise InputError(f"{shown} is no folder of this machine. Write file:///path.")
        return LocalFolder(_escape(text), Path("/" + path))
    if scheme.lower() != "s3":
        raise InputError(
            f"{shown} is of an unknown kind. Give a local folder or s3://bucket/prefix."
        )
    bucket, _, prefix = rest.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket):
        raise InputError(f"{shown} names no bucket. Write s3://bucket or s3://bucket/prefix.")
    prefix = prefix.strip("/")
    return S3Folder(
        uri=f"s3://{bucket}/{prefix}".rstrip("/"),
        bucket=Bucket(bucket, endpoint, region, attempts),
        prefix=prefix and prefix + "/",
    )


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder of this machine, or of a file system that every machine shares."""

    root: Path

    def _path(self, name: str) -> Path:
        return self.root / _unescape(_require_inside(name))

    def relative_url(self, name: str) -> str:
        """Return the URL of a file from a page within the folder: see `Folder.relative_url`."""
        return quote(os.fsencode(_unescape(name)))

    def inner(self, name: str) -> LocalFolder:
        """Return a folder within this one: see `Folder.inner`."""
        return LocalFolder(self.place(name), self._path(name))

    def _found(self, under: str) -> Iterator[Entry]:
        top = self._path(under) if under else self.root
        # A list of folders to visit, not recursion: a tree may be deeper than Python's stack.
        # With each come the real places of the folders that it was reached through.
        waiting: list[tuple[str, str, tuple[Path, ...]]]
        waiting = [(os.fspath(top), under, (Path(os.path.realpath(top)),))]
        while waiting:
            folder, prefix, reached = waiting.pop()
            try:
                with os.scandir(folder) as scan:
                    found = list(scan)
            except OSError as error:
                gone = isinstance(error, FileNotFoundError | NotADirectoryError)
                if not prefix:
                    what = "no such folder" if gone else "cannot list the folder"
                    raise InputError(
                        f"{what}: {one_line(self.uri)} ({error.strerror}). Give another folder."
                    ) from error
                if not (gone and prefix == under):
                    yield Entry(prefix, 0, "", f"cannot be listed: {error.strerror}")
                continue
            for item in found:
                name = f"{prefix}/{_escape(item.name)}" if prefix else _escape(item.name)
                try:
                    status = item.stat()
                except OSError as error:
                    yield Entry(name, 0, "", f"cannot be read: {error.strerror}")
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield Entry(name, status.st_size, str(status.st_mtime_ns))
                elif not stat.S_ISDIR(status.st_mode):
                    yield Entry(name, 0, "", "not an ordinary file")
                elif not item.is_symlink():
                    inner = (*reached[:-1], reached[-1] / item.name)
                    waiting.append((item.path, name, inner))
                else:
                    target = Path(os.path.realpath(item.path))
                    if any(place.is_relative_to(target) for place in reached):
                        logger.debug("%s leads back to a folder that holds it", self.place(name))
                    else:
                        waiting.append((item.path, name, (*reached, target)))

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Yield the file itself: see `Folder.local`."""
        path = self._path(name)
        with _explained(f"read {self.place(name)}", FileError):
            # Opened only where opening cannot wait, as it does for a pipe without a writer.
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError(0, "not an ordinary file")
            path.open("rb").close()
        yield path

    def write(self, name: str) -> AbstractContextManager[Path]:
        """Publish by renaming: see `Folder.write`."""
        return atomic_path(self._path(name))

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of that name."""
        with _explained(f"look at {self.place(name)}"):
            return self._path(name).is_file()

    def remove(self, name: str) -> None:
        """Remove a file; one that is missing is fine."""
        with _explained(f"remove {self.place(name)}"):
            self._path(name).unlink(missing_ok=True)


@contextmanager
def _explained(doing: str, kind: type[InputError] = InputError) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise kind(f"cannot {doing}: {error.strerror}. Check it and its permissions.") from error


@dataclass(frozen=True)
class S3Folder(Folder):
    """The objects of a bucket whose keys begin with a prefix ("" or ending in a slash)."""

    bucket: Bucket
    prefix: str

    def _key(self, name: str) -> str:
        return self.prefix + _require_inside(name)

    def inner(self, name: str) -> S3Folder:
        """Return a folder within this one: see `Folder.inner`."""
        return S3Folder(self.place(name), self.bucket, f"{self._key(name)}/")

    def _found(self, under: str) -> Iterator[Entry]:
        prefix = self.prefix + (f"{under}/" if under else "")
        missing = bool(self.prefix) and not under
        for key, size, stamp in self.bucket.keys(prefix):
            missing = False
            name = key.removeprefix(self.prefix)
            if key.endswith("/"):
                continue  # a marker that some tools leave for a folder
            try:
                yield Entry(_require_inside(name), size, stamp)
            except ValueError as error:
                yield Entry(name, 0, "", str(error))
        if missing:
            raise InputError(f"no such folder: {one_line(self.uri)} holds nothing. Check it.")

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Yield a copy that is removed after the block: see `Folder.local`."""
        key = self._key(name)
        with _temporary(name) as path:
            try:
                self.bucket.download(key, path, one_object=FileError)
            except OSError as error:
                raise DeepPianoError(
                    f"cannot keep {self.place(name)} in {path.parent}: {error.strerror}. "
                    "Make room, or set TMPDIR to another folder."
                ) from error
            yield path

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Publish by one upload, of at most 5 GB: see `Folder.write`."""
        key = self._key(name)
        with _temporary(name) as path:
            with _room_required(path):  # for the copy: it is set aside in TMPDIR
                yield path
            self.bucket.upload(path, key)

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of that name."""
        return self.bucket.exists(self._key(name))

    def remove(self, name: str) -> None:
        """Remove a file; one that is missing is fine."""
        self.bucket.remove(self._key(name))


@contextmanager
def _temporary(name: str) -> Iterator[Path]:
    """Yield an empty file with a name's suffix, in a folder that goes with it."""
    suffix = PurePosixPath(name).suffix
    if len(suffix.encode()) > _LONGEST_SUFFIX:
        suffix = ""
    with tempfile.TemporaryDirectory(prefix="deep-piano-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / f"file{suffix}"
        path.touch()
        yield path


def _require_inside(name: str) -> str:
    """Return a name that stays within its folder; a ValueError says why another does not."""
    if not name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise ValueError(f"{one_line(name)!r} is not the name of a file within a folder")
    name.encode()  # raises a ValueError too
    return name


def _escape(text: str) -> str:
    r"""Return a text from the file system fit for UTF-8; `_unescape` takes it back.

    Examples
    --------
    >>> print(_escape(os.fsdecode(b"caf\xe9")), _escape(r"a\b"), _escape(r"\xe9"))
    caf\xe9 a\b \x5cxe9
    """
    text = _ESCAPE.sub(r"\\x5cx\1", text)
    return re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)


def _unescape(name: str) -> str:
    return _ESCAPE.sub(
        lambda found: "\\" if found[1] == "5c" else chr(0xDC00 + int(found[1], 16)), name
    )
