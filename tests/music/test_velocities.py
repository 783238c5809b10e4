from __future__ import annotations

import numpy as np
import pytest

from deep_piano.music.notes import NOTE, make_notes
from deep_piano.music.velocities import as_played


@pytest.mark.parametrize(
    ("heard", "played"),
    [
        ([82, 82], [82, 82]),
        ([50, 70], [32, 52]),
        ([80, 86], [81, 87]),
        ([40, 50], [18, 28]),  # softer than the excerpts of the fit: as their softest
        ([110, 120], [112, 122]),
        ([10, 60], [1, 38]),
        ([127, 127], [127, 127]),
    ],
)
def test_soft_playing_is_heard_too_loud(heard: list[int], played: list[int]) -> None:
    notes = make_notes([0, 1], [1, 2], [60, 64], heard)
    found = as_played(notes)
    assert found["velocity"].tolist() == played
    assert notes["velocity"].tolist() == heard
    for name in ("onset", "offset", "pitch"):
        np.testing.assert_array_equal(found[name], notes[name])


def test_silence_stays_silent() -> None:
    assert as_played(np.empty(0, NOTE)).size == 0
