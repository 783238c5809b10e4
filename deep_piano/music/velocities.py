"""How loud the notes of a recording were played, by how loud they are heard.

Transcription knows no gain: a phone may be near or far. What is left in the sound, its brightness,
lets the network hear soft playing too loud. The level is put right by a line that was fitted to
excerpts of a training split, rendered on the sampled piano; it holds for recordings of other pianos
(docs/transcription.md, `bench.velocities`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from deep_piano.music.notes import Notes

HEARD_AS_PLAYED: Final = 82  # the mean velocity at which both are the same
SLOPE: Final = 1.8  # of the mean that was played, by the mean that is heard
FITTED: Final = (54, 85)  # the line holds for means between these


def as_played(heard: Notes) -> Notes:
    """Return notes with the mean velocity that was likely played.

    Parameters
    ----------
    heard : ndarray, dtype `NOTE`
        From the transcription network.

    Returns
    -------
    ndarray, dtype `NOTE`
        All velocities are changed by the same number, within 1 to 127.
    """
    if not len(heard):
        return heard
    mean = np.clip(heard["velocity"].mean(), *FITTED)
    louder = round((SLOPE - 1) * (mean - HEARD_AS_PLAYED))
    played = heard.copy()
    played["velocity"] = np.clip(heard["velocity"].astype(int) + louder, 1, 127)
    return played
