"""A folder of MIDI files becomes recordings, split into training and validation.

The split is by recording, never by window. A CSV with a column `split` decides where it names a
file (MAESTRO's works as it is), else a folder named after a split; elsewhere the hash of the
file's name and folder does, so that a file stays on its side whatever stands beside it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from deep_piano.config import PrepareConfig
from deep_piano.errors import FileError, InputError, MidiError
from deep_piano.notes import MIDI_SUFFIXES, Notes, read_midi
from deep_piano.sources import Splits, hash_share
from deep_piano.storage import open_folder

logger = logging.getLogger(__name__)

TOO_FEW_NOTES = 64


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
    place = open_folder(folder)
    entries = place.entries()
    names = [e.name for e in entries if PurePosixPath(e.name).suffix.lower() in MIDI_SUFFIXES]
    if not names:
        raise InputError(f"{folder} holds no MIDI file (.mid, .midi).")
    splits = Splits(place, entries, PrepareConfig(split="auto"))
    shares = {name: hash_share(_song(name)) for name in names if splits.of(name) is None}
    # Of a few songs none may fall below the share: then the lowest one is held out.
    held_out = max(validation_share, min(shares.values(), default=0.0))
    recordings, rejects = [], {}
    for index, name in enumerate(names):
        try:
            with place.local(name) as path:
                notes = read_midi(path)
        except (FileError, MidiError, OSError) as error:
            rejects[name] = str(error)
            continue
        finally:
            if progress is not None:
                progress(index + 1, len(names))
        if len(notes) < TOO_FEW_NOTES:
            rejects[name] = f"{len(notes)} notes, fewer than {TOO_FEW_NOTES}"
            continue
        split = splits.of(name) or ("validation" if shares[name] <= held_out else "train")
        recordings.append(Recording(name, split, notes))
    corpus = Corpus(recordings, rejects)
    for name, reason in rejects.items():
        logger.warning("left out %s: %s", name, reason)
    for split in ("train", "validation"):
        if not corpus.of(split):
            raise InputError(
                f"no recording of {folder} falls into the {split} split ({len(recordings)} usable "
                f"of {len(names)} files). Add more files, or name the split in a metadata.csv."
            )
    return corpus


def _song(name: str) -> str:
    """Return what the clips of one song have in common, wherever the corpus lies."""
    # They carry its name and a number (EMOPIA: Q1_<video>_0).
    path = PurePosixPath(name)
    clip = re.fullmatch(r"Q[0-9]_(.+)_[0-9]+", path.stem)
    return f"{path.parent.name}/{clip[1] if clip else path.stem}"
