"""Markdown tables.

Knows nothing of what stands in them.
"""

from __future__ import annotations

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
