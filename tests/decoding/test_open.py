"""Which decoder a checkpoint, settings and a device have, and what all decoders have in common."""

from __future__ import annotations

import dataclasses
from unittest import mock

import numpy as np
import pytest

from deep_piano.config.sections import GenerateConfig
from deep_piano.decoding.base import Sampling
from deep_piano.decoding.choosing import ChoosingDecoder
from deep_piano.decoding.note_task import NoteTask
from deep_piano.decoding.notes import NoteDecoder
from deep_piano.decoding.open import drawing, judge_of, open_decoder
from deep_piano.decoding.wave import WaveDecoder, WaveEngine, WaveTask
from deep_piano.errors import CheckpointError
from tests.support.fakes import arpeggios, random_checkpoint, sound_checkpoint

SETTINGS = GenerateConfig(
    top_p={"pitch": 0.9}, guidance={"pitch": 2.0}, hold_density=0.5, hold_beat=0.7, candidates=1
)
CHOOSING = SETTINGS.model_copy(update={"candidates": 3})
NOTES, SOUND = random_checkpoint(), sound_checkpoint("mulaw", frame=4)


def tasks(checkpoint):
    """Return the tasks of two sequences of different lengths, and how many seconds are given."""
    if checkpoint is NOTES:
        seed = arpeggios(8, rng=np.random.default_rng(0))
        return [
            NoteTask(seed, 8.0, s, np.random.default_rng(n)) for n, s in enumerate((14.0, 16.0))
        ]
    sequence = np.full((50, 1), 128, np.uint8)
    prefix = WaveEngine(SOUND).prefill(sequence, np.random.default_rng(0))
    return [WaveTask(prefix, count, np.random.default_rng(count)) for count in (30, 20_000)]


@pytest.mark.parametrize(("checkpoint", "kind"), [(NOTES, NoteDecoder), (SOUND, WaveDecoder)])
def test_on_a_cpu_sequences_begin_and_end_by_themselves(checkpoint, kind):
    decoder = open_decoder(checkpoint, SETTINGS, width=2)
    assert isinstance(decoder, kind)
    assert (len(decoder), decoder.done_s) == (0, 0)
    together, alone = {}, {}
    for number, task in enumerate(tasks(checkpoint)):
        decoder.add(number, task)
    told = []
    while len(decoder):
        if len(decoder) == 2:
            told.append(decoder.done_s)
        together |= decoder.step()
    assert told == sorted(told)
    assert list(together) == [0, 1]  # the short one first
    for number, task in enumerate(tasks(checkpoint)):
        decoder.add(number, task)
        while len(decoder):
            alone |= decoder.step()
    for number, found in together.items():
        if kind is NoteDecoder:
            np.testing.assert_array_equal(found.notes, alone[number].notes)
        else:
            assert found.shape == ((30, 1), (20_000, 1))[number]
            np.testing.assert_array_equal(found, alone[number])


def test_candidates_of_notes_are_chosen_among_by_the_checkpoints_judge():
    decoder = open_decoder(NOTES, CHOOSING)
    assert isinstance(decoder, ChoosingDecoder)
    shipped = judge_of(NOTES, CHOOSING)
    assert shipped is not None  # random weights have no judge of their own
    own = dataclasses.replace(shipped, value=-shipped.value)
    assert judge_of(dataclasses.replace(NOTES, judge=own), CHOOSING) is own
    assert own.digest != shipped.digest
    assert judge_of(NOTES, SETTINGS) is None
    assert judge_of(SOUND, CHOOSING) is None
    assert isinstance(open_decoder(SOUND, CHOOSING), WaveDecoder)


def test_notes_are_drawn_as_the_settings_say():
    sampling, guidance, hold_density, hold_beat = drawing(SETTINGS)
    assert list(sampling) == ["onset", "pitch", "velocity", "duration"]
    assert sampling["pitch"] == Sampling(SETTINGS.temperature.pitch, SETTINGS.top_k.pitch, 0.9)
    assert (guidance["pitch"], hold_density, hold_beat) == (2.0, 0.5, 0.7)
    least = SETTINGS.model_copy(update={"min_p": SETTINGS.min_p.model_copy(update={"onset": 0.1})})
    assert [draw.min_p for draw in drawing(least)[0].values()] == [0.1, 0.0, 0.0, 0.0]


@pytest.mark.tf
@pytest.mark.slow
def test_on_a_gpu_they_are_compiled():
    from deep_piano.decoding.notes_xla import NoteDecoderXla
    from deep_piano.decoding.wave_xla import WaveDecoderXla

    with mock.patch("deep_piano.decoding.xla.prepare_gpu") as prepared:
        assert isinstance(open_decoder(NOTES, SETTINGS, device="gpu", width=2), NoteDecoderXla)
        assert isinstance(open_decoder(SOUND, SETTINGS, device="gpu", width=2), WaveDecoderXla)
    assert prepared.call_count == 2


def test_a_network_of_another_codec_is_refused():
    other = dataclasses.replace(NOTES, spec=dataclasses.replace(NOTES.spec, codec="notes-1"))
    with pytest.raises(CheckpointError, match="'notes-1', which is no sound wave"):
        open_decoder(other, SETTINGS)
