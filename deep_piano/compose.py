"""Seeds' notes become pieces' notes: the network hears a seed, then goes on, many pieces at once.

Here are the rules that a piece keeps whatever the network wishes: it lasts as long as asked, no
note is cut off or stuck, no silence is long, and it ends with a chord of its key that rings out.
They are kept by choosing among the classes that obey them, not by mending afterwards. Pieces are
decoded side by side, and each is the same whatever pieces are beside it. This module knows notes
and the engine; it knows nothing of audio or files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.notes import (
    DURATION,
    DURATION_STEPS,
    LOG_WIDTHS,
    ONSET,
    ONSET_STEPS,
    PITCH,
    PITCHES,
    STEPS_PER_SECOND,
    VELOCITIES,
    VELOCITY,
    NoteContext,
    Sequence,
    encode,
    velocity_of,
)
from deep_piano.decode import Engine, Sampling
from deep_piano.likelihood import cross_entropy
from deep_piano.metrics import LONGEST_PATTERN_NOTES, LOOP_GRID_S, MOST_REPETITIONS, key_of
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
_CHANCES_AT_ONCE = 1024
_LOOP_GRID_STEPS = round(LOOP_GRID_S * STEPS_PER_SECOND)

Mask = NDArray[np.bool_]

_ANY_KEY = np.ones(PITCHES, bool)
_ANY_VELOCITY = np.ones(VELOCITIES, bool)
_NEAR = ONSET_STEPS <= LONGEST_GAP_S * STEPS_PER_SECOND
_SHORT = DURATION_STEPS <= LONGEST_NOTE_S * STEPS_PER_SECOND
_LOUD = np.arange(VELOCITIES) >= SOFTEST_FINAL_CHORD * VELOCITIES // 128
_LONGEST = np.arange(len(DURATION_STEPS)) == len(DURATION_STEPS) - 1
_KEYS = np.arange(PITCHES)
_CLASSES = (_KEYS + LOWEST_PITCH) % 12


@dataclass(frozen=True)
class Commission:
    """A piece to compose.

    Attributes
    ----------
    seed : ndarray, dtype `NOTE`
        At least one note; the first onset is the piece's zero.
    seed_seconds : float
        When the seed ends; the continuation begins there or later.
    seconds : float
        When the piece ends.
    rng : numpy.random.Generator
        The chances of this piece; nothing else is taken from it.
    """

    seed: Notes
    seed_seconds: float
    seconds: float
    rng: np.random.Generator


class Continuation(NamedTuple):
    """What a composer made of a seed.

    Attributes
    ----------
    notes : ndarray, dtype `NOTE`
        On the seed's clock.
    nats : float
        The mean loss of a note under the network itself, in nats on the grid of 10 ms and 32
        velocities: how much it was surprised by what was drawn.
    """

    notes: Notes
    nats: float


class Composer:
    """Pieces in the making, any number of them, that come and go as they please.

    Parameters
    ----------
    engine : Engine
    sampling : mapping of str to Sampling
        One a field.
    guidance : mapping of str to float, optional
        A field: how far its logits go from what the network says that knows nothing of the seed to
        what it says that does, and beyond (classifier-free guidance, Ho and Salimans 2022,
        arXiv:2207.12598). 1, also where a field is not named: as the network learned it. With any
        other each piece is heard twice.
    """

    def __init__(
        self,
        engine: Engine,
        sampling: Mapping[str, Sampling],
        guidance: Mapping[str, float] | None = None,
    ) -> None:
        self._engine = engine
        self._sampling = [sampling[field.name] for field in engine.spec.fields]
        self._guidance = [(guidance or {}).get(field.name, 1.0) for field in engine.spec.fields]
        # Streams of a piece: one that knows of the seed, and where it is guided one that does not.
        self._streams = 1 if all(strength == 1 for strength in self._guidance) else 2
        self._pieces: list[_Piece] = []
        self._state = engine.start(0)
        self._context = NoteContext(0)

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, name: Hashable, commission: Commission) -> None:
        """Begin a piece; `step` says its name when it is done."""
        self._arrange([*range(len(self)), -1])
        piece = _Piece(name, commission)
        self._pieces.append(piece)
        # For the context, the seed is over with the first note of its last onset.
        last_onset_s = float(ONSET_STEPS[piece.seed[:, ONSET]].sum()) / STEPS_PER_SECOND
        end_s = piece.end / STEPS_PER_SECOND
        stream = self._streams * (len(self) - 1)
        self._context.start(stream, seed_seconds=last_onset_s, end_seconds=end_s)
        if self._streams == 2:
            self._context.start(stream + 1, seed_seconds=None, end_seconds=end_s)

    @property
    def composed_s(self) -> float:
        """How far all pieces in the making have come together, in seconds."""
        return sum(piece.now for piece in self._pieces) / STEPS_PER_SECOND

    def step(self) -> dict[Hashable, Continuation]:
        """Take every piece one note further.

        Returns
        -------
        dict of name to Continuation
            Those that are complete. They are no longer in the making.
        """
        coming = [piece.coming for piece in self._pieces for _ in range(self._streams)]
        steps = np.array(coming, np.int32).reshape(-1, 4)
        heard = self._engine.hear(self._state, steps, self._context.advance(steps))
        heard = heard.reshape(len(self), self._streams, -1)
        choosing = [index for index, piece in enumerate(self._pieces) if piece.heard()]
        if choosing:
            self._choose([self._pieces[index] for index in choosing], heard[choosing])
        done = {piece.name: piece.continuation() for piece in self._pieces if piece.done}
        if done:
            left = [index for index, piece in enumerate(self._pieces) if not piece.done]
            self._pieces = [self._pieces[index] for index in left]
            self._arrange(left)
        return done

    def _arrange(self, order: list[int]) -> None:
        """Keep the streams of the pieces of these indices, in this order; -1 is a new one."""
        streams = [
            piece if piece < 0 else piece * self._streams + stream
            for piece in order
            for stream in range(self._streams)
        ]
        self._state.arrange(streams)
        self._context.arrange(streams)

    def _choose(self, pieces: list[_Piece], heard: NDArray[np.float32]) -> None:
        """Draw the next note of each piece, field by field; `heard` has its streams' rows."""
        onset = self._draw(pieces, heard, np.empty((len(pieces), 0), np.int32))
        late = [index for index, piece in enumerate(pieces) if piece.is_late(onset[index])]
        if late:  # it is time for their last chords: the time is drawn again, among theirs
            for index in late:
                pieces[index].begin_last_chord()
            some = [pieces[index] for index in late]
            onset[late] = self._draw(some, heard[late], np.empty((len(late), 0), np.int32))
        chosen = onset[:, None]
        for _field in range(1, len(self._sampling)):
            drawn = self._draw(pieces, heard, chosen)
            chosen = np.concatenate([chosen, drawn[:, None]], 1)
        for piece, step in zip(pieces, chosen.tolist(), strict=True):
            piece.take(step)

    def _draw(
        self, pieces: list[_Piece], heard: NDArray[np.float32], chosen: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        index = chosen.shape[1]
        allowed = np.stack(
            [piece.allowed(step) for piece, step in zip(pieces, chosen.tolist(), strict=True)]
        )
        chances = np.array([piece.chance() for piece in pieces])
        streams, strength = self._streams, self._guidance[index]
        rows = heard.reshape(len(pieces) * streams, -1)
        logits = self._engine.logits(rows, np.repeat(chosen, streams, axis=0))
        own = guided = logits[::streams]
        if strength != 1:
            without_seed = logits[1::2]
            guided = without_seed + np.float32(strength) * (own - without_seed)
        drawn = self._sampling[index].draw_each(guided, chances, allowed).astype(np.int32)
        nats = cross_entropy(own, drawn) + LOG_WIDTHS[index][drawn]
        for piece, loss in zip(pieces, nats.tolist(), strict=True):
            piece.nats[index] = loss
        return drawn


@dataclass
class _Chord:
    """The last chord of a piece: when its next note may be struck, and which keys are free."""

    when: Mask
    free: Mask
    triad: Mask
    struck: int | None = None
    notes: int = 0


class _Loops:
    """The patterns that a piece repeats: for each length, how long it has done so."""

    def __init__(self) -> None:
        self._pitches: deque[int] = deque(maxlen=LONGEST_PATTERN_NOTES)  # the last one first
        self._waits: deque[int] = deque(maxlen=LONGEST_PATTERN_NOTES)
        self._runs = [0] * LONGEST_PATTERN_NOTES
        self._longest = 0

    def take(self, step: list[int]) -> None:
        """Hear a note."""
        pitch, wait = step[PITCH], round(int(ONSET_STEPS[step[ONSET]]) / _LOOP_GRID_STEPS)
        before = zip(self._pitches, self._waits, self._runs, strict=False)
        runs = [run + 1 if (p, w) == (pitch, wait) else 0 for p, w, run in before]
        self._runs[: len(runs)] = runs
        self._longest = max(runs, default=0)
        self._pitches.appendleft(pitch)
        self._waits.appendleft(wait)

    def without_one_more(self, free: Mask) -> Mask:
        """Return the keys that may be struck without repeating a pattern too often."""
        if self._longest < MOST_REPETITIONS - 2:
            return free
        # A run of n notes, and the one before them, repeat a pattern of m notes 1 + (n + 1) // m
        # times.
        barred = [
            pitch
            for length, (pitch, run) in enumerate(zip(self._pitches, self._runs, strict=False), 1)
            if (run + 2) // length >= MOST_REPETITIONS
        ]
        left = free.copy()
        left[barred] = False
        return left if left.any() else free


@dataclass
class _Piece:
    """One piece in the making; times are in steps of the grid.

    Attributes
    ----------
    coming : list of int
        The note that the network is to hear next.
    made : list of tuple
        Onset, offset, pitch and velocity of each note of the continuation.
    nats, nats_before : list of float, float
        What the fields of the note being chosen cost, and all the notes before it.
    struck : ndarray of bool, shape (PITCHES,)
        The keys of the continuation that were struck at this very moment.
    """

    name: Hashable
    commission: Commission
    seed: Sequence = field(init=False)
    coming: list[int] = field(init=False)
    now: int = field(init=False)
    seed_end: int = field(init=False)
    end: int = field(init=False)
    made: list[tuple[int, int, int, int]] = field(default_factory=list)
    nats: list[float] = field(default_factory=lambda: [0.0] * 4)
    nats_before: float = 0.0
    struck: Mask = field(default_factory=lambda: np.zeros(PITCHES, bool))
    chord: _Chord | None = None
    done: bool = False

    def __post_init__(self) -> None:
        asked = self.commission
        self.seed = encode(asked.seed)
        self.coming = self.seed[0].tolist()
        self._position = 1
        self.now = round(float(asked.seed["onset"][-1]) * STEPS_PER_SECOND)
        self.seed_end = round(asked.seed_seconds * STEPS_PER_SECOND)
        self.end = round((asked.seconds - RING_S) * STEPS_PER_SECOND)
        latest, earliest = (self.end - round(s * STEPS_PER_SECOND) for s in FINAL_CHORD_S)
        # The last chord is struck within this span, and never within the seed.
        self._final = max(earliest, self.seed_end), max(latest, self.seed_end + _ROLL_STEPS)
        self._chances: list[float] = []
        self.loops = _Loops()
        for step in self.seed.tolist():
            self.loops.take(step)

    def chance(self) -> float:
        """Return the next random number, at least 0 and below 1."""
        if not self._chances:
            self._chances = self.commission.rng.random(_CHANCES_AT_ONCE)[::-1].tolist()
        return self._chances.pop()

    def heard(self) -> bool:
        """Say that the coming note was heard, and whether the next one is to be chosen."""
        if self._position == len(self.seed):
            return True
        self.coming = self.seed[self._position].tolist()
        self._position += 1
        return False

    def allowed(self, step: list[int]) -> Mask:
        """Return the classes that obey the rules, of the field after those in `step`."""
        index = len(step)
        if self.chord is not None:
            return (self.chord.when, self.chord.free, _LOUD, _LONGEST)[index]
        if index == ONSET:
            return self._allowed_onsets()
        if index == PITCH:
            free = ~self.struck if ONSET_STEPS[step[ONSET]] == 0 else _ANY_KEY
            return self.loops.without_one_more(free)
        if index == VELOCITY:
            return _ANY_VELOCITY
        left = self.end - self.now - int(ONSET_STEPS[step[ONSET]])
        return _SHORT & (left >= DURATION_STEPS)

    def _allowed_onsets(self) -> Mask:
        if not self.made:
            onsets = self.now + ONSET_STEPS
            gaps = onsets >= self.seed_end  # the seed has been heard: nothing joins it
            return gaps & (onsets <= max(onsets[gaps].min(), self.seed_end + STEPS_PER_SECOND))
        if self.struck.sum() >= MOST_NOTES_AT_ONCE:
            return _NEAR & (ONSET_STEPS > 0)
        return _NEAR

    def is_late(self, onset: int) -> bool:
        """Say whether a note with this onset would come when it is time for the last chord."""
        return self.chord is None and self.now + int(ONSET_STEPS[onset]) > self._final[0]

    def take(self, step: list[int]) -> None:
        """Write a note down; it is the next one to be heard."""
        gap = int(ONSET_STEPS[step[ONSET]])
        self.now += gap
        if gap or not self.made:
            self.struck[:] = False
        self.struck[step[PITCH]] = True
        offset = self.end if self.chord else self.now + int(DURATION_STEPS[step[DURATION]])
        velocity = int(velocity_of(step[VELOCITY]))
        if self.chord is not None:
            self._take_into(self.chord, step)
        self.made.append((self.now, offset, step[PITCH] + LOWEST_PITCH, velocity))
        self.nats_before += sum(self.nats)
        self.coming = step
        self.loops.take(step)

    def begin_last_chord(self) -> None:
        """Be about to strike the tonic triad of the piece's key, which rings until the end.

        The network chooses when, which keys of the triad and how loud; the bass is the tonic.
        """
        tonic, triad = self._tonic_triad()
        earliest, latest = self._final
        onsets = self.now + ONSET_STEPS
        when = (onsets >= earliest) & (onsets <= latest)
        if not when.any():  # the last onset lies far back, or already among the last seconds
            when = ONSET_STEPS[np.abs(onsets - max(latest, self.now)).argmin()] == ONSET_STEPS
        near = when & _NEAR
        bass = (tonic == _CLASSES) & (_KEYS <= _HIGHEST_BASS)
        self.chord = _Chord(near if near.any() else when, bass, np.isin(_CLASSES, triad))

    def _take_into(self, chord: _Chord, step: list[int]) -> None:
        """Take note of one more key of the last chord."""
        if chord.struck is None:
            chord.struck = self.now
            limit = self.now + _PEDAL_CHANGE_STEPS
            self.made = [(a, min(b, limit), p, v) for a, b, p, v in self.made]
            chord.free = chord.triad & (step[PITCH] + 3 <= _KEYS)
        chord.free = chord.free & (np.abs(_KEYS - step[PITCH]) > 2)
        chord.when = chord.struck + _ROLL_STEPS - self.now >= ONSET_STEPS
        chord.notes += 1
        self.done = chord.notes == FINAL_CHORD_NOTES or not chord.free.any()

    def _tonic_triad(self) -> tuple[int, list[int]]:
        """Return the tonic and the pitch classes of its triad, by the music of the last minutes."""
        recent = self._made_notes()[-400:] if self.made else self.commission.seed
        key = key_of(recent)
        tonic = key.tonic if key else int(recent["pitch"][0]) % 12
        third = 3 if key and key.mode == "minor" else 4
        return tonic, [tonic, (tonic + third) % 12, (tonic + 7) % 12]

    def continuation(self) -> Continuation:
        """Return what was made."""
        notes = fold_pedal(self._made_notes(), [], [])
        return Continuation(notes, self.nats_before / len(self.made))

    def _made_notes(self) -> Notes:
        columns = np.array(self.made).T
        times = columns[:2] / STEPS_PER_SECOND
        return make_notes(times[0], times[1], columns[2], columns[3])
