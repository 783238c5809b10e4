"""Pianos sampled key by key, prepared for playing.

A *sound* is a folder of recorded keys, named like `A4v8.flac` (key, octave, layer; the layer is
optional, and so is a prefix that ends in a dot). Layers are ordered by their loudness, not by their
numbers. Where a sound has one layer, softer ones are made from it with a low-pass filter. A sample
is trimmed to the hammer's stroke, tuned, and cached; the bytes are the same with a cold and a warm
cache.

This module knows recordings of single keys; it knows nothing of notes, velocities or pieces.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.errors import AssetError, DeepPianoError, InputError
from deep_piano.infra.assets import cache
from deep_piano.infra.assets.catalogue import SOUND_NAMES
from deep_piano.infra.storage.atomic import atomic_path
from deep_piano.music.audio import Samples
from deep_piano.music.notes import HIGHEST_PITCH, LOWEST_PITCH

logger = logging.getLogger(__name__)

_SAMPLE_NAME = re.compile(r"(?:.*\.)?([A-G])([#b]?)(-?\d)(?:v(\d+))?\.(?:flac|ogg|wav)")
_SEMITONE = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTAL = {"b": -1, "": 0, "#": 1}
_SOFTER_DB = (-25.0, -18.0, -12.0, -8.0, -4.0, 0.0)  # the layers made where there is one
_LEVEL_S = 0.5  # a key's level is its power over this long
_STROKE = 0.12  # of the peak: above the noise of the key that travels, below any hammer
_FADE_IN_S = 0.0015
_FADE_OUT_S = 0.05
_SHORTEST_S = 0.01  # of a recording
_LOUDEST = 1e6  # full scale is 1; a file of floats may hold anything
_PREPARED_VERSION = 2  # raise it when preparing a sample gives other bytes


@dataclass(frozen=True)
class Sound:
    """The keys of a sound, and how loud each layer is along the keyboard.

    Parameters
    ----------
    files : tuple of dict
        For each recorded layer, softest first, the recording of each pitch.
    layer_db : ndarray, shape (layers, 88)
        Level of each playable layer, softest first; smooth along the keyboard.
    filter_db : tuple of float or None
        Level of each playable layer below the recorded one, where that serves for all.
    prepared : Path
        The folder where samples ready to play are kept.
    fetched : bool
        Whether it is one of `SOUND_NAMES`, and not a user's own folder.
    """

    files: tuple[dict[int, Path], ...]
    layer_db: NDArray[np.float64]
    filter_db: tuple[float, ...] | None
    prepared: Path
    fetched: bool

    def source(self, pitch: int, layer: int) -> tuple[Path, int]:
        """Return the recording nearest to a key, and its pitch."""
        keys = self.files[0 if self.filter_db else layer]
        nearest = min(keys, key=lambda key: (abs(key - pitch), key))
        return keys[nearest], nearest

    def sample(self, pitch: int, layer: int, *, sr: int, frames: int) -> NDArray[np.int16]:
        """Return a key from its hammer's stroke on, in tune and at `sr`.

        Every step is causal, so that the first n frames are the same however many are asked for,
        and a longer sample may take the place of a shorter one in the cache.

        Parameters
        ----------
        pitch : int
            MIDI number of the key, recorded or not.
        layer : int
            A row of `layer_db`.
        sr : int
            Sampling rate in Hz.
        frames : int
            How many are needed.

        Returns
        -------
        ndarray, shape (n, 2), dtype int16
            n >= frames, with zeros after the recording's end. Its level says nothing:
            see `level_db` and `layer_db`.

        Raises
        ------
        AssetError, InputError
            When its recording, fetched or the user's own, cannot be played.
        """
        cached = self.prepared / f"{pitch}-{layer}-{sr}.npy"
        kept = _kept(cached, lambda file: np.lib.format.open_memmap(file, mode="r"))
        if kept.dtype == np.int16 and kept.shape[1:] == (2,) and len(kept) >= frames:
            return kept
        # In whole seconds, so that a slightly longer note does not prepare everything again.
        prepared = _prepare(self, pitch, layer, sr=sr, seconds=math.ceil(frames / sr))
        _keep(cached, lambda file: np.save(file, prepared))
        return prepared


def default_sound() -> str:
    """Return the best sound that is fetched; where there is none, the one that will be."""
    return next((name for name in SOUND_NAMES if cache.path(name)), SOUND_NAMES[-1])


def load_sound(sound: str | Path) -> Sound:
    """Find a sound's recordings and how loud they are.

    Parameters
    ----------
    sound : str or Path
        One of `SOUND_NAMES`, or a folder of samples.

    Raises
    ------
    AssetError
        When a named sound is not fetched, or its files are damaged.
    InputError
        When `sound` is neither a name nor a folder of samples that can be played.
    """
    folder, fetched = _sound_folder(sound), str(sound) in SOUND_NAMES
    recorded: dict[int, dict[int, Path]] = {}
    identity = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        match = _SAMPLE_NAME.fullmatch(file.name)
        if match:
            letter, accidental, octave, layer = match.groups()
            pitch = 12 * (int(octave) + 1) + _SEMITONE[letter] + _ACCIDENTAL[accidental]
            recorded.setdefault(int(layer or 1), {})[pitch] = file
            stat = file.stat()
            identity.update(f"{file.name}\n{stat.st_size}\n{stat.st_mtime_ns}\n".encode())
    if not recorded:
        raise InputError(f"{folder} holds no samples. Name them like A4v8.flac or Bb3.wav.")
    digest = identity.hexdigest()[:16]
    prepared = cache.cache_dir() / "prepared" / f"{folder.name}-{_PREPARED_VERSION}-{digest}"
    files = [keys for _, keys in sorted(recorded.items())]
    layer_db = _layer_levels(files, prepared, fetched=fetched)
    if len(files) == 1:
        layer_db = layer_db + np.array(_SOFTER_DB)[:, None]
        return Sound(tuple(files), layer_db, _SOFTER_DB, prepared, fetched)
    # By loudness, not by number, so that the last is the loudest.
    order = np.argsort(layer_db.mean(axis=1), kind="stable")
    return Sound(tuple(files[i] for i in order), layer_db[order], None, prepared, fetched)


def level_db(samples: NDArray[np.generic], *, sr: int) -> float:
    """Return the level of a key in dB: its power over the first half second, shape (n, channels).

    It is relative to 1.0, the smallest step of int16 samples.
    """
    stroke = samples[: round(_LEVEL_S * sr)].astype(np.float32)
    return float(10 * np.log10(np.mean(np.square(stroke)) + 1e-9))


def fade_out(samples: Samples, *, sr: int) -> None:
    """Fade the last 50 ms of samples, shape (n, channels), in place."""
    frames = min(len(samples), round(_FADE_OUT_S * sr))
    samples[len(samples) - frames :] *= np.linspace(1, 0, frames, dtype=np.float32)[:, None]


def resample(samples: Samples, source_hz: float, sr: int) -> Samples:
    """Resample samples, shape (n, channels), block by block, and so without looking ahead."""
    import soxr

    if source_hz == sr:
        return samples
    stream = soxr.ResampleStream(source_hz, sr, samples.shape[1], dtype="float32", quality="HQ")
    block = round(source_hz)
    return np.concatenate(
        [
            stream.resample_chunk(samples[i : i + block], last=i + block >= len(samples))
            for i in range(0, len(samples), block)
        ]
        or [samples]
    )


def _sound_folder(sound: str | Path) -> Path:
    if str(sound) in SOUND_NAMES:
        fetched = cache.path(str(sound))
        if fetched is None:
            raise AssetError(
                f"the sound {sound} is not fetched. Run `deep-piano assets fetch {sound}`."
            )
        return fetched
    if not Path(sound).is_dir():
        raise InputError(
            f"there is no sound {str(sound)!r}. Choose {', '.join(SOUND_NAMES)}, a folder of "
            "samples (A4v8.flac ...), or a .sf2 file."
        )
    return Path(sound)


def _layer_levels(
    files: list[dict[int, Path]], prepared: Path, *, fetched: bool
) -> NDArray[np.float64]:
    """Return each layer's level along the keyboard in dB, shape (layers, 88).

    A cubic through the measured levels: it keeps the balance of bass and treble, and takes out
    that single keys are louder than their neighbours.
    """
    cached = prepared / "levels.json"
    kept = _kept(cached, lambda file: np.array(json.loads(file.read_text("utf-8")), np.float64))
    keyboard = np.arange(LOWEST_PITCH, HIGHEST_PITCH + 1)
    if kept.shape == (len(files), len(keyboard)):
        return kept
    rows = []
    for keys in files:
        pitches = sorted(keys)
        levels = []
        for pitch in pitches:
            samples, sr = _read_trimmed(keys[pitch], seconds=_LEVEL_S, fetched=fetched)
            levels.append(level_db(samples, sr=sr))
        degree = min(3, len(pitches) - 1)
        # Scaled and not extrapolated: a cubic runs wild beyond its last point.
        fit = np.polynomial.Polynomial.fit(pitches, levels, degree)
        rows.append(fit(keyboard.clip(pitches[0], pitches[-1])))
    result = np.round(np.array(rows), 3)
    _keep(cached, lambda file: file.write_text(json.dumps(result.tolist()), "utf-8"))
    return result


def _prepare(sound: Sound, pitch: int, layer: int, *, sr: int, seconds: int) -> NDArray[np.int16]:
    file, recorded_pitch = sound.source(pitch, layer)
    shift = 2 ** ((pitch - recorded_pitch) / 12)
    frames = seconds * sr
    # A little more than needed: the resampler holds its last samples back.
    needed_s = seconds * shift + 0.2
    samples, source_sr = _read_trimmed(file, seconds=needed_s, fetched=sound.fetched)
    if len(samples) < source_sr * needed_s:
        fade_out(samples, sr=source_sr)
    samples = resample(samples, source_sr * shift, sr)
    if samples.shape[1] == 1:
        # As from the bench: low keys to the left, at constant power.
        angle = math.pi / 4 + 0.3 * (pitch - (LOWEST_PITCH + HIGHEST_PITCH) / 2) / 44
        samples = samples * np.array([math.cos(angle), math.sin(angle)], np.float32)
    if sound.filter_db and sound.filter_db[layer] < 0:
        # Trimmed again: what is left of a bass string rises later than the hammer's knock.
        samples = _trim(_soften(samples, sound.filter_db[layer], pitch=pitch, sr=sr), sr)
    samples = samples[:frames]
    # Scaled by its first second, as the rest may not be there; half of full scale to spare.
    peak = float(np.abs(samples[:sr]).max(initial=1e-6))
    prepared = np.zeros((frames, 2), np.int16)
    prepared[: len(samples)] = np.clip(np.rint(samples * (16_384 / peak)), -32_768, 32_767)
    return prepared


def _soften(samples: Samples, softer_db: float, *, pitch: int, sr: int) -> Samples:
    """Take off the brightness that a note at `softer_db`, below the loudest, does not have.

    The cutoff falls by an octave each 7.7 dB from 4.6 kHz, which is what tells the layers of the
    Salamander piano apart from 250 Hz to 8 kHz, but stays above the key's own frequency.
    """
    from scipy import signal

    frequency = 440 * 2 ** ((pitch - 69) / 12)
    cutoff = max(4600 * 2 ** (softer_db / 7.7), 1.3 * frequency)
    sections = signal.butter(2, min(cutoff, 0.45 * sr), fs=sr, output="sos")
    return signal.sosfilt(sections.astype(np.float32), samples, axis=0).astype(np.float32)


def _read_trimmed(file: Path, *, seconds: float, fetched: bool) -> tuple[Samples, int]:
    """Read a recording from its hammer stroke on, shape (n, channels), faded in; and its rate."""
    import soundfile

    try:
        with soundfile.SoundFile(file) as recording:
            sr = int(recording.samplerate)
            samples = recording.read(round((seconds + 0.5) * sr), "float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        why = str(getattr(error, "error_string", error)).rstrip(".")
        raise _unplayable(file, f"cannot be read: {why}", fetched=fetched) from error
    channels = samples.shape[1]
    if channels > 2:
        raise _unplayable(file, f"has {channels} channels; one or two are played", fetched=fetched)
    if not np.abs(samples).max(initial=0) < _LOUDEST:  # nor NaN
        raise _unplayable(file, "holds numbers that are no sound", fetched=fetched)
    samples = _trim(samples, sr)[: round(seconds * sr)]
    if len(samples) < max(1, _SHORTEST_S * sr):
        raise _unplayable(file, f"lasts less than {_SHORTEST_S * 1000:g} ms", fetched=fetched)
    return samples, sr


def _unplayable(file: Path, why: str, *, fetched: bool) -> DeepPianoError:
    """Return the error of a sample: a fetched one is damaged, one's own is a mistake."""
    if fetched:
        return AssetError(
            f"the sample {file} {why}. Remove its folder, and fetch the sound again with "
            "`deep-piano assets fetch`."
        )
    return InputError(f"the sample {file} {why}. Replace it, or take it out of the folder.")


def _trim(samples: Samples, sr: int) -> Samples:
    """Cut what comes before the hammer's stroke, and fade the stroke in."""
    level = np.abs(samples[: sr // 2]).max(axis=1, initial=0)
    stroke = int(np.argmax(level > _STROKE * level.max(initial=0))) if len(level) else 0
    fade = round(_FADE_IN_S * sr)
    trimmed = samples[max(0, stroke - fade) :].copy()
    ramp = np.linspace(0, 1, fade + 1, dtype=np.float32)[1:, None]
    trimmed[:fade] *= ramp[: len(trimmed)]
    return trimmed


def _kept(cached: Path, read: Callable[[Path], NDArray[Any]]) -> NDArray[Any]:
    """Return what was kept in the cache; an empty array where it is missing or damaged."""
    try:
        return read(cached)
    except Exception as error:
        logger.debug("%s is made anew: %r", cached, error)
        return np.empty(0)


def _keep(cached: Path, write: Callable[[Path], object]) -> None:
    """Write into the cache, if it can be written to: rendering works without."""
    try:
        with atomic_path(cached) as temporary:
            write(temporary)
    except (DeepPianoError, OSError) as error:
        logger.debug("%s is not kept: %s", cached, error)
