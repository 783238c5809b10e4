"""Folders on S3: the objects of a bucket whose keys begin with a prefix."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deep_piano.errors import DeepPianoError, FileError, InputError, one_line
from deep_piano.infra.storage.atomic import room_required
from deep_piano.infra.storage.bucket import Bucket
from deep_piano.infra.storage.folder import Entry, Folder, require_inside

_LONGEST_SUFFIX = 32


@dataclass(frozen=True)
class S3Folder(Folder):
    """The objects of a bucket whose keys begin with a prefix ("" or ending in a slash)."""

    bucket: Bucket
    prefix: str

    def _key(self, name: str) -> str:
        return self.prefix + require_inside(name)

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
                yield Entry(require_inside(name), size, stamp)
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
            with suppress(OSError, ValueError):  # where a file can have that name
                path = path.rename(path.with_name(PurePosixPath(name).name))
            yield path

    @contextmanager
    def write(self, name: str, *, replace: bool = True) -> Iterator[Path]:
        """Publish by one upload, of at most 5 GB: see `Folder.write`."""
        key = self._key(name)
        with _temporary(name) as path:
            with room_required(path):  # for the copy in TMPDIR
                yield path
            self.bucket.upload(path, key, replace=replace)

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of that name."""
        return self.bucket.exists(self._key(name))

    def remove(self, name: str) -> None:
        """Remove a file; one that is missing is fine."""
        self.bucket.remove(self._key(name))


@contextmanager
def _temporary(name: str) -> Iterator[Path]:
    """Yield an empty file with a name's suffix, in a temporary folder."""
    suffix = PurePosixPath(name).suffix
    if len(suffix.encode()) > _LONGEST_SUFFIX:
        suffix = ""
    with tempfile.TemporaryDirectory(prefix="deep-piano-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / f"file{suffix}"
        path.touch()
        yield path
