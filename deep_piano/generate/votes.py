"""The votes of blind comparisons, summed up.

This module knows the files that ``gallery.html`` saves; it knows nothing of pieces.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deep_piano.errors import InputError, one_line
from deep_piano.report.text import markdown

LEAST_HEARD_S: Final = 5.0
"""Of a piece beyond its seed, for a vote to count; files may ask for less, of a short piece."""


class _Part(BaseModel):
    """The part of a file that is read; other keys are allowed."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Side(_Part):
    run: str
    take: int


class _Vote(_Part):
    first: _Side
    second: _Side
    preferred: Literal["first", "second"] | None
    heard_s: list[float] = Field(min_length=2, max_length=2)
    enough_s: list[float] = Field([LEAST_HEARD_S] * 2, min_length=2, max_length=2)


class _Saved(_Part):
    votes: list[_Vote]


class Comparison(NamedTuple):
    """How often one kind of piece was preferred to another.

    Attributes
    ----------
    names : tuple of str
        The two that were compared: runs or, of one run, takes.
    preferred : tuple of int
        How often each was.
    undecided : int
        How often neither was.
    """

    names: tuple[str, str]
    preferred: tuple[int, int]
    undecided: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the first one's share of the decided votes."""
        return wilson(self.preferred[0], sum(self.preferred))


def read_votes(paths: Iterable[Path]) -> tuple[list[Comparison], int]:
    """Return the comparisons, and the number of votes without both pieces heard.

    Raises
    ------
    InputError
        When a file cannot be read or holds no votes.
    """
    won: Counter[tuple[tuple[str, str], int | None]] = Counter()
    unheard = 0
    for path in paths:
        for vote in _read(path).votes:
            if any(s < least for s, least in zip(vote.heard_s, vote.enough_s, strict=True)):
                unheard += 1
                continue
            sides = [vote.first, vote.second]
            same = vote.first.run == vote.second.run
            names = [f"take {side.take}" if same else side.run for side in sides]
            first, second = sorted(names)
            better = None if vote.preferred is None else names[vote.preferred == "second"]
            won[(first, second), None if better is None else int(better == second)] += 1
    return [
        Comparison(names, (won[names, 0], won[names, 1]), won[names, None])
        for names in sorted({names for names, _ in won})
    ], unheard


def _read(path: Path) -> _Saved:
    try:
        return _Saved.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"cannot read {one_line(path)}: {error.strerror}. Give a file of votes."
        ) from error
    except ValidationError as invalid:
        [wrong, *_] = invalid.errors(include_url=False, include_context=False)
        where = ".".join(map(str, wrong["loc"]))
        raise InputError(
            f"{one_line(path)} is not a file of votes: {one_line(where)}: "
            f"{one_line(wrong['msg'])}. Give one that a page of pieces has saved."
        ) from invalid


def wilson(successes: int, trials: int, *, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a share: E. B. Wilson, JASA 22, 1927.

    Examples
    --------
    >>> low, high = wilson(8, 10)
    >>> round(low, 2), round(high, 2)
    (0.49, 0.94)
    """
    if not trials:
        return 0.0, 1.0
    share, spread = successes / trials, z * z / trials
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    low, high = ((middle + sign * half) / (1 + spread) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def table(comparisons: Iterable[Comparison]) -> str:
    """Return comparisons as a Markdown table."""
    rows = []
    for one in comparisons:
        (low, high), decided = one.interval, sum(one.preferred)
        share = f"{one.preferred[0] / decided:.0%}" if decided else ""
        interval = f"{low:.0%} to {high:.0%}" if decided else ""
        counts = f"{one.preferred[0]} of {decided}"
        rows.append([*map(one_line, one.names), counts, share, interval, str(one.undecided)])
    head = ["pieces", "beside", "preferred", "share", "95 % interval", "no difference"]
    return markdown(head, rows, words=2)
