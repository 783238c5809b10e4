"""What the tasks of GENERATE in bulk do: read a seed, and play, draw and write a piece of it.

They write into the folder of pieces themselves; what they return is small. Whichever process does
it, and how often, the files are the same.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from deep_piano.codecs.registry import codec_of
from deep_piano.config.sections import GenerateConfig
from deep_piano.errors import one_line
from deep_piano.generate import wave
from deep_piano.generate.files import Piece, targets
from deep_piano.generate.notes import Take, finish, ready_sound
from deep_piano.generate.records import SEED, Record, folder_of
from deep_piano.generate.seeds import Seed, require_room, write_seed
from deep_piano.generate.seeds import read_seed as read_notes
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.atomic import sha256_of
from deep_piano.infra.storage.folder import Folder, named
from deep_piano.models.checkpoint import Checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What all pieces of a run have in common."""

    pieces: Folder
    settings: GenerateConfig
    format: str
    sound: str | None
    checkpoint_sha256: str
    only_new: bool
    composed_on: str = "cpu"


def read_seed(run: Run, seeds: Folder, name: str) -> tuple[Seed, dict[str, str]]:
    """Read a seed, and write it to be heard; return it, and the files written with their hashes.

    Transcribing takes one thread, so that the notes are the same wherever it is.
    """
    begun = time.monotonic()
    settings, sound = run.settings, run.sound and _fetched(run.sound)
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
    with _seed_file(seeds, name) as path:
        seed = read_notes(
            path, start_s=settings.seed_start, seconds=settings.seed_seconds, progress=no_progress
        )
        seed = replace(seed, name=name.rpartition("/")[2])
        require_room(seed, settings, only_new=run.only_new)
        _log_read(name, begun)
        if sound is None:
            return seed, {}
        target = f"{folder_of(name)}/{SEED}.{run.format}"
        with run.pieces.write(target) as place:
            write_seed(place, path, seed, settings, sound=sound)
            return seed, {target: sha256_of(place)}


@contextmanager
def _seed_file(seeds: Folder, name: str) -> Iterator[Path]:
    """Yield a seed's file; an error calls it by its name, wherever the folder or a copy lies."""
    with named(seeds.place(name), name), seeds.local(name) as path, named(path, name):
        yield path


def _log_read(name: str, begun: float) -> None:
    took_s = round(time.monotonic() - begun, 3)
    extra = dict(stage="generate", event="read", seed=name, took_s=took_s)
    logger.info("%s: read", one_line(name), extra=extra)


def write_piece(run: Run, name: str, seed: Seed, take: Take) -> Record:
    """Play, draw and write a piece: all its files into the folder of pieces, the .json last."""
    begun = time.monotonic()
    with _targets(run, take.index, notes=True) as files:
        made = finish(
            files,
            seed,
            take,
            run.settings,
            checkpoint_sha256=run.checkpoint_sha256,
            composed_on=run.composed_on,
            only_new=run.only_new,
            sound=run.sound and _fetched(run.sound),
        )
        hashes = _publish(run, name, made)
    return Record(
        **known_of(run, name, take),
        status="done",
        seed_sha256=seed.digest,
        seconds=made.facts["piece"]["seconds"],
        wall_s=_written(name, take.index, begun),
        files=hashes,
    )


def continue_recording(
    run: Run, seeds: Folder, checkpoint: Checkpoint, name: str, take: int
) -> Record:
    """Make one take of a recording by a checkpoint of sound, and write it as `write_piece` does.

    All on one core: what a piece is on a CPU. On a GPU composers step many between `hear_recording`
    and `write_recording`.
    """
    begun = time.monotonic()
    seed = _read_recording(run, seeds, checkpoint, name)
    with _targets(run, take, notes=False) as files:
        made = wave.make_take(
            seed, files, run.settings, checkpoint, take=take, only_new=run.only_new
        )
        return _published(run, name, made, take, begun)


