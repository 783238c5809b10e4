"""Which takes of a seed are kept: the ones that the judge takes for a pianist's most.

No other figure that was tried predicts better what a forest that knows nothing of the judge takes
for real, nor does any together with it: `bench.ranking`, docs/originality.md. This module knows the
figures of takes; it knows nothing of notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from deep_piano.analysis.note_figures import broken

RANKED_BY: Final = ("judge_log_odds", "longest_loop", "longest_silence_s", "fewest_pitch_classes")


def best_first(takes: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the places of takes of one seed, the best first.

    Takes that loop, fall silent or stay on a few pitch classes come last. Otherwise the judge
    decides; of equals the first stays first.

    Parameters
    ----------
    takes : sequence of mapping
        The figures of each that `RANKED_BY` names, as they stand in its .json.

    Examples
    --------
    >>> good = {"judge_log_odds": 0.5, "longest_loop": 2, "longest_silence_s": 1,
    ...         "fewest_pitch_classes": 5}
    >>> best_first([good | {"longest_loop": 40}, good | {"judge_log_odds": -1}, good])
    [2, 1, 0]
    """
    return sorted(
        range(len(takes)), key=lambda place: (broken(takes[place]), -takes[place]["judge_log_odds"])
    )


def ranked(takes: Sequence[Any]) -> list[Any]:
    """Return takes of one seed, the best first; each knows the ranking, which stands in its facts.

    The ranking has a mapping for each take: "take" from 1, the figures that decide, and whether it
    is "broken".
    """
    ordered = [takes[place] for place in best_first([take.figures for take in takes])]
    ranking = tuple(
        {
            "take": take.index + 1,
            **{name: take.figures[name] for name in RANKED_BY},
            "broken": broken(take.figures),
        }
        for take in ordered
    )
    return [replace(take, ranking=ranking) for take in ordered]
