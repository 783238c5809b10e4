"""What a part of a recording holds: "47 notes, A minor (fairly sure)"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deep_piano.analysis.keys import estimate_key
from deep_piano.generate.seeds import FEWEST_SEED_NOTES
from deep_piano.music.notes import excerpt, make_notes


def window_facts(notes: Sequence[Sequence[float]], begin_s: float, end_s: float) -> dict[str, Any]:
    """Return how many notes begin in a window, and their key, in words.

    Parameters
    ----------
    notes : sequence of (onset, offset, pitch, velocity)
    begin_s, end_s : float

    Examples
    --------
    >>> window_facts([[0, 1, 60, 64], [0, 1, 64, 64], [0, 1, 67, 64]], 0, 2)["text"]
    '3 notes: too few to continue, at least 4 are needed'
    """
    columns = np.array(notes, float).reshape(-1, 4)
    heard = excerpt(make_notes(*columns.T), begin_s, end_s)
    count = len(heard)
    found = estimate_key(heard)
    text = f"{count} note{'s' * (count != 1)}"
    if count < FEWEST_SEED_NOTES:
        text += f": too few to continue, at least {FEWEST_SEED_NOTES} are needed"
    elif found.key is not None:
        text += f", {found.name} ({found.certainty})"
    return {"notes": count, "key": found.name, "certainty": found.certainty, "text": text}
