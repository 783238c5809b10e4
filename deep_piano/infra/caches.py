"""Cache folders: the user's own, or a private temporary folder where that cannot be written.

A container may run as a user without a name, and a service without a home. Nobody else can write
to the temporary folder.
"""

from __future__ import annotations

import functools
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

NO_FOLDER: Final = os.path.join(os.devnull, "none")  # noqa: PTH118
"""A path that does not exist and cannot be made."""


def user_cache() -> Path:
    """Return the folder of this package in the user's caches; it may not exist yet.

    Where it does not exist and cannot be made, it is a private temporary folder.
    """
    try:
        folder = user_cache_path("deep_piano", appauthor=False)
    except RuntimeError:  # no HOME, and a user whom the system does not know
        return _private_folder()
    usable = os.access(folder, os.R_OK | os.X_OK) or _writable(folder)
    return folder if folder.is_absolute() and usable else _private_folder()


def settle_libraries() -> None:
    """Set cache folders for Numba and matplotlib where they would find none, and none for Keras.

    Call it before they are loaded. Where Numba finds no cache folder, code that asks for a cache
    cannot be imported, such as librosa. Keras must not read ~/.keras/keras.json, which other
    programs may have written; this also holds for Ray's workers.
    """
    os.environ["KERAS_HOME"] = NO_FOLDER
    try:
        home = Path.home()
    except RuntimeError:  # some libraries would make a folder called "~"
        home = _private_folder()
        os.environ["HOME"] = str(home)
    if not _writable(Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(_private_folder() / "numba"))
    if not _writable(Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "matplotlib"):
        os.environ.setdefault("MPLCONFIGDIR", str(_private_folder() / "matplotlib"))


def home_is_writable() -> bool:
    """Return whether the user's home folder can be written."""
    try:
        return _writable(Path.home())
    except RuntimeError:
        return False


def _writable(folder: Path) -> bool:
    """Return whether a folder can be written, or made."""
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
    except (StopIteration, OSError):
        return False
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@functools.cache
def _private_folder() -> Path:
    """Return a temporary folder that only this user can write.

    Code in it is executed, so a folder of that name that somebody else made is not used.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"deep_piano-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="deep_piano-"))
    if stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix="deep_piano-"))
