"""What a long piece of work tells of its progress, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a long piece of work stands.

    Attributes
    ----------
    what : str
        What is being done, such as "rendering".
    done, total : float
        How much of it, and of how much.
    failures, drops : int
        What came of it so far that is of no use, of a batch.
    duration_s : float
        The music that came of it so far, of a batch.
    text : str
        What else there is to say.
    """

    what: str
    done: float
    total: float
    failures: int = 0
    drops: int = 0
    duration_s: float = 0.0
    text: str = ""


Tell = Callable[[Progress], None]
"""Called again and again while work goes on."""


def no_progress(now: Progress) -> None:
    """Take no note of progress."""
