"""The codecs of sound waves: a step is a sample, a number (`samples`) or a class (`mulaw`).

This module knows samples; it knows nothing of files, notes or networks.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import Augmentation, Field, SequenceSpec
from deep_piano.music.audio import Samples

SR: Final = 16_000
"""Default sampling rate in Hz."""

SAMPLES_SPEC: Final = SequenceSpec("samples-1", (Field("sample", 1, continuous=True),))
_MU = 255
MULAW_SPEC: Final = SequenceSpec("mulaw-1", (Field("sample", 256, mu=_MU),))


def encode_samples(samples: Samples) -> NDArray[np.float32]:
    """Return samples as a sequence, shape (n, 1), without scaling."""
    return samples.astype(np.float32)[:, None]


def decode_samples(sequence: NDArray[np.float32]) -> Samples:
    """Return a sequence of shape (n, 1) as samples."""
    return sequence[:, 0].astype(np.float32)


def encode_mulaw(samples: Samples) -> NDArray[np.uint8]:
    """Compand samples to 256 classes.

    The curve of ITU-T G.711, ``sign(x) ln(1 + 255 |x|) / ln 256``, cut into 256 equal parts; class
    127 ends and class 128 begins at zero, so that the classes are symmetric.

    Parameters
    ----------
    samples : ndarray, shape (n,), dtype float32
        Full scale 1.0; larger values are clipped.

    Returns
    -------
    ndarray of uint8, shape (n, 1)
    """
    clipped = np.clip(samples, -1, 1)
    companded = np.sign(clipped) * np.log1p(_MU * np.abs(clipped)) / np.float32(np.log1p(_MU))
    classes = np.floor((companded + 1) * np.float32((_MU + 1) / 2))
    return np.minimum(classes, _MU).astype(np.uint8)[:, None]


def decode_mulaw(sequence: NDArray[np.uint8]) -> Samples:
    """Return the sample in the middle of each class.

    The error is at most half a class: 0.022 at full scale, 0.00009 at zero.

    Parameters
    ----------
    sequence : ndarray of uint8, shape (n, 1)

    Returns
    -------
    ndarray, shape (n,), dtype float32
    """
    return MULAW_SPEC.fields[0].levels.astype(np.float32)[sequence[:, 0]]


def excerpt(sequence: NDArray[Any], start: int) -> NDArray[Any]:
    """Return the sequence from a step on."""
    return sequence[start:]


def classes(sequence: NDArray[Any]) -> NDArray[Any]:
    """Return the steps themselves, which are classes or numbers."""
    return sequence


def bend(
    sequence: NDArray[Any], augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[Any]:
    """Return the sequence unchanged: sound has no augmentation."""
    return sequence


def garble(
    sequence: NDArray[Any], share: float, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the sequence as input and as targets: sound has no input noise."""
    return sequence, sequence
