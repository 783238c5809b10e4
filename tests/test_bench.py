from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner

from bench import decode, generate, recordings
from bench.recordings import Row, compare_with_others, criteria_table, faults, longest_quiet_s
from bench.stages import REST, Stopwatch
from deep_piano.codecs.notes import SPEC
from deep_piano.model import ModelConfig, weight_shapes
from deep_piano.notes import make_notes
from tests.fakes import TINY, random_checkpoint


@pytest.mark.parametrize("script", [decode, generate, recordings])
def test_each_script_says_what_it_does(script):
    result = CliRunner().invoke(script.main, ["--help"])
    assert result.exit_code == 0
    assert "Markdown" in result.output
    assert "--checkpoint" in result.output


def good_row(**changes):
    figures = dict(
        recording="one", random_state=0, asked_s=180.0, seconds=180.0, sounds_s=179.4,
        last_offset_s=179.25, silence_s=1.0, quiet_s=1.5, note_s=12.0, loop=3, peak_dbfs=-0.9,
        lufs=-16.2, cosine=0.8, shuffled=0.6,
    )  # fmt: skip
    return Row(**{**figures, **changes})


def test_a_good_piece_has_no_faults():
    assert faults(good_row()) == []
    without_sound = {"seconds": None, "sounds_s": None, "quiet_s": None}
    assert faults(good_row(**without_sound, peak_dbfs=None, lufs=None)) == []
    table, kept = criteria_table([good_row(), good_row(random_state=1)])
    assert kept
    assert "missed" not in table


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"seconds": 181.1}, "length of the file"),
        ({"sounds_s": 178.9}, "it sounds for"),
        ({"last_offset_s": 178.0}, "last note ends at"),
        ({"silence_s": 4.1}, "silence between notes"),
        ({"quiet_s": 4.1}, "quiet in the sound"),
        ({"note_s": 20.1}, "longest note"),
        ({"loop": 17}, "longest loop"),
        ({"peak_dbfs": 0.0}, "peak"),
        ({"lufs": -18.1}, "loudness"),
        ({"lufs": -13.9}, "loudness"),
        ({"lufs": -math.inf}, "loudness"),
        ({"silence_s": math.nan}, "silence between notes"),
        ({"error": "nothing was heard"}, "nothing was heard"),
    ],
)
def test_one_fault_is_found_and_fails_the_whole(changes, fault):
    bad = good_row(**changes)
    (found,) = faults(bad)
    assert fault in found
    table, kept = criteria_table([good_row(), bad])
    assert not kept
    assert table.count("missed") == 1


@pytest.mark.parametrize(("shuffled", "kept"), [(0.69, True), (0.71, False), (math.nan, True)])
def test_a_piece_must_be_nearer_to_its_own_seed(shuffled, kept):
    assert criteria_table([good_row(shuffled=shuffled)])[1] is kept


def test_no_piece_at_all_is_no_success():
    assert not criteria_table([good_row(error="silent")])[1]


def test_a_continuation_is_compared_with_the_seeds_of_all_others():
    c, f_sharp = (make_notes([0.0], [1.0], [pitch], [80]) for pitch in (60, 66))
    both = make_notes([0.0, 0.0], [1.0, 1.0], [60, 66], [80, 80])
    row = good_row(recording="one", continuation=c)
    compare_with_others([row], {"one": c, "two": f_sharp, "three": both})
    assert row.shuffled == pytest.approx((0 + math.sqrt(0.5)) / 2)


def test_quiet_is_looked_for_everywhere():
    level = np.zeros(1000, np.float32)
    assert longest_quiet_s(level, sr=100) == 10.0
    level[[200, 900]] = 0.5
    assert longest_quiet_s(level, sr=100) == pytest.approx(6.99)
    level[500] = 0.9e-3  # below -60 dBFS
    assert longest_quiet_s(level, sr=100) == pytest.approx(6.99)
    assert longest_quiet_s(np.ones(5, np.float32), sr=100) == 0


def test_a_step_reads_what_it_multiplies_and_the_rows_it_looks_up():
    bytes_a_step, multiply_adds = decode.step_cost(random_checkpoint())
    units, hidden, sizes = TINY.units, TINY.head_units, [field.size for field in SPEC.fields]
    multiplied = (
        SPEC.context_size * units
        + TINY.layers * 8 * units * units
        + len(sizes) * units * hidden
        + hidden * sum(sizes)
    )
    assert multiply_adds == multiplied
    assert 4 * multiplied < bytes_a_step < 4 * (multiplied + 30 * (units + hidden) + 600)
    shapes = weight_shapes(SPEC, ModelConfig())
    assert sum(map(math.prod, shapes.values())) * 4 > 2e7


def test_a_stage_counts_its_own_time_only(monkeypatch):
    clock = iter(np.arange(100.0))
    monkeypatch.setattr("bench.stages.now", lambda: (next(clock), 0.0))
    watch = Stopwatch()  # at 0
    with watch.measure("outer"), watch.measure("inner"):  # at 1, 2
        pass  # at 3, 4
    watch.pause()  # at 5
    assert {name: times[0] for name, times in watch.main.items()} == {
        REST: 2.0,
        "outer": 2.0,
        "inner": 1.0,
    }
