r"""Local folders, or folders of a file system that all machines share.

Local names are bytes: a byte that is not UTF-8 appears as `\xff`, and a backslash as `\x5c` only
where it would be taken for such an escape, so every file has one name and every name finds its
file.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from deep_piano.errors import FileError, InputError, one_line
from deep_piano.infra.storage.atomic import atomic_path
from deep_piano.infra.storage.folder import Entry, Folder, explained, require_inside

logger = logging.getLogger(__name__)


_ESCAPE = re.compile(r"\\x(5c|[89a-f][0-9a-f])")


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A local folder, or one of a file system that all machines share."""

    root: Path

    def _path(self, name: str) -> Path:
        return self.root / _unescape(require_inside(name))

    def relative_url(self, name: str) -> str:
        """Return the URL of a file from a page within the folder: see `Folder.relative_url`."""
        return quote(os.fsencode(_unescape(name)))

    def inner(self, name: str) -> LocalFolder:
        """Return a folder within this one: see `Folder.inner`."""
        return LocalFolder(self.place(name), self._path(name))

    def _found(self, under: str) -> Iterator[Entry]:
        top = self._path(under) if under else self.root
        # A list of folders to visit, not recursion: a tree may be deeper than Python's stack.
        # Each has the real places of its parents, to detect circles of links.
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
                name = f"{prefix}/{escape(item.name)}" if prefix else escape(item.name)
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
        with explained(f"read {self.place(name)}", FileError):
            # Only regular files: opening a pipe without a writer would block.
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError(0, "not an ordinary file")
            path.open("rb").close()
        yield path

    def write(self, name: str, *, replace: bool = True) -> AbstractContextManager[Path]:
        """Publish by renaming: see `Folder.write`."""
        return atomic_path(self._path(name), replace=replace)

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of that name."""
        with explained(f"look at {self.place(name)}"):
            return self._path(name).is_file()

    def remove(self, name: str) -> None:
        """Remove a file; one that is missing is fine."""
        with explained(f"remove {self.place(name)}"):
            self._path(name).unlink(missing_ok=True)


def escape(text: str) -> str:
    r"""Return a text from the file system fit for UTF-8; `_unescape` takes it back.

    Examples
    --------
    >>> print(escape(os.fsdecode(b"caf\xe9")), escape(r"a\b"), escape(r"\xe9"))
    caf\xe9 a\b \x5cxe9
    """
    text = _ESCAPE.sub(r"\\x5cx\1", text)
    return re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)


def _unescape(name: str) -> str:
    return _ESCAPE.sub(
        lambda found: "\\" if found[1] == "5c" else chr(0xDC00 + int(found[1], 16)), name
    )
