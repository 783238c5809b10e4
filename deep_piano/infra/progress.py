"""What a long piece of work tells of its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[str, float, float], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class Report:
    """Where a long piece of work stands: how much of how much, and what came of it so far."""

    stage: str
    done: int
    total: int
    failures: int = 0
    drops: int = 0
    duration_s: float = 0.0


def no_progress(stage: str, done: float, total: float) -> None:
    """Take no note of progress."""
