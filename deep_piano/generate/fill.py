"""The road of a piece of which a span is made anew, between what stands before and after.

Notes that begin within the span are replaced; all others stay as they are, to the last bit. What is
composed ends where a key is struck that stays, and when what follows has begun.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from deep_piano.analysis import note_figures
from deep_piano.analysis.keys import key_of
from deep_piano.decoding.ending import RING_S
from deep_piano.decoding.given import Given
from deep_piano.decoding.note_task import NoteContinuation, NoteTask
from deep_piano.decoding.sections import Section
from deep_piano.errors import InputError, one_line
from deep_piano.generate import seeds
from deep_piano.generate.form import course
from deep_piano.generate.notes import NoteRoad, NoteTake
from deep_piano.generate.seeds import FEWEST_SEED_NOTES, Seed, on_grid, rng_of
from deep_piano.infra.progress import Tell
from deep_piano.music import audio
from deep_piano.music.midi import holds_midi
from deep_piano.music.notes import Notes, excerpt

LONGEST_SILENCE_S: Final = 6.0  # before a span: there is no music to go on from
LEAD_S: Final = 4.0  # at the end of a span, at most half of it: towards what follows
NEAR_S: Final = 5.0  # before and after a span: where its register comes from and goes to
CHORD_S: Final = 0.5  # what follows begins with the notes of so long
KEY_S: Final = 10.0  # the key of what follows is that of so much


@dataclass(frozen=True, kw_only=True)
class FillSeed(Seed):
    """A piece of which a span is made anew; `notes` are those before it.

    Attributes
    ----------
    whole : ndarray, dtype `NOTE`
        As they stand in the file.
    ends_s : float
        When the span ends, on the file's clock.
    """

    whole: Notes
    ends_s: float

    @property
    def begins_s(self) -> float:
        """When the first note begins: time zero of `notes`, on the file's clock."""
        return float(self.whole["onset"][0])

    @property
    def before(self) -> Notes:
        """What comes before the span."""
        return self.whole[: len(self.notes)]

    @property
    def after(self) -> Notes:
        """What comes after it."""
        return self.whole[self.whole["onset"] >= self.ends_s]


