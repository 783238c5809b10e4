"""Markdown tables, and figures as text.

This module knows nothing of their content.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Return a Markdown table.

    Parameters
    ----------
    head : sequence of str
    rows : sequence of sequence of str
    words : int
        How many of the first columns are words, and stand to the left; the others are numbers.

    Examples
    --------
    >>> print(markdown(["what", "s"], [["all", "1.0"]]))
    | what | s |
    | --- | ---: |
    | all | 1.0 |
    """
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rows])


def clock(seconds: float) -> str:
    """Return seconds as minutes and seconds: "3:07.5"."""
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def minutes(seconds: float) -> str:
    """Return seconds as whole minutes and seconds: "3:07"."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def origin(facts: Mapping[str, Any]) -> str:
    """Return what a piece is made of, by its facts: "continuing 0:04\N{EN DASH}0:14 of 0:14"."""
    seed = facts["seed"]
    whole = f" of {minutes(seed['of_s'])}" if seed["of_s"] is not None else ""
    where = f"{_span(seed)}{whole}"
    if "fill" in facts:
        return f"{_span(facts['fill'])}{whole} made anew"
    return (
        f"with the {facts['remix']['kept']} of {where}"
        if "remix" in facts
        else f"continuing {where}"
    )


def _span(of: Mapping[str, Any]) -> str:
    return f"{minutes(of['from_s'])}\N{EN DASH}{minutes(of['to_s'])}"


def hours(seconds: float) -> str:
    """Return seconds in hours or minutes: "2.5 hours"."""
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def size(count: float) -> str:
    """Return a number of bytes with a unit: "1.5 MB"."""
    if count < 1000:
        return f"{count:.0f} bytes"
    power = min(4, int(math.log10(count)) // 3)
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
