"""Codecs: audio or notes become sequences, and sequences become audio or notes again.

A codec hears either notes or samples. This table is all that the stages know of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from deep_piano.codecs import notes, waveform
from deep_piano.codecs.base import SequenceSpec
from deep_piano.intervals import SAMPLE_RATE


@dataclass(frozen=True)
class Codec:
    """How a recording becomes a sequence.

    Attributes
    ----------
    spec : SequenceSpec
    sr : int
        The sampling rate, in Hz, at which it wants recordings decoded.
    hears_notes : bool
        `encode` takes a note array; else samples, mono, at `sr`.
    encode : callable
        Returns a sequence, shape (n, fields).
    growth : float
        Bytes of a sequence for one byte of a compressed recording, roughly.
    """

    spec: SequenceSpec
    sr: int
    hears_notes: bool
    encode: Callable[[NDArray[Any]], NDArray[Any]]
    growth: float


CODECS: Final = {
    "notes": Codec(notes.SPEC, SAMPLE_RATE, True, notes.encode, 1.0),
    "mulaw": Codec(waveform.MULAW_SPEC, waveform.SR, False, waveform.encode_mulaw, 1.0),
    "samples": Codec(waveform.SAMPLES_SPEC, waveform.SR, False, waveform.encode_samples, 3.0),
}
