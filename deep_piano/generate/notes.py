"""The road from a seed to a piece in notes: compose, put together, write.

Each stretch of it is another module's business.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep_piano import versions
from deep_piano.analysis import note_figures
from deep_piano.analysis.originality import CorpusIndex, SharedRun
from deep_piano.codecs.notes import SPEC, encode
from deep_piano.config.sections import GenerateConfig
from deep_piano.decoding.base import Commission, Continuation, Sampling
from deep_piano.decoding.notes import Composer, Engine
from deep_piano.generate import files as outputs
from deep_piano.generate.files import Piece, hashes, title_of
from deep_piano.generate.seeds import SR, Seed, _fetch
from deep_piano.infra.assets import cache
from deep_piano.infra.progress import Progress, Tell, no_progress
from deep_piano.music import audio, loudness, synth
from deep_piano.music.notes import NOTE, Notes, fold_pedal, write_midi
from deep_piano.music.sounds import SOUND_NAMES, default_sound


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
        As `note_figures.figures` returns them, and "nats_a_note".
    shared : SharedRun or None
        What the continuation shares with a corpus, where there is an index of one.
    """

    index: int
    notes: Notes
    seed_ends_s: float
    figures: dict[str, float | str]
    shared: SharedRun | None = None


def ready_sound(asked: str | None, progress: Tell) -> str:
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
    progress: Tell = no_progress,
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
        composed_s = composer.composed_s + whole_s * len(done) / settings.takes
        progress(Progress("composing", composed_s, whole_s))
        done |= composer.step()
    progress(Progress("composing", whole_s, whole_s))
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
    progress: Tell = no_progress,
) -> Piece:
    """Write all files of a piece, or none.

    Parameters
    ----------
    files : dict of str to Path
        As `files.targets` returns them.
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
    progress: Tell,
) -> Piece:
    from deep_piano.report.roll import piano_roll
    from deep_piano.report.style import if_possible

    with outputs.staged(files) as staged:
        write_midi(staged[".mid"], take.notes)
        if_possible(piano_roll)(
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


def _render(path: Path, notes: Notes, seconds: float, sound: str, progress: Tell) -> dict[str, Any]:
    folder = cache.path(sound) if sound in SOUND_NAMES else None
    samples = synth.render(
        notes,
        sound=sound,
        seconds=seconds,
        sr=SR,
        progress=progress,
    )
    samples = loudness.normalise(samples, sr=SR)
    progress(Progress("encoding", 0, 1))
    audio.encode(path, samples, sr=SR)
    progress(Progress("encoding", 1, 1))
    return {
        "name": sound,
        "asset": folder.name if folder else None,
        "sr": SR,
        **loudness.figures(samples, sr=SR),
    }
