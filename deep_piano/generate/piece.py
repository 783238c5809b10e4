"""The one road from a seed to a piece: read, decode, join, write.

What differs between notes and sound is a `Road`'s: `notes.NoteRoad`, `wave.WaveRoad`. In bulk the
same steps are walked by Ray's tasks and composers (`on_ray`).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

from deep_piano import versions
from deep_piano.codecs.notes import SPEC
from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import GenerateConfig, StorageConfig
from deep_piano.decoding.base import Decoder
from deep_piano.decoding.open import judge_of, open_decoder
from deep_piano.decoding.wave import require_sound
from deep_piano.errors import InputError, one_line
from deep_piano.generate.files import (
    SCORE_SUFFIX,
    SILENT_SUFFIXES,
    Piece,
    PieceFiles,
    staged,
    targets,
)
from deep_piano.generate.fill import FillRoad
from deep_piano.generate.notes import NoteRoad, index_for
from deep_piano.generate.ranking import ranked
from deep_piano.generate.remix import RemixRoad
from deep_piano.generate.wave import WaveRoad, require_no_notes
from deep_piano.infra.assets.catalogue import SOUND_NAMES
from deep_piano.infra.progress import Progress, Tell, no_progress
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.local import LocalFolder
from deep_piano.models import checkpoint
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.music.audio import Samples, require_readable
from deep_piano.report.musicxml import require_music21

logger = logging.getLogger(__name__)


class Road(Protocol):
    """The steps from a seed to a piece, as a checkpoint's codec takes them.

    Seeds, takes, tasks and continuations are passed from step to step; nobody else looks into them
    but for a seed's `name`, `digest`, `seconds` and `facts`, and a take's `index`, `new_notes`,
    `known`, and `figures` where the best are kept. All of it can be pickled.

    Attributes
    ----------
    checkpoint : Checkpoint
    settings : GenerateConfig
    only_new : bool
        Leave the seed out of the piece.
    sound : str or None
        What notes are played on.
    of_notes : bool
    """

    @property
    def checkpoint(self) -> Checkpoint: ...  # noqa: D102
    @property
    def settings(self) -> GenerateConfig: ...  # noqa: D102
    @property
    def only_new(self) -> bool: ...  # noqa: D102
    @property
    def sound(self) -> str | None: ...  # noqa: D102
    @property
    def of_notes(self) -> bool: ...  # noqa: D102

    def ready(self, progress: Tell) -> Road:
        """Return the same road once what it plays with is there, and known to work."""

    def read(self, path: Path, progress: Tell) -> Any:
        """Read a seed, and make sure that the piece has room for more; an `InputError` else."""

    def write_seed(self, out: Path, path: Path, seed: Any) -> None:
        """Write a seed as sound, where there is a `sound`."""

    def task(self, seed: Any, take: int) -> Any:
        """Return what a decoder is to do for a take, counted from 0."""

    def join(self, seed: Any, continuation: Any, take: int) -> Any:
        """Put a seed and its continuation together."""

    def used(self) -> dict[str, Any]:
        """Return the settings that stand in the facts."""

    def samples(self, seed: Any, take: Any, progress: Tell) -> tuple[Samples, int]:
        """Return the sound of a piece, and its sampling rate in Hz; the road must be `ready`."""

    def facts(self, seed: Any, take: Any) -> dict[str, Any]:
        """Return what there is to say of a piece, whether it is written or not."""

    def write(self, files: PieceFiles, seed: Any, take: Any, progress: Tell) -> dict[str, Any]:
        """Write all files of a piece but the facts; return what there is to say of them."""


def road_of(
    checkpoint: Checkpoint, settings: GenerateConfig, out: Path, *, only_new: bool = False
) -> Road:
    """Return the road of a checkpoint.

    Parameters
    ----------
    checkpoint : Checkpoint
    settings : GenerateConfig
    out : Path
        Its suffix decides what is written.
    only_new : bool

    Raises
    ------
    InputError
        When something is asked for that only notes have, or that does not go together, or the
        index cannot be read.
    """
    if checkpoint.spec.codec != SPEC.codec:
        require_sound(checkpoint)
        require_no_notes(out, settings)
        return WaveRoad(checkpoint, settings, only_new)
    index = index_for(checkpoint, settings)
    mute = out.suffix.lower() in SILENT_SUFFIXES
    if settings.score or out.suffix.lower() == SCORE_SUFFIX:
        require_music21()
    if settings.keep_recording and (mute or only_new):
        why = f"{out.name} holds no sound" if mute else "--only-new leaves it out"
        raise InputError(f"--keep-recording keeps the seed's sound, and {why}. Leave one out.")
    if only_new and settings.two_tracks:
        raise InputError(
            "--two-tracks gives the seed a track of its own, and --only-new leaves it out. Leave "
            "one out."
        )
    if only_new and (settings.between or settings.remix):
        raise InputError("--only-new is for a continuation, not for --between or --remix.")
    kind = FillRoad if settings.between else RemixRoad if settings.remix else NoteRoad
    return kind(checkpoint, settings, only_new, index, mute=mute)


def make_pieces(
    seed_path: Path,
    out: Path,
    settings: GenerateConfig,
    *,
    only_new: bool = False,
    force: bool = False,
    keep: Collection[Path] = (),
    storage: StorageConfig | None = None,
    progress: Tell = no_progress,
) -> list[Piece]:
    """Write the pieces that continue a seed.

    Parameters
    ----------
    seed_path : Path
        A recording or a MIDI file.
    out : Path
        Its suffix decides what is written: sound (.mp3, .wav, .flac, .ogg) or notes alone (.mid,
        .musicxml).
        Beside it stand ``.mid``, ``.png`` and ``.json``. With several takes, ``-1``, ``-2``, ...
        are put behind the name.
    settings : GenerateConfig
    only_new : bool
        Leave the seed out: the piece is the continuation alone, as long as asked.
    force : bool
        Replace files that are there.
    keep : collection of Path
        Files that must not be replaced, not even by force. The seed, the checkpoint and the sound
        never are.
    storage : StorageConfig, optional
        Where ``s3://`` leads, if the checkpoint lies there.
    progress : callable, optional

    Returns
    -------
    list of Piece
        One a take; where only the best are kept, those, the best first.

    Raises
    ------
    InputError
        When the seed, the output or the checkpoint cannot be used.
    AssetError
        When weights or sounds are missing and cannot be fetched.
    DeepPianoError
        When the files cannot be written after all, as on a full disk.
    """
    require_readable(seed_path, one_line(seed_path))
    found = checkpoint.find(settings.checkpoint, storage)
    given = [seed_path, *keep, *local_inputs(found, settings)]
    known = [codec.spec.codec for codec in CODECS.values()]
    road = road_of(checkpoint.load(found, codec=known), settings, out, only_new=only_new)
    kept = min(settings.keep or settings.takes, settings.takes)
    places = targets(out, kept, force=force, given=given, notes=road.of_notes, score=settings.score)
    begun = time.monotonic()
    seed = road.read(seed_path, progress)
    _log("read", seed, begun)
    road = road.ready(progress)
    takes = compose(road, seed, progress=progress)
    pieces = []
    for files, take in zip(places, takes, strict=True):
        pieces.append(write(road, files, seed, take, progress=progress))
        _log("written", seed, begun, take=take.index + 1)
    return pieces


def local_inputs(checkpoint: Folder | None, settings: GenerateConfig) -> list[Path]:
    """Return what pieces are made from beside their seed, where it lies on this machine."""
    found = [checkpoint.root] if isinstance(checkpoint, LocalFolder) else []
    own_sound = None if settings.sound in SOUND_NAMES else settings.sound
    return [*found, *(Path(name) for name in (own_sound, settings.index) if name)]


def _log(event: str, seed: Any, begun: float, **facts: Any) -> None:
    took_s = round(time.monotonic() - begun, 3)
    extra = dict(stage="generate", event=event, seed=seed.name, took_s=took_s, **facts)
    logger.info("%s: %s", one_line(seed.name), event, extra=extra)


def compose(road: Road, seed: Any, *, progress: Tell = no_progress) -> list[Any]:
    """Return the takes of a seed that are kept; where not all of them are, the best first."""
    settings = road.settings
    decoder = open_decoder(road.checkpoint, settings, width=os.cpu_count() or 1)
    takes = decode_takes(road, decoder, seed, progress=progress)
    return takes if settings.keep is None else ranked(takes)[: settings.keep]


def decode_takes(
    road: Road, decoder: Decoder[Any, Any], seed: Any, *, progress: Tell = no_progress
) -> list[Any]:
    """Return all takes of a seed, decoded side by side by a decoder that has nothing else to do."""
    settings = road.settings
    for take in range(settings.takes):
        decoder.add(take, road.task(seed, take))
    whole_s = (settings.seconds + (seed.seconds if road.only_new else 0)) * settings.takes
    done: dict[Any, Any] = {}
    while len(decoder):
        done_s = decoder.done_s + whole_s * len(done) / settings.takes
        progress(Progress("composing", min(done_s, whole_s), whole_s))
        done |= decoder.step()
    progress(Progress("composing", whole_s, whole_s))
    return [road.join(seed, done[take], take) for take in range(settings.takes)]


def write(
    road: Road,
    files: PieceFiles,
    seed: Any,
    take: Any,
    *,
    composed_on: str = "cpu",
    progress: Tell = no_progress,
) -> Piece:
    """Write all files of a piece, or none.

    Parameters
    ----------
    road : Road
    files : PieceFiles
        From `files.targets`.
    seed, take
        Of the road's.
    composed_on : str
        The kind of device: on another one the last bits, and then the music, may differ.
    progress : callable, optional
    """
    facts = provenance(road, seed, take, composed_on=composed_on)
    with staged(files) as hidden:
        facts |= road.write(hidden, seed, take, progress)
        facts["files"] = hidden.hashes()
        if hidden.facts is not None:
            hidden.facts.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return Piece(files, facts)


def provenance(road: Road, seed: Any, take: Any, *, composed_on: str = "cpu") -> dict[str, Any]:
    """Return what a piece is made of: seed, checkpoint, settings, versions."""
    settings, judge = road.settings, judge_of(road.checkpoint, road.settings)
    return {
        "seed": seed.facts,
        "checkpoint": {"name": settings.checkpoint, "sha256": road.checkpoint.digest},
        "judge": {"sha256": judge.digest} if judge is not None else None,
        "settings": {**road.used(), "only_new": road.only_new},
        "random_state": settings.random_state,
        "composed_on": composed_on,
        "versions": versions.of_a_piece(),
        "take": take.index + 1,
    }
