"""The road of a piece in notes: what differs from that of a piece in sound.

Each stretch of it is another module's business; `piece` walks it.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from deep_piano.analysis import note_figures
from deep_piano.analysis.beats import meter_of
from deep_piano.analysis.compact_index import open_index
from deep_piano.analysis.judge import mean_score
from deep_piano.analysis.originality import Index, SharedRun
from deep_piano.analysis.signature import sure_signature
from deep_piano.codecs.notes import encode
from deep_piano.config.sections import GenerateConfig
from deep_piano.decoding.note_task import NoteContinuation, NoteTask
from deep_piano.decoding.open import judge_for
from deep_piano.errors import InputError, one_line
from deep_piano.generate import seeds
from deep_piano.generate.files import PieceFiles
from deep_piano.generate.form import course, stretches
from deep_piano.generate.seeds import SR, Seed, rng_of
from deep_piano.generate.tags import tags_of
from deep_piano.infra.assets import cache
from deep_piano.infra.assets.catalogue import SOUND_NAMES
from deep_piano.infra.progress import Progress, Tell
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.music import audio, loudness, synth
from deep_piano.music.audio import Samples
from deep_piano.music.joining import join
from deep_piano.music.midi import write_midi
from deep_piano.music.midi_out import write_performance
from deep_piano.music.notes import NOTE, Notes, fold_pedal
from deep_piano.music.sounds import default_sound


@dataclass(frozen=True)
class NoteTake:
    """A piece in notes.

    Attributes
    ----------
    index : int
        Which take of its seed, from 0.
    notes : ndarray, dtype `NOTE`
        The whole piece.
    seed_ends_s : float
        When the seed, or what else stays as it was, ends in it, and what was made begins.
    figures : dict
        As `note_figures.figures` returns them, "nats_a_note" and "judge_log_odds".
    seconds : float
        How long it is.
    shared : SharedRun or None
        What the continuation shares with a corpus, where there is an index of one.
    ranking : tuple of dict
        Of all takes of the seed, the best first, where only the best are kept: see `ranked`.
    new_until_s : float
        When what was made ends, and what follows stays as it was.
    """

    index: int
    notes: Notes
    seed_ends_s: float
    figures: dict[str, float | str]
    seconds: float
    shared: SharedRun | None = None
    ranking: tuple[dict[str, Any], ...] = ()
    new_until_s: float = math.inf

    @property
    def new_notes(self) -> int:
        """How many notes were made."""
        onset = self.notes["onset"]
        return int(((onset >= self.seed_ends_s) & (onset < self.new_until_s)).sum())

    @property
    def continuation_s(self) -> float | None:
        """When what continues the seed begins, where the piece has both."""
        return self.seed_ends_s if self.seed_ends_s and self.new_until_s == math.inf else None

    @property
    def known(self) -> dict[str, Any]:
        """What a `Record` says of it, whether it is written or not."""
        return {
            "notes": len(self.notes),
            "figures": self.figures,
            "shared_run_notes": self.shared.notes if self.shared is not None else None,
        }


@dataclass(frozen=True)
class NoteRoad:
    """The steps that `piece.Road` describes, for a checkpoint of notes.

    Attributes
    ----------
    checkpoint : Checkpoint
    settings : GenerateConfig
    only_new : bool
    index : Index, optional
        To compare each continuation with; where it is asked for, to keep it apart from.
    mute : bool
        Only notes are written.
    sound : str or None
        What the piece is played on, once it is `ready`.
    """

    of_notes: ClassVar[bool] = True

    checkpoint: Checkpoint
    settings: GenerateConfig
    only_new: bool = False
    index: Index | None = None
    mute: bool = False
    sound: str | None = None

    def ready(self, progress: Tell) -> NoteRoad:
        """Return the same road with the sound that is to be played, which is there and works."""
        return (
            self if self.mute else replace(self, sound=ready_sound(self.settings.sound, progress))
        )

    def read(self, path: Path, progress: Tell) -> Seed:
        """Read a recording or a MIDI file; see `piece.Road`."""
        settings = self.settings
        stretch = seeds.find_stretch(path, settings)
        seed = seeds.read_seed(
            path,
            start_s=stretch.start_s,
            seconds=stretch.seconds,
            of_s=stretch.of_s,
            progress=progress,
            keep_recording=settings.keep_recording,
            keep_silence=settings.keep_until is not None,
        )
        seeds.require_room(seed, settings, only_new=self.only_new)
        return seed

    def write_seed(self, out: Path, path: Path, seed: Seed) -> None:
        """Write a seed as sound; see `seeds.write_seed`."""
        assert self.sound is not None
        seeds.write_seed(out, path, seed, sound=self.sound)

    def task(self, seed: Seed, take: int) -> NoteTask:
        """Return what a decoder is to do for a take."""
        seconds = self.settings.seconds + (seed.seconds if self.only_new else 0)
        rng = rng_of(self.settings, seed.digest, take)
        kept = self.settings.keep_until is not None
        manner_s = self.settings.seed_seconds if kept else None
        task = NoteTask(seed.notes, seed.seconds, seconds, rng, manner_s)
        from_s = seed.seconds if self.only_new else 0.0
        manner_s = min(manner_s or seed.seconds, seed.seconds)
        sections = course(self.settings, task.manner, seed_s=manner_s, from_s=from_s)
        return self.apart(replace(task, sections=sections))

    def apart(self, task: NoteTask) -> NoteTask:
        """Return a task whose piece is kept apart from the corpus, where that is asked for."""
        most = self.settings.most_shared
        return task if most is None else replace(task, corpus=self.index, most_shared=most)

    def shared(self, made: Notes) -> SharedRun | None:
        """Return what notes share with the corpus, where there is an index of one."""
        return self.index.longest_run(encode(made)) if self.index is not None else None

    def scores(self, seed: Seed, continuation: NoteContinuation, take: int) -> dict[str, float]:
        """Return what network and judge say of what was made: nats a note, and log-odds."""
        found = {"nats_a_note": round(continuation.nats, 4)}
        if (judge := judge_for(self.checkpoint)) is not None:
            task = self.task(seed, take)
            later = np.concatenate([task.seed[len(task.manner) :], continuation.notes])
            score = mean_score(judge, task.manner, later, from_s=task.seed_seconds)
            found["judge_log_odds"] = round(score, 4)
        return found

    def join(self, seed: Seed, continuation: NoteContinuation, take: int) -> NoteTake:
        """Put a seed and its continuation together, and measure the piece."""
        notes = continuation.notes
        if self.only_new:
            whole, seed_ends_s = notes.copy(), 0.0
            whole["onset"] -= seed.seconds
            whole["offset"] -= seed.seconds
        else:
            # Folded again: a key that still sounds from the seed is let go where it is struck anew.
            whole = fold_pedal(np.concatenate([seed.notes, notes]), [], [])
            seed_ends_s = seed.seconds
        old = whole["onset"] < seed_ends_s
        figures = note_figures.figures(
            seed.notes if self.only_new else whole[old],
            whole[~old],
            from_s=0.0 if self.only_new else float(whole["offset"][old].max()),
        )
        figures |= self.scores(seed, continuation, take)
        seconds, shared = self.settings.seconds, self.shared(notes)
        return NoteTake(take, whole, seed_ends_s, figures, seconds, shared)

    def used(self) -> dict[str, Any]:
        """Return the settings that stand in the facts."""
        return self.settings.model_dump(exclude={"takes", "keep"})

    def write(
        self, files: PieceFiles, seed: Seed, take: NoteTake, progress: Tell
    ) -> dict[str, Any]:
        """Write notes, score, piano roll and sound; return what there is to say of them."""
        facts = self.facts(seed, take)
        if files.sound is None:
            self._write_silent(files, take)
            return facts
        samples, sr = self.samples(seed, take, progress)
        progress(Progress("encoding", 0, 1))
        tags = tags_of(files.title, seed.name, take.index, self.settings, self.checkpoint)
        # FFmpeg is a process of its own; meanwhile all else is written.
        with ThreadPoolExecutor(1) as pool:
            encoded = pool.submit(audio.encode, files.sound, samples, sr=sr, tags=tags)
            self._write_silent(files, take)
            figures = loudness.figures(samples, sr=sr)
            encoded.result()
        progress(Progress("encoding", 1, 1))
        folder = cache.path(self.sound) if self.sound in SOUND_NAMES else None
        asset = folder.name if folder else None
        return facts | {"sound": {"name": self.sound, "asset": asset, "sr": sr, **figures}}

    def facts(self, seed: Seed, take: NoteTake) -> dict[str, Any]:
        """Return what there is to say of a piece, whether it is written or not."""
        facts: dict[str, Any] = {
            "piece": {
                "seconds": take.seconds,
                "notes": len(take.notes),
                **take.figures,
            }
        }
        if form := stretches(self.settings):
            facts["form"] = [part.facts for part in form]
        if take.ranking:
            facts["ranking"] = list(take.ranking)
        if take.shared is not None and self.index is not None:
            facts["originality"] = {
                "longest_shared_run_notes": take.shared.notes,
                "exact": self.index.exact,
                "recording": take.shared.recording or None,
                "corpus_sha256": self.index.dataset or None,
            }
        return facts

    def _write_silent(self, files: PieceFiles, take: NoteTake) -> None:
        """Write notes, score and piano roll."""
        from deep_piano.report.roll import piano_roll
        from deep_piano.report.style import if_possible

        self._write_notes(files, take)
        if files.picture is not None:
            if_possible(piano_roll)(
                files.picture,
                take.notes,
                seconds=take.seconds,
                seed_seconds=take.seed_ends_s,
                new_until_s=take.new_until_s,
                names=self.parts,
                title=files.title,
                sections=self.marks(take),
            )

    @property
    def parts(self) -> tuple[str, str]:
        """What is given and what is made, as the piano roll names them."""
        return ("seed" if self.settings.keep_until is None else "kept"), "continuation"

    def marks(self, take: NoteTake) -> list[tuple[float, str]]:
        """Return what is marked on the piano roll: when it begins, and its name."""
        return [(part.start_s, part.plan.name) for part in stretches(self.settings)]

    def samples(self, seed: Seed, take: NoteTake, progress: Tell) -> tuple[Samples, int]:
        """Return the sound of a piece, shape (n, 2), at its loudness, and its sampling rate."""
        assert self.sound is not None
        samples = synth.render(
            take.notes, sound=self.sound, seconds=take.seconds, sr=SR, progress=progress
        )
        if seed.recording is not None:
            samples = join(seed.recording, samples, join_s=seed.seconds, sr=SR)
        return loudness.normalise(samples, sr=SR), SR

    def _write_notes(self, files: PieceFiles, take: NoteTake) -> None:
        """Write the .mid and the .musicxml where they are asked for."""
        from deep_piano.report.musicxml import write_score

        settings, notes = self.settings, take.notes
        if files.notes is None and files.score is None:
            return
        meter, signature = meter_of(notes), sure_signature(notes)
        if files.notes is not None and settings.midi == "sounding":
            write_midi(files.notes, notes)
        elif files.notes is not None:
            write_performance(
                files.notes,
                notes,
                meter=meter,
                signature=signature,
                continuation_s=take.continuation_s,
                two_tracks=settings.two_tracks,
            )
        if files.score is not None:
            write_score(
                files.score,
                notes,
                meter=meter,
                title=files.title,
                signature=signature,
                continuation_s=take.continuation_s,
            )


def index_for(checkpoint: Checkpoint, settings: GenerateConfig) -> Index | None:
    """Return what pieces are compared with: the index that is given, or the checkpoint's own.

    Raises
    ------
    InputError
        When it cannot be read, or pieces are to be kept apart from what is not known, or too far.
    """
    given = settings.index
    index: Index | None = open_index(Path(given)) if given is not None else checkpoint.corpus
    most = settings.most_shared
    if most is None:
        return index
    if index is None:
        raise InputError(
            "--most-shared needs an index of the corpus, and the checkpoint "
            f"{one_line(settings.checkpoint)!r} has none. Give one with --index, or make it with "
            "`deep-piano index`."
        )
    if most < index.fewest_notes:
        exact = "" if index.exact else ", or give an exact index with --index"
        raise InputError(
            f"--most-shared {most} is less than the {index.fewest_notes} notes that this index can "
            f"keep a piece to. Give {index.fewest_notes} or more{exact}."
        )
    return index


def ready_sound(asked: str | None, progress: Tell) -> str:
    """Return the sound to play with, fetched and known to work before anything is decoded."""
    sound = asked or default_sound()
    if sound in SOUND_NAMES:
        cache.ensure(sound, progress=progress)
    synth.render(np.empty(0, NOTE), sound=sound, seconds=0.0, sr=SR)
    return sound
