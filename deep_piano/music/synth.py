"""Notes to sound: a sample player for pianos.

A note uses the layer of a sound whose loudness is nearest to that of its velocity, scaled to match
it exactly. Dampers and repeated keys end it.

This module knows notes and the response of a piano; it knows nothing of samples on disk (see
`sounds`), codecs, models or output files. The same notes and sound give the same bytes.
"""

from __future__ import annotations

import io
import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deep_piano.errors import InputError
from deep_piano.infra.assets.catalogue import SOUND_NAMES
from deep_piano.infra.progress import Progress, Tell, no_progress
from deep_piano.music.audio import Samples
from deep_piano.music.midi import write_midi
from deep_piano.music.notes import HIGHEST_PITCH, LOWEST_PITCH, Notes
from deep_piano.music.sounds import (
    Sound,
    fade_out,
    level_db,
    load_sound,
    resample,
)

DYNAMIC_RANGE_DB = 44.0
HIGHEST_DAMPED_PITCH = 88
RESTRIKE_S = 0.06
RINGING_S = 8.0  # longer than any undamped key sounds


def render(
    notes: Notes,
    *,
    sound: str | Path,
    seconds: float,
    sr: int = 44_100,
    progress: Tell = no_progress,
) -> Samples:
    """Play notes on a sampled piano.

    Parameters
    ----------
    notes : ndarray, dtype `NOTE`
        The sustain pedal folded into the offsets.
    sound : str or Path
        One of `SOUND_NAMES`, a folder of samples, or a SoundFont (.sf2).
    seconds : float
        Length of the result; what still sounds then is faded out.
    sr : int
        Sampling rate in Hz.
    progress : callable, optional
        Called a few times a second with how many notes are rendered.

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
    notes = notes[(notes["onset"] >= 0) & (np.rint(notes["onset"] * sr) < total)]
    if Path(sound).suffix.lower() == ".sf2":
        mix = _render_soundfont(notes, Path(sound), total=total, sr=sr)
    else:
        mix = _render_samples(notes, load_sound(sound), total=total, sr=sr, progress=progress)
    fade_out(mix, sr=sr)
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


def _render_samples(notes: Notes, sound: Sound, *, total: int, sr: int, progress: Tell) -> Samples:
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
        sample = sound.sample(p, one_layer, sr=sr, frames=int(length[group].max()))
        sample_db = level_db(sample, sr=sr)
        for i in group:
            gain = np.float32(10 ** ((target_db[i] - sample_db) / 20))
            n = int(length[i])
            played = np.multiply(sample[:n], gain, dtype=np.float32)
            if n > held[i]:
                played[held[i] :] *= _damping(int(tail[i]))[: n - held[i], None]
            mix[start[i] : start[i] + n] += played
        done += len(group)
        progress(Progress("rendering", done, len(notes)))
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
        names = ", ".join(SOUND_NAMES)
        raise InputError(f"no such file: {font}. Give a .sf2 file, or one of {names}.")
    played = notes.copy()
    played["velocity"] = np.maximum(played["velocity"], 10)  # it drops softer ones
    with tempfile.TemporaryDirectory() as folder:
        write_midi(Path(folder) / "notes.mid", played)
        midi = (Path(folder) / "notes.mid").read_bytes()
    try:
        wave = render_wave_from(font.read_bytes(), midi)
    except Exception as error:  # its parser may raise anything
        raise InputError(f"{font} cannot be played: {error}. Give another SoundFont.") from error
    samples, wave_sr = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    mix = np.zeros((total, 2), np.float32)
    resampled = resample(samples, wave_sr, sr)[:total]
    mix[: len(resampled)] = resampled
    return mix
