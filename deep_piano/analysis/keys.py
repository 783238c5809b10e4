"""Musical keys: of notes, by name, and in the order of the circle of fifths.

This module knows note arrays and names; it knows nothing of audio, models or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.music.notes import Notes

# Mean ratings of how well each pitch class fits a key, tonic first.
_KRUMHANSL_KESSLER = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
# The spelling with fewer accidentals in the key signature.
_TONICS = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}

_PITCH_CLASSES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_MAJOR_BY_FIFTHS = ("Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#")
_MINOR_BY_FIFTHS = ("Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#", "G#", "D#")

KeyCount = tuple[str, int]

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


class Key(NamedTuple):
    """A key: the pitch class of its tonic (0 is C), and "major" or "minor"."""

    tonic: int
    mode: str

    @property
    def name(self) -> str:
        """The key's name, such as "E minor"."""
        return f"{_TONICS[self.mode][self.tonic]} {self.mode}"


def pitch_class_histogram(notes: Notes) -> NDArray[np.float64]:
    """Return the share of each pitch class in the sounding time.

    Returns
    -------
    ndarray of float64, shape (12,)
        From C; its sum is 1, or 0 without notes.
    """
    sounding_s = notes["offset"] - notes["onset"]
    histogram = np.bincount(notes["pitch"] % 12, weights=sounding_s, minlength=12)
    return histogram / max(histogram.sum(), np.finfo(float).tiny)


def key_of(notes: Notes) -> Key | None:
    """Return the key whose profile correlates best with the pitch class histogram.

    See `key_of_histogram`.

    Examples
    --------
    >>> from deep_piano.music.notes import make_notes
    >>> key_of(make_notes([0, 0, 0], [1, 1, 1], [64, 67, 71], [80, 80, 80])).name
    'E minor'
    """
    return key_of_histogram(pitch_class_histogram(notes))


def key_of_histogram(histogram: NDArray[np.float64]) -> Key | None:
    """Return the key whose profile correlates best with the weights of the pitch classes.

    The Krumhansl-Schmuckler method (C. L. Krumhansl, *Cognitive Foundations of Musical Pitch*,
    1990) with the profiles of Krumhansl and Kessler, *Tracing the dynamic changes in perceived
    tonal organization*, Psychological Review 89, 1982.

    Parameters
    ----------
    histogram : ndarray, shape (12,)
        From C; its sum is 1, or 0 without notes.

    Returns
    -------
    Key or None
        None where no key fits better than any other: no notes, or all pitch classes alike.
    """
    histogram = histogram - histogram.mean()
    if np.abs(histogram).max() < 1e-9:
        return None
    keys, profiles = [], []
    for mode, profile in _KRUMHANSL_KESSLER.items():
        for tonic in range(12):
            keys.append(Key(tonic, mode))
            profiles.append(np.roll(profile, tonic))
    centred = np.array(profiles)
    centred -= centred.mean(axis=1, keepdims=True)
    correlation = centred @ histogram / np.linalg.norm(centred, axis=1)
    return keys[int(np.argmax(correlation))]


def keys_by_fifths(counts: Mapping[str, int]) -> tuple[list[tuple[KeyCount, KeyCount]], int]:
    """Put the counts of keys in the order of the circle of fifths.

    Parameters
    ----------
    counts : mapping of str to int
        As `summarise` returns them for `key`; C# major and Db major are one key.

    Returns
    -------
    rows : list of 12 pairs
        A major key and its relative minor, each with its name (as it is spelled in `counts`, where
        it is there) and its count, from Db by way of C to F#.
    others : int
        How many have no key, or one of another name.
    """
    found: dict[tuple[int, str], KeyCount] = {}
    others = 0
    for name in sorted(counts):
        tonic, _, mode = name.partition(" ")
        if mode not in ("major", "minor") or tonic[:1] not in _PITCH_CLASSES or not tonic:
            others += counts[name]
            continue
        key = _pitch_class(tonic), mode
        found[key] = name, counts[name] + found.get(key, ("", 0))[1]
    rows = []
    for major, minor in zip(_MAJOR_BY_FIFTHS, _MINOR_BY_FIFTHS, strict=True):
        default_major, default_minor = (f"{major} major", 0), (f"{minor} minor", 0)
        rows.append(
            (
                found.get((_pitch_class(major), "major"), default_major),
                found.get((_pitch_class(minor), "minor"), default_minor),
            )
        )
    return rows, others


def _pitch_class(tonic: str) -> int:
    """Return the pitch class of a name such as F# or Bb."""
    return (_PITCH_CLASSES[tonic[0]] + tonic.count("#") - tonic[1:].count("b")) % 12


def note_name(pitch: int) -> str:
    """Return the name of a MIDI pitch: 60 is C4."""
    names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    return f"{names[pitch % 12]}{pitch // 12 - 1}"
