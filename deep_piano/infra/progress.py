"""The progress of long work, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """The progress of long work.

    Attributes
    ----------
    what : str
        The work, such as "rendering".
    done, total : float
        The amount done, and the whole.
    failures, drops : int
        In a batch: failed and dropped so far.
    duration_s : float
        In a batch: seconds of music so far.
    text : str
        Further text to show.
    """

    what: str
    done: float
    total: float
    failures: int = 0
    drops: int = 0
    duration_s: float = 0.0
    text: str = ""


Tell = Callable[[Progress], None]
"""Called repeatedly while work is done."""


def no_progress(now: Progress) -> None:
    """Ignore progress."""
