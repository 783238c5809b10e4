"""One file of a corpus becomes one row of a dataset, or a reason why not.

The way is decode, trim, describe, transcribe where the codec encodes notes, encode. This module
knows one recording at a time; it knows nothing of shards, of other recordings or of Ray.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis import descriptors, fingerprint
from deep_piano.analysis.descriptors import AudioFeatures, NoteFeatures
from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import PrepareConfig
from deep_piano.dataset.rows import Reject, Row
from deep_piano.errors import DecodeTimeout, DeepPianoError, InputError, one_line
from deep_piano.infra.backend import load_librosa
from deep_piano.music import audio, tuning
from deep_piano.music.audio import Samples
from deep_piano.music.midi import holds_midi, read_midi_and_pedal
from deep_piano.music.notes import Notes, excerpt
from deep_piano.prepare import filters
from deep_piano.prepare.filters import Broken
from deep_piano.prepare.sources import Source, hash_split

logger = logging.getLogger(__name__)

_HASHED_AT_ONCE = 2**16

_FRAME_S = 0.05  # how finely silence is trimmed

Transcribe = Callable[[Samples, int], tuple[Notes, float]]
"""Takes samples and their rate in Hz; returns the notes as they sound and the pedal's share."""


_OF_THE_MACHINE = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EAGAIN),
        *(errno.EMFILE, errno.ENFILE),
    }
)


class TranscriberLostError(Exception):
    """The transcriber is gone, whatever the recording: the file is not to blame."""


def ingest(
    path: Path, source: Source, settings: PrepareConfig, *, transcribe: Transcribe
) -> Row | Reject:
    """Read one file.

    Whatever is wrong with the file ends as a `Reject`; only what would befall the next file as
    well is raised.

    Parameters
    ----------
    path : Path
        Where the file can be read.
    source : Source
        What it is in the corpus.
    settings : PrepareConfig
    transcribe : callable
        Used where the codec encodes notes and the file is sound.

    Raises
    ------
    DeepPianoError, ImportError, TranscriberLostError
        When what every file needs is missing: FFmpeg, the network's weights, a transcriber.
    """
    try:
        if holds_midi(path, source.name):
            outcome = _midi(path, source, settings)
        else:
            outcome = _sound(path, source, settings, transcribe)
    except (ImportError, TranscriberLostError):
        raise
    except DecodeTimeout:
        limit_s = settings.time_limit_seconds
        return _failure(source, "time_limit", f"it did not decode within {limit_s:g} s")
    except MemoryError:
        return _failure(source, "memory", "there is not enough memory to read it")
    except Exception as error:  # a bad file costs that file, however it goes wrong
        raise_of_the_machine(error)
        if isinstance(error, DeepPianoError) and not isinstance(error, InputError):
            raise
        logger.info(
            "%s failed",
            one_line(source.name),
            exc_info=True,
            extra=dict(
                stage="prepare",
                event="failed",
                recording=source.name,
                source_sha256=source.sha256,
            ),
        )
        return _failure(source, "unreadable", reason_of(error, path))
    if isinstance(outcome, Broken):
        return Reject(source.name, "drop", source_sha256=source.sha256, **vars(outcome))
    return outcome


