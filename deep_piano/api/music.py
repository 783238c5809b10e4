"""Calls for one seed or recording: continue it, transcribe it, play notes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from deep_piano.api.given import (
    Music,
    PathLike,
    as_file,
    notes_in,
    seconds_of,
    settings_of,
    whole_rate,
)
from deep_piano.api.piece import Piece
from deep_piano.codecs.notes import SPEC
from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import Config
from deep_piano.errors import InputError, one_line
from deep_piano.generate.notes import ready_sound
from deep_piano.generate.piece import compose, local_inputs, road_of
from deep_piano.infra.progress import Tell, no_progress
from deep_piano.infra.storage.folder import Folder
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.music import audio, loudness, synth
from deep_piano.music.audio import Samples
from deep_piano.music.midi import holds_midi, read_midi
from deep_piano.music.notes import Notes, excerpt


def continue_piece(
    seed: Music,
    *,
    sr: int | None = None,
    checkpoint: PathLike | Checkpoint | None = None,
    only_new: bool = False,
    config: PathLike | None = None,
    profile: str | None = None,
    progress: Tell | None = None,
    **settings: Any,
) -> Piece:
    """Continue a seed, as ``deep-piano generate SEED`` does; of several takes, return the best.

    Parameters
    ----------
    seed : path, bytes, array or symusic.Score
        A recording of a piano, or notes: the path or the ``s3://`` URI of a file, its content,
        samples of the shape (n,) or (n, channels) with `sr`, a note array, or a score. Its last ten
        seconds are continued, unless `seed_start` or `seed_end` say otherwise.
    sr : int, optional
        The sampling rate of samples, in Hz.
    checkpoint : path or Checkpoint, optional
        A shipped checkpoint, a run, a folder of runs, or one from `load_checkpoint`; by default
        "notes", which ships with the package.
    only_new : bool
        Leave the seed out of the piece.
    config, profile : optional
        A settings file, and one of its profiles.
    progress : callable, optional
        Called with a `Progress` as work is done.
    **settings
        Any of ``generate`` in ``ray_config.yaml``: ``seconds=180``, ``random_state=0``,
        ``takes=4``, ``seed_end=72``, ``temperature={"pitch": 0.9}``, …

    Returns
    -------
    Piece
        Notes or sound in memory; nothing is written before `Piece.save`.

    Raises
    ------
    InputError
        When seed, checkpoint or settings cannot be used.
    AssetError
        When the weights of the transcription are missing and cannot be fetched.

    Examples
    --------
    >>> import deep_piano as dp
    >>> piece = dp.continue_piece("seed.mp3", seconds=60)  # doctest: +SKIP
    >>> piece.save("piece.mp3")  # doctest: +SKIP
    """
    chosen = _settings(settings, checkpoint, config=config, profile=profile)
    return _continued(seed, sr, chosen, checkpoint, config, only_new, progress, best=True)[0]


def continue_pieces(
    seed: Music,
    *,
    sr: int | None = None,
    checkpoint: PathLike | Checkpoint | None = None,
    only_new: bool = False,
    config: PathLike | None = None,
    profile: str | None = None,
    progress: Tell | None = None,
    **settings: Any,
) -> list[Piece]:
    """Return a piece for each take; with ``keep=N`` the best ones, the best first.

    Parameters, settings and errors are those of `continue_piece`.

    Returns
    -------
    list of Piece
    """
    chosen = _settings(settings, checkpoint, config=config, profile=profile)
    return _continued(seed, sr, chosen, checkpoint, config, only_new, progress)


def _settings(
    given: dict[str, Any],
    checkpoint: PathLike | Checkpoint | None,
    *,
    config: PathLike | None,
    profile: str | None,
) -> Config:
    named = checkpoint
    if isinstance(checkpoint, Checkpoint):
        named = checkpoint.name or checkpoint.digest or None
    return settings_of({**given, "checkpoint": named}, "generate", config=config, profile=profile)


def _continued(
    seed: Music,
    sr: int | None,
    chosen: Config,
    checkpoint: PathLike | Checkpoint | None,
    config: PathLike | None,
    only_new: bool,
    progress: Tell | None,
    best: bool = False,
) -> list[Piece]:
    settings, storage, tell = chosen.generate, chosen.storage, progress or no_progress
    found = None
    if not isinstance(checkpoint, Checkpoint):
        known = [codec.spec.codec for codec in CODECS.values()]
        found = checkpoints.find(settings.checkpoint, storage)
        checkpoint = checkpoints.load(found, codec=known)
    if best and settings.takes > 1 and settings.keep is None:
        if checkpoint.spec.codec != SPEC.codec:
            raise InputError(
                "takes of sound cannot be ranked, and one piece is returned. Leave takes= out, or "
                "call continue_pieces for all of them."
            )
        settings = settings.model_copy(update={"keep": 1})
    road = road_of(checkpoint, settings, Path("piece.wav"), only_new=only_new)
    with as_file(seed, sr=sr, storage=storage) as path:
        read = road.read(path, tell)
    named = (path, *([config] if config is not None else ()), *local_inputs(found, settings))
    given = [Path(place).absolute() for place in named]
    return [Piece(road, read, take, given=given) for take in compose(road, read, progress=tell)]


def transcribe(
    recording: Music,
    *,
    sr: int | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    progress: Tell | None = None,
) -> Notes:
    """Return the notes of a recording of a piano, or of a MIDI file, as they sound.

    Parameters
    ----------
    recording : path, bytes, array or symusic.Score
        As for `continue_piece`.
    sr : int, optional
        The sampling rate of samples, in Hz.
    start, seconds : float
        Where to begin, and how much to read; all of it by default.
    progress : callable, optional

    Returns
    -------
    ndarray, dtype `NOTE`
        Onset and offset in seconds from `start` on, the pedal folded in; pitch 21 to 108; velocity
        1 to 127.

    Raises
    ------
    InputError
        When it cannot be read.
    AssetError
        When the weights are missing and cannot be fetched.
    """
    from deep_piano.music import transcription

    start = seconds_of("start", start)
    seconds = None if seconds is None else seconds_of("seconds", seconds)
    with as_file(recording, sr=sr) as path:
        if holds_midi(path):
            audio.require_readable(path, one_line(path))
            return excerpt(read_midi(path), start, math.inf if seconds is None else start + seconds)
        samples = audio.decode(
            path, sr=transcription.SAMPLE_RATE, start_s=start, seconds=seconds, timeout_s=300
        )
    return transcription.transcribe(
        samples, sr=transcription.SAMPLE_RATE, progress=progress or no_progress
    )


def render(
    notes: Music,
    *,
    sound: PathLike | None = None,
    seconds: float | None = None,
    sr: int = 44_100,
    progress: Tell | None = None,
) -> Samples:
    """Play notes on a sampled piano, at the loudness of pieces.

    Parameters
    ----------
    notes : ndarray of dtype `NOTE`, path of a MIDI file, Piece or symusic.Score
    sound : path, optional
        One of ``deep-piano assets list``, a folder of samples or a SoundFont; by default the best
        one that is there.
    seconds : float, optional
        Length of the result; by default until two seconds after the last note.
    sr : int
        Sampling rate of the result, in Hz.
    progress : callable, optional

    Returns
    -------
    ndarray, shape (round(seconds * sr), 2), dtype float32
        At -16 LUFS, without clipping.

    Raises
    ------
    InputError
        When notes or sound cannot be used.
    AssetError
        When a sound is missing and cannot be fetched.
    """
    tell, sr = progress or no_progress, whole_rate(sr)
    seconds = None if seconds is None else seconds_of("seconds", seconds)
    played = notes_in(notes)
    if played is None:
        with as_file(notes) as path:
            if not holds_midi(path):
                raise InputError(
                    "notes are needed, not sound. Give MIDI, or `transcribe` it first."
                )
            audio.require_readable(path, one_line(path))
            played = read_midi(path)
    name = ready_sound(None if sound is None else str(sound), tell)
    if seconds is None:
        seconds = (float(played["offset"].max()) if len(played) else 0.0) + 2.0
    samples = synth.render(played, sound=name, seconds=seconds, sr=sr, progress=tell)
    return loudness.normalise(samples, sr=sr)


def load_checkpoint(where: PathLike | Folder = "notes") -> Checkpoint:
    """Read a checkpoint: a shipped one by its name, a folder, a run, or a folder of runs.

    Parameters
    ----------
    where : path or Folder
        It may begin with ``s3://``.

    Returns
    -------
    Checkpoint
        Its codec's `spec`, `config`, `weights` by name, `facts`, `judge`.

    Raises
    ------
    CheckpointError
        When there is none, or it is damaged.
    """
    return checkpoints.load(where if isinstance(where, Folder) else str(where))
