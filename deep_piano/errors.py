"""Every error that deep_piano raises on purpose.

The tree::

    DeepPianoError            a run failed                         exit code 1
    ├── AssetError            third-party weights or sounds are missing or broken
    ├── TrainingError         a training that a retry does not repair
    ├── PictureError          a picture cannot be drawn; its data may be valid
    └── InputError            the caller's mistake                 exit code 2
        ├── FileError         one file is missing or may not be read
        ├── AudioError        a recording cannot be used
        │   └── DecodeTimeout its decoder did not finish in time
        ├── MidiError         a MIDI file cannot be used
        ├── CheckpointError   a checkpoint cannot be used
        └── ConfigError       a setting cannot be used

A message says what is wrong, what was received and what to do, in one line.
"""

from __future__ import annotations


def one_line(text: object) -> str:
    """Return text on one printable line, for any file name."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of a library means that memory ran out."""
    signs = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "OutOfMemory", "MemoryError")
    text = f"{type(error).__name__}: {error}"
    return any(sign in text for sign in signs)


class DeepPianoError(Exception):
    """A run failed. Root of all errors raised on purpose."""

    exit_code = 1


class AssetError(DeepPianoError):
    """Third-party weights or sounds are missing, broken or cannot be fetched."""


class TrainingError(DeepPianoError):
    """A training failed and would fail again; all its workers raise it at once."""


class PictureError(DeepPianoError):
    """A picture cannot be drawn; its data may be valid."""


class InputError(DeepPianoError):
    """What the caller gave cannot be used."""

    exit_code = 2


class FileError(InputError):
    """One file of a folder is missing or not readable; the others may be fine."""


class AudioError(InputError):
    """A recording cannot be decoded, or holds nothing to continue."""


class DecodeTimeout(AudioError):
    """FFmpeg did not decode a recording within its time limit."""


class MidiError(InputError):
    """A MIDI file cannot be read, or holds nothing to continue."""


class CheckpointError(InputError):
    """A checkpoint is missing, incomplete, or belongs to another codec."""


class ConfigError(InputError):
    """A setting is unknown or out of its range."""
