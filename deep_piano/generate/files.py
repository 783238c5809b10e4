"""Where a piece is written: names that may be used, and files that appear together or not at all.

This module knows paths; it knows nothing of what is written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deep_piano.errors import DeepPianoError, InputError
from deep_piano.infra.storage.atomic import identity_of, put_in_place, require_free
from deep_piano.music.audio import ENCODED_SUFFIXES, content_hash

SCORE_SUFFIX = ".musicxml"
SILENT_SUFFIXES = (".mid", SCORE_SUFFIX)
OUTPUT_SUFFIXES = (*sorted(ENCODED_SUFFIXES), *SILENT_SUFFIXES)

MEDIA_TYPES: Final = {
    **{".mp3": "audio/mpeg", ".wav": "audio/wav", ".flac": "audio/flac", ".ogg": "audio/ogg"},
    **{".mid": "audio/midi", SCORE_SUFFIX: "application/vnd.recordare.musicxml+xml"},
    **{".png": "image/png", ".json": "application/json"},
}
"""What browsers call the files of a piece."""


@dataclass(frozen=True)
class PieceFiles:
    """The files of a piece.

    Attributes
    ----------
    picture, facts : Path or None
        A .png, and the .json that says what the piece is made of; None where one other file alone
        is asked for.
    notes : Path or None
        A .mid; None where the piece has no notes.
    sound : Path or None
        None where notes alone are asked for.
    score : Path or None
        A .musicxml, where it is asked for.
    named : Path or None
        The one that was asked for; the sound, else the notes, where nothing is said.
    force : bool
        Whether other files of these names may be replaced.
    """

    picture: Path | None = None
    facts: Path | None = None
    notes: Path | None = None
    sound: Path | None = None
    score: Path | None = None
    named: Path | None = None
    force: bool = False

    def __iter__(self) -> Iterator[Path]:
        """Iterate over the files that there are, the facts last."""
        every = (self.notes, self.score, self.picture, self.sound, self.facts)
        return (path for path in every if path is not None)

    def written(self) -> Iterator[Path]:
        """Iterate over the files, without a picture that could not be drawn."""
        return (path for path in self if path != self.picture or path.exists())

    @property
    def main(self) -> Path:
        """The one that was asked for."""
        main = self.named or self.sound or self.notes or self.score or self.picture
        assert main is not None
        return main

    @property
    def title(self) -> str:
        """The name as text: it may hold bytes that no font can draw."""
        return os.fsencode(self.main.stem).decode("utf-8", "replace")

    def inside(self, folder: Path) -> PieceFiles:
        """Return files of the same names in another folder."""

        def there(path: Path | None) -> Path | None:
            return path and folder / path.name

        picture, facts, notes = map(there, (self.picture, self.facts, self.notes))
        sound, score, named = map(there, (self.sound, self.score, self.named))
        return PieceFiles(picture, facts, notes, sound, score, named, self.force)

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each file by its name, but of the .json, which holds them."""
        return {path.name: content_hash(path) for path in self.written() if path != self.facts}


@dataclass(frozen=True)
class Piece:
    """A piece that was written: its files, and the facts that stand in the .json."""

    files: PieceFiles
    facts: dict[str, Any]

    @property
    def path(self) -> Path:
        """The file that was asked for."""
        return self.files.main


def targets(
    out: Path,
    takes: int,
    *,
    force: bool,
    given: Collection[Path],
    notes: bool = True,
    score: bool = False,
) -> list[PieceFiles]:
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
    score : bool
        Whether there is a ".musicxml", whatever is named.

    Returns
    -------
    list of PieceFiles
        One a take.

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
        main, beside = out.with_name(name + out.suffix), out.with_name(name + ".mid")
        picture, facts = out.with_name(name + ".png"), out.with_name(name + ".json")
        midi = main if suffix == ".mid" else beside if notes else None
        written = out.with_name(name + SCORE_SUFFIX) if score else None
        written = main if suffix == SCORE_SUFFIX else written
        sound = None if suffix in SILENT_SUFFIXES else main
        found.append(PieceFiles(picture, facts, midi, sound, written, named=main, force=force))
    _require_free((path for files in found for path in files), force=force, given=given)
    _require_writable(out.parent)
    return found


def alone(out: Path, *, force: bool, given: Collection[Path]) -> PieceFiles:
    """Return one file of a piece, with nothing beside it, after making sure that it may be written.

    Parameters
    ----------
    out : Path
        Beside what `targets` takes, a .png or a .json will do.
    force : bool
        A file that is there may be replaced.
    given : collection of Path
        As for `targets`.

    Raises
    ------
    InputError
        When it cannot be written, is there already, or is one of those given.
    """
    suffix = out.suffix.lower()
    kinds = {".png": "picture", ".json": "facts", ".mid": "notes", SCORE_SUFFIX: "score"}
    kinds |= dict.fromkeys(ENCODED_SUFFIXES, "sound")
    if suffix not in kinds:
        raise InputError(f"cannot write {out}: its name must end in one of {', '.join(kinds)}.")
    _require_free([out], force=force, given=given)
    _require_writable(out.parent)
    one: dict[str, Any] = {kinds[suffix]: out}
    return PieceFiles(named=out, force=force, **one)


def _require_free(paths: Iterable[Path], *, force: bool, given: Collection[Path]) -> None:
    identities = {identity_of(path) for path in _with_contents(given)} - {None}
    for path in paths:
        require_free(path, force=force, given=identities)


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
def staged(files: PieceFiles) -> Iterator[PieceFiles]:
    """Yield paths in a hidden folder beside `files`; put all in place when the block succeeds.

    Parameters
    ----------
    files : PieceFiles
        From `targets`. A picture that the block did not write is left out: a picture that cannot
        be drawn costs no piece.

    Raises
    ------
    InputError
        When another run has taken one of the names meanwhile, and `files.force` is not set.
    DeepPianoError
        When the system does not let them be written.
    """
    folder = files.main.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder) as staging:
            temporary = files.inside(Path(staging))
            yield temporary
            drawn = temporary.picture is None or temporary.picture.exists()
            if files.force and files.picture and not drawn:
                files.picture.unlink(missing_ok=True)  # it shows another piece
            _put_all_in_place(temporary, folder)
    except OSError as error:
        raise DeepPianoError(
            f"cannot write to {folder}: {error.strerror or error}. Nothing was kept of this piece."
        ) from error


def _put_all_in_place(temporary: PieceFiles, folder: Path) -> None:
    """Move files into a folder, the facts last; take them back where a name is taken."""
    placed: list[Path] = []
    try:
        for path in temporary.written():
            put_in_place(path, folder / path.name, replace=temporary.force)
            placed.append(folder / path.name)
    except BaseException:
        for path in () if temporary.force else placed:
            path.unlink(missing_ok=True)
        raise