def raise_of_the_machine(error: BaseException | None) -> None:
    """Raise a `DeepPianoError` where an error is the machine's, such as a full disk, and no file's.

    What is said of a file is remembered with it; this must not be.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise DeepPianoError(
                f"this machine cannot go on: {error.strerror}. No file is to blame: mend that, and "
                "run the same command again; it goes on from here."
            ) from error
        error = error.__cause__


def reason_of(error: Exception, place: object) -> str:
    """Return what is wrong with a file, in one line that is the same on every machine.

    Parameters
    ----------
    error : Exception
    place : object
        Where the file lies; it is not told.
    """
    if isinstance(error, DeepPianoError | OSError):
        text = getattr(error, "strerror", None) or str(error)
    else:  # a surprise, whose message alone may say little
        text = ": ".join(filter(None, (type(error).__name__, str(error))))
    for shown in (str(place), one_line(place), repr(str(place))[1:-1]):
        text = text.replace(shown, "it")
    return re.sub(r"( at| @)? 0x[0-9a-f]+", "", one_line(text))


def split_of(source: Source, recording_id: str, settings: PrepareConfig) -> str:
    """Return a recording's split: what the corpus says, else that of its group's or own hash."""
    return source.split or hash_split(
        source.group or recording_id,
        validation_share=settings.validation_share,
        test_share=settings.test_share,
    )


def _failure(source: Source, rule: str, reason: str) -> Reject:
    return Reject(source.name, "failure", rule, reason, source_sha256=source.sha256)


def _sound(
    path: Path, source: Source, settings: PrepareConfig, transcribe: Transcribe
) -> Row | Broken:
    codec = CODECS[settings.codec]
    sr = settings.sr or codec.sr
    samples = audio.decode(
        path,
        sr=sr,
        # A second more tells a recording that is as long as allowed from one that is longer.
        seconds=settings.max_seconds + 1,
        timeout_s=settings.time_limit_seconds,
    )
    recording_id = _content_id(samples)
    broken = filters.broken_by_maximum(len(samples) / sr, settings) or filters.broken_by_peak(
        samples
    )
    if broken:
        return broken
    samples = _trimmed(samples, settings, sr=sr)
    described = descriptors.describe_audio(samples, sr=sr, excerpt_s=settings.descriptor_seconds)
    broken = filters.broken_by_sound(described, settings)
    if broken:
        return broken
    common: dict[str, Any] = {
        "recording_id": recording_id,
        "duration_s": len(samples) / sr,
        "audio": described,
    }
    if codec.encodes_notes:
        _tell_tuning(source, samples, sr=sr)
        return _described(source, settings, *transcribe(samples, sr), **common)
    prints = fingerprint.of_audio(samples, sr=sr)
    return _row(source, settings, samples, fingerprint=prints, **common)


def _tell_tuning(source: Source, samples: Samples, *, sr: int) -> None:
    """Say where a piano is so far out of tune that the transcription puts it right."""
    cents = tuning.correction_cents(samples, sr=sr)
    if cents:
        facts = dict(recording=source.name, source_sha256=source.sha256, tuning_cents=cents)
        logger.warning(
            "%s: the piano is %+d cents from A = 440 Hz, and is transcribed as if it were in tune",
            *(one_line(source.name), cents),
            extra=dict(stage="prepare", event="retuned", **facts),
        )


def _midi(path: Path, source: Source, settings: PrepareConfig) -> Row | Broken:
    if not CODECS[settings.codec].encodes_notes:
        return Broken("no_audio", f"it holds notes, and the codec {settings.codec} encodes sound")
    notes, pedal = read_midi_and_pedal(path)
    common: dict[str, Any] = {"recording_id": _sha256(notes), "audio": None}
    end_s = float(notes["offset"].max(initial=0.0))
    broken = filters.broken_by_maximum(end_s, settings)
    if broken:
        return broken
    start_s, end_s = settings.trim_start_seconds, end_s - settings.trim_end_seconds
    notes = excerpt(notes, start_s, end_s)
    notes["offset"] = np.minimum(notes["offset"], end_s - start_s)
    duration_s = float(notes["offset"].max() - notes["onset"][0]) if len(notes) else 0.0
    broken = filters.broken_by_minimum(duration_s, settings)
    return broken or _described(source, settings, notes, pedal, duration_s=duration_s, **common)


def _described(
    source: Source, settings: PrepareConfig, notes: Notes, pedal_share: float, **common: Any
) -> Row | Broken:
    """Make a row of notes, unless they break a rule."""
    described = descriptors.describe_notes(notes, pedal_share=pedal_share)
    broken = filters.broken_by_notes(described, settings)
    if broken:
        return broken
    from_first = excerpt(notes, float(notes["onset"][0]), np.inf)
    prints = fingerprint.of_notes(notes)
    return _row(source, settings, from_first, fingerprint=prints, notes=described, **common)


def _row(
    source: Source,
    settings: PrepareConfig,
    music: Notes | Samples,
    *,
    recording_id: str,
    duration_s: float,
    fingerprint: NDArray[np.uint32],
    audio: AudioFeatures | None,
    notes: NoteFeatures | None = None,
) -> Row:
    return Row(
        id=recording_id,
        name=source.name,
        source_sha256=source.sha256,
        split=split_of(source, recording_id, settings),
        kind="midi" if audio is None else "audio",
        duration_s=duration_s,
        sequence=CODECS[settings.codec].encode(music),
        fingerprint=fingerprint,
        audio=audio,
        notes=notes,
    )


def _trimmed(samples: Samples, settings: PrepareConfig, *, sr: int) -> Samples:
    """Cut what the settings say from both ends, and then the silence."""
    first, last = round(settings.trim_start_seconds * sr), round(settings.trim_end_seconds * sr)
    samples = samples[first : max(0, len(samples) - last)]
    if settings.trim_silence_db is None or not samples.any():
        return samples
    # Frames that do not overlap: the default's take five times the memory of the samples.
    frame = max(1, round(_FRAME_S * sr))
    trimmed, _ = load_librosa().effects.trim(
        samples, top_db=settings.trim_silence_db, frame_length=frame, hop_length=frame
    )
    return np.asarray(trimmed)


def _content_id(samples: Samples) -> str:
    """Return the SHA-256 of samples in 16 bit, taken block by block, each within the cache."""
    digest = hashlib.sha256()
    for start in range(0, len(samples), _HASHED_AT_ONCE):
        block = samples[start : start + _HASHED_AT_ONCE].clip(-1, 1)
        block *= 32767
        digest.update(np.rint(block, out=block).astype("<i2").view(np.uint8))
    return digest.hexdigest()


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
