"""A recording becomes a piece without notes: its own sound, and the network's sound after it.

The road of the checkpoints of sound; that of notes is `notes`; `piece` asks this one where a
checkpoint says so. One core steps one take; takes are stepped side by side. Where a GPU steps many
pieces at once, `hear` prepares them for it, and `finish` writes what it made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano import versions
from deep_piano.analysis.sound_figures import likeness
from deep_piano.codecs.registry import codec_of
from deep_piano.config.sections import GenerateConfig
from deep_piano.decoding.wave import Stepper, Stream
from deep_piano.errors import InputError
from deep_piano.generate import files as outputs
from deep_piano.generate import seeds
from deep_piano.generate.files import Piece, hashes, title_of
from deep_piano.infra.progress import Progress, Tell, no_progress
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.music import audio, loudness
from deep_piano.music.audio import Samples

SHORTEST_CONTINUATION_S: Final = 1.0


def make_pieces(
    seed_path: Path,
    out: Path,
    settings: GenerateConfig,
    checkpoint: Checkpoint,
    *,
    only_new: bool = False,
    force: bool = False,
    given: Collection[Path] = (),
    progress: Tell = no_progress,
) -> list[Piece]:
    """Write the pieces that continue a recording, sound after sound.

    Parameters
    ----------
    seed_path : Path
        A recording.
    out : Path
        Its suffix decides the format of the sound. A ``.png`` and a ``.json`` stand beside it.
    settings : GenerateConfig
        What speaks of notes is of no use here: of the temperatures, `sample` counts.
    checkpoint : Checkpoint
        Of a codec that hears samples.
    only_new, force, given, progress
        As for `piece.make_pieces`.

    Returns
    -------
    list of Piece
        One a take.

    Raises
    ------
    InputError
        When the seed, the output or a setting cannot be used.
    """
    require_no_notes(out, settings)
    targets = outputs.targets(out, settings.takes, force=force, given=given, notes=False)
    progress(Progress("reading", 0, 1))
    seed = read_seed(seed_path, settings, checkpoint, only_new=only_new)

    def compose(take: int) -> Samples:
        return _compose(seed, settings, checkpoint, take, progress if take == 0 else no_progress)

    with ThreadPoolExecutor(min(settings.takes, os.cpu_count() or 1)) as pool:
        takes = list(pool.map(compose, range(settings.takes)))
    return [
        finish(files, seed, new, settings, checkpoint, take, only_new=only_new, progress=progress)
        for take, (files, new) in enumerate(zip(targets, takes, strict=True))
    ]


def make_take(
    seed: Seed,
    files: dict[str, Path],
    settings: GenerateConfig,
    checkpoint: Checkpoint,
    *,
    take: int,
    only_new: bool,
) -> Piece:
    """Write one take of a seed: the same files as `make_pieces`, which makes all of them.

    Parameters
    ----------
    seed : Seed
    settings, checkpoint, only_new
        As for `make_pieces`.
    files : dict of str to Path
        From `files.targets`.
    take : int
        From 0.

    Returns
    -------
    Piece
    """
    new = _compose(seed, settings, checkpoint, take, no_progress)
    return finish(files, seed, new, settings, checkpoint, take, only_new=only_new)


@dataclass(frozen=True)
class Seed:
    """A recording to be continued.

    Attributes
    ----------
    samples : ndarray, shape (n,), dtype float32
        As loud as what the network learned from.
    sr : int
        Hz.
    count : int
        Samples that are to follow.
    digest : str
        SHA-256 of its file.
    name : str
        Of its file.
    """

    samples: Samples
    sr: int
    count: int
    digest: str
    name: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return round(len(self.samples) / self.sr, 3)


def read_seed(
    path: Path, settings: GenerateConfig, checkpoint: Checkpoint, *, only_new: bool
) -> Seed:
    """Read a recording, and see how much is to follow it.

    Raises
    ------
    InputError
        When it cannot be decoded, is too short or silent, or leaves no room for more.
    """
    sr = int(checkpoint.facts.get("sr", codec_of(checkpoint.spec).sr))
    seed = audio.decode(path, sr=sr, start_s=settings.seed_start, seconds=settings.seed_seconds)
    seeds.check_seed(seed, sr=sr)
    digest = audio.content_hash(path)
    seconds = settings.seconds + (len(seed) / sr if only_new else 0)
    count = round(seconds * sr) - len(seed)
    if count < SHORTEST_CONTINUATION_S * sr:
        raise InputError(
            f"a piece of {settings.seconds:g} s leaves no room to continue a seed of "
            f"{len(seed) / sr:.1f} s. Give more --seconds, or fewer --seed-seconds."
        )
    # As loud as what the network learned from: 256 classes are few for a soft recording.
    seed = seed * np.float32(checkpoint.config.scale / np.sqrt(np.mean(np.square(seed))))
    return Seed(np.clip(seed, -1, 1), sr, count, digest, path.name)


@dataclass(frozen=True)
class Heard:
    """A recording, and what a network carries after it: to be continued on a GPU.

    Attributes
    ----------
    seed : Seed
    streams : list of Stream
        One a take, each at the beginning of a frame.
    """

    seed: Seed
    streams: list[Stream]

    @property
    def digest(self) -> str:
        """SHA-256 of its file."""
        return self.seed.digest


@dataclass(frozen=True)
class Take:
    """What a GPU made to follow a recording.

    Attributes
    ----------
    index : int
        From 0.
    steps : ndarray, shape (n, 1)
        As the codec has them.
    """

    index: int
    steps: NDArray[Any]


def hear(seed: Seed, settings: GenerateConfig, checkpoint: Checkpoint) -> Heard:
    """Hear a recording for all of its takes."""
    stepper = Stepper(checkpoint)
    sequence = codec_of(checkpoint.spec).encode(seed.samples)
    rngs = [_chances(seed, settings, take) for take in range(settings.takes)]
    stream = stepper.begin(sequence, rngs[0], temperature=settings.temperature.sample)
    streams = [stream.fork(rng) for rng in rngs]
    for one in streams:
        stepper.extend_to_frame(one)
    return Heard(seed, streams)


def _compose(
    seed: Seed, settings: GenerateConfig, checkpoint: Checkpoint, take: int, progress: Tell
) -> Samples:
    return continuation(
        Stepper(checkpoint),
        seed.samples,
        seed.count,
        _chances(seed, settings, take),
        temperature=settings.temperature.sample,
        progress=progress,
    )


def _chances(seed: Seed, settings: GenerateConfig, take: int) -> np.random.Generator:
    return np.random.default_rng([settings.random_state, take, int(seed.digest[:16], 16)])


def continuation(
    stepper: Stepper,
    seed: Samples,
    count: int,
    rng: np.random.Generator,
    *,
    temperature: float = 1.0,
    progress: Tell = no_progress,
) -> Samples:
    """Return what a network makes to follow a recording.

    Parameters
    ----------
    stepper : Stepper
    seed : ndarray, shape (n,), dtype float32
        At the sampling rate of the checkpoint.
    count : int
        Samples to make.
    rng : numpy.random.Generator
    temperature, progress
        As for `Stepper.go_on`.

    Returns
    -------
    ndarray, shape (count,), dtype float32
    """
    codec = codec_of(stepper.spec)
    steps = stepper.go_on(
        codec.encode(seed), count, rng, temperature=temperature, progress=progress
    )
    return codec.to_samples(steps)


def require_no_notes(out: Path, settings: GenerateConfig) -> None:
    """Raise `InputError` where something is asked for that only notes have."""
    wrong = {
        f"{out.name}: sound is written, and no .mid": out.suffix.lower() == ".mid",
        "--keep: takes of sound cannot be ranked": settings.keep is not None,
        "--index: sound cannot be compared with a corpus": settings.index is not None,
        "--sound: the continuation sounds by itself": settings.sound is not None,
    }
    for problem in (text for text, there in wrong.items() if there):
        raise InputError(
            f"the checkpoint {settings.checkpoint!r} continues sound without notes, which does not "
            f"go with {problem}. Leave it out, or use a checkpoint of notes."
        )


def finish(
    files: dict[str, Path],
    seed: Seed,
    new: Samples,
    settings: GenerateConfig,
    checkpoint: Checkpoint,
    take: int,
    *,
    only_new: bool,
    composed_on: str = "cpu",
    progress: Tell = no_progress,
) -> Piece:
    """Write all files of a piece, or none.

    Parameters
    ----------
    files : dict of str to Path
        From `files.targets`.
    seed : Seed
    new : ndarray, shape (n,), dtype float32
        What follows it.
    settings, checkpoint, only_new, progress
        As for `make_pieces`.
    take : int
        From 0.
    composed_on : str
        The kind of device: on another one rounding, and then the sound, is another.
    """
    from deep_piano.report.charts import recording_charts
    from deep_piano.report.style import if_possible

    sr = seed.sr
    begins = 0 if only_new else len(seed.samples)
    whole = new if only_new else np.concatenate([seed.samples, new])
    whole = loudness.normalise(whole, sr=sr)
    facts: dict[str, Any] = {
        "seed": {"file": seed.name, "sha256": seed.digest, "seconds": seed.seconds},
        "checkpoint": {"name": settings.checkpoint, "sha256": checkpoint.digest},
        "settings": {
            **settings.model_dump(include={"seconds", "seed_seconds", "seed_start"}),
            "temperature": settings.temperature.sample,
            "only_new": only_new,
        },
        "random_state": settings.random_state,
        "composed_on": composed_on,
        "versions": versions.of_a_piece(),
        "take": take + 1,
        "piece": {
            "seconds": round(len(whole) / sr, 3),
            **likeness(seed.samples, new, sr=sr),
        },
        "sound": {"sr": sr, **loudness.figures(whole, sr=sr)},
    }
    with outputs.staged(files) as staged:
        progress(Progress("encoding", 0, 1))
        audio.encode(staged["sound"], whole, sr=sr)
        title = title_of(files["sound"])
        if_possible(recording_charts)(
            staged[".png"], whole, sr, None, title=title, mark_s=begins / sr
        )
        facts["files"] = hashes(staged)
        staged[".json"].write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        progress(Progress("encoding", 1, 1))
    return Piece(files["sound"], tuple(files.values()), facts)
