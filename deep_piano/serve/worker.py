"""The process that transcribes, composes and plays; what it needs is loaded once.

It does what it is sent, one thing after another, and asks between two steps whether it is still
wanted. It writes into the folders that it is given, and knows nothing of HTTP or of the queue.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

from deep_piano.codecs.notes import SPEC
from deep_piano.config.sections import Config, GenerateConfig
from deep_piano.errors import DeepPianoError, InputError, one_line, ran_out_of_memory
from deep_piano.generate import seeds
from deep_piano.generate.files import targets
from deep_piano.generate.piece import Road, decode_takes, road_of, write
from deep_piano.generate.seeds import SR, Seed
from deep_piano.infra.assets import cache
from deep_piano.infra.assets.catalogue import SOUND_NAMES
from deep_piano.infra.progress import Progress, Tell
from deep_piano.infra.storage.folder import named
from deep_piano.models import checkpoint
from deep_piano.music import audio, loudness, synth
from deep_piano.music.length import length_s
from deep_piano.music.midi import holds_midi, read_midi
from deep_piano.music.notes import Notes, excerpt, make_notes
from deep_piano.music.sounds import default_sound

LONGEST_HEARD_S: Final = 60.0
STEM: Final = "piece"
"""Of a piece's files: what `deep-piano generate SEED -o piece.mp3` calls them."""

KEPT_SEEDS: Final = 8
"""Seeds whose notes are kept."""

_PEAKS = 1200
_WINDOW_S = 10.0
_COMPOSED = 0.6  # of the time of a piece: then it is composed
_READ = 0.15

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """Hear what a recording holds, the last minute of it at most; write it as ``heard.mp3``."""

    path: Path
    name: str
    folder: Path


@dataclass(frozen=True)
class Read:
    """Read a seed before a piece of it is asked for, so that its composition begins at once."""

    path: Path
    name: str
    settings: GenerateConfig
    folder: Path


@dataclass(frozen=True)
class Compose:
    """Write the takes of a piece into a folder, and its seed."""

    path: Path
    name: str
    settings: GenerateConfig
    folder: Path


@dataclass(frozen=True)
class Export:
    """Write a take that is there as a .wav or as a .musicxml, from its notes as JSON.

    A score says where the continuation begins, where there is one.
    """

    roll: Path
    out: Path
    title: str
    seconds: float
    continuation_s: float | None


Task = Look | Read | Compose | Export
Share = Callable[[str, float], None]
"""Called with a stage and how much of the whole work is done, 0 to 1."""


class NotWantedError(BaseException):
    """The work was cancelled; no `except Exception` on the way keeps it."""


def work(pipe: Connection, config: Config) -> None:
    """Do what comes through a pipe, until it closes.

    Receives (job, task), or (job, None) to end a job; sends (job, "progress", (stage, share)), and
    at last (job, "done", result), (job, "failed", message) or (job, "cancelled", "").
    """
    os.setsid()  # the queue ends it, not a Ctrl-C that is meant for the server
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    worker = Worker(config)
    try:
        worker.warm_up()
    except Exception as error:  # the first job says so
        logger.info("not warm: %s", one_line(error))
    try:
        while True:
            job, task = pipe.recv()
            if task is not None:  # else it ended before it could be cancelled
                _answer(pipe, worker, job, task)
    except (EOFError, OSError):  # nobody is there any more
        return


def _answer(pipe: Connection, worker: Worker, job: str, task: Task) -> None:
    def share(stage: str, done: float) -> None:
        if pipe.poll() and pipe.recv() == (job, None):
            raise NotWantedError
        pipe.send((job, "progress", (stage, done)))

    pipe.send((job, *answered(worker, task, share)))


def answered(worker: Worker, task: Task, share: Share) -> tuple[str, Any]:
    """Do a task; return "done", "failed" or "cancelled", and the result or the reason."""
    try:
        return "done", worker.do(task, share)
    except NotWantedError:
        return "cancelled", ""
    except DeepPianoError as error:
        return "failed", str(error)
    except Exception as error:
        if ran_out_of_memory(error):
            return "failed", "memory ran out. Try fewer takes or a shorter piece."
        logger.exception("unexpected")
        return "failed", f"unexpected {type(error).__name__}: {one_line(error)}"


