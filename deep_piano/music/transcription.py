"""Transcribes audio to notes.

The network reads exactly sixteen seconds at a time. Shorter audio is padded with silence (unpadded,
half of its notes are lost); longer audio is cut into overlapping segments that `segments` joins. A
piano between two keys is retuned before (`tuning`), and its notes have the times of the recording.
This module knows samples, segments and the weights' place; it knows nothing of audio files or of
how the network works.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deep_piano.errors import AssetError, AudioError
from deep_piano.infra.progress import Progress, Tell, no_progress
from deep_piano.music import tuning, velocities
from deep_piano.music.notes import Notes
from deep_piano.music.segments import (
    SAMPLE_RATE,
    SEGMENT_HOP_S,
    SEGMENT_S,
    SEGMENT_SAMPLES,
    Intervals,
    Performance,
    join_segments,
)

__all__ = ["SAMPLE_RATE", "Transcriber", "transcribe"]

WEIGHTS_FILE = "weights.safetensors"

_logger = logging.getLogger(__name__)


def transcribe(samples: ArrayLike, *, sr: int, progress: Tell = no_progress) -> Notes:
    """Transcribe a piano recording with the default weights, which are fetched if missing.

    Parameters
    ----------
    samples : array_like, shape (n,)
        Mono, any gain; float32.
    sr : int
        Sampling rate in Hz; other rates than `SAMPLE_RATE` are resampled.
    progress : callable, optional
        Called after each segment.

    Returns
    -------
    ndarray, dtype `NOTE`
        The notes as they sound, with the sustain pedal, and as loud as they were likely played;
        empty for silence.

    Raises
    ------
    AudioError
        When samples are NaN or infinite.
    AssetError
        When the weights are missing and cannot be fetched, or are broken.
    """
    from deep_piano.infra.assets import cache

    return _load(cache.ensure("transkun"))(samples, sr=sr, progress=progress)


class Transcriber:
    """The network with its weights.

    Parameters
    ----------
    weights_dir : Path
        A folder with `weights.safetensors`.
    threads : int, optional
        How many to use: by default as many as `OMP_NUM_THREADS` says, or as there are CPUs for this
        process. The notes do not depend on it.

    Raises
    ------
    AssetError
        When the weights are missing, broken, or for another network.
    """

    def __init__(self, weights_dir: Path, *, threads: int | None = None) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        from deep_piano.music.transkun import Transkun

        path = weights_dir / WEIGHTS_FILE
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise AssetError(
                f"cannot read the transcription weights {path}: {error}. "
                "Run 'deep-piano assets fetch transkun' again."
            ) from error
        self._network: Callable[[NDArray[np.float32]], Intervals] = Transkun(
            weights, threads=threads or _usable_cpus()
        )

    def __call__(self, samples: ArrayLike, *, sr: int, progress: Tell = no_progress) -> Notes:
        """Return the notes as they sound; see `transcribe`."""
        return self.performance(samples, sr=sr, progress=progress).sounding()

    def performance(
        self, samples: ArrayLike, *, sr: int, progress: Tell = no_progress
    ) -> Performance:
        """Return key presses and pedal separately; parameters and errors as in `transcribe`."""
        heard = transcribe_segments(self._network, samples, sr=sr, progress=progress)
        return heard._replace(keys=velocities.as_played(heard.keys))


def transcribe_segments(
    network: Callable[[NDArray[np.float32]], Intervals],
    samples: ArrayLike,
    *,
    sr: int,
    progress: Tell = no_progress,
) -> Performance:
    """Transcribe samples of any length with `network`, segment by segment.

    Velocities are as they are heard; see `velocities`.

    Parameters
    ----------
    network : callable
        Takes float32 samples of shape (705600,) and returns their `Intervals`.
    samples, sr, progress
        As in `transcribe`.
    """
    audio = np.asarray(samples, np.float32)
    if audio.ndim != 1:
        raise ValueError(f"samples must be mono, of shape (n,). Received: shape {audio.shape}.")
    if not np.isfinite(audio).all():
        raise AudioError(
            f"{np.count_nonzero(~np.isfinite(audio))} of {audio.size} samples are NaN or infinite: "
            "export the recording again."
        )
    if sr != SAMPLE_RATE and audio.size:
        import soxr

        audio = soxr.resample(audio, sr, SAMPLE_RATE)
    cents = tuning.correction_cents(audio, sr=SAMPLE_RATE)
    if cents:
        audio = tuning.retuned(audio, sr=SAMPLE_RATE, cents=cents)
        _logger.info("the piano is %+d cents off: it is read as if in tune", cents)
    duration_s = audio.size / SAMPLE_RATE
    total = 1 + max(0, math.ceil((duration_s - SEGMENT_S) / SEGMENT_HOP_S))
    segments = []
    for index in range(total):
        begin = index * SEGMENT_HOP_S * SAMPLE_RATE
        segment = audio[begin : begin + SEGMENT_SAMPLES]
        segments.append(network(_padded(segment)) if segment.any() else _nothing())
        progress(Progress("transcribing", index + 1, total))
    performance = join_segments(segments, duration_s=duration_s)
    _logger.debug("%d key presses in %.1f s", len(performance.keys), duration_s)
    return performance.faster(tuning.speed(cents)) if cents else performance


@lru_cache(maxsize=1)
def _load(weights_dir: Path) -> Transcriber:
    return Transcriber(weights_dir)


def _usable_cpus() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")  # Ray sets it in its workers
    if asked.isdecimal() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _padded(segment: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.pad(segment, (0, SEGMENT_SAMPLES - segment.size))


def _nothing() -> Intervals:
    number, truth = np.empty(0, np.int64), np.empty(0, np.bool_)
    return Intervals(number, np.empty(0), np.empty(0), number, truth, truth)
