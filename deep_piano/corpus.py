"""A folder of MIDI files becomes recordings, split into training and validation.

The split is by recording, never by window. A `metadata.csv` with the columns `midi_filename` and
`split` decides where there is one (MAESTRO's works as it is); elsewhere the hash of the file's
name and folder does, so that a file stays on its side whatever stands beside it.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deep_piano.errors import InputError, MidiError
from deep_piano.notes import MIDI_SUFFIXES, Notes, read_midi

logger = logging.getLogger(__name__)

TOO_FEW_NOTES = 64
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Recording:
    """One piece of the corpus: its path within the corpus, its split and its notes."""

    name: str
    split: str
    notes: Notes

    @property
    def group(self) -> str:
        """The corpus's sub-folder that the recording lies in ("" at the top)."""
        return self.name.split("/")[0] if "/" in self.name else ""


@dataclass(frozen=True)
class Corpus:
    """Recordings by split, and the files that were left out, each with its reason."""

    recordings: list[Recording]
    rejects: dict[str, str] = field(default_factory=dict)

    def of(self, split: str) -> list[Recording]:
        """Return the recordings of a split."""
        return [recording for recording in self.recordings if recording.split == split]


def load_corpus(
    folder: Path,
    *,
    validation_share: float = 0.05,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Read every MIDI file below a folder.

    Parameters
    ----------
    folder : Path
    validation_share : float
        The share of the files without metadata that are held out.
    progress : callable, optional
        Called with the files read and the files found.

    Raises
    ------
    InputError
        When the folder is missing, holds no MIDI file, or leaves a split empty.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}. Give a folder of MIDI files.")
    # os.walk follows no links to folders, so a loop of links cannot trap it.
    paths = sorted(
        Path(root) / name
        for root, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in MIDI_SUFFIXES
    )
    if not paths:
        raise InputError(f"{folder} holds no MIDI file (.mid, .midi).")
    splits = _metadata_splits(folder)
    shares = {path: _hash_share(path) for path in paths if path not in splits}
    # Of a few songs none may fall below the share: then the lowest one is held out.
    held_out = max(validation_share, min(shares.values(), default=0.0))
    recordings, rejects = [], {}
    for index, path in enumerate(paths):
        name = path.relative_to(folder).as_posix()
        try:
            notes = read_midi(path)
        except (MidiError, OSError) as error:
            rejects[name] = str(error)
            continue
        finally:
            if progress is not None:
                progress(index + 1, len(paths))
        if len(notes) < TOO_FEW_NOTES:
            rejects[name] = f"{len(notes)} notes, fewer than {TOO_FEW_NOTES}"
            continue
        split = splits.get(path) or ("validation" if shares[path] <= held_out else "train")
        recordings.append(Recording(name, split, notes))
    corpus = Corpus(recordings, rejects)
    for name, reason in rejects.items():
        logger.warning("left out %s: %s", name, reason)
    for split in ("train", "validation"):
        if not corpus.of(split):
            raise InputError(
                f"no recording of {folder} falls into the {split} split ({len(recordings)} usable "
                f"of {len(paths)} files). Add more files, or name the split in a metadata.csv."
            )
    return corpus


def _metadata_splits(folder: Path) -> dict[Path, str]:
    splits: dict[Path, str] = {}
    for table in sorted(folder.rglob("metadata.csv")):
        try:
            with table.open(newline="", encoding="utf-8") as lines:
                rows = list(csv.DictReader(lines))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{table} cannot be read as UTF-8 CSV: {error}. Mend it.") from error
        for row in rows:
            name, split = row.get("midi_filename"), row.get("split")
            if not (name and split):
                continue
            if split not in SPLITS:
                raise InputError(
                    f"{table} gives {name} the split {split!r}. Use one of {', '.join(SPLITS)}."
                )
            splits[table.parent / name] = split
    return splits


def _hash_share(path: Path) -> float:
    """Return a number from 0 to 1 that stays with a song, wherever its folder lies."""
    # Clips of one song carry its name and a number (EMOPIA: Q1_<video>_0): keep them together.
    clip = re.fullmatch(r"Q[0-9]_(.+)_[0-9]+", path.stem)
    song = f"{path.parent.name}/{clip[1] if clip else path.stem}"
    digest = hashlib.sha256(song.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
