"""Recordings and pianos synthesised for tests: good ones, useless ones, hostile ones.

Every `write_*` takes the path to write and chooses the container itself, whatever the name says.
"""

from __future__ import annotations

import shlex
import subprocess

import numpy as np
import soundfile

from deep_piano.music.ffmpeg import ffmpeg_binary

SR = 44_100
SILENCE_BEFORE_S = 0.013  # in every sample of a piano, before the hammer


def ffmpeg(*options):
    subprocess.run(
        [str(ffmpeg_binary()), "-nostdin", "-loglevel", "error", "-y", *map(str, options)],
        check=True,
        capture_output=True,
    )


def write_ffmpeg(path, script, *, for_file=""):
    """Write a program that does as told with a file whose name holds a text; else it is FFmpeg."""
    real = shlex.quote(str(ffmpeg_binary()))
    condition = f'case "$*" in *{for_file}*) {script} ;; esac\n' if for_file else f"{script}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{condition}exec {real} "$@"\n')
    path.chmod(0o755)
    return path


def write_sound(path, samples, *, sr=SR, **options):
    soundfile.write(path, samples, sr, format="WAV", **options)


def write_tone(path, *, seconds=10.0, level=0.5):
    write_sound(path, level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * SR)) / SR))


def write_nothing(path):
    path.write_bytes(b"")


def write_text(path):
    path.write_text("this is a letter, not a recording\n" * 100)


def write_silence(path):
    write_sound(path, np.zeros(10 * SR))


def write_faint(path):
    write_tone(path, level=5e-4)


def write_short(path):
    write_tone(path, seconds=1.5)


def write_nan(path):
    samples = np.full(3 * SR, 0.1, np.float32)
    samples[SR] = np.nan
    write_sound(path, samples, subtype="FLOAT")


def write_inf(path):
    samples = np.full(3 * SR, 0.1, np.float32)
    samples[SR] = -np.inf
    write_sound(path, samples, subtype="FLOAT")


def write_silent_film(path):
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=3:s=64x64:r=5", "-c:v", "mpeg4", "-f", "mp4", path)


def write_picture(path):
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=1:s=64x64:r=1", "-frames:v", 1, "-f", "apng", path)


def write_header_only(path):
    write_sound(path, np.zeros((0, 2), np.float32))


def white_noise(seconds=10.0, *, level=0.2):
    noise = np.random.default_rng(0).standard_normal(round(seconds * SR))
    return (level * noise).astype(np.float32)


def noise_flac(path):
    """Write 20 s of noise; return its bytes and where their middle is."""
    soundfile.write(path, white_noise(20), SR, format="FLAC")
    data = bytearray(path.read_bytes())
    return data, len(data) // 2


def write_half(path):
    """Write 20 s of which the second half is lost, in a file that is as long as before."""
    data, half = noise_flac(path)
    path.write_bytes(data[:half] + bytes(len(data) - half))


def write_hour(path):
    """Write an hour of MP3, from the frames of one minute."""
    tone = "sine=330:r=8000:d=60"
    ffmpeg(
        *("-f", "lavfi", "-i", tone, "-c:a", "libmp3lame", "-b:a", "8k"),
        *("-write_xing", 0, "-id3v2_version", 0, "-f", "mp3", path),
    )
    path.write_bytes(60 * path.read_bytes())


def speech_like(seconds=10.0, *, random_state=0):
    """Return syllables: a buzzing voice that glides, through three formants, and hisses between.

    Formants of five English vowels after Peterson and Barney (1952).
    """
    from scipy import signal

    rng = np.random.default_rng(random_state)
    vowels = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480)]
    samples, now_s = np.zeros(round(seconds * SR)), 0.1
    while now_s < seconds - 0.6:
        length = round(rng.uniform(0.12, 0.3) * SR)
        voice_hz = rng.uniform(95, 160) * 2 ** np.linspace(0, rng.uniform(-0.3, 0.3), length)
        pulses = np.diff(np.floor(np.cumsum(voice_hz) / SR), prepend=0)
        voice = signal.lfilter([1], [1, -0.97], pulses) + 0.02 * rng.standard_normal(length)
        for formant_hz, width_hz in zip(rng.choice(vowels), (80, 100, 140), strict=True):
            r = np.exp(-np.pi * width_hz / SR)
            turn = -2 * r * np.cos(2 * np.pi * formant_hz / SR)
            voice = signal.lfilter([1 - r], [1, turn, r * r], voice)
        voice *= np.sqrt(np.hanning(length)) * rng.uniform(0.3, 1) / np.abs(voice).max()
        begin = round(now_s * SR)
        samples[begin : begin + length] += voice
        hiss = round(rng.uniform(0.04, 0.12) * SR)
        begin += length
        samples[begin : begin + hiss] += 0.1 * rng.standard_normal(hiss) * np.hanning(hiss)
        now_s = (begin + hiss) / SR + rng.choice([0, 0, 0.3])
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


def key_hz(pitch):
    return 440 * 2 ** ((pitch - 69) / 12)


def struck(pitch, *, level=0.5, partials=6, seconds=4.0, sr=24_000, channels=2, delay_s=0.0):
    """A decaying tone after some silence and the noise of a key that travels."""
    t = np.arange(round(seconds * sr)) / sr
    decay = np.exp(-t * (0.5 + pitch / 60))
    tone = sum(np.sin(2 * np.pi * key_hz(pitch) * k * t) / k for k in range(1, partials + 1))
    wave = level * decay * np.minimum(1, t / 0.001) * tone / 2
    before = round((SILENCE_BEFORE_S + delay_s) * sr)
    noise = 0.02 * level * np.random.default_rng(pitch).uniform(-1, 1, before)
    return np.repeat(np.concatenate([noise, wave])[:, None], channels, axis=1)


def write_piano(folder, pitches, *, layers=((1, 0.05), (8, 0.2), (16, 0.6)), **options):
    """Write a folder of samples that `synth` can play, and return it."""
    folder.mkdir()
    names = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"]
    sr = options.get("sr", 24_000)
    for pitch in pitches:
        for layer, level in layers:
            name = f"{names[pitch % 12]}{pitch // 12 - 1}" + (f"v{layer}" if layer else "")
            samples = struck(pitch, level=level, **options)
            soundfile.write(folder / f"{name}.flac", samples, sr)
    return folder
