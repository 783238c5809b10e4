"""The compiled loop over sound beside its reference, `decoding.wave`, here on the CPU."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from deep_piano.codecs.registry import CODECS
from deep_piano.decoding.wave import WaveEngine, WaveTask
from deep_piano.errors import CheckpointError
from tests.decoding.test_wave import noise
from tests.support.fakes import SOUND_CASES, random_checkpoint, sound_checkpoint

pytestmark = [pytest.mark.tf, pytest.mark.slow]

WIDTH, CALL = 3, 100


@cache
def loops(codec, frame):
    from deep_piano.decoding.wave_xla import WaveDecoderXla

    checkpoint = sound_checkpoint(codec, frame=frame)
    return WaveEngine(checkpoint), WaveDecoderXla(checkpoint, width=WIDTH, steps_a_call=CALL)


def task(engine, sequence, number=0, *, count, **more):
    rng = np.random.default_rng(number)
    return WaveTask(engine.prefill(sequence, rng, **more), count, rng)


def continued(codec, frame, numbers, *, at_once=WIDTH, count=350):
    """Continue noise of several lengths, each begun as soon as there is a slot."""
    engine, decoder = loops(codec, frame)
    waiting, done = list(numbers), {}
    while waiting or len(decoder):
        while waiting and len(decoder) < at_once:
            number = waiting.pop(0)
            sequence, each = noise(codec, 40 + number), count + 30 * number
            decoder.add(number, task(engine, sequence, number, count=each, temperature=0.9))
        done |= decoder.step()
    return done


def require_alike(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if found.dtype == np.uint8:  # on the edge of a class rounding decides
        assert np.mean(found != expected) < 0.01
    else:
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("codec", "frame"), [*SOUND_CASES, ("samples", 8)])
def test_steps_are_those_of_the_reference(codec, frame):
    engine, _ = loops(codec, frame)
    found = continued(codec, frame, range(7))
    assert found.keys() == set(range(7))
    for number, steps in found.items():
        sequence, rng = noise(codec, 40 + number), np.random.default_rng(number)
        count = 350 + 30 * number
        require_alike(steps, engine.decode(sequence, count, rng, temperature=0.9))


RULES = {
    "softer": (np.array([1, 1, 0.2, 1]), 1),
    "louder": (np.array([1, 1, 3, 1]), 1),
    "less is added": (np.array([0.1, 1, 1, 1]), 1),
    "more is added": (np.array([3, 1, 1, 1]), 1),
    "clicks are bounded": (np.array([1e-4, 1e-4, 1, 1]), 1),
    "nothing is held": (np.array([0, 1, 1, 1]), 1),
    "beyond its room": (np.ones(4), 2000),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("codec", "frame"), SOUND_CASES)
def test_rules_are_those_of_the_reference(codec, frame, rule):
    engine, decoder = loops(codec, frame)
    stream = engine.prefill(noise(codec, 75), np.random.default_rng(0))
    plain = stream.fork(np.random.default_rng(1))
    levels, factor = RULES[rule]
    stream.level *= levels
    stream.values *= np.float32(factor)
    changed = stream.fork(np.random.default_rng(1))
    decoder.add("changed", WaveTask(stream, 80, np.random.default_rng(1)))
    [found] = decoder.step().values()
    for one in (plain, changed):
        engine.extend(one, 80)
    expected = np.concatenate(changed.made)[:80]
    require_alike(found, expected)
    if not (rule == "more is added" and CODECS[codec].spec.continuous):  # a rule for classes only
        assert np.mean(np.concatenate(plain.made)[:80] != expected) > 0.1


@pytest.mark.parametrize(("codec", "frame"), SOUND_CASES)
def test_after_silence_nothing_is_held(codec, frame):
    engine, decoder = loops(codec, frame)
    silence = CODECS[codec].encode(np.zeros(50, np.float32))
    silent = task(engine, silence, count=90)
    if CODECS[codec].spec.continuous:
        assert silent.prefix.level[0] == 0
    decoder.add("silence", silent)
    [found] = decoder.step().values()
    require_alike(found, engine.decode(silence, 90, np.random.default_rng(0)))


@pytest.mark.parametrize(("codec", "frame"), SOUND_CASES)
def test_a_stream_is_the_same_to_the_last_bit_in_any_slot_and_company(codec, frame):
    expected = continued(codec, frame, range(6))
    found = {}
    for at_once, numbers in ((1, [3]), (WIDTH, [5, 4, 3, 0]), (2, [2, 1])):
        found |= continued(codec, frame, numbers, at_once=at_once)
    for number, steps in expected.items():
        np.testing.assert_array_equal(found[number], steps)


def test_there_is_no_slot_too_many_and_progress_goes_forward():
    engine, decoder = loops("mulaw", 4)
    waiting = task(engine, noise("mulaw", 62), count=CALL)
    for number in range(WIDTH):
        decoder.add(number, waiting)
    with pytest.raises(ValueError, match="not in list"):
        decoder.add("one more", waiting)
    assert len(decoder) == WIDTH
    assert WIDTH * 62 <= decoder.done_s * 16_000 <= WIDTH * 66  # to the next frame
    assert {len(steps) for steps in decoder.step().values()} == {CALL}
    assert len(decoder) == decoder.done_s == 0


def test_notes_are_refused():
    from deep_piano.decoding.wave_xla import WaveDecoderXla

    with pytest.raises(CheckpointError, match="'notes-2', which is no sound wave"):
        WaveDecoderXla(random_checkpoint(), width=1)
