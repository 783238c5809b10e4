"""Every error that deep_piano raises on purpose.

The tree::

    DeepPianoError            a run failed                         exit code 1
    ├── AssetError            third-party weights or sounds are missing or broken
    └── InputError            the caller's mistake                 exit code 2
        ├── AudioError        a recording cannot be used
        ├── MidiError         a MIDI file cannot be used
        ├── CheckpointError   a checkpoint cannot be used
        └── ConfigError       a setting cannot be used

A message says what is wrong, what was received and what to do, in one line.
"""

from __future__ import annotations


class DeepPianoError(Exception):
    """A run failed. Root of all errors raised on purpose."""

    exit_code = 1


class AssetError(DeepPianoError):
    """Third-party weights or sounds are missing, broken or cannot be fetched."""


class InputError(DeepPianoError):
    """What the caller gave cannot be used."""

    exit_code = 2


class AudioError(InputError):
    """A recording cannot be decoded, or holds nothing to continue."""


class MidiError(InputError):
    """A MIDI file cannot be read, or holds nothing to continue."""


class CheckpointError(InputError):
    """A checkpoint is missing, incomplete, or belongs to another codec."""


class ConfigError(InputError):
    """A setting is unknown or out of its range."""
