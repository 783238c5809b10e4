"""Compiles what a piece needs before it is needed, so that the first piece of a machine is quick.

Numba compiles a function for the types that it is called with. So all of it is called, on next to
nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from deep_piano.config.sections import GenerateConfig
from deep_piano.generate.piece import make_pieces
from deep_piano.music.midi import write_midi
from deep_piano.music.notes import make_notes


def compile_ahead() -> None:
    """Transcribe a second of noise, make a short piece, and limit peaks, of which it may have none.

    Only the compiled code is kept.

    Raises
    ------
    AssetError
        When weights or sounds are missing and cannot be fetched.
    """
    from deep_piano.music.loudness import normalise
    from deep_piano.music.transcription import SAMPLE_RATE, transcribe

    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    transcribe(noise, sr=SAMPLE_RATE)
    peaks = np.repeat(noise[:, None] / np.float32(10), 2, 1)
    peaks[SAMPLE_RATE // 2] = 1.0
    normalise(peaks, sr=SAMPLE_RATE)
    onsets = np.arange(8) / 2
    scale = make_notes(onsets, onsets + 0.5, 60 + 2 * np.arange(8), np.full(8, 70))
    with tempfile.TemporaryDirectory() as folder:
        seed = Path(folder) / "seed.mid"
        write_midi(seed, scale)
        make_pieces(seed, Path(folder) / "piece.wav", GenerateConfig(seconds=20))
