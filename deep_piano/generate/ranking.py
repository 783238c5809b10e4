"""Which of several takes is the best: by what the network itself and the seed say of them.

Knows the figures of pieces; it knows nothing of how they are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from deep_piano.analysis.note_figures import MOST_REPETITIONS

LONGEST_SILENCE_S: Final = 4.0


def best_first(takes: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the places of takes of one seed, the best first.

    Takes that loop or fall silent come last. The others are placed twice, by the network's mean
    loss of a note and by the pitch-class cosine with the seed, and the sums of their places decide
    (Borda's count); of equals the first stays first.

    Parameters
    ----------
    takes : sequence of mapping
        The figures of each, as they stand in its .json: "nats_a_note", "pitch_class_cosine",
        "longest_loop", "longest_silence_s".

    Examples
    --------
    >>> good = {"nats_a_note": 8, "pitch_class_cosine": 0.9, "longest_loop": 2,
    ...         "longest_silence_s": 1}
    >>> best_first([good | {"longest_loop": 40}, good | {"nats_a_note": 9}, good])
    [2, 1, 0]
    """

    def place(mine: Mapping[str, Any]) -> tuple[bool, int]:
        broken = (
            mine["longest_loop"] > MOST_REPETITIONS or mine["longest_silence_s"] > LONGEST_SILENCE_S
        )
        likelier = sum(other["nats_a_note"] < mine["nats_a_note"] for other in takes)
        more_faithful = sum(
            other["pitch_class_cosine"] > mine["pitch_class_cosine"] for other in takes
        )
        return broken, likelier + more_faithful

    return sorted(range(len(takes)), key=lambda index: place(takes[index]))
