from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.analysis.keys import Key, key_named, keys_by_fifths
from deep_piano.dataset.summary import HISTOGRAM_EDGES, summarise

ANY_FLOATS = st.lists(st.none() | st.floats(-1e9, 1e9) | st.sampled_from([math.nan, -math.inf]))


def test_numbers_come_to_count_mean_and_extremes():
    assert summarise({"notes": [10, None, 20, math.nan, -math.inf]}) == {
        "notes": {"count": 2, "mean": 15.0, "min": 10.0, "max": 20.0}
    }


def test_an_array_and_a_generator_are_columns_too():
    values = [1.5, 2.5]
    expected = summarise({"peak_dbfs": values})
    assert summarise({"peak_dbfs": np.array(values)}) == expected
    assert summarise({"peak_dbfs": (value for value in values)}) == expected


def test_the_outermost_bins_hold_what_lies_beyond():
    histogram = summarise({"tempo_bpm": [1, 40, 49.9, 50, 219, 220, 999]})["tempo_bpm"]["histogram"]
    assert histogram["edges"] == list(HISTOGRAM_EDGES["tempo_bpm"])
    assert histogram["counts"][:2] == [3, 1]
    assert histogram["counts"][-1] == 3


@pytest.mark.parametrize("edges", HISTOGRAM_EDGES.values(), ids=HISTOGRAM_EDGES)
def test_edges_ascend_and_their_bins_fit_the_card(edges):
    assert list(edges) == sorted(set(edges))
    assert len(edges) == 19  # 18 bins: two characters each, and labelled at every sixth


def test_keys_are_counted_the_commonest_first():
    keys = ["A minor", None, "none", "C major", "C major", "A minor", "B major"]
    summary = summarise({"key": keys})["key"]
    assert list(summary.items()) == [("A minor", 2), ("C major", 2), ("B major", 1), ("none", 1)]


def test_vectors_come_to_their_means():
    rows = [(1.0, 2.0), None, (3.0, 6.0), (math.nan, 1.0)]
    assert summarise({"mfcc": rows})["mfcc"] == {"count": 2, "mean": [2.0, 4.0]}


@pytest.mark.parametrize("nothing", [[], [None, None]])
def test_nothing_known(nothing):
    summary = summarise({name: nothing for name in ("tempo_bpm", "key", "mfcc", "notes")})
    assert summary["key"] == {}
    assert summary["mfcc"] == {"count": 0, "mean": []}
    assert summary["notes"] == {"count": 0, "mean": None, "min": None, "max": None}
    assert sum(summary["tempo_bpm"]["histogram"]["counts"]) == 0
    assert summarise({}) == {}


@given(ANY_FLOATS, st.randoms(use_true_random=False))
def test_the_order_of_the_recordings_does_not_matter(values, random):
    shuffled = random.sample(values, len(values))
    keys, other_keys = [[f"{value} major" for value in column] for column in (values, shuffled)]
    first = summarise({"duration_s": values, "mfcc": [[v or 0.0] for v in values], "key": keys})
    other = summarise(
        {"key": other_keys, "mfcc": [[v or 0.0] for v in shuffled], "duration_s": shuffled}
    )
    text = json.dumps(first, allow_nan=False)
    assert text == json.dumps(other, allow_nan=False)
    assert json.loads(text) == first
    assert sum(first["duration_s"]["histogram"]["counts"]) == first["duration_s"]["count"]


def test_keys_stand_by_fifths_beside_their_relative_minors():
    rows, others = keys_by_fifths({"C major": 3, "A minor": 2, "none": 5, "": 1, "H major": 1})
    assert [major[0] for major, _ in rows][4:7] == ["F major", "C major", "G major"]
    assert rows[5] == (("C major", 3), ("A minor", 2))
    assert others == 7
    assert sum(count for row in rows for _, count in row) == 5


def test_a_key_by_two_names_is_one_key():
    rows, others = keys_by_fifths({"C# major": 1, "Db major": 2, "G# minor": 4, "D# minor": 1})
    assert rows[0][0] == ("Db major", 3)
    assert rows[10][1] == ("G# minor", 4)
    assert rows[11][1] == ("Eb minor", 1)
    assert others == 0


def test_a_key_has_the_same_name_whether_it_is_there_or_not():
    names = {Key(tonic, mode).name for tonic in range(12) for mode in ("major", "minor")}
    for counts in ({}, dict.fromkeys(names, 1)):
        rows, _ = keys_by_fifths(counts)
        assert sorted(name for row in rows for name, _ in row) == sorted(names)
        assert {count for row in rows for _, count in row} == {1 if counts else 0}
    for major, minor in rows:
        assert (key_named(minor[0]).tonic - key_named(major[0]).tonic) % 12 == 9
    tonics = [key_named(major[0]).tonic for major, _ in rows]
    assert {(after - before) % 12 for before, after in pairwise(tonics)} == {7}
