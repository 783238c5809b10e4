"""Musical keys: of notes, by name, and in the order of the circle of fifths.

This module knows note arrays and names; it knows nothing of audio, models or files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.music.notes import Notes

# How often each pitch class is struck in a key, tonic first, in the first and last bars of works.
ALBRECHT_SHANAHAN: Final = {
    "major": (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081),
    "minor": (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052),
}
# Music begins and ends in its key, and modulates in between: the extra weight of notes there, and
# the time constant of its decay.
_EDGE_WEIGHT, _EDGE_S = 4.0, 10.0
# Correlation with the best profile, and its lead over the next: by `bench.keys`, 98 % of estimates
# above the first pair are right, and 85 % of those above the second.
_SURE, _FAIRLY_SURE = (0.94, 0.06), (0.84, 0.04)
# The spelling with fewer accidentals in the key signature.
_TONICS = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}

_PITCH_CLASSES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}

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


class KeyEstimate(NamedTuple):
    """The likeliest key of some music, and how likely it is.

    Attributes
    ----------
    key : Key or None
        None where no key fits better than any other: no notes, or all pitch classes alike.
    certainty : str
        "sure", "fairly sure" or "unclear"; "none" without a key.
    """

    key: Key | None
    certainty: str

    @property
    def name(self) -> str:
        """The key's name, such as "E minor", or "none"."""
        return self.key.name if self.key else "none"


def estimate_key(notes: Notes) -> KeyEstimate:
    """Return the likeliest key of notes; every key in this project is estimated so.

    The Krumhansl-Schmuckler method: the profile that correlates best with the weights of the pitch
    classes. A note weighs as the root of its length, and up to five times as much at the beginning
    and the end. `bench.keys` measures how often that is right, also for other profiles and weights.

    Examples
    --------
    >>> from deep_piano.music.notes import make_notes
    >>> estimate_key(make_notes([0, 0, 0], [1, 1, 1], [64, 67, 71], [80, 80, 80]))
    KeyEstimate(key=Key(tonic=4, mode='minor'), certainty='fairly sure')
    """
    if not len(notes):
        return KeyEstimate(None, "none")
    weights = np.zeros(12)
    np.add.at(weights, notes["pitch"] % 12, weights_of(notes))
    return estimate_of_weights(weights)


def weights_of(notes: Notes) -> NDArray[np.float64]:
    """Return the weight of each note for the key: see `estimate_key`."""
    onset, last = notes["onset"] - notes["onset"].min(), np.ptp(notes["onset"])
    edges = np.exp(-onset / _EDGE_S) + np.exp((onset - last) / _EDGE_S)
    return np.sqrt(notes["offset"] - notes["onset"]) * (1 + _EDGE_WEIGHT * edges)


def key_of(notes: Notes) -> Key | None:
    """Return the key of `estimate_key`, however certain it is."""
    return estimate_key(notes).key


def estimate_of_weights(weights: NDArray[np.float64]) -> KeyEstimate:
    """Return the key whose profile correlates best with the weights of the pitch classes.

    The method is that of C. L. Krumhansl, *Cognitive Foundations of Musical Pitch*, 1990; the
    profiles are those of J. Albrecht and D. Shanahan, *The Use of Large Corpora to Train a New Type
    of Key-Finding Algorithm*, Music Perception 31, 2013.

    Parameters
    ----------
    weights : ndarray, shape (12,)
        From C; none negative.
    """
    centred = weights / max(weights.sum(), np.finfo(float).tiny)
    centred = centred - centred.mean()
    if np.abs(centred).max() < 1e-9:
        return KeyEstimate(None, "none")
    keys, profiles, norms = _profiles()
    correlation = profiles @ centred / (norms * np.linalg.norm(centred))
    next_best, best = np.sort(correlation)[-2:]
    words = {"sure": _SURE, "fairly sure": _FAIRLY_SURE}
    fits = (word for word, (fit, lead) in words.items() if best >= fit and best - next_best >= lead)
    return KeyEstimate(keys[int(np.argmax(correlation))], next(fits, "unclear"))


@cache
def _profiles() -> tuple[list[Key], NDArray[np.float64], NDArray[np.float64]]:
    """Return all keys, their centred profiles, shape (24, 12), and the lengths of these."""
    keys = [Key(tonic, mode) for mode in ALBRECHT_SHANAHAN for tonic in range(12)]
    profiles = np.array([np.roll(ALBRECHT_SHANAHAN[key.mode], key.tonic) for key in keys])
    profiles -= profiles.mean(axis=1, keepdims=True)
    return keys, profiles, np.linalg.norm(profiles, axis=1)


def keys_by_fifths(counts: Mapping[str, int]) -> tuple[list[tuple[KeyCount, KeyCount]], int]:
    """Put the counts of keys in the order of the circle of fifths.

    Parameters
    ----------
    counts : mapping of str to int
        As `summarise` returns them for `key`; C# major and Db major are one key.

    Returns
    -------
    rows : list of 12 pairs
        A major key and its relative minor, each with its name (that of `Key.name`, however it is
        spelled in `counts`) and its count, from Db by way of C to F#.
    others : int
        How many have no key, or one of another name.
    """
    found: Counter[Key] = Counter()
    others = 0
    for name, count in counts.items():
        tonic, _, mode = name.partition(" ")
        if mode in _TONICS and tonic[:1] in _PITCH_CLASSES:
            found[Key(_pitch_class(tonic), mode)] += count
        else:
            others += count
    rows = []
    for fifths in range(-5, 7):
        major = Key(7 * fifths % 12, "major")
        minor = Key((major.tonic + 9) % 12, "minor")
        rows.append(((major.name, found[major]), (minor.name, found[minor])))
    return rows, others


def key_named(name: str) -> Key:
    """Return the key of a name, such as "F# minor"."""
    tonic, mode = name.split(" ")
    return Key(_pitch_class(tonic), mode)


def _pitch_class(tonic: str) -> int:
    """Return the pitch class of a name such as F# or Bb."""
    return (_PITCH_CLASSES[tonic[0]] + tonic.count("#") - tonic[1:].count("b")) % 12


def note_name(pitch: int) -> str:
    """Return the name of a MIDI pitch: 60 is C4."""
    return f"{PITCH_CLASSES[pitch % 12]}{pitch // 12 - 1}"
