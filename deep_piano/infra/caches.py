"""Folders for what is made or fetched once: the user's, or others where those cannot be written.

A container may run as a user without a name, a service without a home. What cannot be kept for the
user is kept among temporary files, in a folder that nobody else can write to.
"""

from __future__ import annotations

import functools
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

NO_FOLDER: Final = os.path.join(os.devnull, "none")  # noqa: PTH118
"""A path where there is nothing, and nobody can make anything."""


def user_caches() -> Path:
    """Return the folder of the user's caches, ours in it as `deep_piano`; it may not exist yet.

    It is `$XDG_CACHE_HOME`, else `~/.cache`; where `deep_piano` is not in it and cannot be made,
    a private folder among the temporary files.
    """
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # The XDG specification says to ignore a relative path.
        folder = xdg if xdg.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # no HOME, and a user whom the system does not know
        return _private_folder()
    ours = folder / "deep_piano"
    return folder if os.access(ours, os.R_OK | os.X_OK) or _writable(ours) else _private_folder()


def settle_libraries() -> None:
    """Give Numba and matplotlib a folder for their caches, where they would find none.

    To be called before they are loaded. Numba refuses to load code that asks for a cache where it
    can keep none, and librosa is such code. Keras gets no folder: what other programs have written
    into ~/.keras/keras.json is none of our settings, in Ray's workers neither.
    """
    os.environ["KERAS_HOME"] = NO_FOLDER
    try:
        home = Path.home()
    except RuntimeError:  # else "~" is the name of a folder for some
        home = _private_folder()
        os.environ["HOME"] = str(home)
    if not _writable(Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(_private_folder() / "numba"))
    if not _writable(Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "matplotlib"):
        os.environ.setdefault("MPLCONFIGDIR", str(_private_folder() / "matplotlib"))


def home_is_writable() -> bool:
    """Say whether libraries can keep something in the user's home folder."""
    try:
        return _writable(Path.home())
    except RuntimeError:
        return False


def _writable(folder: Path) -> bool:
    """Say whether a folder can be written to, or be made."""
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
    except (StopIteration, OSError):
        return False
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@functools.cache
def _private_folder() -> Path:
    """Return a folder among the temporary files that is this user's alone.

    What is found in it is trusted, and run: whoever else has made a folder of that name gets none.
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