class Worker:
    """What is loaded once, and the three kinds of work.

    Parameters
    ----------
    config : Config
        Its checkpoint is one of notes.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        found = checkpoint.find(config.generate.checkpoint, config.storage)
        self._checkpoint = checkpoint.load(found, codec=SPEC.codec)
        self._seeds: OrderedDict[tuple[object, ...], Seed] = OrderedDict()

    def warm_up(self) -> None:
        """Load the decoder's compiled loops, and sound and transcription that are fetched."""
        from deep_piano.decoding.open import open_decoder
        from deep_piano.music import transcription

        settings = self._config.generate.model_copy(update={"seconds": 7.0, "takes": 1})
        onset = np.arange(8) / 4
        notes = make_notes(onset, onset + 0.3, 60 + np.arange(8), np.full(8, 64))
        road = road_of(self._checkpoint, settings, Path("warm.mid"))
        decoder = open_decoder(self._checkpoint, settings, width=os.cpu_count() or 1)
        [take] = decode_takes(road, decoder, Seed(notes, 2.0, "0" * 64, "warm"))
        sound = settings.sound or default_sound()
        if sound not in SOUND_NAMES or cache.path(sound) is not None:
            synth.render(take.notes[:50], sound=sound, seconds=1.0, sr=SR)
        if cache.path("transkun") is not None:
            noise = np.random.default_rng(0).normal(0, 1e-3, transcription.SAMPLE_RATE)
            transcription.transcribe(noise, sr=transcription.SAMPLE_RATE)

    def do(self, task: Task, share: Share) -> dict[str, Any]:
        """Do a piece of work; see `Look`, `Read`, `Compose`, `Export`."""
        if isinstance(task, Compose):
            return self._compose(task, share)
        if isinstance(task, Read):
            road = road_of(self._checkpoint, task.settings, Path(f"{STEM}.mp3"))
            self._seed(task, road, _staged(share, {}))
            return {}
        if isinstance(task, Look):
            with named(task.path, task.name):
                return self._look(task, share)
        return self._export(task, share)

    def _look(self, task: Look, share: Share) -> dict[str, Any]:
        """Return the notes and the loudness of a recording, and write it as sound."""
        progress = _staged(share, {"reading": (0, 0.1), "transcribing": (0.1, 0.8)})
        if holds_midi(task.path):
            notes, from_s, seconds = _heard_of_midi(task.path)
        else:
            notes, from_s, seconds, samples = _heard_of_sound(task.path, progress)
        begin, end = _last_window(notes, seconds)
        sounding_s = float((notes["offset"] - notes["onset"]).sum())
        few = len(notes) < seeds.FEWEST_SEED_NOTES or seconds < seeds.SHORTEST_SEED_S
        if few or sounding_s < seeds.LEAST_SOUNDING_SHARE * seconds:
            # What `generate` would say: it must take what is continued by default, or the whole.
            read = partial(seeds.read_seed, task.path, progress=progress)
            try:
                read(start_s=from_s + begin, seconds=_WINDOW_S)
            except InputError:
                read(start_s=from_s, seconds=seconds)
        share("playing", 0.85)
        if holds_midi(task.path):
            sound = self._sound(progress)
            samples = synth.render(notes, sound=sound, seconds=seconds, sr=SR)
        audio.encode(task.folder / "heard.mp3", loudness.normalise(samples, sr=SR), sr=SR)
        whole_s = from_s + seconds
        return {
            "from_s": round(from_s, 3),
            "seconds": round(seconds, 3),
            "whole_s": round(whole_s, 3),
            "window": [round(begin, 1), round(end, 1)],
            "notes": rolled(notes),
            "peaks": _peaks(samples),
        }

    def _compose(self, task: Compose, share: Share) -> dict[str, Any]:
        """Write the takes as `generate` does, on the same road."""
        from deep_piano.decoding.open import open_decoder

        settings = task.settings
        stages = {"reading": (0.0, _READ), "transcribing": (0.0, _READ)}
        progress = _staged(share, stages | {"composing": (_READ, _COMPOSED)})
        out = task.folder / f"{STEM}.mp3"
        road = road_of(self._checkpoint, settings, out)
        places = targets(out, settings.takes, force=False, given=[], notes=road.of_notes)
        seed = self._seed(task, road, progress)
        road = road.ready(progress)
        decoder = open_decoder(road.checkpoint, settings, width=os.cpu_count() or 1)
        takes, told = decode_takes(road, decoder, seed, progress=progress), []
        for place, files in enumerate(places):
            each = (1 - _COMPOSED) / len(places)
            begin = _COMPOSED + each * place
            of_take = {"rendering": (begin, begin + 0.8 * each)}
            of_take["encoding"] = (begin + 0.8 * each, begin + each)
            piece = write(road, files, seed, takes[place], progress=_staged(share, of_take))
            take = takes[place]
            new = [take.seed_ends_s, min(take.new_until_s, take.seconds)]
            told.append({"facts": piece.facts, "new": new, "notes": rolled(take.notes)})
        with named(task.path, task.name):
            road.write_seed(task.folder / "seed.mp3", task.path, seed)
        return {"takes": told, "seed_seconds": seed.seconds, "sound": road.sound}

    def _seed(self, task: Read | Compose, road: Road, progress: Tell) -> Seed:
        """Return what a road reads of a seed; the last few are kept."""
        settings = task.settings
        remade = tuple(settings.between or ()), settings.remix
        key = (task.path, task.name, *settings.seed_within(None), settings.keep_recording, remade)
        if key not in self._seeds:
            with named(task.path, task.name):
                self._seeds[key] = replace(road.read(task.path, progress), name=task.name)
        self._seeds.move_to_end(key)
        while len(self._seeds) > KEPT_SEEDS:
            self._seeds.popitem(last=False)
        seed = self._seeds[key]
        with named(task.path, task.name):
            seeds.require_room(seed, settings)
        return seed

    def _export(self, task: Export, share: Share) -> dict[str, Any]:
        """Play or print a take anew, from its notes."""
        columns = np.array(json.loads(task.roll.read_text(encoding="utf-8")), float)
        notes = make_notes(*columns.reshape(-1, 4).T)
        if task.out.suffix == ".wav":
            progress = _staged(share, {"rendering": (0.0, 0.9)})
            sound = self._sound(progress)
            samples = synth.render(
                notes, sound=sound, seconds=task.seconds, sr=SR, progress=progress
            )
            audio.encode(task.out, loudness.normalise(samples, sr=SR), sr=SR)
        else:
            from deep_piano.analysis.beats import meter_of
            from deep_piano.analysis.signature import sure_signature
            from deep_piano.report.musicxml import require_music21, write_score

            require_music21()
            share("writing", 0.1)
            write_score(
                task.out,
                notes,
                meter=meter_of(notes),
                title=task.title,
                signature=sure_signature(notes),
                continuation_s=task.continuation_s,
            )
        return {}

    def _sound(self, progress: Tell) -> str:
        from deep_piano.generate.notes import ready_sound

        return ready_sound(self._config.generate.sound, progress)


