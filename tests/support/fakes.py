"""Small stand-ins: random weights of the right shapes, and music by rule."""

from __future__ import annotations

import os
import time
from unittest import mock

import numpy as np

from deep_piano.codecs.notes import SPEC
from deep_piano.codecs.registry import CODECS
from deep_piano.generate.composers import ComposerActor
from deep_piano.models.checkpoint import Checkpoint
from deep_piano.models.config import ModelConfig, weight_shapes
from deep_piano.music.notes import Notes, make_notes

TINY = ModelConfig(layers=2, units=16, head_units=12)
BATCH, WINDOW = 3, 7
SOUND_CODECS = [name for name, codec in CODECS.items() if not codec.encodes_notes]
SOUND_CASES = [
    (name, frame)
    for name in SOUND_CODECS
    for frame in ((1, 4) if CODECS[name].spec.continuous else (4,))
]
"""Codecs of sound, and how many steps are predicted at once."""


def random_checkpoint(
    config: ModelConfig = TINY, *, seed: int = 0, scale: float = 0.3
) -> Checkpoint:
    """Return a checkpoint with random weights; its music is noise, its rules are not."""
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(0, scale, shape).astype(np.float32)
        for name, shape in weight_shapes(SPEC, config).items()
    }
    return Checkpoint(SPEC, config, weights)


def arpeggios(
    seconds: float, *, rng: np.random.Generator, tonic: int = 60, step_s: float = 0.2
) -> Notes:
    """Return broken triads of one key with human timing, from time zero."""
    count = int(seconds / step_s)
    onset = np.arange(count) * step_s + rng.normal(0, 0.01, count).clip(-0.02, 0.02)
    onset = np.sort(onset - onset.min())
    pitch = tonic + np.resize([0, 4, 7, 12, 7, 4, 5, 9, 12, 9, 7, 11], count)
    velocity = rng.integers(50, 90, count)
    return make_notes(onset, onset + rng.uniform(0.2, 0.6, count), pitch, velocity)


def fake_transcriber():
    """Return a `Transcribe` without a network: it finds the loudest key of each tenth second."""

    def transcribe(samples, sr):
        hop = sr // 10
        frames = samples[: len(samples) // hop * hop].reshape(-1, hop) * np.hanning(hop)
        spectra = np.abs(np.fft.rfft(frames, 4 * hop))
        hz = np.arange(1, spectra.shape[1]) * sr / (4 * hop)
        keys = np.rint(69 + 12 * np.log2(hz / 440)).astype(int)
        keys_found = keys[spectra[:, 1:].argmax(axis=1)]
        onset = np.arange(len(frames)) / 10
        loud = spectra.max(axis=1) > 1e-3 * spectra.max(initial=1e-9)
        return make_notes(
            onset[loud], onset[loud] + 0.1, keys_found[loud], np.full(loud.sum(), 64)
        ), 0.5

    return transcribe


def slow_transcriber():
    """Return a `fake_transcriber` that takes half a second more, so that it can be killed."""
    inner = fake_transcriber()

    def transcribe(samples, sr):
        time.sleep(0.5)
        return inner(samples, sr)

    return transcribe


def crashing_transcriber():
    """Return a `fake_transcriber` whose process ends when it gets less than 13 seconds."""
    inner = fake_transcriber()

    def transcribe(samples, sr):
        if len(samples) < 13 * sr:
            os._exit(1)
        return inner(samples, sr)

    return transcribe


class ComposerWithoutGpu(ComposerActor):
    """A composer that does on a CPU what it would do on a GPU."""

    def __init__(self, *arguments) -> None:
        with mock.patch("deep_piano.decoding.xla.prepare_gpu"):
            super().__init__(*arguments)


def sound_checkpoint(codec, *, frame, seed=0):
    spec = CODECS[codec].spec
    config = ModelConfig(  # no multiples of eight
        2, 20, 12, frame=frame, past=10, order=19, scale=0.1, spectrum=(0.0, -3.0, -9.0)
    )
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(0, 0.2, shape).astype(np.float32)
        for name, shape in weight_shapes(spec, config).items()
    }
    return Checkpoint(spec, config, weights, facts={"validation_loss": 1e-4})


def random_inputs(rng, batch=BATCH, window=WINDOW):
    def draw():
        columns = [rng.integers(0, field.size, (batch, window)) for field in SPEC.fields]
        return np.stack(columns, -1).astype(np.int32)

    features = sum(part.features for part in SPEC.context)
    sizes = [size for part in SPEC.context for size in part.classes]
    classes = np.stack([rng.integers(0, size, (batch, window)) for size in sizes], -1)
    known = rng.normal(size=(batch, window, features)).astype(np.float32)
    return [draw(), known, classes.astype(np.int32), draw()]
