from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deep_piano.analysis.compact_index import FEWEST_NOTES, GRAM, CompactIndex, open_index
from deep_piano.analysis.originality import CorpusIndex, tokens_of
from deep_piano.errors import InputError
from tests.analysis.test_originality import random_melody, sequence_of


def corpus(count=20, length=200):
    return [(f"{n}.mid", sequence_of(random_melody(n, length))) for n in range(count)]


def test_every_run_is_found_and_none_is_called_shorter_than_it_is():
    exact, compact = CorpusIndex.build(corpus()), CompactIndex.build(corpus())
    assert (compact.recordings, compact.notes) == (exact.recordings, exact.notes) == (20, 4000)
    for length in (GRAM + 1, 12, 40):
        copied = random_melody(3, 200)[50 : 50 + length] + 5
        piece = sequence_of(np.r_[random_melody(91, 30), copied, random_melody(92, 30)])
        assert exact.longest_run(piece).notes == length
        assert length <= compact.longest_run(piece).notes <= length + 4
        assert compact.longest_run(piece).recording == ""


def test_what_is_not_there_seems_so_once_in_eight_times_at_most():
    index = CompactIndex.build(corpus(100, 600))
    assert len(index.bits) * 8 >= 4 * index.notes
    other = tokens_of(sequence_of(random_melody(999, 5000)))
    one = np.lib.stride_tricks.sliding_window_view(other, GRAM)
    assert index.holds(one).mean() < 1 / 6
    five = np.lib.stride_tricks.sliding_window_view(other, FEWEST_NOTES)
    assert index.holds(five).sum() <= 3


@pytest.mark.parametrize("length", [0, 1, GRAM])
def test_what_is_too_short_shares_nothing(length):
    index = CompactIndex.build(corpus(1))
    assert index.longest_run(sequence_of(random_melody(0)[:length])).notes == 0


def test_both_kinds_say_of_runs_whether_they_are_there():
    known = tokens_of(sequence_of(random_melody(0, 200)))
    runs = np.stack([known[10:21], known[100:111], known[100:111]])
    runs[2, 5] += 159  # in every gram of the run
    for kind in (CorpusIndex, CompactIndex):
        held = kind.build(corpus(2)).holds(runs)
        assert held.tolist() == [True, True, False]


def test_an_index_is_read_as_it_was_written(tmp_path):
    compact = CompactIndex.build(corpus(), dataset="d" * 64)
    compact.save(tmp_path / "small")
    found = open_index(tmp_path / "small")
    assert isinstance(found, CompactIndex)
    assert (found.dataset, found.recordings, found.notes) == ("d" * 64, 20, 4000)
    assert np.array_equal(found.bits, compact.bits)
    CorpusIndex.build(corpus()).save(tmp_path / "large")
    assert isinstance(open_index(tmp_path / "large"), CorpusIndex)


@pytest.mark.parametrize("content", [None, b"", b"not an index", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_index_is_said(tmp_path, content):
    path = tmp_path / "index"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="not an index of a corpus"):
        open_index(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": np.zeros(1000, np.uint8)},
        {"bits": np.zeros(64, np.uint8)},
        {"bits": np.zeros(2048, bool)},
        {"recordings": -1},
    ],
)
def test_an_index_whose_parts_do_not_belong_together_is_refused(tmp_path, wrong):
    replace(CompactIndex.build(corpus(1)), **wrong).save(tmp_path / "odd")
    with pytest.raises(InputError, match="do not belong together"):
        open_index(tmp_path / "odd")
