from __future__ import annotations

import pytest

from deep_piano.analysis.keys import Key
from deep_piano.analysis.signature import Signature, signature_of, sure_signature
from deep_piano.music.notes import make_notes

MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)


def scale(tonic, steps=MAJOR):
    """Return a scale up and a chord of its tonic."""
    count = len(steps)
    onset = [*range(count), *[count] * 3]
    pitch = [tonic + step for step in steps] + [tonic, tonic + steps[2], tonic + 7]
    return make_notes(onset, [at + 1 for at in onset], pitch, [64] * len(onset))


@pytest.mark.parametrize(
    ("tonic", "fifths"), [(60, 0), (67, 1), (62, 2), (65, -1), (63, -3), (61, -5), (66, 6)]
)
def test_major_keys(tonic, fifths):
    assert sure_signature(scale(tonic)) == Signature(fifths, False)


def test_a_minor_key_keeps_its_leading_note():
    notes = scale(69, (0, 2, 3, 5, 7, 8, 11, 12))
    assert sure_signature(notes) == Signature(0, True)


def test_chromatic_music_has_no_sure_signature():
    assert sure_signature(scale(60, tuple(range(13)))) is None
    assert sure_signature(make_notes([], [], [], [])) is None


def test_the_signature_is_spelled_as_the_key_is_named():
    assert signature_of(Key(3, "minor")) == Signature(-6, True)  # Eb minor
    assert signature_of(Key(6, "minor")) == Signature(3, True)  # F# minor
