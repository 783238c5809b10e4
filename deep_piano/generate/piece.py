"""A seed becomes a piece, in this process: one recording in, sound, notes, picture and facts out.

The only module that knows the whole road; each stretch of it is another module's business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from deep_piano.analysis.note_figures import MOST_REPETITIONS
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.registry import CODECS, codec_of
from deep_piano.config.sections import GenerateConfig, StorageConfig
from deep_piano.decoding.notes import Engine
from deep_piano.generate import files as outputs
from deep_piano.generate import wave
from deep_piano.generate.files import Piece
from deep_piano.generate.notes import compose, finish, ready_sound
from deep_piano.generate.seeds import read_seed, require_room
from deep_piano.infra.progress import Tell, no_progress
from deep_piano.infra.storage.local import LocalFolder
from deep_piano.models import checkpoint
from deep_piano.music.sounds import SOUND_NAMES

LONGEST_SILENCE_S: Final = 4.0


def best_first(takes: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the places of takes of one seed, the best first.

    Takes that loop or fall silent come last. The others are placed twice, by the network's mean
    loss of a note and by the pitch-class cosine with the seed, and the sums of their places decide
    (Borda's count); of equals the first stays first.

    Parameters
    ----------
    takes : sequence of mapping
        The figures of each, as they stand in its .json: "nats_a_note", "pitch_class_cosine",
        "longest_loop", "longest_silence_s".

    Examples
    --------
    >>> good = {"nats_a_note": 8, "pitch_class_cosine": 0.9, "longest_loop": 2,
    ...         "longest_silence_s": 1}
    >>> best_first([good | {"longest_loop": 40}, good | {"nats_a_note": 9}, good])
    [2, 1, 0]
    """

    def place(mine: Mapping[str, Any]) -> tuple[bool, int]:
        broken = (
            mine["longest_loop"] > MOST_REPETITIONS or mine["longest_silence_s"] > LONGEST_SILENCE_S
        )
        likelier = sum(other["nats_a_note"] < mine["nats_a_note"] for other in takes)
        more_faithful = sum(
            other["pitch_class_cosine"] > mine["pitch_class_cosine"] for other in takes
        )
        return broken, likelier + more_faithful

    return sorted(range(len(takes)), key=lambda index: place(takes[index]))


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
    if not codec_of(weights.spec).encodes_notes:
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
