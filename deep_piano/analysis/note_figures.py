"""Figures of a piece: adherence to its seed, and faults.

This module knows note arrays; it knows nothing of audio, models or files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.keys import estimate_key, pitch_class_histogram
from deep_piano.music.notes import Notes

LONGEST_SILENCE_S: Final = 4.0
"""In a good piece."""
LONGEST_PATTERN_NOTES = 32
MOST_REPETITIONS: Final = 16
"""Of one pattern in a row, as `longest_loop` counts them, in a good piece."""
DRONE_S: Final = 15.0
DRONE_NOTES: Final = 16
FEWEST_PITCH_CLASSES: Final = 2.0
"""Of a good piece, as `fewest_pitch_classes` counts them."""
MOST_SLOW_STEPS: Final = 8  # two of 120 recordings of pianists have more
# From note to note, and between two steps of the codec's grid. A faster scale is a run, and may be
# as long as the keyboard.
_SLOW_S = 0.155
_WIDEST_STEP = 3  # semitones
LOOP_GRID_S = 0.05  # finer than a sixteenth at 240 quarters a minute (62 ms)


def pitch_class_cosine(a: Notes, b: Notes) -> float:
    """Return how alike two parts are in pitch: the cosine of their pitch class histograms.

    Returns
    -------
    float
        0 to 1; 0 where a part has no notes.
    """
    x, y = pitch_class_histogram(a), pitch_class_histogram(b)
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return min(1.0, float(x @ y) / norm) if norm > 0 else 0.0


def density_per_s(notes: Notes) -> float:
    """Return the notes a second, from the first onset to the last offset; 0 without notes."""
    if not len(notes):
        return 0.0
    return len(notes) / float(notes["offset"].max() - notes["onset"].min())


def density_ratio(seed: Notes, continuation: Notes) -> float:
    """Return the continuation's notes a second over the seed's; 0 without a seed."""
    before = density_per_s(seed)
    return density_per_s(continuation) / before if before else 0.0


def longest_silence_s(
    notes: Notes, *, start_s: float | None = None, end_s: float | None = None
) -> float:
    """Return the longest time in which no note is held.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`, sorted by onset
    start_s, end_s : float, optional
        Where to look; from the first onset to the last offset unless given.
    """
    if start_s is None:
        start_s = float(notes["onset"].min(initial=np.inf)) if len(notes) else 0.0
    if end_s is None:
        end_s = float(notes["offset"].max(initial=start_s))
    # Silence lasts from where everything begun so far has ended to where the next note begins.
    ended = np.maximum.accumulate(np.r_[start_s, notes["offset"]])
    begins = np.r_[notes["onset"], end_s]
    gaps = np.minimum(begins, end_s) - np.maximum(ended, start_s)
    return max(0.0, float(gaps.max()))


def longest_note_s(notes: Notes) -> float:
    """Return how long the longest note is held; 0 without notes."""
    return float((notes["offset"] - notes["onset"]).max(initial=0.0))


def longest_loop(notes: Notes) -> int:
    """Return how often, at most, one pattern of notes sounds in a row.

    A pattern is 1 to 32 notes: their pitches, and the times between their onsets to the nearest
    50 ms. Velocities and durations may differ.

    Returns
    -------
    int
        0 without notes, 1 where nothing is repeated.

    Examples
    --------
    >>> from deep_piano.music.notes import make_notes
    >>> onset = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    >>> longest_loop(make_notes(onset, [t + 0.4 for t in onset], [60, 64] * 3, [80] * 6))
    3
    """
    pitch = notes["pitch"]
    wait = np.rint(np.diff(notes["onset"]) / LOOP_GRID_S)
    most = min(1, len(notes))
    for period in range(1, min(LONGEST_PATTERN_NOTES, len(notes) // 2) + 1):
        same = pitch[period:] == pitch[:-period]
        if not same.any():
            continue
        # A note carries the run on when it and the one before are repeated, at the same distance.
        linked = same[1:] & same[:-1] & (wait[period:] == wait[:-period])
        repeated_notes = 1 + _longest_run(linked)
        most = max(most, 1 + repeated_notes // period)
    return most


def longest_slow_scale(notes: Notes, *, from_s: float = -math.inf) -> int:
    """Return the most steps in a row, one way and one by one, that are too slow for a run.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`, sorted by onset
    from_s : float
        On its clock; scales that end by then do not count, but those that began before do.

    Returns
    -------
    int
        Steps of one to three semitones, each more than 155 ms after the note before.

    Examples
    --------
    >>> from deep_piano.music.notes import make_notes
    >>> onset = np.arange(6) * 0.5
    >>> longest_slow_scale(make_notes(onset, onset + 0.4, [60, 62, 64, 65, 67, 64], [80] * 6))
    4
    """
    step = np.diff(notes["pitch"].astype(int))
    slow = (np.diff(notes["onset"]) > _SLOW_S) & (np.abs(step) <= _WIDEST_STEP)
    since = int(np.searchsorted(notes["onset"][1:], from_s, side="right"))
    return max(_longest_run(slow & (np.sign(step) == way), since=since) for way in (-1, 1))


def fewest_pitch_classes(notes: Notes, *, from_s: float = -math.inf) -> float:
    """Return how few pitch classes are in effect, at the moment where that is least.

    The effective number is the exponential of the entropy of what was struck lately, in nats; a
    note's weight falls to 1/e within `DRONE_S`. A piece that is stuck on a few pitch classes is a
    drone, whatever its rhythm. Moments before `from_s`, or with a weight of less than `DRONE_NOTES`
    notes, do not count. Of 395 real recordings 2 % have fewer than `FEWEST_PITCH_CLASSES`.

    Returns
    -------
    float
        1 to 12; 12 where no moment counts.

    Examples
    --------
    >>> from deep_piano.music.notes import make_notes
    >>> onset = np.arange(0, 30, 0.25)
    >>> pitch = np.resize([60, 64, 72, 76], 120)
    >>> round(fewest_pitch_classes(make_notes(onset, onset + 0.2, pitch, [80] * 120)), 2)
    2.0
    """
    if not len(notes):
        return 12.0
    # Before a note: the sum over all notes so far, each faded by its age; scaled as time goes on.
    age = (notes["onset"] - notes["onset"][0]) / DRONE_S
    struck = notes["pitch"][:, None] % 12 == np.arange(12)
    weight = np.exp(age[:, None] - age.max()) * struck
    lately = np.cumsum(weight, 0)
    total = lately.sum(1)
    counts = (total * np.exp(age.max() - age) >= DRONE_NOTES) & (notes["onset"] >= from_s)
    if not counts.any():
        return 12.0
    return float(effective_number(lately[counts]).min())


def has_fault(notes: Notes, *, from_s: float) -> bool:
    """Say whether a continuation is silent for long, loops, drones or climbs on, from a moment on.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`, sorted by onset
        All of it, as a loop or a drone may have begun before.
    from_s : float
        On its clock.

    Examples
    --------
    >>> from deep_piano.music.notes import make_notes
    >>> trill = make_notes(np.arange(0, 9, 0.1), np.arange(1, 10, 0.1), [60, 62] * 45, [80] * 90)
    >>> has_fault(trill[:15], from_s=0.0), has_fault(trill, from_s=5.0)
    (False, True)
    """
    return longest_slow_scale(notes, from_s=from_s) > MOST_SLOW_STEPS or broken(
        {
            "longest_silence_s": longest_silence_s(notes, start_s=from_s),
            "longest_loop": longest_loop(notes),
            "fewest_pitch_classes": fewest_pitch_classes(notes, from_s=from_s),
        }
    )


def broken(figures: Mapping[str, Any]) -> bool:
    """Say whether figures, with the names of `figures`, show what no piece should have."""
    return bool(
        figures["longest_silence_s"] > LONGEST_SILENCE_S
        or figures["longest_loop"] > MOST_REPETITIONS
        or figures["fewest_pitch_classes"] < FEWEST_PITCH_CLASSES
    )


def effective_number(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the exponential of the entropy of weights along the last axis."""
    share = weights / weights.sum(-1, keepdims=True)
    return np.exp(-(share * np.log(np.where(share > 0, share, 1.0))).sum(-1))


def figures(
    seed_notes: Notes, continuation_notes: Notes, *, from_s: float | None = None
) -> dict[str, float | str]:
    """Return the figures of a piece for its provenance file.

    Parameters
    ----------
    seed_notes, continuation_notes : ndarray, dtype `NOTE`, sorted by onset
        The two parts.
    from_s : float, optional
        When what stands before the continuation ends, on its clock: a pause from there on is a
        silence too.

    Returns
    -------
    dict of str to float or str
        JSON-ready and finite; keys are "none" where there is no key.
    """
    seed_key, continuation_key = map(estimate_key, (seed_notes, continuation_notes))
    found: dict[str, float | str] = {
        "seed_notes": len(seed_notes),
        "continuation_notes": len(continuation_notes),
        "seed_key": seed_key.name,
        "seed_key_certainty": seed_key.certainty,
        "continuation_key": continuation_key.name,
        "continuation_key_certainty": continuation_key.certainty,
        "pitch_class_cosine": pitch_class_cosine(seed_notes, continuation_notes),
        "seed_density_per_s": density_per_s(seed_notes),
        "continuation_density_per_s": density_per_s(continuation_notes),
        "density_ratio": density_ratio(seed_notes, continuation_notes),
        "longest_silence_s": longest_silence_s(continuation_notes, start_s=from_s),
        "longest_note_s": longest_note_s(continuation_notes),
        "longest_loop": longest_loop(continuation_notes),
        "fewest_pitch_classes": fewest_pitch_classes(continuation_notes),
    }
    return {name: round(v, 4) if isinstance(v, float) else v for name, v in found.items()}


def _longest_run(flags: NDArray[np.bool_], *, since: int = 0) -> int:
    """Return the length of the longest run of True, of those that reach a place."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False].astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    return int((ends - begins)[ends > since].max(initial=0))
