"""What the file of a piece's sound says of itself to players and libraries of music."""

from __future__ import annotations

import os

from deep_piano.config.sections import GenerateConfig
from deep_piano.models.checkpoint import Checkpoint, licence_of


def tags_of(
    title: str, seed: str, take: int, settings: GenerateConfig, checkpoint: Checkpoint
) -> dict[str, str]:
    """Return the tags of a piece: title, comment, track, random state, licence of the weights.

    Parameters
    ----------
    title : str
    seed : str
        The name of its file; it may hold bytes that are no text.
    take : int
        From 0.
    settings : GenerateConfig
    checkpoint : Checkpoint
    """
    name = os.fsencode(seed).decode("utf-8", "replace")
    kind = _kind(settings)
    tags = {
        "title": title,
        "artist": "deep_piano",
        "comment": f"{kind} of {name}, take {take + 1}, random state {settings.random_state}",
        "track": str(take + 1),
        "random_state": str(settings.random_state),
    }
    licence = licence_of(checkpoint)
    return tags | ({"license": f"Weights: {licence}"} if licence else {})


def _kind(settings: GenerateConfig) -> str:
    if settings.between is not None:
        begin_s, end_s = settings.between
        return f"Another {begin_s:g} to {end_s:g} s"
    return f"Remix with the {settings.remix}" if settings.remix else "Continuation"
