"""The compiled loop over sound beside the reference, `decoding.wave.Stepper`, here on the CPU."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from deep_piano.decoding.wave import Stepper
from deep_piano.errors import CheckpointError
from tests.decoding.test_wave import CASES, noise
from tests.support.fakes import random_checkpoint, sound_checkpoint

pytestmark = [pytest.mark.tf, pytest.mark.slow]

WIDTH, CALL = 3, 100


@cache
def loops(codec, frame):
    from deep_piano.decoding.wave_xla import DeviceStepper

    checkpoint = sound_checkpoint(codec, frame=frame)
    return Stepper(checkpoint), DeviceStepper(checkpoint, width=WIDTH, steps_a_call=CALL)


def begun(stepper, sequence, number=0, **more):
    stream = stepper.begin(sequence, np.random.default_rng(number), **more)
    stepper.extend_to_frame(stream)
    return stream


def continued(codec, frame, numbers, *, at_once=WIDTH, count=350):
    """Continue noise of several lengths, each begun as soon as there is a slot."""
    stepper, device = loops(codec, frame)
    waiting, done = list(numbers), {}
    while waiting or len(device):
        while waiting and len(device) < at_once:
            number = waiting.pop(0)
            stream = begun(stepper, noise(codec, 40 + number), number, temperature=0.9)
            device.add(number, stream, count + 30 * number)
        done |= device.step()
    return done


def require_alike(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if found.dtype == np.uint8:  # on the edge of a class rounding decides
        assert np.mean(found != expected) < 0.01
    else:
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("codec", "frame"), [*CASES, ("samples", 8)])
def test_steps_are_those_of_the_reference(codec, frame):
    stepper, _ = loops(codec, frame)
    found = continued(codec, frame, range(7))
    assert found.keys() == set(range(7))
    for number, steps in found.items():
        sequence, rng = noise(codec, 40 + number), np.random.default_rng(number)
        count = 350 + 30 * number
        require_alike(steps, stepper.go_on(sequence, count, rng, temperature=0.9))


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
@pytest.mark.parametrize(("codec", "frame"), CASES)
def test_rules_are_those_of_the_reference(codec, frame, rule):
    stepper, device = loops(codec, frame)
    stream = begun(stepper, noise(codec, 75))
    plain = stream.fork(np.random.default_rng(1))
    levels, factor = RULES[rule]
    stream.level *= levels
    stream.values *= np.float32(factor)
    changed = stream.fork(np.random.default_rng(1))
    device.add("changed", changed.fork(np.random.default_rng(1)), 80)
    [found] = device.step().values()
    for one in (plain, changed):
        stepper.extend(one, 80)
    expected = np.concatenate(changed.made)[:80]
    require_alike(found, expected)
    if not (rule == "more is added" and codec == "samples"):  # a rule for classes only
        assert np.mean(np.concatenate(plain.made)[:80] != expected) > 0.1


@pytest.mark.parametrize(("codec", "frame"), CASES)
def test_after_silence_nothing_is_held(codec, frame):
    stepper, device = loops(codec, frame)
    silence = np.full_like(noise(codec, 50), 128 if codec == "mulaw" else 0)
    stream = begun(stepper, silence)
    if codec == "samples":
        assert stream.level[0] == 0
    device.add("silence", stream, 90)
    [found] = device.step().values()
    require_alike(found, stepper.go_on(silence, 90, np.random.default_rng(0)))


@pytest.mark.parametrize(("codec", "frame"), CASES)
def test_a_stream_is_the_same_to_the_last_bit_in_any_slot_and_company(codec, frame):
    expected = continued(codec, frame, range(6))
    found = {}
    for at_once, numbers in ((1, [3]), (WIDTH, [5, 4, 3, 0]), (2, [2, 1])):
        found |= continued(codec, frame, numbers, at_once=at_once)
    for number, steps in expected.items():
        np.testing.assert_array_equal(found[number], steps)


def test_a_stream_begins_at_a_frame_and_there_is_no_slot_too_many():
    stepper, device = loops("mulaw", 4)
    sequence = noise("mulaw", 62)
    heard = stepper.begin(sequence, np.random.default_rng(0))
    within = begun(stepper, sequence)
    stepper.extend(within, 1)
    for stream in (heard, within):
        with pytest.raises(ValueError, match="in the midst of a frame"):
            device.add("early", stream, 100)
    for number in range(WIDTH):
        device.add(number, begun(stepper, sequence), CALL)
    with pytest.raises(ValueError, match="not in list"):
        device.add("one more", begun(stepper, sequence), 100)
    assert len(device) == WIDTH
    assert {len(steps) for steps in device.step().values()} == {CALL}
    assert len(device) == 0


def test_notes_are_refused():
    from deep_piano.decoding.wave_xla import DeviceStepper

    with pytest.raises(CheckpointError, match="'notes-2', which is no sound wave"):
        DeviceStepper(random_checkpoint(), width=1)