def rolled(notes: Notes) -> list[list[float]]:
    """Return notes as JSON holds them, exactly: onset, offset in seconds, pitch, velocity."""
    times = np.stack([notes["onset"], notes["offset"]], 1).tolist()
    keys = np.stack([notes["pitch"], notes["velocity"]], 1).tolist()
    return [[*time, *key] for time, key in zip(times, keys, strict=True)]


def _heard_of_midi(path: Path) -> tuple[Notes, float, float]:
    """Return notes, where they begin in the file, and how long they last."""
    notes = read_midi(path)
    whole_s = float(notes["offset"].max()) if len(notes) else 0.0
    from_s = max(0.0, whole_s - LONGEST_HEARD_S)
    notes = excerpt(notes, from_s, whole_s + 1)
    if not len(notes):
        raise InputError(f"{one_line(path)} holds no piano notes. Give another file.")
    return notes, from_s, whole_s - from_s


def _heard_of_sound(path: Path, progress: Tell) -> tuple[Notes, float, float, audio.Samples]:
    """Return notes, where they begin in the recording, how long they last, and their sound."""
    from deep_piano.music import transcription

    sr = transcription.SAMPLE_RATE
    whole_s = length_s(path) or 0.0  # where no sound is found, `decode` says so
    from_s = math.floor(10 * max(0.0, whole_s - LONGEST_HEARD_S)) / 10
    progress(Progress("reading", 0, 1))
    samples = audio.decode(path, sr=sr, start_s=from_s, seconds=LONGEST_HEARD_S)
    seeds.check_seed(samples, sr=sr)
    cache.ensure("transkun", progress=progress)
    notes = transcription.transcribe(samples, sr=sr, progress=progress)
    return notes, from_s, len(samples) / sr, samples


def _last_window(notes: Notes, seconds: float) -> tuple[float, float]:
    """Return which part of what was heard the page begins with."""
    last_s = float(notes["offset"].max()) if len(notes) else seconds
    ends_s = min(seconds, last_s + 0.5)
    return max(0.0, ends_s - _WINDOW_S), ends_s


def _peaks(samples: audio.Samples) -> list[float]:
    """Return how loud sound is, at a thousand places or so: the highest of each is 1 at most."""
    loud = np.abs(samples if samples.ndim == 1 else samples.mean(axis=1))
    parts = np.array_split(loud, min(_PEAKS, len(loud)))
    peaks = np.array([part.max() for part in parts])
    return [round(float(peak), 3) for peak in peaks / max(float(peaks.max()), 1e-9)]


def _staged(share: Share, stages: dict[str, tuple[float, float]]) -> Tell:
    """Return a `Tell` that knows which part of the whole each stage is."""
    done = 0.0

    def tell(now: Progress) -> None:
        nonlocal done
        begin, end = stages.get(now.what, (done, done))
        part = min(1.0, now.done / now.total) if now.total else 0.0
        done = max(done, begin + (end - begin) * part)
        share(f"{now.what} {now.text}".strip(), done)

    return tell
