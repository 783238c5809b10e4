"""`inspect`: the card and the pictures of a dataset, or of one recording.

This module reads the inputs; `card` and `charts` render them.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from deep_piano.analysis import descriptors
from deep_piano.config.sections import StorageConfig
from deep_piano.dataset.manifest import read_manifest
from deep_piano.errors import InputError, one_line
from deep_piano.infra.progress import Tell, no_progress
from deep_piano.infra.storage.atomic import require_free
from deep_piano.infra.storage.local import LocalFolder
from deep_piano.infra.storage.open import open_folder
from deep_piano.music import audio
from deep_piano.music.midi import holds_midi, read_midi_and_pedal
from deep_piano.music.notes import Notes
from deep_piano.report.card import dataset_card, recording_card


class Inspection(NamedTuple):
    """What is found out about a dataset or a recording.

    Attributes
    ----------
    card : str
        Text for people.
    pictures : list of Path
        That were drawn.
    facts : dict
        The same for programs; JSON-ready.
    """

    card: str
    pictures: list[Path]
    facts: dict[str, Any]


_DESCRIBED_S = 300.0  # the part that the spectral figures describe; an hour takes gigabytes
_PICTURE_SUFFIX: Final = ".inspect.png"
_LONGEST_NAME: Final = 255  # bytes, in the usual file systems


def inspect_dataset(uri: str, storage: StorageConfig, plot: Path | None = None) -> Inspection:
    """Return a dataset's card and facts, and draw its pictures.

    Parameters
    ----------
    uri : str
        A folder, or an ``s3://`` prefix.
    storage : StorageConfig
    plot : Path, optional
        The folder to draw into; without it nothing is drawn.

    Raises
    ------
    InputError
        When there is no dataset.
    """
    dataset = open_folder(uri, **storage.model_dump())
    manifest = read_manifest(dataset)
    if manifest is None:
        raise InputError(
            f"{one_line(uri)} holds no dataset: there is no manifest.json. Make one with "
            "`deep-piano prepare`, or run that again if it was stopped."
        )
    pictures = []
    if plot is not None:
        from deep_piano.report.charts import dataset_charts

        pictures.append(plot / "dataset.png")
        dataset_charts(pictures[0], manifest)
    facts = manifest.model_dump(mode="json", exclude={"shards"})
    return Inspection(dataset_card(manifest, uri=uri), pictures, {"dataset": uri, **facts})


def inspect_recording(
    path: Path, plot: Path | None = None, *, progress: Tell = no_progress
) -> Inspection:
    """Return a recording's card and facts, and draw its pictures.

    Parameters
    ----------
    path : Path
        Audio, which is transcribed, or a MIDI file.
    plot : Path, optional
        The folder to draw into; without it nothing is drawn.
    progress : callable
        Called whenever something is done.

    Raises
    ------
    InputError
        When it cannot be read, or the folder to draw into cannot be written to.
    AssetError
        When the transcription's weights are missing and cannot be fetched.
    """
    samples, described, sr = None, None, 0
    drawn = None if plot is None else plot / _picture_name(path.name)
    if holds_midi(path):
        notes, pedal = _read_midi(path)
    else:
        from deep_piano.infra.assets import cache
        from deep_piano.music import transcription

        sr = transcription.SAMPLE_RATE
        samples = audio.decode(path, sr=sr, timeout_s=300)
        if drawn is not None:
            _require_writable(drawn)  # before the work, once it is known that there is some
        described = descriptors.describe_audio(samples, sr=sr, excerpt_s=_DESCRIBED_S)
        performance = transcription.Transcriber(cache.ensure("transkun")).performance(
            samples, sr=sr, progress=progress
        )
        notes, pedal = performance.notes_and_pedal()
    note_features = descriptors.describe_notes(notes, pedal_share=pedal)
    if drawn is not None:
        from deep_piano.report.charts import recording_charts

        recording_charts(
            *(drawn, samples, sr, notes),
            title=path.name,
            audio_features=described,
            note_features=note_features,
        )
    certainties = descriptors.certainties(notes)
    card = recording_card(path.name, described, note_features, certainties=certainties)
    facts: dict[str, Any] = {
        "recording": path.name,
        "sound": None if described is None else plain(asdict(described)),
        "notes": plain(asdict(note_features)),
        "certainties": plain(certainties),
    }
    return Inspection(card, [] if drawn is None else [drawn], facts)


def plain(value: Any) -> Any:
    """Return figures as JSON has them: lists and numbers, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _picture_name(recording: str) -> str:
    """Return the name of a recording's picture: all of its own, or its beginning and a hash."""
    name, room = os.fsencode(recording), _LONGEST_NAME - len(_PICTURE_SUFFIX)
    if len(name) > room:
        mark = f"-{hashlib.sha256(name).hexdigest()[:8]}"
        while len(os.fsencode(recording)) > room - len(mark):
            recording = recording[:-1]  # by characters: half of one is no text
        recording += mark
    return recording + _PICTURE_SUFFIX


def _require_writable(picture: Path) -> None:
    """Raise an InputError unless a picture can be written; make its folder."""
    require_free(picture, force=True)
    LocalFolder(str(picture.parent), picture.parent).require_writable()


def _read_midi(path: Path) -> tuple[Notes, float]:
    try:
        if not path.is_file():  # opening a pipe would block
            raise InputError(f"no such file: {one_line(path)}. Check its name.")
        return read_midi_and_pedal(path)
    except OSError as error:
        raise InputError(
            f"cannot read {one_line(path)}: {error.strerror}. Check its name and permissions."
        ) from error
