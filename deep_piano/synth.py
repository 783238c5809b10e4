"""Notes to sound: a sample player for pianos.

A *sound* is a folder of recorded keys, named like `A4v8.flac` (key, octave, layer; the layer may
be missing, anything that ends in a dot may stand in front). Layers are told apart by how loud
they are, not by their numbers: a note takes the layer whose own loudness is nearest to the one
its velocity asks for, and is brought to exactly that. Where a sound has one layer, softer ones
are made from it with a low-pass filter.

This module knows notes and samples; it knows nothing of codecs, models or files to listen to.
Same notes, same sound, same bytes: whether the cache is cold or warm changes nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deep_piano import assets
from deep_piano.audio import Samples
from deep_piano.errors import AssetError, InputError
from deep_piano.notes import HIGHEST_PITCH, LOWEST_PITCH, Notes, write_midi
from deep_piano.storage import atomic_path

logger = logging.getLogger(__name__)

SOUND_NAMES = ("salamander", "steinway")  # the better one first
DYNAMIC_RANGE_DB = 44.0
HIGHEST_DAMPED_PITCH = 88
RESTRIKE_S = 0.06
RINGING_S = 8.0  # longer than any undamped key sounds

_SAMPLE_NAME = re.compile(r"(?:.*\.)?([A-G])([#b]?)(-?\d)(?:v(\d+))?\.(?:flac|ogg|wav)")
_SEMITONE = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SOFTER_DB = (0.0, -4.0, -8.0, -12.0, -18.0, -25.0)  # the layers made where there is one
_LEVEL_S = 0.5  # a key's level is its power over this long
_STROKE = 0.12  # of the peak: above the noise of the key that travels, below any hammer
_FADE_IN_S = 0.0015
_FADE_OUT_S = 0.05
_PREPARED_VERSION = 2  # raise it when preparing a sample gives other bytes

Progress = Callable[[int, int], None]
"""Called with (notes rendered, notes in all)."""


@dataclass(frozen=True)
class _Sound:
    """The keys of a sound, and how loud each layer is along the keyboard."""

    name: str
    files: dict[int, dict[int, Path]]  # layer -> pitch -> recording
    layer_db: NDArray[np.float64]  # (layers, 88): smooth along the keyboard
    filter_db: tuple[float, ...] | None  # of each layer, where one recording serves for all
    prepared: Path  # where trimmed and resampled samples are kept

    def source(self, pitch: int, layer: int) -> tuple[Path, int]:
        """Return the recording nearest to a key, and its pitch."""
        keys = self.files[0 if self.filter_db else layer]
        nearest = min(keys, key=lambda key: (abs(key - pitch), key))
        return keys[nearest], nearest


def default_sound() -> str:
    """Return "salamander" where it is fetched, else "steinway"."""
    return next((name for name in SOUND_NAMES if assets.path(name)), SOUND_NAMES[-1])


def render(
    notes: Notes,
    *,
    sound: str | Path,
    seconds: float,
    sr: int = 44_100,
    progress: Progress | None = None,
) -> Samples:
    """Play notes on a sampled piano.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`
        The sustain pedal folded into the offsets.
    sound : str or Path
        "salamander", "steinway", a folder of samples, or a SoundFont (.sf2).
    seconds : float
        Length of the result; what still sounds then is faded out.
    sr : int
        Sampling rate in Hz.
    progress : callable, optional
        Called with (notes rendered, notes in all), a few times a second.

    Returns
    -------
    ndarray, shape (round(seconds * sr), 2), dtype float32
        Not normalised: one fff note peaks near 1.0, chords beyond it.

    Raises
    ------
    AssetError
        When a named sound is not fetched, or its files are damaged.
    InputError
        When `sound` is neither a name, a folder of samples nor a SoundFont.

    Examples
    --------
    >>> render(notes, sound="steinway", seconds=180).shape  # doctest: +SKIP
    (7938000, 2)
    """
    total = max(0, round(seconds * sr))
    notes = notes[(notes["onset"] >= 0) & (notes["onset"] * sr < total)]
    if Path(sound).suffix.lower() == ".sf2":
        mix = _render_soundfont(notes, Path(sound), total=total, sr=sr)
    else:
        mix = _render_samples(notes, _load(sound), total=total, sr=sr, progress=progress)
    fade = min(total, round(_FADE_OUT_S * sr))
    mix[total - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)[:, None]
    return mix


def velocity_db(velocity: NDArray[np.uint8] | int) -> NDArray[np.float64]:
    """Return how far below the loudest note a velocity is, in dB.

    Amplitude grows with the square of the velocity (R. Dannenberg, "The Interpretation of MIDI
    Velocity", ICMC 2006), over `DYNAMIC_RANGE_DB` from velocity 1 to 127.
    """
    softest = 10 ** (-DYNAMIC_RANGE_DB / 40)  # the root of its amplitude
    slope = (1 - softest) / 126
    return 40 * np.log10(softest + slope * (np.asarray(velocity, np.float64) - 1))


def release_s(pitch: int) -> float:
    """Return how long a damper takes to silence a key: longer in the bass, where strings are heavy.

    Infinite for the highest keys, which have no dampers.
    """
    if pitch > HIGHEST_DAMPED_PITCH:
        return math.inf
    return 0.4 - 0.25 * (pitch - LOWEST_PITCH) / (HIGHEST_DAMPED_PITCH - LOWEST_PITCH)


def _render_samples(
    notes: Notes, sound: _Sound, *, total: int, sr: int, progress: Progress | None
) -> Samples:
    mix = np.zeros((total, 2), np.float32)
    pitch = notes["pitch"].astype(int)
    key = np.clip(pitch, LOWEST_PITCH, HIGHEST_PITCH) - LOWEST_PITCH
    target_db = sound.layer_db[-1, key] + velocity_db(notes["velocity"])
    layer = np.argmin(np.abs(sound.layer_db[:, key] - target_db), axis=0)
    end_s, fade_s = _note_ends(notes)
    start = np.rint(notes["onset"] * sr).astype(int)
    held = np.maximum(1, np.rint((end_s - notes["onset"]) * sr).clip(0, total).astype(int))
    tail = np.rint(fade_s * sr).astype(int)
    # The end of the piece bounds what must be prepared, as does the longest note.
    length = np.minimum(held + tail, total - start)
    done = 0
    for p, one_layer in sorted(set(zip(pitch.tolist(), layer.tolist(), strict=True))):
        group = np.flatnonzero((pitch == p) & (layer == one_layer))
        sample = _prepared(sound, p, one_layer, sr=sr, frames=int(length[group].max()))
        level = sample[: round(_LEVEL_S * sr)].astype(np.float32)
        level_db = 10 * np.log10(np.mean(np.square(level)) + 1e-9)
        for i in group:
            gain = np.float32(10 ** ((target_db[i] - level_db) / 20))
            n = int(length[i])
            played = np.multiply(sample[:n], gain, dtype=np.float32)
            if n > held[i]:
                played[held[i] :] *= _damping(int(tail[i]))[: n - held[i], None]
            mix[start[i] : start[i] + n] += played
        done += len(group)
        if progress:
            progress(done, len(notes))
    return mix


def _note_ends(notes: Notes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return when each note is damped, and how long its damper takes, in seconds."""
    pitch, onset = notes["pitch"], notes["onset"]
    struck_again = np.full(len(notes), np.inf)
    by_key = np.lexsort((onset, pitch))
    same_key = pitch[by_key][1:] == pitch[by_key][:-1]
    struck_again[by_key[:-1][same_key]] = onset[by_key[1:][same_key]]
    damper_s = np.array([release_s(p) for p in range(256)])[pitch]
    lifted = np.where(np.isinf(damper_s), onset + RINGING_S, notes["offset"])
    restruck = struck_again <= lifted
    end_s = np.where(restruck, struck_again, lifted)
    return end_s, np.where(restruck | np.isinf(damper_s), RESTRIKE_S, damper_s)


def _damping(frames: int) -> Samples:
    """Return a damper's envelope: exponential, 60 dB over its length, exactly 0 at its end."""
    t = np.arange(frames) / max(1, frames)
    return (np.exp(-6.9 * t) * (1 - t)).astype(np.float32)


def _fade_out(samples: Samples, frames: int) -> None:
    samples[len(samples) - frames :] *= np.linspace(1, 0, frames, dtype=np.float32)[:, None]


# Sounds and their samples


def _load(sound: str | Path) -> _Sound:
    """Find a sound's recordings and how loud they are."""
    folder = Path(sound)
    if str(sound) in SOUND_NAMES:
        fetched = assets.path(str(sound))
        if fetched is None:
            raise AssetError(
                f"the sound {sound} is not fetched. Run `deep-piano assets fetch {sound}`."
            )
        folder = fetched
    elif not folder.is_dir():
        raise InputError(
            f"there is no sound {str(sound)!r}. Choose {', '.join(SOUND_NAMES)}, a folder of "
            "samples (A4v8.flac ...), or a .sf2 file."
        )
    named: dict[int, dict[int, Path]] = {}
    identity = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        match = _SAMPLE_NAME.fullmatch(file.name)
        if match:
            letter, accidental, octave, layer = match.groups()
            pitch = 12 * (int(octave) + 1) + _SEMITONE[letter] + "b #".index(accidental or " ") - 1
            named.setdefault(int(layer or 1), {})[pitch] = file
            stat = file.stat()
            identity.update(f"{file.name}\n{stat.st_size}\n{stat.st_mtime_ns}\n".encode())
    if not named:
        raise InputError(f"{folder} holds no samples. Name them like A4v8.flac or Bb3.wav.")
    prepared = (
        assets.cache_dir()
        / "prepared"
        / f"{folder.name}-{_PREPARED_VERSION}-{identity.hexdigest()[:16]}"
    )
    files = dict(enumerate(named[layer] for layer in sorted(named)))
    layer_db = _layer_levels(files, prepared)
    # By loudness, whatever their numbers say, so that the last is the loudest.
    order = np.argsort(layer_db.mean(axis=1), kind="stable")
    files, layer_db = {new: files[int(old)] for new, old in enumerate(order)}, layer_db[order]
    if len(files) > 1:
        return _Sound(folder.name, files, layer_db, None, prepared)
    softer = tuple(sorted(_SOFTER_DB))
    return _Sound(folder.name, files, layer_db + np.array(softer)[:, None], softer, prepared)


def _layer_levels(files: dict[int, dict[int, Path]], prepared: Path) -> NDArray[np.float64]:
    """Return each layer's level along the keyboard in dB, shape (layers, 88).

    A cubic through the measured levels: it keeps the balance of bass and treble, and takes out
    that single keys are louder than their neighbours.
    """
    cached = prepared / "levels.json"
    try:
        return np.array(json.loads(cached.read_text("utf-8")), np.float64)
    except (OSError, ValueError):
        logger.debug("measuring the samples for %s", prepared)
    keyboard = np.arange(LOWEST_PITCH, HIGHEST_PITCH + 1)
    rows = []
    for keys in files.values():
        pitches = sorted(keys)
        levels = []
        for pitch in pitches:
            samples, _ = _read_trimmed(keys[pitch], seconds=_LEVEL_S)
            levels.append(10 * np.log10(np.mean(np.square(samples)) + 1e-9))
        degree = min(3, len(pitches) - 1)
        # Scaled and not extrapolated: a cubic runs wild beyond its last point.
        fit = np.polynomial.Polynomial.fit(pitches, levels, degree)
        rows.append(fit(keyboard.clip(pitches[0], pitches[-1])))
    result = np.round(np.array(rows), 3)
    _keep(cached, lambda file: file.write_text(json.dumps(result.tolist()), "utf-8"))
    return result


def _prepared(sound: _Sound, pitch: int, layer: int, *, sr: int, frames: int) -> NDArray[np.int16]:
    """Return a key's sample, trimmed, in tune and at `sr`: at least `frames` frames, (n, 2).

    Every step is causal, so that the first n frames are the same however many are asked for,
    and a longer sample may take the place of a shorter one in the cache.
    """
    cached = sound.prepared / f"{pitch}-{layer}-{sr}.npy"
    try:
        kept: NDArray[np.int16] = np.load(cached, mmap_mode="r", allow_pickle=False)
        if len(kept) >= frames:
            return kept
    except (OSError, ValueError):
        logger.debug("preparing %s", cached)
    # In whole seconds, so that a slightly longer note does not prepare everything again.
    prepared = _prepare(sound, pitch, layer, sr=sr, seconds=math.ceil(frames / sr))
    _keep(cached, lambda file: np.save(file, prepared))
    return prepared


def _prepare(sound: _Sound, pitch: int, layer: int, *, sr: int, seconds: int) -> NDArray[np.int16]:
    file, recorded_pitch = sound.source(pitch, layer)
    shift = 2 ** ((pitch - recorded_pitch) / 12)
    frames = seconds * sr
    # A little more than needed: the resampler holds its last samples back.
    samples, source_sr = _read_trimmed(file, seconds=seconds * shift + 0.2)
    if len(samples) < source_sr * (seconds * shift + 0.2):
        _fade_out(samples, min(len(samples), round(_FADE_OUT_S * source_sr)))
    samples = _resample(samples, source_sr * shift, sr)
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


def _soften(samples: Samples, level_db: float, *, pitch: int, sr: int) -> Samples:
    """Take off the brightness that a note `level_db` below the loudest does not have.

    The cutoff falls by an octave each 7.7 dB from 4.6 kHz, which is what tells the layers of the
    Salamander piano apart from 250 Hz to 8 kHz, but stays above the key's own frequency.
    """
    from scipy import signal

    frequency = 440 * 2 ** ((pitch - 69) / 12)
    cutoff = max(4600 * 2 ** (level_db / 7.7), 1.3 * frequency)
    sections = signal.butter(2, min(cutoff, 0.45 * sr), fs=sr, output="sos")
    return signal.sosfilt(sections.astype(np.float32), samples, axis=0).astype(np.float32)


def _read_trimmed(file: Path, *, seconds: float) -> tuple[Samples, int]:
    """Read a recording from its hammer stroke on, shape (n, channels), faded in; and its rate."""
    import soundfile

    try:
        with soundfile.SoundFile(file) as recording:
            sr = int(recording.samplerate)
            samples = recording.read(round((seconds + 0.5) * sr), "float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AssetError(
            f"the sample {file} cannot be read: {error}. Fetch the sound again."
        ) from error
    return _trim(samples, sr)[: round(seconds * sr)], sr


def _trim(samples: Samples, sr: int) -> Samples:
    """Cut what comes before the hammer's stroke, and fade the stroke in."""
    level = np.abs(samples[: sr // 2]).max(axis=1, initial=0)
    stroke = int(np.argmax(level > _STROKE * level.max(initial=0))) if len(level) else 0
    fade = round(_FADE_IN_S * sr)
    trimmed = samples[max(0, stroke - fade) :].copy()
    ramp = np.linspace(0, 1, fade + 1, dtype=np.float32)[1:, None]
    trimmed[:fade] *= ramp[: len(trimmed)]
    return trimmed


def _resample(samples: Samples, source_hz: float, sr: int) -> Samples:
    """Resample block by block, which (unlike all at once) does not look ahead."""
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


def _keep(cached: Path, write: Callable[[Path], object]) -> None:
    """Write into the cache, if it can be written to: rendering works without."""
    try:
        with atomic_path(cached) as temporary:
            write(temporary)
    except (InputError, OSError) as error:
        logger.debug("%s is not kept: %s", cached, error)


# SoundFonts


def _render_soundfont(notes: Notes, font: Path, *, total: int, sr: int) -> Samples:
    """Render with midirenderer, which is right but knows 48 kHz only."""
    import soundfile

    try:
        from midirenderer import render_wave_from
    except ImportError as error:
        raise InputError(
            f"{font.name} needs the package midirenderer. Run `pip install 'deep-piano[sf2]'`."
        ) from error
    if not font.is_file():
        raise InputError(f"no such file: {font}. Give a .sf2 file, or one of {SOUND_NAMES}.")
    played = notes.copy()
    played["velocity"] = np.maximum(played["velocity"], 10)  # it drops softer ones
    with tempfile.TemporaryDirectory() as folder:
        write_midi(Path(folder) / "notes.mid", played)
        midi = (Path(folder) / "notes.mid").read_bytes()
    try:
        wave = render_wave_from(font.read_bytes(), midi)
    except Exception as error:  # it raises whatever its parser threw
        raise InputError(f"{font} cannot be played: {error}. Give another SoundFont.") from error
    samples, wave_sr = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    mix = np.zeros((total, 2), np.float32)
    resampled = _resample(samples, wave_sr, sr)[:total]
    mix[: len(resampled)] = resampled
    return mix
