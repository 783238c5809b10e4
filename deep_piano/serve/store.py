"""Recordings and pieces on disk, in a folder that `deep-piano gallery` reads too.

The folder holds ``seeds/ID/`` (a recording, what was heard of it), ``pieces/ID/`` (the takes of a
piece and ``about.json``), ``work/`` (what is not finished), ``run.json`` (that a server made it)
and the manifest, as in a folder of `generate`. A piece or a recording is there when its last file
is: until then it lies in ``work/``. Names of people's files stand in JSON only. This module knows
files; it knows nothing of HTTP.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from deep_piano.errors import DeepPianoError, InputError, one_line
from deep_piano.generate.records import RUN, Record, Records, write_manifest
from deep_piano.infra.storage.atomic import atomic_path, sha256_of
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.recordings import AUDIO_SUFFIXES, MIDI_SUFFIXES, suffix

ABOUT: Final = "about.json"
MOST_SEEDS: Final = 8
"""Recordings that are kept though no piece was made of them."""

_MADE_BY: Final = {"made_by": "deep-piano serve"}
_ID = re.compile(r"[0-9a-f]{16}")
_NAMES = {"seeds": _ID, "pieces": _ID, "work": re.compile(rf"{_ID.pattern}(-deleted)?")}
"""What a server calls what lies in its folders."""

_LONGEST_NAME = 120


class NotThereError(InputError):
    """There is no such piece or recording."""


class Store:
    """The folder of a server.

    Parameters
    ----------
    root : Path
        Made where it is missing.
    most_bytes : int
        Nothing new is begun when it holds more.

    Raises
    ------
    InputError
        When the folder holds what no server has made, cannot be written to, or another server has
        it.
    """

    def __init__(self, root: Path, most_bytes: int) -> None:
        from filelock import FileLock, Timeout

        self.root, self._most_bytes = root.absolute(), most_bytes
        self._lock = threading.RLock()
        try:
            found = _of_others(self.root)
            if found is None:
                self.root.mkdir(parents=True, exist_ok=True)
                if not (self.root / RUN).exists():  # first of all: it says whose the folder is
                    with atomic_path(self.root / RUN) as path:
                        path.write_text(json.dumps(_MADE_BY) + "\n", encoding="utf-8")
                for name in _NAMES:
                    (self.root / name).mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write to {one_line(root)}: {error.strerror}. Choose another --folder."
            ) from error
        if found is not None:
            raise InputError(
                f"{one_line(root)} holds {one_line(found)}, which `deep-piano serve` has not made. "
                "Give a new or empty --folder."
            )
        self._taken = FileLock(self.root / ".lock", timeout=0, thread_local=False)
        try:
            self._taken.acquire()
        except Timeout as error:
            raise InputError(
                f"another server has {one_line(root)}: open its page, or give another --folder."
            ) from error
        self._clean()

    def close(self) -> None:
        """Leave the folder to another server."""
        self._taken.release()

    def _clean(self) -> None:
        """Remove what a server that was killed has left unfinished."""
        for kind, names in _NAMES.items():
            for path in (self.root / kind).iterdir():
                whole = kind != "work" and (path / ABOUT).exists()
                if names.fullmatch(path.name) and not whole:
                    shutil.rmtree(path, ignore_errors=True)

    # ------------------------------------------------------------------ what is not finished

    def begin(self, *, keep: bool = True) -> Path:
        """Return a new folder for unfinished work; its name is random.

        Parameters
        ----------
        keep : bool
            Whether what is made there will stay.

        Raises
        ------
        InputError
            When the folder holds as much as it may, and more would stay.
        """
        used, most = self.used_bytes() if keep else 0, self._most_bytes
        if used > most:
            raise InputError(
                f"your pieces take {used / 1e9:.1f} GB, and {most / 1e9:.1f} GB are allowed. "
                "Delete some that you no longer need."
            )
        folder = self.root / "work" / secrets.token_hex(8)
        folder.mkdir()
        return folder

    def drop(self, folder: Path) -> None:
        """Remove unfinished work."""
        shutil.rmtree(folder, ignore_errors=True)

    def used_bytes(self) -> int:
        """How much the folder holds."""
        total = 0
        for path in self.root.rglob("*"):
            with suppress(OSError):  # the worker has just moved or removed it
                total += path.lstat().st_size
        return total

    # ------------------------------------------------------------------ recordings

    def recording_path(self, folder: Path, name: str) -> Path:
        """Return where to write a recording in a folder from `begin`.

        Of the name only its suffix is used, and only a known one.
        """
        ending = suffix(name)
        return folder / f"recording{ending if ending in AUDIO_SUFFIXES | MIDI_SUFFIXES else ''}"

    def add_seed(
        self, folder: Path, name: str, heard: Mapping[str, Any], needed: Collection[Path] = ()
    ) -> dict[str, Any]:
        """Keep a recording that was heard; older ones that nothing was made of go.

        Parameters
        ----------
        folder : Path
            From `begin`, with the recording.
        name : str
            What a person calls it.
        heard : mapping
            What `worker.Look` returned.
        needed : collection of Path
            Files that are still to be read: their recordings stay.
        """
        about = {"id": folder.name, "name": name, **heard}
        self._publish(folder, "seeds", about)
        used = {piece["seed"]["id"] for piece in self.pieces()}
        used |= {path.parent.name for path in needed}
        seeds = sorted(
            (self.root / "seeds").glob(f"*/{ABOUT}"), key=lambda path: path.stat().st_mtime
        )
        unused = [path.parent for path in seeds if path.parent.name not in used]
        for old in unused[:-MOST_SEEDS]:
            shutil.rmtree(old, ignore_errors=True)
        return about

    def seed(self, name: str) -> dict[str, Any]:
        """Return what is known of a recording; `NotThereError` else."""
        return self._about("seeds", name)

    def seed_file(self, name: str) -> Path:
        """Return a recording as it was given; `NotThereError` else."""
        folder = self._folder("seeds", name)
        return next(path for path in folder.iterdir() if path.stem == "recording")

    # ------------------------------------------------------------------ pieces

    def add_piece(self, folder: Path, about: Mapping[str, Any], made: Any) -> dict[str, Any]:
        """Keep the takes of a piece.

        Parameters
        ----------
        folder : Path
            From `begin`, with what `worker.Compose` has written.
        about : mapping
            "title", "seed" (id, name), and the settings that were asked for.
        made : mapping
            What `worker.Compose` returned.
        """
        seed_hash = {"seed.mp3": sha256_of(folder / "seed.mp3")}
        takes = []
        for take in made["takes"]:
            facts, number = take["facts"], take["facts"]["take"]
            stem = f"piece-{number}" if len(made["takes"]) > 1 else "piece"
            (folder / f"roll-{number}.json").write_text(json.dumps(take["notes"]))
            hashes = facts["files"] | {f"{stem}.json": sha256_of(folder / f"{stem}.json")}
            piece = dict(facts["piece"])
            takes.append(
                {
                    "take": number,
                    "stem": stem,
                    "seconds": piece.pop("seconds"),
                    "notes": piece.pop("notes"),
                    "figures": piece,
                    "new": take["new"],
                    "files": hashes | seed_hash,
                    "random_state": facts["random_state"],
                    "seed_sha256": facts["seed"]["sha256"],
                    "checkpoint_sha256": facts["checkpoint"]["sha256"],
                    "starred": False,
                }
            )
        whole = {
            "id": folder.name,
            **about,
            "made": time.time(),
            "seed_seconds": made["seed_seconds"],
            "takes": takes,
        }
        with self._lock:
            self._publish(folder, "pieces", whole)
            self._write_manifest()
        return whole

    def pieces(self) -> list[dict[str, Any]]:
        """Return what is known of all pieces, the last one first."""
        with self._lock:
            found = [_read(path) for path in (self.root / "pieces").glob(f"*/{ABOUT}")]
        known = [piece for piece in found if piece]
        return sorted(known, key=lambda piece: piece["made"], reverse=True)

    def piece(self, name: str) -> dict[str, Any]:
        """Return what is known of a piece; `NotThereError` else."""
        return self._about("pieces", name)

    def take(self, name: str, number: int) -> tuple[dict[str, Any], dict[str, Any], Path]:
        """Return a piece, one of its takes and their folder; `NotThereError` else."""
        piece = self.piece(name)
        for take in piece["takes"]:
            if take["take"] == number:
                return piece, take, self._folder("pieces", name)
        raise NotThereError("there is no such take. Reload the page.")

    def change(self, name: str, *, title: str | None, starred: int | None) -> dict[str, Any]:
        """Rename a piece; give a take its star, or take it back."""
        with self._lock:
            piece = self.piece(name)
            if title is not None:
                piece["title"] = shown_title(title)
            for take in piece["takes"]:
                if take["take"] == starred:
                    take["starred"] = not take["starred"]
            self._write_about(self._folder("pieces", name), piece)
            self._write_manifest()
        return piece

    def delete(self, name: str) -> None:
        """Remove a piece."""
        with self._lock:
            folder = self._folder("pieces", name)
            hidden = self.root / "work" / f"{folder.name}-deleted"
            folder.rename(hidden)  # in one step; what follows may be broken off
            self.drop(hidden)
            self._write_manifest()

    # ------------------------------------------------------------------ files

    def _publish(self, folder: Path, kind: str, about: Mapping[str, Any]) -> None:
        try:
            self._write_about(folder, about)
            folder.rename(self.root / kind / folder.name)
        except OSError as error:
            raise DeepPianoError(
                f"cannot write to {one_line(self.root)}: {error.strerror}. Nothing was kept."
            ) from error

    def _write_about(self, folder: Path, about: Mapping[str, Any]) -> None:
        with atomic_path(folder / ABOUT) as path:
            path.write_text(json.dumps(about) + "\n", encoding="utf-8")

    def _folder(self, kind: str, name: str) -> Path:
        folder = self.root / kind / name
        if not _ID.fullmatch(name) or not (folder / ABOUT).is_file():
            raise NotThereError("there is no such piece or recording any more. Reload the page.")
        return folder

    def _about(self, kind: str, name: str) -> dict[str, Any]:
        about = _read(self._folder(kind, name) / ABOUT)
        if about is None:
            raise NotThereError("what was known of this piece or recording is damaged.")
        return about

    def _write_manifest(self) -> None:
        """Write what `deep-piano gallery` reads."""
        write_manifest(open_folder(self.root), Records(_records(self.pieces())))


def made_span(piece: Mapping[str, Any], take: Mapping[str, Any]) -> list[float]:
    """Return when what was made begins and ends in a take; older ones know the seed only."""
    return list(take.get("new", [piece["seed_seconds"], take["seconds"]]))


def continuation_s(piece: Mapping[str, Any], take: Mapping[str, Any]) -> float | None:
    """Return when what continues the seed begins in a take, as `NoteTake.continuation_s` does."""
    begin, end = made_span(piece, take)
    return begin if begin > 0 and end >= take["seconds"] else None


def shown_title(title: str) -> str:
    """Return a title in one line that is not too long."""
    return one_line(title.strip())[:_LONGEST_NAME] or "piece"


def shown_name(name: str) -> str:
    """Return the name of a file, without its folder, in one line that is not too long.

    Examples
    --------
    >>> shown_name("../folder/my song.mp3"), shown_name(" ")
    ('my song.mp3', 'recording')
    """
    last = name.replace("\\", "/").rpartition("/")[2].strip()
    return one_line(last)[:_LONGEST_NAME] or "recording"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _of_others(root: Path) -> str | None:
    """Return something in a folder that no server has made; None where it may be a server's."""
    for name in (RUN, f"pieces/{RUN}"):
        if (root / name).exists() and _read(root / name) != _MADE_BY:
            return name
    if (root / RUN).exists():
        return None
    found = _shown_in(root)
    if found.issuperset(_NAMES) and (root / ".lock").exists():
        # An older server wrote no run.json before its first piece.
        found = {
            f"{kind}/{name}"
            for kind, names in _NAMES.items()
            for name in _shown_in(root / kind)
            if not names.fullmatch(name)
        }
    return min(found, default=None)


def _shown_in(folder: Path) -> set[str]:
    """Return the names in a folder but for hidden ones, such as a file manager leaves."""
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return {name for name in names if not name.startswith(".")}


def _records(pieces: list[dict[str, Any]]) -> list[Record]:
    known = ("take", "seconds", "notes", "figures", "random_state", "seed_sha256")
    return [
        Record(
            seed=f"{piece['title']} ({piece['id'][:6]})",
            status="done",
            seed_seconds=made_span(piece, take)[0],
            files={f"pieces/{piece['id']}/{file}": sha for file, sha in take["files"].items()},
            checkpoint_sha256=take["checkpoint_sha256"],
            **{name: take[name] for name in known},
        )
        for piece in pieces
        for take in piece["takes"]
    ]
