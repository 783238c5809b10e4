"""A seed becomes a piece, in this process: one recording in, sound, notes, picture and facts out.

The only module that knows the whole road; each stretch of it is another module's business.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_piano import assets, audio, checkpoint, metrics, versions
from deep_piano.codecs.notes import SPEC
from deep_piano.compose import Composer
from deep_piano.config import GenerateConfig
from deep_piano.decode import Engine, Sampling
from deep_piano.errors import AudioError, InputError, MidiError
from deep_piano.notes import MIDI_SUFFIXES, NOTE, Notes, excerpt, read_midi, write_midi
from deep_piano.storage import atomic_path

logger = logging.getLogger(__name__)

SR = 44_100
FEWEST_SEED_NOTES = 4
LONGEST_TRAILING_SILENCE_S = 2.0
OUTPUT_SUFFIXES = (*sorted(audio.ENCODED_SUFFIXES), ".mid")

Progress = Callable[[str, float, float], None]
"""Called with the name of the stage, what is done of it, and all of it."""


@dataclass(frozen=True)
class Seed:
    """What a piece continues.

    Attributes
    ----------
    notes : ndarray, dtype `NOTE`
        The first onset is time zero.
    seconds : float
        When the seed ends and the continuation may begin.
    digest : str
        SHA-256 of the file.
    name : str
        The file's name.
    """

    notes: Notes
    seconds: float
    digest: str
    name: str


@dataclass(frozen=True)
class Piece:
    """What was made: the files that were written, and the facts that stand in the JSON."""

    path: Path
    files: tuple[Path, ...]
    facts: dict[str, Any]


def make_pieces(
    seed_path: Path,
    out: Path,
    settings: GenerateConfig,
    *,
    only_new: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Piece]:
    """Write the pieces that continue a seed.

    Parameters
    ----------
    seed_path : Path
        A recording or a MIDI file.
    out : Path
        Its suffix decides what is written: sound (.mp3, .wav, .flac, .ogg) or notes alone (.mid).
        Beside it stand ``.mid``, ``.png`` and ``.json``. With several takes, ``-1``, ``-2``, ...
        are put behind the name.
    settings : GenerateConfig
    only_new : bool
        Leave the seed out: the piece is the continuation alone, as long as asked.
    force : bool
        Replace files that are there.
    progress : callable, optional

    Returns
    -------
    list of Piece
        One a take.

    Raises
    ------
    InputError
        When the seed, the output or the checkpoint cannot be used.
    AssetError
        When weights or sounds are missing and cannot be fetched.
    """
    tell = progress or (lambda stage, done, total: None)
    targets = _targets(out, settings.takes, force=force)
    weights = checkpoint.load(settings.checkpoint, codec=SPEC.codec)
    seed = read_seed(
        seed_path,
        start_s=settings.seed_start,
        seconds=settings.seed_seconds,
        progress=tell,
    )
    if not only_new and settings.seconds < seed.seconds + 5:
        raise InputError(
            f"a piece of {settings.seconds:g} s leaves no room to continue a seed of "
            f"{seed.seconds:.1f} s. Give more --seconds, or fewer --seed-seconds."
        )
    engine = Engine(weights)
    pieces = []
    for take, files in enumerate(targets):
        notes, seed_ends_s = _compose(engine, seed, settings, take, only_new=only_new, tell=tell)
        seed_part, new_part = _parted(notes, seed_ends_s)
        facts = _provenance(seed, settings, weights, take, only_new=only_new)
        facts["piece"] = {
            "seconds": settings.seconds,
            "notes": len(notes),
            **metrics.figures(seed.notes if only_new else seed_part, new_part),
        }
        pieces.append(_write(files, notes, facts, settings, seed_ends_s, tell))
    return pieces


def read_seed(path: Path, *, start_s: float, seconds: float, progress: Progress) -> Seed:
    """Read the notes of a seed from a recording or a MIDI file.

    Raises
    ------
    AudioError, MidiError
        When the file cannot be read, or fewer than four notes are found.
    """
    digest = audio.content_hash(path)
    error: type[InputError]
    if path.suffix.lower() in MIDI_SUFFIXES:
        progress("reading", 0, 1)
        notes, heard_s, error = (
            excerpt(read_midi(path), start_s, start_s + seconds),
            seconds,
            MidiError,
        )
        progress("reading", 1, 1)
    else:
        notes, heard_s = _hear(path, start_s, seconds, progress)
        error = AudioError
    if len(notes) < FEWEST_SEED_NOTES:
        raise error(
            f"only {len(notes)} piano notes were found in {heard_s:.1f} s of {path} from "
            f"{start_s:g} s on; at least {FEWEST_SEED_NOTES} are needed. "
            "Give a recording of a piano, or start elsewhere with --seed-start."
        )
    # Silence before the first note and long after the last one is not music to be continued.
    begins = float(notes["onset"][0])
    ends = min(heard_s, float(notes["onset"][-1]) + LONGEST_TRAILING_SILENCE_S) - begins
    notes["onset"] -= begins
    notes["offset"] -= begins
    notes["offset"] = np.minimum(notes["offset"], ends + LONGEST_TRAILING_SILENCE_S)
    return Seed(notes, ends, digest, path.name)


def _hear(path: Path, start_s: float, seconds: float, tell: Progress) -> tuple[Notes, float]:
    from deep_piano import transcribe

    tell("transcribing", 0, 1)
    samples = audio.decode(path, sr=transcribe.SAMPLE_RATE, start_s=start_s, seconds=seconds)
    audio.check_seed(samples, sr=transcribe.SAMPLE_RATE)
    notes = transcribe.transcribe(
        samples,
        sr=transcribe.SAMPLE_RATE,
        progress=lambda done, total: tell("transcribing", done, total),
    )
    return notes, len(samples) / transcribe.SAMPLE_RATE


def _compose(
    engine: Engine,
    seed: Seed,
    settings: GenerateConfig,
    take: int,
    *,
    only_new: bool,
    tell: Progress,
) -> tuple[Notes, float]:
    """Return the notes of the piece, and when its seed ends in it."""
    from threadpoolctl import threadpool_limits

    seconds = settings.seconds + (seed.seconds if only_new else 0)
    composer = Composer(
        engine,
        seed.notes,
        seed_seconds=seed.seconds,
        seconds=seconds,
        sampling={
            field.name: Sampling(
                temperature=getattr(settings.temperature, field.name),
                top_k=getattr(settings.top_k, field.name),
                top_p=getattr(settings.top_p, field.name),
            )
            for field in engine.spec.fields
        },
        # The seed's content is part of it, so that two seeds do not share their chances.
        rng=np.random.default_rng([settings.random_state, take, int(seed.digest[:16], 16)]),
    )
    # One thread: a product this small gains nothing from more, and beside other load loses much.
    with threadpool_limits(1):
        new = composer.compose(lambda done: tell("composing", done, seconds))
    tell("composing", seconds, seconds)
    if only_new:
        new["onset"] -= seed.seconds
        new["offset"] -= seed.seconds
        return new, 0.0
    first = new["onset"][0]
    old = seed.notes.copy()
    struck_again = np.isin(old["pitch"], new["pitch"][new["onset"] < first + 0.01])
    old["offset"][struck_again] = np.minimum(old["offset"][struck_again], first)
    both = np.concatenate([old, new]).astype(NOTE)
    return both, seed.seconds


def _parted(notes: Notes, seed_ends_s: float) -> tuple[Notes, Notes]:
    old = notes["onset"] < seed_ends_s
    return notes[old], notes[~old]


def _targets(out: Path, takes: int, *, force: bool) -> list[dict[str, Path]]:
    """Return the files of each take by what they hold, after making sure they may be written."""
    suffix = out.suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise InputError(
            f"cannot write {out}: its name must end in one of {', '.join(OUTPUT_SUFFIXES)}."
        )
    if out.is_dir():
        raise InputError(f"{out} is a folder. Give the name of a file to write.")
    targets = []
    for take in range(takes):
        stem = out.with_name(out.stem if takes == 1 else f"{out.stem}-{take + 1}")
        files = {kind: stem.with_name(stem.name + kind) for kind in (".mid", ".png", ".json")}
        if suffix != ".mid":
            files["sound"] = stem.with_name(stem.name + out.suffix)
        targets.append(files)
    there = [str(path) for files in targets for path in files.values() if path.exists()]
    if there and not force:
        raise InputError(f"{there[0]} is there already. Give another name, or --force.")
    with atomic_path(out.with_name(f".{out.name}.probe")):
        pass  # fails before any work is done where nothing can be written
    out.with_name(f".{out.name}.probe").unlink()
    return targets


def _provenance(
    seed: Seed,
    settings: GenerateConfig,
    weights: checkpoint.Checkpoint,
    take: int,
    *,
    only_new: bool,
) -> dict[str, Any]:
    return {
        "seed": {
            "file": seed.name,
            "sha256": seed.digest,
            "seconds": round(seed.seconds, 3),
            "notes": len(seed.notes),
        },
        "checkpoint": {"name": settings.checkpoint, "sha256": weights.digest},
        "settings": {**settings.model_dump(), "only_new": only_new},
        "random_state": settings.random_state,
        "take": take + 1,
        "versions": versions.of_a_piece(),
    }


def _write(
    files: dict[str, Path],
    notes: Notes,
    facts: dict[str, Any],
    settings: GenerateConfig,
    seed_ends_s: float,
    tell: Progress,
) -> Piece:
    """Write all files of a piece; the JSON, which says what they are, comes last."""
    from deep_piano.pictures import piano_roll

    write_midi(files[".mid"], notes)
    title = files[".mid"].stem
    piano_roll(files[".png"], notes, seed_seconds=seed_ends_s, title=title)
    if "sound" in files:
        facts["sound"] = _render(files["sound"], notes, settings, tell)
    facts["files"] = {
        path.name: audio.content_hash(path) for kind, path in files.items() if kind != ".json"
    }
    with atomic_path(files[".json"]) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    main = files.get("sound", files[".mid"])
    return Piece(main, tuple(files.values()), facts)


def _render(path: Path, notes: Notes, settings: GenerateConfig, tell: Progress) -> dict[str, Any]:
    from deep_piano import loudness, synth

    sound = settings.sound or synth.default_sound()
    if sound in assets.ASSETS:
        assets.ensure(sound, progress=lambda done, total, what: tell(what, done, total))
    samples = synth.render(
        notes,
        sound=sound,
        seconds=settings.seconds,
        sr=SR,
        progress=lambda done, total: tell("rendering", done, total),
    )
    samples = loudness.normalise(samples, sr=SR)
    tell("encoding", 0, 1)
    audio.encode(path, samples, sr=SR)
    tell("encoding", 1, 1)
    peak = float(np.abs(samples).max())
    return {
        "name": str(sound),
        "sr": SR,
        "loudness_lufs": round(loudness.integrated_lufs(samples, sr=SR), 2),
        "peak_dbfs": round(20 * float(np.log10(max(peak, 1e-9))), 2),
    }
