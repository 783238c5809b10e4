"""The road of a piece that keeps the rhythm of another and has new pitches, or the reverse.

The beginning of the given music says what the remix is to be like, as a seed does, but is not part
of it: the remix has a note for each note that was given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deep_piano.analysis import note_figures
from deep_piano.codecs.notes import DURATION, ONSET, PITCH, STEPS_PER_SECOND, VELOCITY, velocity_of
from deep_piano.config.sections import GenerateConfig
from deep_piano.decoding.ending import RING_S
from deep_piano.decoding.given import Given
from deep_piano.decoding.note_task import NoteContinuation, NoteTask
from deep_piano.generate import seeds
from deep_piano.generate.form import course
from deep_piano.generate.notes import NoteRoad, NoteTake
from deep_piano.generate.seeds import Seed, Stretch, on_grid, rng_of
from deep_piano.infra.progress import Tell
from deep_piano.music import audio
from deep_piano.music.midi import holds_midi
from deep_piano.music.notes import LOWEST_PITCH, Notes, excerpt, fold_pedal, make_notes


@dataclass(frozen=True)
class RemixRoad(NoteRoad):
    """The steps that `piece.Road` describes, for a remix; a seed's `notes` are what is remixed."""

    def read(self, path: Path, progress: Tell) -> Seed:
        """Read a whole MIDI file, or the seed in it or in a recording."""
        stretch = _stretch(path, self.settings)
        notes, length_s, cents = seeds.read_notes(path, stretch.start_s, stretch.seconds, progress)
        digest = audio.content_hash(path)
        stretch = replace(stretch, seconds=length_s)
        end_s = on_grid(float(notes["offset"].max()))
        return Seed(notes, end_s, digest, path.name, cents, stretch=stretch)

    def task(self, seed: Seed, take: int) -> NoteTask:
        """Return what a decoder is to do for a take."""
        begins_s = float(seed.notes["onset"][0])
        start = excerpt(seed.notes, begins_s, begins_s + self.settings.seed_seconds)
        start_s = on_grid(float(start["onset"][-1])) + 1.0
        rhythm = self.settings.remix == "rhythm"
        task = NoteTask(
            start,
            start_s,
            start_s + seed.seconds + RING_S,
            rng_of(self.settings, seed.digest, take),
            sections=course(self.settings, start, seed_s=start_s, from_s=start_s),
            given=Given.rhythm(seed.notes, start_s - begins_s)
            if rhythm
            else Given.pitches(seed.notes),
        )
        return self.apart(task)

    def join(self, seed: Seed, continuation: NoteContinuation, take: int) -> NoteTake:
        """Put what was made to what was kept, and measure the piece."""
        old, steps = seed.notes, continuation.steps
        if self.settings.remix == "rhythm":
            pitch = steps[:, PITCH] + LOWEST_PITCH
            whole = make_notes(old["onset"], old["offset"], pitch, old["velocity"])
        else:
            onset = np.cumsum(steps[:, ONSET]) - steps[0, ONSET]
            offset = onset + steps[:, DURATION]
            times = onset / STEPS_PER_SECOND, offset / STEPS_PER_SECOND
            made = make_notes(*times, old["pitch"], velocity_of(steps[:, VELOCITY]))
            whole = fold_pedal(made, [], [])
        figures = note_figures.figures(old, whole, from_s=0.0)
        figures |= self.scores(seed, continuation, take)
        seconds = round(float(whole["offset"].max()) + RING_S, 2)
        return NoteTake(take, whole, 0.0, figures, seconds, self.shared(whole))

    @property
    def parts(self) -> tuple[str, str]:
        """What is given and what is made, as the piano roll names them."""
        return "kept", "remix"

    def facts(self, seed: Seed, take: NoteTake) -> dict[str, Any]:
        """Return what there is to say of a piece, and what it keeps."""
        remix: dict[str, Any] = {"kept": self.settings.remix}
        if self.settings.remix == "rhythm":
            remix["changed_pitches"] = round(changed(seed.notes, take.notes), 4)
        return super().facts(seed, take) | {"remix": remix}


def changed(old: Notes, new: Notes) -> float:
    """Return the share of notes of which no key is struck where it was, 0 to 1."""
    there = {(float(note["onset"]), int(note["pitch"])) for note in old}
    same = sum((float(note["onset"]), int(note["pitch"])) in there for note in new)
    return 1 - same / len(new)


def _stretch(path: Path, settings: GenerateConfig) -> Stretch:
    if holds_midi(path) and (settings.seed_start, settings.seed_end) == (None, None):
        return seeds.find_whole(path, settings, most_s=seeds.LONGEST_WHOLE_S)
    return seeds.find_stretch(path, settings)
