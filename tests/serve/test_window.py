"""What a part of a recording holds, in words."""

from __future__ import annotations

import pytest

from deep_piano.serve.window import window_facts

CHORDS = [[s / 4, s / 4 + 1, pitch, 80] for s in range(8) for pitch in (57, 60, 64)]


@pytest.mark.parametrize(
    ("begin", "end", "text"),
    [
        (0, 2, "24 notes, A minor (fairly sure)"),
        (1, 1.5, "6 notes, A minor (fairly sure)"),
        (1, 1.2, "3 notes: too few to continue, at least 4 are needed"),
        (5, 9, "0 notes: too few to continue, at least 4 are needed"),
    ],
)
def test_notes_are_counted_and_their_key_is_named(begin, end, text):
    assert window_facts(CHORDS, begin, end)["text"] == text


def test_nothing_heard_is_no_error():
    assert window_facts([], 0, 2)["notes"] == 0
