"""Codecs: encode audio or notes as sequences, and decode sequences.

A codec encodes either notes or samples. This table is all that stages and training know of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs import notes, waveform
from deep_piano.codecs.base import Augmentation, Context, NoContext, SequenceSpec
from deep_piano.codecs.note_context import NoteContext
from deep_piano.errors import InputError
from deep_piano.music.segments import SAMPLE_RATE


@dataclass(frozen=True)
class Codec:
    """A codec: how a recording becomes a sequence.

    Attributes
    ----------
    spec : SequenceSpec
    sr : int
        The sampling rate, in Hz, at which recordings are decoded for it.
    encodes_notes : bool
        `encode` takes a note array; otherwise samples, mono, at `sr`.
    encode : callable
        Returns a sequence, shape (n, fields).
    to_samples : callable
        Decodes a sequence to samples, shape (n,), at `sr`; `synth` plays notes.
    growth : float
        Rough number of bytes of a sequence for one byte of a compressed recording.
    step_name : str
        The name of a step for users.
    excerpt : callable
        Returns the sequence from a step on, as one that begins there.
    bend : callable
        Applies an `Augmentation` to a sequence, by a random generator.
    garble : callable
        Puts errors into a share of a sequence's values, by a random generator; returns the input
        and the targets.
    context : callable
        Returns the `Context` of a number of streams.
    classes : callable
        Returns the classes that a network predicts: the steps themselves, or bins of them.
    log_widths : tuple of ndarray, shape (size,)
        By categorical field: log of the number of cells of its finest grid in each class.
    frame, past, order : int
        Defaults of a network's `ModelConfig`.
    sample_steps : int
        Steps of each recording in the validation sample.
    """

    spec: SequenceSpec
    sr: int
    encodes_notes: bool
    encode: Callable[[NDArray[Any]], NDArray[Any]]
    growth: float
    to_samples: Callable[[NDArray[Any]], NDArray[np.float32]] = waveform.decode_samples
    step_name: str = "sample"
    excerpt: Callable[[NDArray[Any], int], NDArray[Any]] = waveform.excerpt
    bend: Callable[[NDArray[Any], Augmentation, np.random.Generator], NDArray[Any]] = waveform.bend
    garble: Callable[
        [NDArray[Any], float, np.random.Generator], tuple[NDArray[Any], NDArray[Any]]
    ] = waveform.garble
    context: Callable[[int], Context] = NoContext
    classes: Callable[[NDArray[Any]], NDArray[Any]] = waveform.classes
    log_widths: tuple[NDArray[np.float64], ...] = ()
    frame: int = 1
    past: int = 1
    order: int = 0
    sample_steps: int = 1024


CODECS: Final = {
    "notes": Codec(
        notes.SPEC,
        SAMPLE_RATE,
        True,
        notes.encode,
        1.0,
        step_name="note",
        excerpt=notes.excerpt,
        bend=notes.bend,
        garble=notes.garble,
        context=NoteContext,
        classes=notes.classes,
        log_widths=notes.LOG_WIDTHS,
    ),
    "mulaw": Codec(
        waveform.MULAW_SPEC,
        waveform.SR,
        False,
        waveform.encode_mulaw,
        1.0,
        to_samples=waveform.decode_mulaw,
        log_widths=(np.zeros(256),),
        frame=32,
        past=64,
        order=1024,
        sample_steps=65_536,
    ),
    "samples": Codec(
        waveform.SAMPLES_SPEC,
        waveform.SR,
        False,
        waveform.encode_samples,
        3.0,
        past=128,
        order=1024,
        sample_steps=65_536,
    ),
}


def codec_of(spec: SequenceSpec) -> Codec:
    """Return the codec that makes sequences of a specification.

    Raises
    ------
    InputError
        When this version has no such codec.
    """
    for codec in CODECS.values():
        if codec.spec.bare == spec.bare:
            return codec
    known = ", ".join(codec.spec.codec for codec in CODECS.values())
    raise InputError(
        f"these are sequences of the codec {spec.codec!r}; this version of deep_piano has "
        f"{known}. Prepare the corpus again."
    )
