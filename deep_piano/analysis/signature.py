"""The key signature of notes, where it is sure.

Pure NumPy on note arrays; knows nothing of files.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from deep_piano.analysis.keys import Key, key_of, pitch_class_histogram
from deep_piano.music.notes import Notes

LEAST_SHARE: Final = 0.85
"""Of the sounding time on the signature's scale, for it to be sure."""

_SCALE = (0, 2, 4, 5, 7, 9, 11)


class Signature(NamedTuple):
    """A key signature: sharps, or as a negative number flats, and whether the key is minor."""

    fifths: int
    minor: bool


def signature_of(key: Key) -> Signature:
    """Return the signature of a key.

    Examples
    --------
    >>> signature_of(Key(4, "minor")), signature_of(Key(8, "major"))
    (Signature(fifths=1, minor=True), Signature(fifths=-4, minor=False))
    """
    minor = key.mode == "minor"
    major_tonic = key.tonic + 3 if minor else key.tonic
    fifths = (7 * major_tonic + 5) % 12 - 5
    return Signature(-6 if minor and fifths == 6 else fifths, minor)  # E flat minor, as it is named


def sure_signature(notes: Notes) -> Signature | None:
    """Return the signature that two estimates agree on, None where they do not.

    The key must be the most likely one by its profile, its scale that which holds the most of the
    sounding time, and that must be `LEAST_SHARE` of it or more.
    """
    key = key_of(notes)
    if key is None:
        return None
    histogram = pitch_class_histogram(notes)
    share = [histogram[np.add(_SCALE, tonic) % 12].sum() for tonic in range(12)]
    signature = signature_of(key)
    likeliest = int(np.argmax(share))
    if 7 * signature.fifths % 12 != likeliest or share[likeliest] < LEAST_SHARE:
        return None
    return signature
