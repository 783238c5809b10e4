"""What callers give: settings by name, and music as a file, bytes, samples or notes."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from deep_piano.config.load import load_config
from deep_piano.config.sections import Config, StorageConfig
from deep_piano.errors import InputError, one_line
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.open import local_file, local_path, open_folder
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.music.midi import write_midi
from deep_piano.music.notes import NOTE, Notes

PathLike: TypeAlias = "str | os.PathLike[str]"
Music: TypeAlias = Any
"""A path or ``s3://`` URI of a recording or a MIDI file, the bytes of one, samples, a note array, a
`Piece`, or a `symusic.Score`."""

_MOST_SR = 1_000_000
_MOST_CHANNELS = 8


def settings_of(
    given: Mapping[str, Any],
    *sections: str,
    config: PathLike | None = None,
    profile: str | None = None,
) -> Config:
    """Return the settings of a file, overridden by those of a call.

    Parameters
    ----------
    given : mapping
        Settings by their names; None means "not given".
    *sections : str
        Where the names belong, the likeliest first.
    config : path, optional
        A settings file, such as ``ray_config.yaml``.
    profile : str, optional
        One of its profiles.

    Raises
    ------
    ConfigError
        When a setting is unknown or out of range.
    """
    placed: dict[str, dict[str, object]] = {name: {} for name in sections}
    for name, value in given.items():
        fields = (s for s in sections if name in type(getattr(Config(), s)).model_fields)
        placed[next(fields, sections[0])][name] = _plain(value)
    path = None if config is None else path_of(config)
    return load_config(path, placed, profile=profile, source="the call")


def _plain(value: Any) -> Any:
    """Return a setting as a settings file would hold it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def path_of(place: PathLike) -> Path:
    """Return a place on this machine; `InputError` where it is elsewhere."""
    return local_path(os.fspath(place))


def whole_rate(sr: Any) -> int:
    """Return a sampling rate in Hz as a whole number; `InputError` where it is none."""
    if not _is_number(sr) or not 0 < sr <= _MOST_SR or int(sr) != sr:
        raise InputError(
            f"a sampling rate is a whole number of Hz, at most {_MOST_SR:,}. Received: sr={sr!r}."
        )
    return int(sr)


def seconds_of(name: str, value: Any) -> float:
    """Return a time in seconds; `InputError` where it is no finite number from 0 on."""
    if not _is_number(value) or not 0 <= value < math.inf:
        raise InputError(f"{name} is a number of seconds, 0 or more. Received: {value!r}.")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def open_folders(storage: StorageConfig, *places: PathLike) -> list[Folder]:
    """Return the folders at some paths or ``s3://`` prefixes."""
    return [open_folder(place, **storage.model_dump()) for place in places]


def loaded(given: PathLike | Checkpoint, storage: StorageConfig) -> Checkpoint:
    """Return a checkpoint, read where it is not yet."""
    if isinstance(given, Checkpoint):
        return given
    return checkpoints.load(os.fspath(given), storage=storage)


@contextmanager
def as_file(
    music: Music, *, sr: int | None = None, storage: StorageConfig | None = None
) -> Iterator[Path]:
    """Yield music as a file, which is a temporary one where it is none yet.

    Samples become a WAV file of float32, and notes a MIDI file, so that whatever is given is read
    in one and the same way.

    Parameters
    ----------
    music : Music
        Samples have the shape (n,) or (n, channels), and full scale 1.0 unless they are integers.
    sr : int, optional
        The sampling rate of samples, in Hz.
    storage : StorageConfig, optional
        Where ``s3://`` leads.

    Raises
    ------
    InputError
        When it is something else, or a folder.
    """
    if isinstance(music, str | os.PathLike):
        uri = os.fspath(music)
        with local_file(uri, **(storage or StorageConfig()).model_dump()) as path:
            if path is None:
                raise InputError(
                    f"{one_line(uri)} is a folder, and one file is needed. For a folder of seeds "
                    "there is continue_folder."
                )
            yield path
        return
    with tempfile.TemporaryDirectory(prefix="deep-piano-") as folder:
        yield _written(music, Path(folder), sr)


def notes_in(music: Music) -> Notes | None:
    """Return a note array, or that of a piece; None where it is something else.

    Raises
    ------
    InputError
        When a note is at no time.
    """
    notes = getattr(music, "notes", music)
    if not isinstance(notes, np.ndarray) or notes.dtype != NOTE:
        return None
    for at in ("onset", "offset"):
        wrong = np.flatnonzero(~(np.isfinite(notes[at]) & (notes[at] >= 0)))
        if len(wrong):
            raise InputError(
                f"note {wrong[0]} has the {at} {notes[at][wrong[0]]:g}, and times are seconds from "
                "0 on. Shift the notes, or leave it out."
            )
    return notes


def _written(music: Music, folder: Path, sr: int | None) -> Path:
    notes = notes_in(music)
    if notes is not None:
        write_midi(folder / "seed.mid", notes)
        return folder / "seed.mid"
    if hasattr(music, "dumps_midi"):  # a score of symusic
        (folder / "seed.mid").write_bytes(bytes(music.dumps_midi()))
        return folder / "seed.mid"
    data = music.read() if hasattr(music, "read") else music
    if isinstance(data, bytes | bytearray | memoryview):
        (folder / "seed").write_bytes(data)
        return folder / "seed"
    if not hasattr(data, "__array__"):
        raise InputError(
            f"music of the type {type(music).__name__} is not understood. Give a path, bytes, an "
            "array of samples with sr=, a note array or a symusic.Score."
        )
    return _wave(np.asarray(data), folder / "seed.wav", sr)


def _wave(samples: Any, path: Path, sr: int | None) -> Path:
    from scipy.io import wavfile

    if sr is None:
        raise InputError("samples need their sampling rate in Hz: give sr=.")
    rate = whole_rate(sr)
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
        raise InputError(
            "samples must be real numbers of the shape (n,) or (n, channels). Received: "
            f"{samples.dtype} of the shape {samples.shape}."
        )
    if samples.ndim == 2 and samples.shape[1] > _MOST_CHANNELS:
        raise InputError(
            f"samples of {samples.shape[1]:,} channels were received, {_MOST_CHANNELS} may be "
            "given: channels are the columns. Transpose the array."
        )
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    # Not by soundfile, which writes the time into files of floats.
    wavfile.write(path, rate, samples.astype(np.float32))
    return path
