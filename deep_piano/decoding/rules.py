"""The rules that a piece keeps whatever the network wishes, and a piece in the making.

It lasts as long as asked, no note is cut off or stuck, no silence is long, no pattern is repeated
without end, and it ends with a chord of its key that rings out. Rules are kept by choosing among
the classes that obey them, not by mending afterwards. That a piece stays about as dense as its seed
and keeps its beat is no rule: what leads there is made likelier. This module knows notes and their
classes; it knows nothing of networks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.keys import Key, key_of
from deep_piano.analysis.note_figures import (
    DRONE_NOTES,
    DRONE_S,
    effective_number,
)
from deep_piano.codecs.note_context import NoteContext
from deep_piano.codecs.notes import (
    DURATION,
    ONSET,
    ONSET_STEPS,
    PITCH,
    PITCHES,
    STEPS_PER_SECOND,
    VELOCITIES,
    VELOCITY,
    Sequence,
    encode,
    fading,
    velocity_of,
)
from deep_piano.decoding.apart import Apart
from deep_piano.decoding.beat import Beat
from deep_piano.decoding.course import Course, Heard
from deep_piano.decoding.ending import (
    LONGEST,
    LOUD,
    RING_S,
    ROLL_STEPS,
    Chord,
    final_onsets,
    final_span,
)
from deep_piano.decoding.given import FREE, Giving
from deep_piano.decoding.loops import Loops, Mask
from deep_piano.decoding.note_task import NoteContinuation, NoteTask
from deep_piano.decoding.sections import CLASSES, LOG_FREE, Floats
from deep_piano.music.notes import LOWEST_PITCH, Notes, fold_pedal, make_notes

LONGEST_GAP_S = 3.0  # from one onset to the next
LONGEST_NOTE_S = 12.0
MOST_NOTES_AT_ONCE = 16
DENSITY_S = 15.0  # over which the density of a piece is measured,
SHORTEST_DENSITY_S = 2.0  # or over half of what is made, but no less than this
MOST_PULL = 2.0  # to a density: four times the seed's needs no more
LEAST_VARIETY = 3.2  # pitch classes in effect: with fewer, those of a larger share are left out
LARGEST_SHARE = 0.25
_LEAST_DENSITY = 1.0  # notes a second: a seed that breathes is no measure
_PEDAL_CHANGE_STEPS = 5  # what sounded before the last chord ends this long after it began
_CHANCES_AT_ONCE = 1024

ANY_KEY = np.ones(PITCHES, bool)
_ANY_VELOCITY = np.ones(VELOCITIES, bool)
NEAR = ONSET_STEPS <= LONGEST_GAP_S * STEPS_PER_SECOND
LONGEST_NOTE = round(LONGEST_NOTE_S * STEPS_PER_SECOND)
# What a pull to the seed's density weighs (within a chord nearly nothing), and what is left of a
# density when the next note comes.
WAITING = np.log1p(ONSET_STEPS / ROLL_STEPS).astype(np.float32)
FADING = fading(DENSITY_S)
FORGETTING = fading(DRONE_S)  # of pitch classes


@dataclass
class Piece:
    """One piece in the making; times are in steps of the grid.

    Attributes
    ----------
    coming : list of int
        The note that the network takes in next.
    made : list of list of int
        The steps of the continuation.
    nats, nats_before : list of float, float
        What the fields of the note being chosen cost, and all the notes before it.
    struck : ndarray of bool, shape (PITCHES,)
        The keys of the continuation that were struck at this very moment.
    lately : ndarray of float64, shape (12,)
        How often each pitch class was struck, seed included, faded by `FORGETTING`.
    density : float
        Of the last seconds, beside the seed's.
    note_share, fading : float
        What a note adds to it; the power of `FADING` that is left of it when the next one comes.
    levels : ndarray of float64, shape (3,)
        Weight of the last notes, faded by `FADING`; the sums of their keys and velocities.
    course : Course
    waits_at : float
        How many notes of the continuation it may have before it is looked at; a decoder that takes
        several notes a step stops there.
    """

    name: Hashable
    task: NoteTask
    seed: Sequence = field(init=False)
    coming: list[int] = field(init=False)
    now: int = field(init=False)
    seed_end: int = field(init=False)
    end: int = field(init=False)
    final: tuple[int, int] = field(init=False)
    note_share: float = field(init=False)
    fading: float = field(init=False)
    made: list[list[int]] = field(default_factory=list)
    nats: list[float] = field(default_factory=lambda: [0.0] * 4)
    nats_before: float = 0.0
    struck: Mask = field(default_factory=lambda: np.zeros(PITCHES, bool))
    lately: NDArray[np.float64] = field(default_factory=lambda: np.zeros(12))
    density: float = 1.0
    levels: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    course: Course = field(init=False)
    chord: Chord | None = None
    beat: Beat = field(default_factory=Beat)
    giving: Giving | None = None
    apart: Apart | None = None
    done: bool = False
    waits_at: float = math.inf

    def __post_init__(self) -> None:
        task = self.task
        self.seed = encode(task.seed)
        self.coming = self.seed[0].tolist()
        self._position = 1
        self.now = self._begun = round(float(task.seed["onset"][-1]) * STEPS_PER_SECOND)
        self.seed_end = round(task.seed_seconds * STEPS_PER_SECOND)
        self.end = round((task.seconds - RING_S) * STEPS_PER_SECOND)
        earliest, latest = final_span(self.seed_end, self.end, task.rng.spawn(1)[0].random())
        # The last chord is struck within this span, and never within the seed.
        self.final = max(earliest, self.seed_end), max(latest, self.seed_end + ROLL_STEPS)
        if task.given is not None:
            self.giving = Giving(task.given)
            if task.given.from_s is not None:
                self.final = (math.ceil(task.given.from_s * STEPS_PER_SECOND) - 1,) * 2
        seed_density = max(task.manner_density, _LEAST_DENSITY)
        made_s = (self.final[0] - self.seed_end) / STEPS_PER_SECOND
        density_s = min(DENSITY_S, max(SHORTEST_DENSITY_S, made_s / 2))
        self.note_share, self.fading = 1 / (seed_density * density_s), DENSITY_S / density_s
        self._chances: list[float] = []
        self.loops = Loops()
        manner = len(task.manner)
        for place, step in enumerate(self.seed.tolist(), 1):
            self._note(step)
            if place == manner:
                self.beat.settle()
        if task.corpus is not None:
            self.apart = Apart(task.corpus, task.most_shared)
        self.course = Course(
            task.sections,
            self.seed[:manner],
            end_s=task.seconds,
            seed_end=self.seed_end,
            final=self.final[0],
            closes=self.giving is None,
        )
        self.course.turn(self._heard())

    def chance(self) -> float:
        """Return the next random number, at least 0 and below 1."""
        if not self._chances:
            self._chances = self.task.rng.random(_CHANCES_AT_ONCE)[::-1].tolist()
        return self._chances.pop()

    def fed(self) -> bool:
        """Go on to the note after `coming`; return whether that is to be chosen."""
        following = self.of_seed(1).tolist()
        if following:
            [self.coming] = following
        return not following

    def of_seed(self, most: int) -> Sequence:
        """Return the seed's next notes, so many at most; the first was `coming` from the start."""
        notes = self.seed[self._position : self._position + most]
        self._position += len(notes)
        return notes

    def branch(self, name: Hashable, rng: np.random.Generator) -> Piece:
        """Return a piece that goes on from here, before its last chord, by chances of its own."""
        assert self.chord is None
        twin = copy.copy(self)
        twin.name, twin.task, twin._chances = name, replace(self.task, rng=rng), []
        twin.made, twin.nats, twin.struck = list(self.made), list(self.nats), self.struck.copy()
        twin.loops, twin.lately = copy.deepcopy(self.loops), self.lately.copy()
        twin.levels, twin.course = self.levels.copy(), self.course.copy()
        twin.beat = self.beat.copy()
        twin.giving = self.giving.copy() if self.giving is not None else None
        twin.apart = self.apart.copy() if self.apart is not None else None
        return twin

    @property
    def now_s(self) -> float:
        """Where the piece is, on the seed's clock, in seconds."""
        return self.now / STEPS_PER_SECOND

    def begin_context(self, context: NoteContext, streams: range) -> None:
        """Begin the piece's streams: one that knows of the seed, then those that do not."""
        # For the context, the seed is over with the first note of its last onset.
        manner = self.seed[: len(self.task.manner)]
        last_onset_s = float(manner[:, ONSET].sum()) / STEPS_PER_SECOND
        for stream in streams:
            known_s = last_onset_s if stream == streams[0] else None
            context.start(stream, seed_seconds=known_s, end_seconds=self.end / STEPS_PER_SECOND)

    def allowed(self, step: list[int], values: NDArray[np.int64]) -> Mask:
        """Return the classes that obey the rules, of the field after those in `step`.

        `values` are those that the classes stand for; 0 steps of duration are none.
        """
        index = len(step)
        if index == PITCH:
            return self._allowed_keys(step[ONSET])
        if self.chord is not None:
            return (self.chord.when, self.chord.free, LOUD, LONGEST)[index]
        if index == ONSET:
            return self._allowed_onsets()
        if index == VELOCITY:
            return _ANY_VELOCITY
        left = self.end - self.now - step[ONSET] if not self.is_given else LONGEST_NOTE
        return (values > 0) & (values <= min(left, LONGEST_NOTE))

    def _allowed_keys(self, onset: int) -> Mask:
        """Return the keys that may be struck; where they would copy a corpus, others."""
        every = ~self.struck if onset == 0 else ANY_KEY
        if self.giving is not None:
            silent = every & self.giving.free_keys(self.now + onset)
            every = silent if silent.any() else every
        if self.chord is not None:
            free, other = self.chord.free, self.chord.triad & every
        else:
            free, other = self._without_drone(self.loops.without_one_more(every), onset), every
        return (
            free if self.apart is None else self.apart.without_copies([free, other, every], onset)
        )

    def _without_drone(self, free: Mask, onset: int) -> Mask:
        """Return the keys that may be struck without a drone: see `fewest_pitch_classes`."""
        total = self.lately.sum()
        few = total * FORGETTING[onset] < DRONE_NOTES
        if few or effective_number(self.lately) >= LEAST_VARIETY:
            return free
        left = free & (self.lately < LARGEST_SHARE * total)[CLASSES]
        return left if left.any() else free

    @property
    def is_given(self) -> bool:
        """Whether the next note is given, in part or altogether."""
        return self.giving is not None and self.giving.first is not None

    @property
    def is_closing(self) -> bool:
        """Whether it is at its last chord, or beyond the span that is filled."""
        return self.chord is not None or (self.giving is not None and bool(self.giving.first))

    def given(self, index: int) -> int:
        """Return the value of a field of the next note where it is given, else `FREE`."""
        return FREE if self.giving is None else self.giving.of(index, self.now)

    def _allowed_onsets(self) -> Mask:
        if self.given(ONSET) != FREE:
            return NEAR  # whatever is drawn
        if not self.made:
            onsets = self.now + ONSET_STEPS
            gaps = onsets >= self.seed_end  # nothing joins the seed
            latest = max(int(onsets[gaps].min()), self.seed_end + STEPS_PER_SECOND)
            if self.giving is not None and not self.is_given:  # a span has a note at least
                latest = min(latest, self.final[0])
            return gaps & (onsets <= latest)
        full = self.struck.sum() >= MOST_NOTES_AT_ONCE
        if full or (self.giving is not None and self.giving.must_wait):
            return NEAR & (ONSET_STEPS > 0)
        return NEAR

    def pull(self) -> float:
        """Return how much the next onset is pulled back to the seed's density.

        What is added to the logits of the onsets, times `WAITING`: above 0 where the piece has
        become too dense, below where too sparse.
        """
        if self.chord is not None:
            return 0.0
        wishes = self.course.wishes
        target, free, pull = wishes.at(self.now).density if wishes else (0.0, LOG_FREE, 1.0)
        apart = math.log(self.density) - target
        pull *= apart - min(free, max(-free, apart))
        return min(MOST_PULL, max(-MOST_PULL, pull))

    def beat_pull(self) -> float:
        """Return how much the next onset is pulled to the beat.

        Not where the last chord comes, nor where a passage comes again, which has its own beat.
        """
        wishes = self.course.wishes
        led = self.chord is not None or (wishes is not None and wishes.due_in(self.now) is not None)
        return 0.0 if led else self.beat.pull()

    def wish(self, step: list[int], key: int, lag: int) -> Floats | None:
        """Return what is added to the logits of the field after those in `step`; None: nothing.

        The last notes stood so many notes ago too, and there `key` followed; -1: they did not.
        """
        wishes = self.course.wishes
        if wishes is None or self.chord is not None:
            return None
        heard = key if lag > len(self.made) - self.course.first else -1
        return wishes.of(step, self.now, self.levels, heard)

    def is_late(self, onset: int) -> bool:
        """Say whether a note with this onset would come when it is time for `turn`."""
        return self.chord is None and not self.is_given and self.now + onset > self.course.stop

    def is_over(self, onset: int) -> bool:
        """Say whether it is over: a note with this onset would not belong to the last chord."""
        return self.chord is not None and self.chord.is_over(self.now + onset)

    def turn(self) -> None:
        """Begin the next section, the closing of the last one, or what the piece ends with."""
        if self.course.is_over:
            self._close()
        else:
            self.course.turn(self._heard())

    def _close(self) -> None:
        """Begin the last chord, or the notes after the span that is filled."""
        if self.giving is None:
            self.begin_last_chord()
        else:
            self.giving.first = len(self.made)
            self._nats_made = self.nats_before

    def _heard(self) -> Heard:
        made = np.array(self.made, np.int32).reshape(-1, 4)
        steps = np.concatenate([self.seed, made])
        of_seed = np.rint(self.task.seed["onset"] * STEPS_PER_SECOND).astype(np.int64)
        when = np.concatenate([of_seed, self._begun + np.cumsum(made[:, ONSET], dtype=np.int64)])
        levels = self.levels[1:] / self.levels[0]
        key = key_of(self._recent())
        return Heard(steps, when, len(self.made), self.now, self.density, levels, key)

    def take(self, step: list[int]) -> None:
        """Write a note down; the network takes it in next."""
        gap = step[ONSET]
        self.now += gap
        self.density = self.density * FADING[gap] ** self.fading + self.note_share
        if gap or not self.made:
            self.struck[:] = False
        self.struck[step[PITCH]] = True
        if self.apart is not None:
            self.apart.take(gap, step[PITCH])
        if self.chord is not None:
            self.done = self.chord.take(self.now, step[PITCH], NEAR)
        self.hear([step])
        if self.is_given and self.giving is not None:
            self.done = self.giving.left == 0
        self.nats_before += sum(self.nats)
        self.coming = step
        self._note(step)
        if self.course.wishes is not None:
            self.course.wishes.take(self.now, step[PITCH])

    def hear(self, steps: list[list[int]]) -> None:
        """Write down notes of the continuation that came one after another."""
        self.made += steps
        if self.giving is not None and self.giving.first is not None:
            for step in steps:
                self.giving.take(step[PITCH])

    def _note(self, step: list[int]) -> None:
        """Remember a note for the rules against loops and drones."""
        self.loops.take(step)
        self.beat.take(step[ONSET])
        self.lately *= FORGETTING[step[ONSET]]
        self.lately[CLASSES[step[PITCH]]] += 1
        self.levels *= FADING[step[ONSET]]
        self.levels += 1, step[PITCH], step[VELOCITY]

    def begin_last_chord(self) -> None:
        """Be about to strike the tonic triad of the asked key, or of that which is heard."""
        key = self._key()
        tonic = key.tonic if key else int(self._recent()["pitch"][0]) % 12
        when = final_onsets(self.now, self.final, NEAR)
        self.chord = Chord.coming(when, tonic, key, first=len(self.made))

    def _key(self) -> Key | None:
        """Return the key to end in."""
        return self.course.section.key or key_of(self._recent())

    def _recent(self) -> Notes:
        return self.notes()[-400:] if self.made else self.task.seed

    def continuation(self) -> NoteContinuation:
        """Return what was made."""
        notes, steps = fold_pedal(self.notes(), [], []), np.array(self.made)
        first = self.giving.first if self.giving is not None else None
        if not first:  # there is nothing but what was made
            return NoteContinuation(notes, self.nats_before / len(steps), steps)
        after = (self.nats_before - self._nats_made) / (len(steps) - first)
        return NoteContinuation(notes, self._nats_made / first, steps[:first], after)

    def notes(self) -> Notes:
        """Return the notes that were made so far, as they stand: see `continuation`."""
        steps = np.array(self.made)
        onset = self._begun + np.cumsum(steps[:, ONSET])
        offset = onset + steps[:, DURATION]
        if self.chord is not None:
            first = self.chord.first
            # What sounds and belongs to it rings on with it; all else ends when it is there.
            stays = self.chord.triad[steps[:, PITCH]] & (offset > onset[first])
            stays &= onset >= self.end - LONGEST_NOTE
            changed = np.minimum(offset, onset[first] + _PEDAL_CHANGE_STEPS)
            offset = np.where(stays, self.end, changed)
        elif self.giving is not None and self.giving.first:
            first = self.giving.first
            if first < len(steps):
                offset = np.minimum(offset, onset[first] + _PEDAL_CHANGE_STEPS)
            steps, onset, offset = steps[:first], onset[:first], offset[:first]
        return make_notes(
            onset / STEPS_PER_SECOND,
            offset / STEPS_PER_SECOND,
            steps[:, PITCH] + LOWEST_PITCH,
            velocity_of(steps[:, VELOCITY]),
        )
