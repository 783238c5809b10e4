"""Which files are recordings, by their names, and what a folder of them holds.

This module opens no recording.
"""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import Final

from deep_piano.errors import InputError
from deep_piano.infra.storage.folder import Entry, Folder
from deep_piano.music.notes import MIDI_SUFFIXES

AUDIO_SUFFIXES: Final = frozenset(
    {
        *(".aac", ".ac3", ".aif", ".aiff", ".amr", ".ape", ".au", ".avi", ".caf", ".flac", ".flv"),
        *(".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpc", ".mpeg"),
        *(".mpg", ".oga", ".ogg", ".ogv", ".opus", ".tta", ".w64", ".wav", ".webm", ".wma", ".wv"),
    }
)


def is_midi(name: str) -> bool:
    """Say, by its name, whether a file is MIDI."""
    return suffix(name) in MIDI_SUFFIXES


def is_recording(name: str) -> bool:
    """Say, by its name, whether a file is audio or MIDI."""
    hidden = posixpath.basename(name).startswith(".")
    return not hidden and suffix(name) in AUDIO_SUFFIXES | MIDI_SUFFIXES


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
    recordings = [_checked(e) for e in entries if e.problem or is_recording(e.name)]
    if not recordings:
        raise InputError(
            f"{corpus.uri} holds no recording ({len(entries)} other files): no audio that FFmpeg "
            "reads, such as .mp3, .wav or .flac, and no .mid. Give another folder."
        )
    chosen = {entry.name for entry in recordings}
    return recordings, [entry for entry in entries if entry.name not in chosen]


def _checked(entry: Entry) -> Entry:
    """Return an entry, with a problem where it is empty."""
    empty = not (entry.size or entry.problem)
    return replace(entry, problem="it is empty (0 bytes)") if empty else entry
