"""A seed becomes a piece, in this process: one recording in, sound, notes, picture and facts out.

The only module that knows the whole road; each stretch of it is another module's business.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_piano import versions
from deep_piano.analysis import note_figures
from deep_piano.analysis.originality import CorpusIndex, SharedRun
from deep_piano.cli.terminal import Progress, no_progress
from deep_piano.codecs.notes import SPEC, STEPS_PER_SECOND, encode
from deep_piano.codecs.registry import CODECS, codec_of
from deep_piano.config.sections import GenerateConfig, StorageConfig
from deep_piano.decoding.compose import Composer
from deep_piano.decoding.notes import Engine, Sampling
from deep_piano.decoding.rules import Commission, Continuation
from deep_piano.errors import AudioError, InputError, MidiError
from deep_piano.generate import files as outputs
from deep_piano.generate import wave
from deep_piano.generate.files import (
    Piece,  # who has pieces made gets these
    hashes,
    title_of,
)
from deep_piano.generate.ranking import best_first
from deep_piano.infra.assets import cache
from deep_piano.infra.storage.local import LocalFolder
from deep_piano.models import checkpoint
from deep_piano.music import audio, loudness, synth
from deep_piano.music.notes import (
    MIDI_SUFFIXES,
    NOTE,
    Notes,
    excerpt,
    fold_pedal,
    read_midi,
    write_midi,
)
from deep_piano.music.sounds import SOUND_NAMES, default_sound

logger = logging.getLogger(__name__)

SR = 44_100
FEWEST_SEED_NOTES = 4
# All notes together, in a recording's length. Recordings of pianos have 0.9 and more; synthetic
# speech in twelve voices has at most 0.15: some give twenty notes, but each as short as a click.
LEAST_SOUNDING_SHARE = 0.2
LONGEST_TRAILING_SILENCE_S = 2.0
SHORTEST_CONTINUATION_S = 5.0

"""Called with the name of the stage, what is done of it, and all of it."""


@dataclass(frozen=True)
class Seed:
    """What a piece continues.

    Attributes
    ----------
    notes : ndarray, dtype `NOTE`
        The first onset is time zero.
    seconds : float
        When the seed ends and the continuation may begin; whole hundredths.
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
class Take:
    """A piece in notes.

    Attributes
    ----------
    index : int
        Which take of its seed, from 0.
    notes : ndarray, dtype `NOTE`
        The whole piece.
    seed_ends_s : float
        When the seed ends in it.
    figures : dict
        As `metrics.figures` returns them, and "nats_a_note".
    shared : SharedRun or None
        What the continuation shares with a corpus, where there is an index of one.
    """

    index: int
    notes: Notes
    seed_ends_s: float
    figures: dict[str, float | str]
    shared: SharedRun | None = None


