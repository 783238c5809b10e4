"""Rules: what is measured against each limit, and which rule is named first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deep_piano.config.sections import PrepareConfig
from deep_piano.prepare.filters import (
    broken_by_maximum,
    broken_by_minimum,
    broken_by_notes,
    broken_by_peak,
    broken_by_sound,
)
from tests.support.datasets import AUDIO, NOTES

SETTINGS = PrepareConfig(
    min_seconds=10,
    max_seconds=100,
    max_silence_share=0.5,
    max_clipping_share=0.25,
    min_tuning_strength=0.25,
    min_notes=64,
    min_density=0.5,
    max_density=8,
)
SOUND = replace(AUDIO, silence_share=0.0, clipping_share=0.0)


def rule(broken):
    return broken and broken.rule


@pytest.mark.parametrize(
    ("name", "limit", "kept", "left_out", "expected"),
    [
        ("duration_s", 10, 10.001, 9.999, "too_short"),
        ("silence_share", 0.5, 0.4999, 0.5001, "silent"),
        ("clipping_share", 0.25, 0.2499, 0.2501, "clipped"),
        ("tuning_strength", 0.25, 0.2501, 0.2499, "not_piano_like"),
    ],
)
def test_sound_is_left_out_beyond_a_limit_and_not_at_it(name, limit, kept, left_out, expected):
    for value in (limit, kept):
        assert broken_by_sound(replace(SOUND, **{name: value}), SETTINGS) is None
    broken = broken_by_sound(replace(SOUND, **{name: left_out}), SETTINGS)
    assert (broken.rule, broken.value, broken.limit) == (expected, left_out, limit)


@pytest.mark.parametrize(
    ("name", "limit", "kept", "left_out", "expected"),
    [
        ("notes", 64, 65, 63, "too_few_notes"),
        ("density_per_s", 0.5, 0.501, 0.499, "too_sparse"),
        ("density_per_s", 8, 7.999, 8.001, "too_dense"),
    ],
)
def test_notes_are_left_out_beyond_a_limit_and_not_at_it(name, limit, kept, left_out, expected):
    for value in (limit, kept):
        assert broken_by_notes(replace(NOTES, **{name: value}), SETTINGS) is None
    broken = broken_by_notes(replace(NOTES, **{name: left_out}), SETTINGS)
    assert (broken.rule, broken.value, broken.limit) == (expected, left_out, limit)


def test_a_recording_may_be_as_long_and_as_short_as_the_limits():
    assert broken_by_maximum(100, SETTINGS) is None
    assert broken_by_minimum(10, SETTINGS) is None
    assert rule(broken_by_maximum(100.001, SETTINGS)) == "too_long"
    assert rule(broken_by_minimum(9.999, SETTINGS)) == "too_short"


@pytest.mark.parametrize(
    ("peak", "expected"), [(0.0011, None), (0.001, None), (0.0009, "silent"), (0, "silent")]
)
def test_sound_below_60_dbfs_throughout_is_silent(peak, expected):
    samples = np.array([0, -peak, 0], np.float32)
    assert rule(broken_by_peak(samples)) == expected
    assert rule(broken_by_peak(samples[:0])) == "silent"


def test_the_first_broken_rule_is_named():
    bad = replace(SOUND, duration_s=1, silence_share=1, clipping_share=1, tuning_strength=0)
    mended = {"duration_s": 60, "silence_share": 0, "clipping_share": 0, "tuning_strength": 1}
    found = []
    for name, value in mended.items():
        found.append(rule(broken_by_sound(bad, SETTINGS)))
        bad = replace(bad, **{name: value})
    assert found == ["too_short", "silent", "clipped", "not_piano_like"]
    assert broken_by_sound(bad, SETTINGS) is None
    few = replace(NOTES, notes=3, density_per_s=0.1)
    assert rule(broken_by_notes(few, SETTINGS)) == "too_few_notes"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (broken_by_minimum(9.94, SETTINGS), "9.9 s of it are left (limit: 10)"),
        (broken_by_maximum(101, SETTINGS), "it is longer (limit: 100)"),
        (
            broken_by_sound(replace(SOUND, clipping_share=0.3), SETTINGS),
            "30.0% of its samples are clipped (limit: 0.25)",
        ),
        (
            broken_by_sound(replace(SOUND, silence_share=0.75), SETTINGS),
            "75% of it is silence (limit: 0.5)",
        ),
        (
            broken_by_notes(replace(NOTES, notes=0), SETTINGS),
            "it has 0 notes (limit: 64)",
        ),
        (
            broken_by_peak(np.array([0.0005], np.float32)),
            "its peak is 0.000500 of full scale (limit: 0.001)",
        ),
    ],
)
def test_reasons_say_what_was_found_and_what_is_allowed(broken, reason):
    assert broken.reason == reason


def test_what_was_measured_is_rounded_so_that_it_can_be_read():
    assert broken_by_minimum(1 / 3, SETTINGS).value == 0.333333
