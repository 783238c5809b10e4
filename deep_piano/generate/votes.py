"""The votes of blind comparisons, summed up.

This module knows the files that ``gallery.html`` saves; it knows nothing of pieces.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deep_piano.errors import InputError, one_line
from deep_piano.report.text import markdown

LEAST_HEARD_S: Final = 5.0
"""Of a piece beyond its seed, for a vote to count; files may ask for less, of a short piece."""


_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    """The part of a file that is read; other keys are allowed."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class _Side(_Part):
    run: str
    checkpoint: str = ""
    take: int = Field(ge=1)
    sha256: str = ""


class _Vote(_Part):
    seed: str = ""
    first: _Side
    second: _Side
    preferred: Literal["first", "second"] | None
    heard_s: tuple[_Seconds, _Seconds]
    enough_s: tuple[_Seconds, _Seconds] = (LEAST_HEARD_S, LEAST_HEARD_S)
    voted: str = ""  # when: it tells listeners apart who agree

    @model_validator(mode="after")
    def _of_two_pieces(self) -> Self:
        if len({(side.run, side.checkpoint, side.take) for side in (self.first, self.second)}) < 2:
            raise ValueError("both sides are one piece")
        return self

    @property
    def unheard(self) -> bool:
        return any(s < least for s, least in zip(self.heard_s, self.enough_s, strict=True))

    @property
    def compared(self) -> tuple[_Pieces, _Pieces]:
        """What the first and the second piece stand for."""
        first, second = (_Pieces(side.run, side.checkpoint) for side in (self.first, self.second))
        if first != second:
            return first, second
        return first._replace(take=self.first.take), second._replace(take=self.second.take)


class _Saved(_Part):
    votes: tuple[_Vote, ...]


class _Pieces(NamedTuple):
    """The pieces of a run, or of one take of it."""

    run: str
    checkpoint: str
    take: int = 0

    @property
    def names(self) -> list[str]:
        """What they can be called, the shortest first."""
        take = f"take {self.take}"
        names = [take, f"{take} of {self.run}"] if self.take else [self.run]
        return [*names, f"{names[-1]} ({self.checkpoint[:8] or 'unknown'})"]


class Comparison(NamedTuple):
    """How often one kind of piece was preferred to another.

    Attributes
    ----------
    names : tuple of str
        The two that were compared: runs or, of one run, takes. Those of one name are told apart by
        the run and the digest of its checkpoint.
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

    A vote that is given several times, as by a file that was saved earlier too, counts once.

    Raises
    ------
    InputError
        When a file cannot be read or holds no votes.
    """
    votes = {vote for path in paths for vote in _read(path).votes}
    won: Counter[tuple[tuple[_Pieces, _Pieces], int | None]] = Counter()
    for vote in votes:
        if not vote.unheard:
            first, second = sorted(vote.compared)
            better = vote.compared[vote.preferred == "second"] if vote.preferred else None
            won[(first, second), None if better is None else int(better == second)] += 1
    pairs = sorted({pair for pair, _ in won})
    names = _names({pieces for pair in pairs for pieces in pair})
    return [
        Comparison((names[pair[0]], names[pair[1]]), (won[pair, 0], won[pair, 1]), won[pair, None])
        for pair in pairs
    ], sum(vote.unheard for vote in votes)


def _names(compared: Collection[_Pieces]) -> dict[_Pieces, str]:
    """Return for each its shortest name that no other has."""
    taken = Counter(name for pieces in compared for name in pieces.names)
    return {
        pieces: next((name for name in pieces.names if taken[name] == 1), pieces.names[-1])
        for pieces in compared
    }


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
            f"{one_line(wrong['msg']).removeprefix('Value error, ')}. "
            "Give one that a page of pieces has saved."
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