@dataclass(frozen=True)
class FillRoad(NoteRoad):
    """The steps that `piece.Road` describes, for a span of a given piece."""

    @property
    def span(self) -> tuple[float, float]:
        """When the span begins and ends, in seconds."""
        assert self.settings.between is not None
        begin_s, end_s = self.settings.between
        return begin_s, end_s

    def read(self, path: Path, progress: Tell) -> FillSeed:
        """Read all notes of a recording or a MIDI file.

        Raises
        ------
        InputError
            When the span is not within the piece, or has no music before or after it, or when a
            recording is too long.
        """
        begin_s, end_s = self.span
        most_s = math.inf if holds_midi(path) else seeds.LONGEST_WHOLE_S
        stretch = seeds.find_whole(path, self.settings, most_s=most_s)
        digest = audio.content_hash(path)
        whole, of_s, cents = seeds.read_notes(path, 0.0, stretch.seconds, progress)
        length = f"{one_line(path)} is {of_s:.1f} s long"
        before = whole[whole["onset"] < begin_s]
        if begin_s >= of_s:
            raise InputError(
                f"{length}: a span cannot begin at {begin_s:g} s. Give an earlier one."
            )
        if whole["onset"][-1] < end_s:
            raise InputError(
                f"{length}, and nothing is struck after {end_s:g} s. Give a span that "
                f"ends earlier, or --keep-until {begin_s:g} to continue from there."
            )
        if len(before) < FEWEST_SEED_NOTES or before["onset"][-1] < begin_s - LONGEST_SILENCE_S:
            raise InputError(
                f"there is no music shortly before {begin_s:g} s of {one_line(path)} to go on "
                "from. Give a span that begins elsewhere."
            )
        zero_s = float(whole["onset"][0])
        return FillSeed(
            excerpt(before, zero_s, begin_s),
            on_grid(begin_s - zero_s),
            digest,
            path.name,
            cents,
            stretch=replace(stretch, seconds=of_s),
            whole=whole,
            ends_s=end_s,
        )

    def task(self, seed: Seed, take: int) -> NoteTask:
        """Return what a decoder is to do for a take."""
        assert isinstance(seed, FillSeed)
        from_s = seed.ends_s - seed.begins_s
        after = excerpt(seed.after, seed.begins_s, np.inf)
        task = NoteTask(
            seed.notes,
            seed.seconds,
            float(after["offset"].max()) + RING_S,
            rng_of(self.settings, seed.digest, take),
            min(self.settings.seed_seconds, seed.seconds),
            given=Given.following(seed.notes, after, from_s),
        )
        controls = course(self.settings, task.manner, seed_s=task.manner_seconds or seed.seconds)
        plain = controls[0] if controls else Section()
        return self.apart(replace(task, sections=lead(plain, task, after, from_s)))

    def join(self, seed: Seed, continuation: NoteContinuation, take: int) -> NoteTake:
        """Put what was made between what stays, and measure it."""
        assert isinstance(seed, FillSeed)
        before, after = seed.before, seed.after
        made = fitted(continuation.notes, seed, self.span[0])
        whole = np.concatenate([before, made, after])
        figures = note_figures.figures(before, made, from_s=float(before["offset"].max()))
        figures |= self.scores(seed, continuation, take)
        if continuation.nats_after is not None:
            figures["nats_a_note_after"] = round(continuation.nats_after, 4)
        begin_s, end_s = self.span
        shared = self.shared(continuation.notes)
        return NoteTake(take, whole, begin_s, figures, _end_s(whole), shared, new_until_s=end_s)

    def facts(self, seed: Seed, take: NoteTake) -> dict[str, Any]:
        """Return what there is to say of a piece; its figures are those of the span."""
        begin_s, end_s = self.span
        fill = {"from_s": begin_s, "to_s": end_s, "notes": take.new_notes}
        return super().facts(seed, take) | {"fill": fill}

    @property
    def parts(self) -> tuple[str, str]:
        """What is given and what is made, as the piano roll names them."""
        return "kept", "made anew"

    def marks(self, take: NoteTake) -> list[tuple[float, str]]:
        """Return what is marked on the piano roll."""
        begin_s, end_s = self.span
        return [(0.0, "before"), (begin_s, "made anew"), (end_s, "after")]


def _end_s(notes: Notes) -> float:
    return round(float(notes["offset"].max()) + RING_S, 2)


def lead(plain: Section, task: NoteTask, after: Notes, from_s: float) -> tuple[Section, Section]:
    """Return the sections of a span: as what stands before it, then towards what follows.

    Parameters
    ----------
    plain : Section
        What the controls ask for.
    task : NoteTask
    after : ndarray, dtype `NOTE`
    from_s : float
        When the span ends, on the clock of both.
    """
    manner = float(task.manner["pitch"].mean())
    recent = task.seed[task.seed["onset"] >= task.seed_seconds - NEAR_S]["pitch"]
    coming = after[after["onset"] < after["onset"][0] + NEAR_S]["pitch"]
    first = after[after["onset"] <= after["onset"][0] + CHORD_S]["pitch"]
    here = float(recent.mean()) - manner if len(recent) else 0.0
    begins_s = from_s - min(LEAD_S, (from_s - task.seed_seconds) / 2)
    return (
        replace(plain, end_s=begins_s, register=plain.register + here),
        replace(
            plain,
            start_s=begins_s,
            register=float(coming.mean()) - manner,
            key=key_of(after[after["onset"] < after["onset"][0] + KEY_S]),
            chord=tuple(sorted({int(pitch) % 12 for pitch in first})),
        ),
    )


def fitted(notes: Notes, seed: FillSeed, begin_s: float) -> Notes:
    """Return what was made on the file's clock, within the span and beside the notes that stay."""
    made, after = notes.copy(), seed.after
    made["onset"] = np.maximum(notes["onset"] + seed.begins_s, begin_s)
    struck = np.full(128, np.inf)
    np.minimum.at(struck, after["pitch"], after["onset"])
    made["offset"] = np.minimum(notes["offset"] + seed.begins_s, struck[made["pitch"]])
    return made[np.lexsort((made["pitch"], made["onset"]))]
