"""How a piece ends: with the tonic triad of its key, which rings out.

The network chooses when its notes are struck, which keys of the triad and how loud; the bass is the
tonic. This module knows notes and their classes; it knows nothing of networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deep_piano.analysis.keys import Key
from deep_piano.codecs.notes import (
    DURATION,
    DURATIONS,
    ONSET_STEPS,
    SPEC,
    STEPS_PER_SECOND,
    VELOCITIES,
)
from deep_piano.decoding.loops import Mask
from deep_piano.decoding.sections import CLASSES, KEYS
from deep_piano.music.notes import LOWEST_PITCH

# A piece closes so long before its last chord may begin, and comes to so much less than before.
CLOSING_S = 4.0
CLOSING_DENSITY = 0.5
CLOSING_LOUDNESS = 0.9
RING_S = 0.75  # left after the last offset for the strings to fall silent
FINAL_CHORD_NOTES = 5  # at most
# How long the last onset rings in recordings of the training split: the deciles from 2 to 8 in 10.
RINGING_S = (1.06, 1.73, 2.46, 3.04, 3.69, 4.48, 5.73)
LARGEST_RINGING = 1 / 3  # of a continuation
FINAL_SPAN_S = 1.0  # within which the last chord is struck
SOFTEST_FINAL_CHORD = 32  # its velocity: audible to the end
ROLL_STEPS = 3  # the notes of one chord lie at most this far apart
LOUD = np.arange(VELOCITIES) >= SOFTEST_FINAL_CHORD * VELOCITIES // 128
LONGEST = np.arange(SPEC.fields[DURATION].outputs) == DURATIONS - 1

_HIGHEST_BASS = 55 - LOWEST_PITCH


@dataclass
class Chord:
    """The last chord of a piece: when its next note may be struck, and which keys are free.

    Its first note is the piece's note `first`.
    """

    when: Mask
    free: Mask
    triad: Mask
    first: int
    struck: int | None = None
    notes: int = 0

    @classmethod
    def coming(cls, when: Mask, tonic: int, key: Key | None, *, first: int) -> Chord:
        """Return a chord whose bass is struck next; on a tonic, major unless its key is minor."""
        third = 3 if key is not None and key.mode == "minor" else 4
        triad = [tonic, (tonic + third) % 12, (tonic + 7) % 12]
        bass = (tonic == CLASSES) & (KEYS <= _HIGHEST_BASS)
        return cls(when, bass, np.isin(CLASSES, triad), first)

    def is_over(self, at: int) -> bool:
        """Say whether a note that is struck then would no longer be one of the chord's."""
        return self.struck is not None and at > self.struck + ROLL_STEPS

    def take(self, now: int, key: int, near: Mask) -> bool:
        """Take note of one more key, struck now; return whether it was the last one."""
        if self.struck is None:
            self.struck = now
            self.free, self.when = self.triad & (key + 3 <= KEYS), near
        self.free = self.free & (np.abs(KEYS - key) > 2)
        self.notes += 1
        return self.notes == FINAL_CHORD_NOTES or not self.free.any()


def final_span(begin: int, end: int, chance: float) -> tuple[int, int]:
    """Return when the last chord of a piece may be struck whose last note ends then, in steps.

    By chance it rings as long as pianists let it, but for no more than a third of what there is
    from `begin` on.
    """
    rings_s = float(np.interp(chance, np.linspace(0, 1, len(RINGING_S)), RINGING_S))
    rings_s = min(rings_s, max(0.0, LARGEST_RINGING * (end - begin) / STEPS_PER_SECOND))
    earliest = end - round(rings_s * STEPS_PER_SECOND)
    return earliest, earliest + round(min(FINAL_SPAN_S, rings_s / 2) * STEPS_PER_SECOND)


def final_onsets(now: int, span: tuple[int, int], near: Mask) -> Mask:
    """Return when the last chord's bass may be struck: in the span, and `near` where it can be."""
    earliest, latest = span
    onsets = now + ONSET_STEPS
    when = (onsets >= earliest) & (onsets <= latest)
    if not when.any():  # the last onset lies far back, or already among the last seconds
        when = ONSET_STEPS[np.abs(onsets - max(latest, now)).argmin()] == ONSET_STEPS
    soon = when & near
    return soon if soon.any() else when
