"""Notes to play on a synthesised piano, and measurements of the sound."""

from __future__ import annotations

import numpy as np

from deep_piano.music import synth
from deep_piano.music.notes import make_notes

SR = 22_050


def play(piano, notes, seconds=3.0, **options):
    return synth.render(notes, sound=piano, seconds=seconds, sr=SR, **options)


def one_note(pitch=60, velocity=80, onset=0.5, offset=1.5):
    return make_notes([onset], [offset], [pitch], [velocity])


def many_notes(count, seed, longest_s=1.0):
    rng = np.random.default_rng(seed)
    onset = rng.uniform(0, 2, count)
    offset = onset + rng.uniform(0.05, longest_s, count)
    return make_notes(onset, offset, rng.integers(21, 109, count), rng.integers(1, 128, count))


def level_db(samples):
    return 10 * np.log10(np.mean(np.square(samples)) + 1e-15)


def loudest_hz(samples):
    wave = samples.mean(axis=1)
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 2**19))
    return np.argmax(spectrum) * SR / 2**19
