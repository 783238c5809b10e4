"""A checkpoint, settings and a device: the decoder for them.

The only module of this room that knows the settings.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple

from deep_piano.analysis.judge import Judge
from deep_piano.codecs.notes import SPEC
from deep_piano.config.sections import GenerateConfig
from deep_piano.decoding.base import Decoder, Sampling
from deep_piano.decoding.notes import Engine, NoteDecoder
from deep_piano.decoding.wave import WaveDecoder
from deep_piano.errors import CheckpointError
from deep_piano.models.checkpoint import Checkpoint, load

Device = Literal["cpu", "gpu"]


def open_decoder(
    checkpoint: Checkpoint, settings: GenerateConfig, *, device: Device = "cpu", width: int = 1
) -> Decoder[Any, Any]:
    """Return the decoder of a checkpoint: of notes or of sound, on a CPU or on a GPU.

    Parameters
    ----------
    checkpoint : Checkpoint
    settings : GenerateConfig
    device : str
        On "gpu" this process's TensorFlow is set up for it; nothing else may have used it before.
    width : int
        Sequences that are decoded at the same time: on a GPU there may be no more, and sound on a
        CPU has so many threads. Notes on a CPU take as many as come.

    Raises
    ------
    CheckpointError
        When the checkpoint is of a codec that is neither notes nor a sound wave.
    DeepPianoError
        When TensorFlow sees no GPU.
    """
    judge = judge_of(checkpoint, settings)
    if judge is not None:
        from deep_piano.decoding.choosing import ChoosingDecoder

        count = settings.candidates
        alone = settings.model_copy(update={"candidates": 1})
        decoder: Any = open_decoder(checkpoint, alone, device=device, width=count * width)
        return ChoosingDecoder(decoder, judge, count)
    of_notes = checkpoint.spec.codec == SPEC.codec
    if device == "gpu":
        from deep_piano.decoding.xla import prepare_gpu

        prepare_gpu()
        if not of_notes:
            from deep_piano.decoding.wave_xla import WaveDecoderXla

            return WaveDecoderXla(checkpoint, width=width)
        from deep_piano.decoding.notes_xla import NoteDecoderXla

        return NoteDecoderXla(checkpoint, *drawing(settings), width=width)
    if of_notes:
        return NoteDecoder(Engine(checkpoint), *drawing(settings))
    return WaveDecoder(checkpoint, threads=width)


def judge_of(checkpoint: Checkpoint, settings: GenerateConfig) -> Judge | None:
    """Return the judge that chooses among candidates; None where there are none.

    Raises
    ------
    CheckpointError
        When there is no judge.
    """
    if settings.candidates == 1 or checkpoint.spec.codec != SPEC.codec:
        return None
    judge = judge_for(checkpoint)
    if judge is None:
        raise CheckpointError(
            "the checkpoint has no judge to choose among candidates. Train one with `deep-piano "
            "judge`, or give --candidates 1."
        )
    return judge


def judge_for(checkpoint: Checkpoint) -> Judge | None:
    """Return a checkpoint's judge; one of notes that has none, as it was just trained: the shipped.

    None where that is not there either.
    """
    return checkpoint.judge or _shipped_judge()


@cache
def _shipped_judge() -> Judge | None:
    return load(GenerateConfig().checkpoint).judge


class Drawing(NamedTuple):
    """How notes are drawn: what the decoders of notes are made of beside a network."""

    sampling: dict[str, Sampling]
    guidance: dict[str, float]
    hold_density: float
    hold_beat: float


def drawing(settings: GenerateConfig) -> Drawing:
    """Return how notes are drawn by these settings."""
    sampling = {
        field.name: Sampling(
            temperature=getattr(settings.temperature, field.name),
            top_k=getattr(settings.top_k, field.name),
            top_p=getattr(settings.top_p, field.name),
            min_p=getattr(settings.min_p, field.name),
        )
        for field in SPEC.fields
    }
    guidance = settings.guidance.model_dump()
    return Drawing(sampling, guidance, settings.hold_density, settings.hold_beat)
