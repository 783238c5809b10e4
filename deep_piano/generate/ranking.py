"""Which takes of a seed are kept: the best by what predicts that they are taken for a pianist's.

`bench.ranking` measures that, and docs/originality.md has the table. This module knows the figures
of takes; it knows nothing of notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from deep_piano.analysis.note_figures import FEWEST_PITCH_CLASSES, MOST_REPETITIONS

LONGEST_SILENCE_S: Final = 4.0

WEIGHTS: Final[Mapping[str, int]] = MappingProxyType({"judge_log_odds": 2, "nats_a_note": 1})
"""How much a place by each figure counts; no other that was tried predicts anything."""
RANKED_BY: Final = (*WEIGHTS, "longest_loop", "longest_silence_s", "fewest_pitch_classes")

_LESS_IS_BETTER: Final = ("nats_a_note",)


def best_first(
    takes: Sequence[Mapping[str, Any]], weights: Mapping[str, int] = WEIGHTS
) -> list[int]:
    """Return the places of takes of one seed, the best first.

    Takes that loop, fall silent or stay on a few pitch classes come last. The others are placed by
    each figure that has a weight, and the weighed sums of their places decide (Borda's count); of
    equals the first stays first.

    Parameters
    ----------
    takes : sequence of mapping
        The figures of each that `RANKED_BY` names, as they stand in its .json.
    weights : mapping of str to int
        Figures, and how much a place by them counts.

    Examples
    --------
    >>> good = {"judge_log_odds": 0, "nats_a_note": 8, "longest_loop": 2,
    ...         "longest_silence_s": 1, "fewest_pitch_classes": 5}
    >>> best_first([good | {"longest_loop": 40}, good | {"nats_a_note": 9}, good])
    [2, 1, 0]
    """

    def place(mine: Mapping[str, Any]) -> tuple[bool, int]:
        behind = sum(weight * place_by(name, mine, takes) for name, weight in weights.items())
        return broken(mine), behind

    return sorted(range(len(takes)), key=lambda index: place(takes[index]))


def broken(take: Mapping[str, Any]) -> bool:
    """Say whether a take has a fault that none should have."""
    return bool(
        take["longest_loop"] > MOST_REPETITIONS
        or take["longest_silence_s"] > LONGEST_SILENCE_S
        or take["fewest_pitch_classes"] < FEWEST_PITCH_CLASSES
    )


def place_by(name: str, mine: Mapping[str, Any], takes: Sequence[Mapping[str, Any]]) -> int:
    """Return how many takes are better by a figure of `WEIGHTS`."""
    sign = -1 if name in _LESS_IS_BETTER else 1
    return sum(sign * take[name] > sign * mine[name] for take in takes)


def ranked(takes: Sequence[Any]) -> list[Any]:
    """Return takes of one seed, the best first; each knows the ranking, which stands in its facts.

    The ranking has a mapping for each take: "take" from 1, the figures that decide, and "places" by
    each that has a weight, 1 for the best.
    """
    figures = [take.figures for take in takes]
    ordered = [takes[place] for place in best_first(figures)]
    ranking = tuple(
        {
            "take": take.index + 1,
            **{name: take.figures[name] for name in RANKED_BY},
            "places": {name: place_by(name, take.figures, figures) + 1 for name in WEIGHTS},
            "broken": broken(take.figures),
        }
        for take in ordered
    )
    return [replace(take, ranking=ranking) for take in ordered]
