"""Which files are recordings, by their names, and what a folder of them holds.

This module opens no recording.
"""

from __future__ import annotations

import logging
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from deep_piano.errors import InputError, one_line
from deep_piano.infra.storage.folder import Entry, Folder

MIDI_SUFFIXES: Final = frozenset({".kar", ".mid", ".midi", ".rmi", ".smf"})
# All that the containers in `ffmpeg` are commonly called.
AUDIO_SUFFIXES: Final = frozenset(
    {
        *(
            ".3g2",
            ".3ga",
            ".3gp",
            ".aac",
            ".ac3",
            ".adts",
            ".aif",
            ".aifc",
            ".aiff",
            ".amr",
            ".ape",
        ),
        *(".asf", ".au", ".avi", ".caf", ".dsf", ".eac3", ".f4v", ".flac", ".flv", ".m2ts", ".m4a"),
        *(".m4b", ".m4r", ".m4v", ".mka", ".mkv", ".mov", ".mp1", ".mp2", ".mp3", ".mp4", ".mpa"),
        *(".mpc", ".mpeg", ".mpg", ".mpga", ".mts", ".oga", ".ogg", ".ogv", ".oma", ".opus", ".qt"),
        *(".ra", ".rm", ".snd", ".spx", ".ts", ".tta", ".vob", ".w64", ".wav", ".wave", ".weba"),
        *(".webm", ".wma", ".wmv", ".wv"),
    }
)

SKIPPED_FOLDERS: Final = frozenset(
    {
        *("__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "lost+found"),
        "system volume information",
    }
)
"""Folders, in lower case, that systems make for themselves: waste, thumbnails, resource forks."""

logger = logging.getLogger(__name__)


def is_midi(name: str) -> bool:
    """Say, by its name, whether a file is MIDI."""
    return suffix(name) in MIDI_SUFFIXES


def is_recording(name: str) -> bool:
    """Say, by its name, whether a file is audio or MIDI, and not hidden or waste."""
    return not is_skipped(name) and suffix(name) in AUDIO_SUFFIXES | MIDI_SUFFIXES


def is_skipped(name: str) -> bool:
    """Say whether a file is hidden, or in a folder that is hidden or of the system's own."""
    return any(part.startswith(".") or part.lower() in SKIPPED_FOLDERS for part in name.split("/"))


def suffix(name: str) -> str:
    """Return the suffix of a name, with its dot, in lower case."""
    return posixpath.splitext(name)[1].lower()


def survey(corpus: Folder) -> tuple[list[Entry], list[Entry]]:
    """Return what a corpus holds: recordings by their names, and everything else.

    Raises
    ------
    InputError
        When there is no corpus, or no recording in it.
    """
    entries = corpus.entries()
    recordings: list[Entry] = []
    others: list[Entry] = []
    for entry in entries:
        hidden = is_skipped(entry.name)
        chosen = is_recording(entry.name) or (bool(entry.problem) and not hidden)
        (recordings if chosen else others).append(_checked(entry) if chosen else entry)
    if not recordings:
        found = f": {in_words(kinds(others))}" if others else ""
        raise InputError(
            f"{corpus.uri} holds no recording ({len(entries)} other files{found}): no audio that "
            "FFmpeg reads, such as .mp3, .wav or .flac, and no .mid. Give another folder."
        )
    skipped = [e.name for e in others if is_skipped(e.name) and _sounds(e.name)]
    if skipped:
        logger.warning(
            "%d recordings that are hidden, or in folders such as __MACOSX and @eaDir, are left "
            "alone, such as %s.",
            *(len(skipped), one_line(skipped[0])),
        )
    return recordings, others


def kinds(others: Iterable[Entry]) -> dict[str, int]:
    """Count files that are no recordings by what they are: hidden, or of a suffix ("": none)."""
    found = Counter("hidden" if is_skipped(e.name) else suffix(e.name) for e in others)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def in_words(counts: Mapping[str, int], *, most: int = 6) -> str:
    """Return `kinds` for people, the most frequent first."""
    names = {"": "without a suffix", "hidden": "hidden or in folders of the system"}
    shown = [f"{count:,} {one_line(names.get(kind, kind))}" for kind, count in counts.items()]
    rest = sum([*counts.values()][most:])
    return ", ".join(shown[:most] + [f"{rest:,} of other kinds"] * bool(rest))


def _sounds(name: str) -> bool:
    # Beside every file on some disks a Macintosh leaves one of the same suffix, "._" before it.
    mine = not posixpath.basename(name).startswith("._")
    return mine and suffix(name) in AUDIO_SUFFIXES | MIDI_SUFFIXES


def _checked(entry: Entry) -> Entry:
    """Return an entry, with a problem where it is empty."""
    empty = not (entry.size or entry.problem)
    return replace(entry, problem="it is empty (0 bytes)") if empty else entry
