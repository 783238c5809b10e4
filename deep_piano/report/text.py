"""Markdown tables, and figures as text.

This module knows nothing of their content.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


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


def hours(seconds: float) -> str:
    """Return seconds in hours or minutes: "2.5 hours"."""
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def size(count: float) -> str:
    """Return a number of bytes with a unit: "1.5 MB"."""
    if count < 1000:
        return f"{count:.0f} bytes"
    power = min(4, int(math.log10(count)) // 3)
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
