"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deep_piano.errors import DeepPianoError, InputError, one_line

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ADVICE = {
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.EISDIR: "Give the name of a file to write.",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Choose another folder."),
    **dict.fromkeys(_FULL, "Make room, and run the same command again."),
}


def is_temporary(name: str) -> bool:
    """Tell whether a file's name, without its folder, is a temporary one of `atomic_path`."""
    return re.fullmatch(r"\.[0-9a-f]{12}\.tmp(\.[^.]*)?", name) is not None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, so that writers which choose a format by it work.

    Parameters
    ----------
    path : Path
    replace : bool
        Whether an existing file may be replaced: see `put_in_place`.

    Raises
    ------
    InputError
        When the folder cannot be written to, the name is too long, or it is taken in the end.
    DeepPianoError
        When the disk is full, or the folder is gone in the end.

    Examples
    --------
    >>> with atomic_path(Path("notes.txt")) as temporary:  # doctest: +SKIP
    ...     temporary.write_text("whole")
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.lstat()  # the temporary name may be short enough where this one is not
        temporary.touch()
    except OSError as error:
        place = one_line(path) if error.errno == errno.ENAMETOOLONG else f"to {path.parent}"
        advice = _ADVICE.get(error.errno or 0, "Choose another folder.")
        raise InputError(f"cannot write {place}: {error.strerror}. {advice}") from error
    try:
        with room_required(path):
            yield temporary
        try:
            put_in_place(temporary, path, replace=replace)
        except OSError as error:
            advice = _ADVICE.get(error.errno or 0, "Run the same command again.")
            if error.errno == errno.ENOENT:
                advice = f"Was its folder removed? {advice}"
            raise DeepPianoError(
                f"cannot write {one_line(path)}: {error.strerror}. {advice}"
            ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def put_in_place(temporary: Path, path: Path, *, replace: bool) -> None:
    """Give a finished file its name, in one step.

    Parameters
    ----------
    temporary : Path
        In the same file system as `path`.
    path : Path
    replace : bool
        Whether an existing file may be replaced. It may have appeared after `require_free`, when
        another run writes to the same name.

    Raises
    ------
    InputError
        When the file exists and may not be replaced.
    OSError
        When the system does not let it be written.
    """
    if replace:
        temporary.replace(path)
        return
    try:
        try:
            os.link(temporary, path)  # unlike a renaming, it fails where the name is taken
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            try:
                temporary.replace(path)
            except OSError:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError as error:
        raise InputError(
            f"{one_line(path)} appeared during this run, and is kept: another run writes to the "
            "same name. Give another name, or --force."
        ) from error
    temporary.unlink(missing_ok=True)


@contextmanager
def room_required(path: Path) -> Iterator[None]:
    """Turn the error of a full disk in the block into one that says so."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DeepPianoError(
            f"there is no room for {one_line(path)}: {os.strerror(error.errno)}. Make room, and "
            "run the same command again."
        ) from error


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, whatever its name; None where there is no file."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def require_free(path: Path, *, force: bool, given: Collection[object] = ()) -> None:
    """Raise an InputError unless a file may be written there."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}. Give another name.") from error
    if path.is_dir():
        raise InputError(f"{path} is a folder. Give the name of a file to write.")
    if identity_of(path) in given:
        raise InputError(
            f"{path} is one of your input files, which are never replaced. Give another name with "
            "-o."
        )
    if not force:
        raise InputError(f"{path} already exists. Give another name, or --force.")
