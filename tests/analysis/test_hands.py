from __future__ import annotations

import numpy as np

from deep_piano.analysis.hands import left_hand


def test_bass_and_melody():
    assert left_hand([np.array([41, 72]), np.array([72]), np.array([43, 76])] * 8) == [1, 0, 1] * 8


def test_no_hand_reaches_farther_than_it_can(rng):
    chords = [np.sort(rng.choice(np.arange(36, 85), 6, replace=False)) for _ in range(200)]
    counts = left_hand(chords)
    spans = [
        [np.ptp(part) for part in (chord[:count], chord[count:]) if len(part)]
        for chord, count in zip(chords, counts, strict=True)
    ]
    in_halves = [max(np.ptp(chord[:3]), np.ptp(chord[3:])) for chord in chords]
    assert np.mean([max(span) for span in spans]) < np.mean(in_halves)


def test_both_hands_move_together():
    high = [np.array([pitch, pitch + 12]) for pitch in [*range(60, 84), *[84] * 20]]
    assert left_hand(high)[-1] in (0, 1)
    assert left_hand([]) == []
