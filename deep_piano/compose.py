"""A seed's notes become a piece's notes: the network hears the seed, then goes on.

Here are the rules that a piece keeps whatever the network wishes: it lasts as long as asked, no
note is cut off or stuck, no silence is long, and it ends with a chord of its key that rings out.
They are kept by choosing among the classes that obey them, not by mending afterwards. This module
knows notes and the engine; it knows nothing of audio or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.notes import (
    DURATION,
    DURATION_STEPS,
    ONSET,
    ONSET_STEPS,
    PITCH,
    PITCHES,
    STEPS_PER_SECOND,
    VELOCITIES,
    VELOCITY,
    NoteContext,
    encode,
    velocity_of,
)
from deep_piano.decode import Engine, Sampling
from deep_piano.metrics import key_of
from deep_piano.notes import LOWEST_PITCH, Notes, fold_pedal, make_notes

LONGEST_GAP_S = 3.0  # from one onset to the next
LONGEST_NOTE_S = 12.0
MOST_NOTES_AT_ONCE = 16
RING_S = 0.75  # left after the last offset for the strings to fall silent
FINAL_CHORD_S = (2.5, 5.0)  # how long the last chord may last
FINAL_CHORD_NOTES = 5
SOFTEST_FINAL_CHORD = 32  # its velocity: it is to be heard to the end
_ROLL_STEPS = 3  # the notes of one chord lie at most this far apart
_PEDAL_CHANGE_STEPS = 5  # what sounded before the last chord ends this long after it began
_HIGHEST_BASS = 55 - LOWEST_PITCH


class Composer:
    """One piece in the making.

    Parameters
    ----------
    engine : Engine
    seed : ndarray, dtype `NOTE`
        At least one note; the first onset is the piece's zero.
    seed_seconds : float
        When the seed ends; the continuation begins there or later.
    seconds : float
        When the piece ends.
    sampling : mapping of str to Sampling
        One a field.
    rng : numpy.random.Generator
    """

    def __init__(
        self,
        engine: Engine,
        seed: Notes,
        *,
        seed_seconds: float,
        seconds: float,
        sampling: Mapping[str, Sampling],
        rng: np.random.Generator,
    ) -> None:
        self._engine, self._rng = engine, rng
        self._sampling = [sampling[field.name] for field in engine.spec.fields]
        self._seed = seed
        self._seed_end = round(seed_seconds * STEPS_PER_SECOND)
        self._end = round((seconds - RING_S) * STEPS_PER_SECOND)
        latest, earliest = (self._end - round(s * STEPS_PER_SECOND) for s in FINAL_CHORD_S)
        # The last chord is struck within this span, and never within the seed.
        self._final = max(earliest, self._seed_end), max(latest, self._seed_end + _ROLL_STEPS)
        self._state = engine.start(1)
        self._context = NoteContext(1)
        self._now = 0
        self._made: list[tuple[int, int, int, int]] = []  # onset, offset, pitch, velocity in steps

    def compose(self, progress: Callable[[float], None] | None = None) -> Notes:
        """Return the continuation, on the seed's clock.

        Parameters
        ----------
        progress : callable, optional
            Called with the seconds that have been composed.
        """
        heard = self._hear_seed()
        while (step := self._next(heard)) is not None:
            heard = self._take(step)
            if progress is not None:
                progress(self._now / STEPS_PER_SECOND)
        self._final_chord(heard)
        return fold_pedal(self._notes(), [], [])

    def _hear_seed(self) -> NDArray[np.float32]:
        sequence = encode(self._seed)
        # For the context, the seed is over with the first note of its last onset.
        last_onset_s = float(ONSET_STEPS[sequence[:, ONSET]].sum()) / STEPS_PER_SECOND
        self._context.start(0, seed_seconds=last_onset_s, end_seconds=self._end / STEPS_PER_SECOND)
        for step in sequence:
            heard = self._engine.hear(self._state, step[None], self._context.advance(step[None]))
        self._now = round(float(self._seed["onset"][-1]) * STEPS_PER_SECOND)
        return heard

    def _next(self, heard: NDArray[np.float32]) -> list[int] | None:
        """Draw the next note; None when it is time for the last chord."""
        onsets = self._now + ONSET_STEPS
        gaps = ONSET_STEPS <= LONGEST_GAP_S * STEPS_PER_SECOND
        if self._free_keys(self._now).sum() <= PITCHES - MOST_NOTES_AT_ONCE:
            gaps &= ONSET_STEPS > 0
        if not self._made:
            gaps = onsets >= self._seed_end  # the seed has been heard: nothing joins it
            gaps &= onsets <= max(onsets[gaps].min(), self._seed_end + STEPS_PER_SECOND)
        onset = self._draw(heard, [], gaps)
        now = int(onsets[onset])
        if now > self._final[0]:
            return None
        step = [onset]
        step.append(self._draw(heard, step, self._free_keys(now)))
        step.append(self._draw(heard, step, None))
        longest = min(self._end - now, round(LONGEST_NOTE_S * STEPS_PER_SECOND))
        step.append(self._draw(heard, step, longest >= DURATION_STEPS))
        return step

    def _free_keys(self, now: int) -> NDArray[np.bool_]:
        """Return which keys have not been struck at this very moment."""
        free = np.ones(PITCHES, bool)
        for onset, _, pitch, _ in reversed(self._made):
            if onset < now:
                break
            free[pitch - LOWEST_PITCH] = False
        return free

    def _draw(
        self,
        heard: NDArray[np.float32],
        chosen: list[int],
        allowed: NDArray[np.bool_] | None,
    ) -> int:
        logits = self._engine.logits(heard, np.array([chosen], np.int32).reshape(1, -1))
        return self._sampling[len(chosen)].draw(logits[0], self._rng, allowed)

    def _take(self, step: list[int], *, offset: int | None = None) -> NDArray[np.float32]:
        """Write a note down and let the network hear it."""
        self._now += int(ONSET_STEPS[step[ONSET]])
        if offset is None:
            offset = self._now + int(DURATION_STEPS[step[DURATION]])
        velocity = int(velocity_of(step[VELOCITY]))
        self._made.append((self._now, offset, step[PITCH] + LOWEST_PITCH, velocity))
        steps = np.array([step], np.int32)
        return self._engine.hear(self._state, steps, self._context.advance(steps))

    def _final_chord(self, heard: NDArray[np.float32]) -> None:
        """Strike the tonic triad of the piece's key and let it ring until the end.

        The network chooses when, which keys of the triad and how loud; the bass is the tonic.
        """
        tonic, triad = self._tonic_triad()
        keys = np.arange(PITCHES)
        classes = (keys + LOWEST_PITCH) % 12
        earliest, latest = self._final
        onsets = self._now + ONSET_STEPS
        when = (onsets >= earliest) & (onsets <= latest)
        if not when.any():  # the last onset lies far back, or already among the last seconds
            when = ONSET_STEPS[np.abs(onsets - max(latest, self._now)).argmin()] == ONSET_STEPS
        near = when & (ONSET_STEPS <= LONGEST_GAP_S * STEPS_PER_SECOND)
        when = near if near.any() else when
        heard_well = np.arange(VELOCITIES) >= SOFTEST_FINAL_CHORD * VELOCITIES // 128
        struck = None
        free = (classes == tonic) & (keys <= _HIGHEST_BASS)
        for _index in range(FINAL_CHORD_NOTES):
            step = [self._draw(heard, [], when)]
            step.append(self._draw(heard, step, free))
            step.append(self._draw(heard, step, heard_well))
            step.append(len(DURATION_STEPS) - 1)
            if struck is None:
                struck = self._now + int(ONSET_STEPS[step[ONSET]])
                limit = struck + _PEDAL_CHANGE_STEPS
                self._made = [(a, min(b, limit), p, v) for a, b, p, v in self._made]
                free = np.isin(classes, triad) & (keys >= step[PITCH] + 3)
            heard = self._take(step, offset=self._end)
            free &= np.abs(keys - step[PITCH]) > 2
            when = struck + _ROLL_STEPS - self._now >= ONSET_STEPS
            if not free.any():
                break

    def _tonic_triad(self) -> tuple[int, list[int]]:
        """Return the tonic and the pitch classes of its triad, by the music of the last minutes."""
        recent = self._notes()[-400:] if self._made else self._seed
        key = key_of(recent)
        tonic = key.tonic if key else int(recent["pitch"][0]) % 12
        third = 3 if key and key.mode == "minor" else 4
        return tonic, [tonic, (tonic + third) % 12, (tonic + 7) % 12]

    def _notes(self) -> Notes:
        columns = np.array(self._made).T
        times = columns[:2] / STEPS_PER_SECOND
        return make_notes(times[0], times[1], columns[2], columns[3])
