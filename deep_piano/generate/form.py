"""The form of a piece: its sections in time, as a plan or a named form has them.

This module knows settings and time; it knows nothing of networks. `decoding.sections` says what a
section does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from deep_piano.analysis.keys import Key, key_named, key_of
from deep_piano.config.sections import SEED, GenerateConfig, PlanSection
from deep_piano.decoding.sections import Section
from deep_piano.music.notes import Notes

FORMS: Final[Mapping[str, tuple[tuple[str, float, str | None], ...]]] = {
    "aba": (("A", 0.36, None), ("B", 0.28, None), ("A again", 0.36, "A")),
    "rondo": (
        ("A", 0.2, None),
        ("B", 0.2, None),
        ("A again", 0.2, "A"),
        ("C", 0.2, None),
        ("A at last", 0.2, "A"),
    ),
    "theme": (
        ("theme", 0.25, None),
        ("theme again", 0.25, SEED),
        ("theme once more", 0.25, SEED),
        ("theme at last", 0.25, SEED),
    ),
}
"""The named forms: of each section its name, its share of the piece, and what it recalls."""

VARY: Final = 4.0  # of their sections that recall one
LEAST_SECONDS: Final = 90.0
"""By default a piece of this length is an `aba`, and a shorter one is free."""


@dataclass(frozen=True)
class Stretch:
    """A section of a plan, and when it begins and ends in the piece, in seconds."""

    plan: PlanSection
    start_s: float
    end_s: float

    @property
    def facts(self) -> dict[str, Any]:
        """What stands in the facts of a piece."""
        asked = self.plan.model_dump(exclude={"seconds"}, exclude_defaults=True)
        return asked | {"start_s": round(self.start_s, 2), "end_s": round(self.end_s, 2)}


def stretches(settings: GenerateConfig) -> list[Stretch]:
    """Return the sections of a piece as its settings plan them, in the order of time.

    Returns
    -------
    list of Stretch
        The last one ends with the piece; none where its form is free.

    Examples
    --------
    >>> [(part.plan.name, part.end_s) for part in stretches(GenerateConfig(form="rondo"))][:2]
    [('A', 36.0), ('B', 72.0)]
    """
    plan = settings.plan or _planned(FORMS.get(_form(settings), ()), settings)
    found, start_s = [], 0.0
    for number, part in enumerate(plan, 1):
        last = number == len(plan)
        end_s = settings.seconds if last else start_s + (part.seconds or 0.0)
        found.append(Stretch(part, start_s, end_s))
        start_s = end_s
    return found


def _form(settings: GenerateConfig) -> str:
    if settings.form != "auto":
        return settings.form
    if settings.between or settings.remix:  # what is given has its form, whatever `seconds` says
        return "free"
    return "aba" if settings.seconds >= LEAST_SECONDS else "free"


def _planned(
    form: tuple[tuple[str, float, str | None], ...], settings: GenerateConfig
) -> list[PlanSection]:
    """Return the sections of a named form; without a key of its own it ends in the seed's."""
    home = "stay" if settings.key == "free" else None
    return [
        PlanSection(
            name=name,
            seconds=share * settings.seconds,
            recall=recall,
            vary=VARY if recall else 0.0,
            key=home if number == len(form) else None,
        )
        for number, (name, share, recall) in enumerate(form, 1)
    ]


def course(
    settings: GenerateConfig, seed: Notes, *, seed_s: float, from_s: float = 0.0
) -> tuple[Section, ...]:
    """Return the sections that a decoder is to compose, by the plan and the controls.

    Parameters
    ----------
    settings : GenerateConfig
    seed : ndarray, dtype `NOTE`
        What the piece is to be like: its key is that of `stay`.
    seed_s : float
        How long that is.
    from_s : float
        When the piece begins, on the seed's clock.

    Returns
    -------
    tuple of Section
        On the seed's clock; none where nothing is asked for.
    """
    parts = stretches(settings)
    controls = settings.density, settings.register_shift, settings.dynamics, settings.key
    if not parts:
        plain = controls == (1.0, 0.0, 1.0, "free")
        parts = [] if plain else [Stretch(PlanSection(name="whole"), 0.0, settings.seconds)]
    times = {SEED: (0.0, seed_s)}
    sections = []
    for number, part in enumerate(parts):
        plan, start_s = part.plan, part.start_s + from_s if number else 0.0
        times[plan.name] = start_s, part.end_s + from_s
        sections.append(
            Section(
                start_s,
                math.inf if number == len(parts) - 1 else part.end_s + from_s,
                recalled=times[plan.recall] if plan.recall is not None else None,
                semitones=plan.transpose,
                strength=plan.strength,
                vary=plan.vary,
                density=settings.density * plan.density,
                register=settings.register_shift + plan.register_shift,
                loudness=settings.dynamics * plan.dynamics,
                key=_key(plan.key or settings.key, seed),
                bridge_s=plan.bridge,
            )
        )
    return tuple(sections)


def _key(name: str, seed: Notes) -> Key | None:
    if name == "free":
        return None
    return key_of(seed) if name == "stay" else key_named(name)
