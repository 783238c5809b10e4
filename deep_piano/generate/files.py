"""Where a piece is written: names that may be used, and files that appear together or not at all.

This module knows paths; it knows nothing of what is written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deep_piano.errors import DeepPianoError, InputError
from deep_piano.infra.storage.atomic import _identity, put_in_place, require_free
from deep_piano.music.audio import ENCODED_SUFFIXES, content_hash

OUTPUT_SUFFIXES = (*sorted(ENCODED_SUFFIXES), ".mid")


@dataclass(frozen=True)
class Piece:
    """What was made: the files that were written, and the facts that stand in the JSON."""

    path: Path
    files: tuple[Path, ...]
    facts: dict[str, Any]


class Targets(dict[str, Path]):
    """The files of a take by their kinds, and whether others of these names may be replaced."""

    def __init__(self, files: Mapping[str, Path], *, force: bool) -> None:
        super().__init__(files)
        self.force = force


def targets(
    out: Path, takes: int, *, force: bool, given: Collection[Path], notes: bool = True
) -> list[Targets]:
    """Return the files of each take, after making sure that they may be written.

    Parameters
    ----------
    out : Path
        Its suffix decides between sound and notes alone; with several takes, ``-1``, ``-2``, ...
        are put behind the name.
    takes : int
    force : bool
        Files that are there may be replaced.
    given : collection of Path
        Files, and folders of files, that must not be replaced, not even by force.
    notes : bool
        Whether the piece has notes, so that there is a ".mid".

    Returns
    -------
    list of Targets
        A take: ".png", ".json", ".mid" if it has notes, and "sound" unless those alone are asked
        for.

    Raises
    ------
    InputError
        When a file cannot be written, is there already, or is one of those given.
    """
    suffix = out.suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise InputError(
            f"cannot write {out}: its name must end in one of {', '.join(OUTPUT_SUFFIXES)}."
        )
    found = []
    for take in range(takes):
        name = out.stem if takes == 1 else f"{out.stem}-{take + 1}"
        main = {".mid" if suffix == ".mid" else "sound": out.with_name(name + out.suffix)}
        kinds = [".mid"] * notes + [".png", ".json"]
        beside = {kind: out.with_name(name + kind) for kind in kinds}
        found.append(Targets({**beside, **main}, force=force))
    identities = {_identity(path) for path in _with_contents(given)} - {None}
    for path in (path for files in found for path in files.values()):
        require_free(path, force=force, given=identities)
    _require_writable(out.parent)
    return found


def _with_contents(paths: Collection[Path]) -> Iterator[Path]:
    for path in paths:
        yield path
        with suppress(OSError):  # what cannot be looked at is somebody else's error
            if path.is_dir():
                yield from path.iterdir()


def _require_writable(folder: Path) -> None:
    """Raise, before any work is done, where nothing can be written; leave nothing behind."""
    try:
        there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}. Choose another folder."
        ) from error


@contextmanager
def staged(files: dict[str, Path]) -> Iterator[dict[str, Path]]:
    """Yield paths in a hidden folder beside `files`; put all in place when the block succeeds.

    Parameters
    ----------
    files : dict of str to Path
        As `targets` returns them: only by their `force` is a file replaced. A ".png" that was not
        written in the block is taken out: a picture never costs a piece.

    Raises
    ------
    InputError
        When one of the names was taken meanwhile.
    DeepPianoError
        When the system does not let them be written.
    """
    force = isinstance(files, Targets) and files.force
    folder = files[".json"].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder) as staging:
            temporary = {kind: Path(staging, path.name) for kind, path in files.items()}
            yield temporary
            placed: list[Path] = []
            if ".png" in files and not temporary[".png"].exists():  # it could not be drawn
                stale = files.pop(".png")
                if force:
                    stale.unlink(missing_ok=True)
            try:
                for kind in sorted(files, key=".json".__eq__):  # what says what they are comes last
                    put_in_place(temporary[kind], files[kind], replace=force)
                    placed.append(files[kind])
            except BaseException:
                for path in () if force else placed:
                    path.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise DeepPianoError(
            f"cannot write to {folder}: {error.strerror or error}. Nothing was kept of this piece."
        ) from error


def title_of(path: Path) -> str:
    """Return the name of a piece's file as text: it may hold bytes that no font can draw."""
    return os.fsencode(path.stem).decode("utf-8", "replace")


def hashes(staged: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of each file by its name, but of the .json, which is to hold them."""
    there = [path for kind, path in staged.items() if kind != ".json" and path.exists()]
    return {path.name: content_hash(path) for path in there}