def make_pieces(
    seed_path: Path,
    out: Path,
    settings: GenerateConfig,
    *,
    only_new: bool = False,
    force: bool = False,
    keep: Collection[Path] = (),
    storage: StorageConfig | None = None,
    progress: Progress = no_progress,
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
    given = [seed_path, *keep]
    found = checkpoint.find(settings.checkpoint, storage)
    if isinstance(found, LocalFolder):
        given.append(found.root)
    if settings.sound and settings.sound not in SOUND_NAMES:
        given.append(Path(settings.sound))
    if settings.index is not None:
        given.append(Path(settings.index))
    known = [codec.spec.codec for codec in CODECS.values()]
    weights = checkpoint.load(found, codec=known)
    if not codec_of(weights.spec).hears_notes:
        return wave.make_pieces(
            seed_path,
            out,
            settings,
            weights,
            only_new=only_new,
            force=force,
            given=given,
            progress=progress,
        )
    kept = min(settings.keep or settings.takes, settings.takes)
    targets = outputs.targets(out, kept, force=force, given=given)
    index = CorpusIndex.load(Path(settings.index)) if settings.index is not None else None
    seed = read_seed(
        seed_path,
        start_s=settings.seed_start,
        seconds=settings.seed_seconds,
        progress=progress,
    )
    require_room(seed, settings, only_new=only_new)
    sound = ready_sound(settings.sound, progress) if "sound" in targets[0] else None
    takes = compose(
        Engine(weights), seed, settings, only_new=only_new, index=index, progress=progress
    )
    if settings.keep is not None:
        takes = [takes[place] for place in best_first([take.figures for take in takes])]
    return [
        finish(
            files,
            seed,
            take,
            settings,
            checkpoint_sha256=weights.digest,
            only_new=only_new,
            sound=sound,
            progress=progress,
        )
        for files, take in zip(targets, takes, strict=False)
    ]


def read_seed(path: Path, *, start_s: float, seconds: float, progress: Progress) -> Seed:
    """Read the notes of a seed from a recording or a MIDI file.

    Raises
    ------
    AudioError, MidiError
        When the file cannot be read, or holds too little music.
    """
    digest = audio.content_hash(path)
    error: type[InputError]
    if _is_midi(path):
        error = MidiError
        progress("reading", 0, 1)
        notes = excerpt(read_midi(path), start_s, start_s + seconds)
        heard_s = min(seconds, float(notes["offset"].max())) if len(notes) else seconds
        progress("reading", 1, 1)
        if heard_s < audio.SHORTEST_SEED_S:
            raise error(
                f"the seed is too short: {heard_s:.2f} s of notes from where it starts. Give at "
                f"least {audio.SHORTEST_SEED_S:g} s, ten are best."
            )
    else:
        error = AudioError
        notes, heard_s = _hear(path, start_s, seconds, progress)
    if len(notes) < FEWEST_SEED_NOTES:
        raise error(
            f"only {len(notes)} piano note{'s' * (len(notes) != 1)} found in {heard_s:.1f} s of "
            f"{path} from {start_s:g} s on; at least {FEWEST_SEED_NOTES} are needed. "
            "Give a recording of a piano, or start elsewhere with --seed-start."
        )
    sounding_s = float((notes["offset"] - notes["onset"]).sum())
    if error is AudioError and sounding_s < LEAST_SOUNDING_SHARE * heard_s:
        raise error(
            f"{len(notes)} piano notes were found in {heard_s:.1f} s of {path} from {start_s:g} s "
            f"on, but they sound for {sounding_s:.1f} s altogether, as in speech or noise. "
            "Give a recording of a piano, or start elsewhere with --seed-start."
        )
    # Silence before the first note and long after the last one is not music to be continued.
    begins = float(notes["onset"][0])
    ends = min(heard_s, float(notes["onset"][-1]) + LONGEST_TRAILING_SILENCE_S) - begins
    ends = math.ceil(round(ends * STEPS_PER_SECOND, 3)) / STEPS_PER_SECOND  # on the codec's grid
    notes["onset"] -= begins
    notes["offset"] -= begins
    notes["offset"] = np.minimum(notes["offset"], ends + LONGEST_TRAILING_SILENCE_S)
    return Seed(notes, ends, digest, path.name)


def write_seed(out: Path, path: Path, seed: Seed, settings: GenerateConfig, *, sound: str) -> None:
    """Write a seed to be heard beside its pieces, as loud as they are.

    Parameters
    ----------
    out : Path
        Its suffix decides the format.
    path : Path
        The seed's file. A recording is cut to what was read of it; notes are played.
    seed : Seed
        What `read_seed` made of the file.
    settings : GenerateConfig
    sound : str
        From `ready_sound`.
    """
    if _is_midi(path):
        samples = synth.render(seed.notes, sound=sound, seconds=seed.seconds, sr=SR)
    else:
        samples = audio.decode(
            path, sr=SR, start_s=settings.seed_start, seconds=settings.seed_seconds
        )
    audio.encode(out, loudness.normalise(samples, sr=SR), sr=SR)


def require_room(seed: Seed, settings: GenerateConfig, *, only_new: bool = False) -> None:
    """Raise `InputError` where a piece is no longer than its seed."""
    if not only_new and settings.seconds < seed.seconds + SHORTEST_CONTINUATION_S:
        raise InputError(
            f"a piece of {settings.seconds:g} s leaves no room to continue a seed of "
            f"{seed.seconds:.1f} s. Give more --seconds, or fewer --seed-seconds."
        )


def _is_midi(path: Path) -> bool:
    """Tell by the name or, whatever that says, by how the file begins."""
    if path.suffix.lower() in MIDI_SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(4) == b"MThd"


def _hear(path: Path, start_s: float, seconds: float, progress: Progress) -> tuple[Notes, float]:
    from deep_piano.music import transcription

    progress("transcribing", 0, 1)
    samples = audio.decode(path, sr=transcription.SAMPLE_RATE, start_s=start_s, seconds=seconds)
    audio.check_seed(samples, sr=transcription.SAMPLE_RATE)
    _fetch("transkun", progress)
    notes = transcription.transcribe(
        samples,
        sr=transcription.SAMPLE_RATE,
        progress=lambda done, total: progress("transcribing", done, total),
    )
    return notes, len(samples) / transcription.SAMPLE_RATE


def _fetch(name: str, progress: Progress) -> None:
    """Make sure that an asset is there, and show it when that takes a while."""
    cache.ensure(name, progress=lambda done, total, what: progress(what, done, total))


def ready_sound(asked: str | None, progress: Progress) -> str:
    """Return the sound to play with, fetched and known to work before anything is composed."""
    sound = asked or default_sound()
    if sound in SOUND_NAMES:
        _fetch(sound, progress)
    synth.render(np.empty(0, NOTE), sound=sound, seconds=0.0, sr=SR)
    return sound


def compose(
    engine: Engine,
    seed: Seed,
    settings: GenerateConfig,
    *,
    only_new: bool = False,
    index: CorpusIndex | None = None,
    progress: Progress = no_progress,
) -> list[Take]:
    """Continue a seed in notes, all its takes side by side.

    Parameters
    ----------
    engine : Engine
    seed : Seed
    settings : GenerateConfig
    only_new : bool
        Leave the seed out: the piece is the continuation alone, as long as asked.
    index : CorpusIndex, optional
        To compare each continuation with.
    progress : callable, optional

    Returns
    -------
    list of Take
    """
    composer = composer_of(engine, settings)
    for take in range(settings.takes):
        composer.add(take, commission(seed, settings, take=take, only_new=only_new))
    whole_s = (settings.seconds + (seed.seconds if only_new else 0)) * settings.takes
    done: dict[Any, Continuation] = {}
    while len(composer):
        progress("composing", composer.composed_s + whole_s * len(done) / settings.takes, whole_s)
        done |= composer.step()
    progress("composing", whole_s, whole_s)
    return [
        take_of(seed, done[take], take=take, only_new=only_new, index=index)
        for take in range(settings.takes)
    ]


def composer_of(engine: Engine, settings: GenerateConfig) -> Composer:
    """Return a composer that draws as the settings say."""
    guidance = settings.guidance.model_dump()
    return Composer(engine, sampling_of(settings), guidance, settings.hold_density)


def sampling_of(settings: GenerateConfig) -> dict[str, Sampling]:
    """Return how each field is drawn."""
    return {
        field.name: Sampling(
            temperature=getattr(settings.temperature, field.name),
            top_k=getattr(settings.top_k, field.name),
            top_p=getattr(settings.top_p, field.name),
        )
        for field in SPEC.fields
    }


def commission(
    seed: Seed, settings: GenerateConfig, *, take: int = 0, only_new: bool = False
) -> Commission:
    """Return what the composer is to do for a take."""
    return Commission(
        seed.notes,
        seed_seconds=seed.seconds,
        seconds=settings.seconds + (seed.seconds if only_new else 0),
        # The seed's content is part of it, so that two seeds do not share their chances.
        rng=np.random.default_rng([settings.random_state, take, int(seed.digest[:16], 16)]),
    )


def take_of(
    seed: Seed,
    continuation: Continuation,
    *,
    take: int,
    only_new: bool = False,
    index: CorpusIndex | None = None,
) -> Take:
    """Put a seed and its continuation together, and measure what came of it."""
    notes = continuation.notes
    if only_new:
        whole, seed_ends_s = notes.copy(), 0.0
        whole["onset"] -= seed.seconds
        whole["offset"] -= seed.seconds
    else:
        # Folded again: a key that still sounds from the seed is let go where it is struck anew.
        whole, seed_ends_s = fold_pedal(np.concatenate([seed.notes, notes]), [], []), seed.seconds
    old = whole["onset"] < seed_ends_s
    figures = note_figures.figures(
        seed.notes if only_new else whole[old],
        whole[~old],
        from_s=0.0 if only_new else float(whole["offset"][old].max()),
    )
    figures["nats_a_note"] = round(continuation.nats, 4)
    shared = index.longest_run(encode(notes)) if index is not None else None
    return Take(take, whole, seed_ends_s, figures, shared)


def finish(
    files: dict[str, Path],
    seed: Seed,
    take: Take,
    settings: GenerateConfig,
    *,
    checkpoint_sha256: str,
    composed_on: str = "cpu",
    only_new: bool = False,
    sound: str | None = None,
    progress: Progress = no_progress,
) -> Piece:
    """Write all files of a piece, or none.

    Parameters
    ----------
    files : dict of str to Path
        As `outputs.targets` returns them.
    seed : Seed
    take : Take
    settings : GenerateConfig
    checkpoint_sha256 : str
    composed_on : str
        The kind of device: on another one the last bits, and then the notes, may differ.
    only_new : bool
    sound : str, optional
        From `ready_sound`; None: no sound is written.
    progress : callable, optional
    """
    facts = {
        "seed": {
            "file": seed.name,
            "sha256": seed.digest,
            "seconds": round(seed.seconds, 3),
            "notes": len(seed.notes),
        },
        "checkpoint": {"name": settings.checkpoint, "sha256": checkpoint_sha256},
        "settings": {**settings.model_dump(exclude={"takes", "keep"}), "only_new": only_new},
        "random_state": settings.random_state,
        "composed_on": composed_on,
        "versions": versions.of_a_piece(),
        "take": take.index + 1,
        "piece": {"seconds": settings.seconds, "notes": len(take.notes), **take.figures},
    }
    if take.shared is not None:
        facts["originality"] = {
            "longest_shared_run_notes": take.shared.notes,
            "recording": take.shared.recording or None,
        }
    return _write(files, take, facts, settings.seconds, sound, progress)


def _write(
    files: dict[str, Path],
    take: Take,
    facts: dict[str, Any],
    seconds: float,
    sound: str | None,
    progress: Progress,
) -> Piece:
    from deep_piano.report.roll import piano_roll

    with outputs.staged(files) as staged:
        write_midi(staged[".mid"], take.notes)
        piano_roll(
            staged[".png"],
            take.notes,
            seconds=seconds,
            seed_seconds=take.seed_ends_s,
            title=title_of(files[".mid"]),
        )
        if sound is not None:
            facts["sound"] = _render(staged["sound"], take.notes, seconds, sound, progress)
        facts["files"] = hashes(staged)
        text = json.dumps(facts, indent=2) + "\n"
        staged[".json"].write_text(text, encoding="utf-8")
    main = files.get("sound", files[".mid"])
    return Piece(main, tuple(files.values()), facts)


def _render(
    path: Path, notes: Notes, seconds: float, sound: str, progress: Progress
) -> dict[str, Any]:
    folder = cache.path(sound) if sound in SOUND_NAMES else None
    samples = synth.render(
        notes,
        sound=sound,
        seconds=seconds,
        sr=SR,
        progress=lambda done, total: progress("rendering", done, total),
    )
    samples = loudness.normalise(samples, sr=SR)
    progress("encoding", 0, 1)
    audio.encode(path, samples, sr=SR)
    progress("encoding", 1, 1)
    return {
        "name": sound,
        "asset": folder.name if folder else None,
        "sr": SR,
        **loudness.figures(samples, sr=SR),
    }
