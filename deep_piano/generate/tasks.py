"""What the tasks of GENERATE in bulk do: read a seed; write a piece of it.

They write into the folder of pieces themselves; what they return is small. Whichever process does
it, and how often, the files are the same.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from deep_piano.errors import one_line
from deep_piano.generate import piece
from deep_piano.generate.files import Piece, targets
from deep_piano.generate.notes import ready_sound
from deep_piano.generate.piece import Road
from deep_piano.generate.records import SEED, Record
from deep_piano.infra.progress import no_progress
from deep_piano.infra.storage.atomic import sha256_of
from deep_piano.infra.storage.folder import Folder, named

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What all pieces of a run have in common."""

    seeds: Folder
    pieces: Folder
    format: str
    road: Road
    composed_on: str = "cpu"


def read_seed(run: Run, name: str) -> tuple[Any, dict[str, str]]:
    """Read a seed, and write it as sound; return it, and the files written with their hashes."""
    begun = time.monotonic()
    road = _ready(run)
    with _seed_file(run.seeds, name) as path:
        seed = replace(road.read(path, no_progress), name=name.rpartition("/")[2])
        extra = dict(stage="generate", event="read", seed=name, took_s=_since(begun))
        logger.info("%s: read", one_line(name), extra=extra)
        if road.sound is None:
            return seed, {}
        target = f"{name}/{SEED}.{run.format}"
        with run.pieces.write(target) as place:
            road.write_seed(place, path, seed)
            return seed, {target: sha256_of(place)}


@contextmanager
def _seed_file(seeds: Folder, name: str) -> Iterator[Path]:
    """Yield a seed's file; errors name it by its path within the folder of seeds."""
    with named(seeds.place(name), name), seeds.local(name) as path, named(path, name):
        yield path


def write_piece(run: Run, name: str, seed: Any, take: Any) -> Record:
    """Write all files of a piece into the folder of pieces, the .json last."""
    begun = time.monotonic()
    road = _ready(run)
    with tempfile.TemporaryDirectory(prefix="deep-piano-") as folder:
        out = Path(folder) / f"take-{take.index + 1}.{run.format}"
        score = road.settings.score
        [files] = targets(out, 1, force=False, given=[], notes=road.of_notes, score=score)
        made = piece.write(road, files, seed, take, composed_on=run.composed_on)
        hashes = _publish(run, name, made)
    took_s = _since(begun)
    extra = dict(stage="generate", event="written", seed=name, take=take.index + 1, took_s=took_s)
    logger.info("%s, take %d: written", one_line(name), take.index + 1, extra=extra)
    figures = dict(made.facts["piece"])
    more = {"seconds": figures.pop("seconds"), "notes": figures.pop("notes", 0), "figures": figures}
    known = known_of(run, name, seed, take) | more
    return Record(**known, status="done", wall_s=took_s, files=hashes)


def _ready(run: Run) -> Road:
    """Return the road of a run, once this node has what it plays with."""
    if run.road.sound is not None:
        _fetched(run.road.sound)
    return run.road


@cache
def _fetched(sound: str) -> str:
    return ready_sound(sound, no_progress)


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)


def _publish(run: Run, name: str, made: Piece) -> dict[str, str]:
    """Copy a piece's files into the folder of pieces, the .json last; return their hashes."""
    known = made.facts["files"]  # the hashes of all but the .json, which holds them
    hashes = {}
    for path in made.files.written():
        target = f"{name}/{path.name}"
        with run.pieces.write(target) as place:
            shutil.copyfile(path, place)
        hashes[target] = known.get(path.name) or sha256_of(path)
    return hashes


def known_of(run: Run, name: str, seed: Any, take: Any) -> dict[str, Any]:
    """Return what a record says of a piece that was decoded, whether it is written or not."""
    road = run.road
    return {
        "seed": name,
        "take": take.index + 1,
        "seed_sha256": seed.digest,
        "checkpoint_sha256": road.checkpoint.digest,
        "random_state": road.settings.random_state,
        "seed_seconds": 0.0 if road.only_new or road.settings.remix else seed.seconds,
        **take.known,
    }
