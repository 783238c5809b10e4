"""Metrics for Prometheus: counters and gauges, exported through Ray.

The driver sets all of them, since it knows the outcome of every recording and piece. Outside Ray
nothing is exported. This module knows the metrics' names; it knows nothing of the stages.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, Final, NamedTuple


class Measure(NamedTuple):
    """A metric: a count only grows, a level rises and falls."""

    kind: str
    description: str
    tags: tuple[str, ...] = ()


MEASURES: Final = {
    "deep_piano_recordings": Measure(
        "count", "Recordings by outcome: read, dropped, failed.", ("outcome",)
    ),
    "deep_piano_music_seconds": Measure("count", "Seconds of music in the recordings read."),
    "deep_piano_pieces": Measure(
        "count", "Pieces by outcome: done, failed, left out.", ("outcome",)
    ),
    "deep_piano_notes": Measure("count", "Notes composed."),
    "deep_piano_pieces_on_the_way": Measure(
        "level",
        "Pieces by where they are: reading (their seed), ready, composing, comparing, finishing.",
        ("where",),
    ),
    "deep_piano_workers_lost": Measure(
        "count", "Actors that were lost and replaced: composers, transcribers.", ("kind",)
    ),
    "deep_piano_training_updates": Measure("level", "Updates of the training so far."),
    "deep_piano_training_steps_per_second": Measure(
        "level", "Steps of sequences that all training workers process in a second."
    ),
    "deep_piano_training_loss": Measure(
        "level", "Mean training loss a step since the last validation; validation loss.", ("split",)
    ),
}


def count(name: str, by: float = 1.0, **tags: str) -> None:
    """Add to a count."""
    if by and _on_ray():
        _made(name).inc(by, tags)


def level(name: str, value: float, **tags: str) -> None:
    """Set a level."""
    if _on_ray():
        _made(name).set(value, tags)


def exported() -> set[str]:
    """Return the metrics' names in Prometheus."""
    ends = {"count": "_total", "level": ""}
    return {f"ray_{name}{ends[measure.kind]}" for name, measure in MEASURES.items()}


def _on_ray() -> bool:
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@cache
def _made(name: str) -> Any:
    from ray.util import metrics

    measure = MEASURES[name]
    kind = {"count": metrics.Counter, "level": metrics.Gauge}[measure.kind]
    return kind(name, description=measure.description, tag_keys=measure.tags)