def hear_recording(
    run: Run, seeds: Folder, checkpoint: Checkpoint, name: str
) -> tuple[wave.Heard, dict[str, str]]:
    """Read a recording and hear it; return what composers go on from, and that nothing is written.

    Hearing it takes a core a second.
    """
    begun = time.monotonic()
    seed = _read_recording(run, seeds, checkpoint, name)
    heard = wave.hear(seed, run.settings, checkpoint)
    _log_read(name, begun)
    return heard, {}


def write_recording(
    run: Run, checkpoint: Checkpoint, name: str, heard: wave.Heard, take: wave.Take
) -> Record:
    """Write what a composer made to follow a recording, as `write_piece` does."""
    begun = time.monotonic()
    with _targets(run, take.index, notes=False) as files:
        made = wave.finish(
            files,
            heard.seed,
            codec_of(checkpoint.spec).to_samples(take.steps),
            run.settings,
            checkpoint,
            take.index,
            only_new=run.only_new,
            composed_on=run.composed_on,
        )
        return _published(run, name, made, take.index, begun)


def _read_recording(run: Run, seeds: Folder, checkpoint: Checkpoint, name: str) -> wave.Seed:
    with _seed_file(seeds, name) as path:
        seed = wave.read_seed(path, run.settings, checkpoint, only_new=run.only_new)
    return replace(seed, name=name.rpartition("/")[2])


def _published(run: Run, name: str, made: Piece, take: int, begun: float) -> Record:
    """Copy the files of a piece of sound into the folder of pieces; return its record."""
    hashes = _publish(run, name, made)
    figures = dict(made.facts["piece"])
    return Record(
        seed=name,
        take=take + 1,
        status="done",
        seed_sha256=made.facts["seed"]["sha256"],
        checkpoint_sha256=run.checkpoint_sha256,
        random_state=run.settings.random_state,
        seconds=figures.pop("seconds"),
        seed_seconds=made.facts["seed"]["seconds"],
        figures=figures,
        wall_s=_written(name, take, begun),
        files=hashes,
    )


@contextmanager
def _targets(run: Run, take: int, *, notes: bool) -> Iterator[dict[str, Path]]:
    """Yield the names of a take's files in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="deep-piano-") as folder:
        out = Path(folder) / f"take-{take + 1}.{run.format}"
        [files] = targets(out, 1, force=False, given=[], notes=notes)
        yield files


def _publish(run: Run, name: str, made: Piece) -> dict[str, str]:
    """Copy a piece's files into the folder of pieces, the .json last; return their hashes."""
    known = made.facts["files"]  # the hashes of all but the .json, which holds them
    hashes = {}
    for path in sorted(made.files, key=lambda path: path.suffix == ".json"):
        target = f"{folder_of(name)}/{path.name}"
        with run.pieces.write(target) as place:
            shutil.copyfile(path, place)
        hashes[target] = known.get(path.name) or sha256_of(path)
    return hashes


def _written(name: str, take: int, begun: float) -> float:
    """Log that a piece is there; return the seconds that it took."""
    took_s = round(time.monotonic() - begun, 3)
    extra = dict(stage="generate", event="written", seed=name, take=take + 1, took_s=took_s)
    logger.info("%s, take %d: written", one_line(name), take + 1, extra=extra)
    return took_s


def known_of(run: Run, name: str, take: Take) -> dict[str, Any]:
    """Return what a record says of a piece that was composed, whether it is written or not."""
    return {
        "seed": name,
        "take": take.index + 1,
        "checkpoint_sha256": run.checkpoint_sha256,
        "random_state": run.settings.random_state,
        "seed_seconds": take.seed_ends_s,
        "notes": len(take.notes),
        "figures": take.figures,
        "shared_run_notes": take.shared.notes if take.shared is not None else None,
    }


@cache
def _fetched(sound: str) -> str:
    """Return the sound, once it is there on this node."""
    return ready_sound(sound, no_progress)
