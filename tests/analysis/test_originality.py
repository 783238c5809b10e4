from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano.analysis import originality
from deep_piano.analysis.compact_index import open_index
from deep_piano.analysis.originality import (
    SHORTEST_RUN,
    CorpusIndex,
    SharedRun,
    grams_of,
    tokens_of,
)
from deep_piano.codecs.notes import encode
from deep_piano.errors import InputError
from deep_piano.music.notes import make_notes


def sequence_of(pitches, *, step_s=0.3, velocity=80, length_s=0.4):
    onset = np.arange(len(pitches)) * step_s
    return encode(make_notes(onset, onset + length_s, pitches, np.full(len(pitches), velocity)))


def random_melody(seed, length=60):
    return np.random.default_rng(seed).integers(40, 90, length)


def test_a_copied_passage_is_found_with_its_length_and_its_recording():
    melodies = [random_melody(seed) for seed in range(3)]
    index = CorpusIndex.build([(f"{n}.mid", sequence_of(m)) for n, m in enumerate(melodies)])
    piece = np.r_[random_melody(7, 20), melodies[1][10:35], random_melody(8, 20)]
    assert index.longest_run(sequence_of(piece)) == SharedRun(25, "1.mid")


def test_transposed_louder_and_longer_notes_are_the_same_music_and_another_tempo_is_not():
    melody = random_melody(0)
    index = CorpusIndex.build([("a.mid", sequence_of(melody))])
    changed = sequence_of(melody + 7, velocity=30, length_s=0.2)
    assert index.longest_run(changed) == SharedRun(60, "a.mid")
    assert index.longest_run(sequence_of(melody, step_s=0.4)) == SharedRun(0, "")


def test_times_are_compared_to_the_nearest_50_ms():
    melody = random_melody(0)
    index = CorpusIndex.build([("a.mid", sequence_of(melody, step_s=0.30))])
    assert index.longest_run(sequence_of(melody, step_s=0.32)).notes == 60
    assert index.longest_run(sequence_of(melody, step_s=0.33)).notes == 0


def test_the_order_of_notes_struck_at_once_does_not_matter():
    steps = sequence_of(random_melody(0), step_s=0.0)
    swapped = steps[::-1].copy()
    swapped[0], swapped[-1] = steps[-1], steps[0]
    assert np.array_equal(tokens_of(steps), tokens_of(swapped))


def test_a_run_does_not_reach_from_one_recording_into_the_next():
    melody = random_melody(0)
    index = CorpusIndex.build(
        [("a.mid", sequence_of(melody[:30])), ("b.mid", sequence_of(melody[30:]))]
    )
    assert index.longest_run(sequence_of(melody)) == SharedRun(30, "a.mid")


@pytest.mark.parametrize("length", [0, 1, SHORTEST_RUN - 1])
def test_what_is_too_short_shares_nothing(length):
    melody = random_melody(0)
    index = CorpusIndex.build([("a.mid", sequence_of(melody)), ("b.mid", sequence_of(melody[:1]))])
    assert index.longest_run(sequence_of(melody[:length])) == SharedRun(0, "")
    assert index.longest_run(sequence_of(melody[:SHORTEST_RUN])).notes == SHORTEST_RUN


def test_an_index_of_nothing_shares_nothing():
    assert CorpusIndex.build([]).longest_run(sequence_of(random_melody(0))).notes == 0


def longest_common_run(a, b):
    """Notes in the longest run of equal tokens, by comparing every place with every other."""
    most = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, j in np.ndindex(len(a), len(b)):
        most[i + 1, j + 1] = most[i, j] + 1 if a[i] == b[j] else 0
    found = int(most.max()) + 1
    return found if found >= SHORTEST_RUN else 0


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(60, 61), max_size=60), min_size=1, max_size=3),
    st.lists(st.integers(60, 61), max_size=60),
    st.sampled_from([1, 50, 10**6]),
)
def test_every_run_is_found_however_few_pairs_fit_into_memory(corpus, piece, at_once):
    sequences = [sequence_of(pitches) for pitches in corpus]
    index = CorpusIndex.build([(str(n), sequence) for n, sequence in enumerate(sequences)])
    asked = sequence_of(piece)
    with patch.object(originality, "_PAIRS_AT_ONCE", at_once):
        found = index.longest_run(asked)
    mine = tokens_of(asked)
    runs = [longest_common_run(mine, tokens_of(sequence)) for sequence in sequences]
    assert found.notes == max(runs)
    if found.notes:
        assert runs[int(found.recording)] == found.notes


def test_an_index_is_read_as_it_was_written(tmp_path):
    melody = sequence_of(random_melody(0))
    CorpusIndex.build([("ä.mid", melody)], dataset="d" * 64).save(tmp_path / "index.safetensors")
    index = open_index(tmp_path / "index.safetensors")
    assert (index.names, index.dataset) == (["ä.mid"], "d" * 64)
    assert index.longest_run(melody) == SharedRun(60, "ä.mid")
    assert [path.name for path in tmp_path.iterdir()] == ["index.safetensors"]


@pytest.mark.parametrize("content", [None, b"", b"not an index", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_index_is_said(tmp_path, content):
    path = tmp_path / "index.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="not an index of a corpus"):
        open_index(path)


@pytest.mark.parametrize("part", ["order", "starts", "tokens"])
def test_an_index_whose_parts_do_not_belong_together_is_refused(tmp_path, part):
    index = CorpusIndex.build([("a.mid", sequence_of(random_melody(1)))])
    wrong = getattr(index, part) + np.array(1000, getattr(index, part).dtype)
    replace(index, **{part: wrong}).save(tmp_path / "odd")
    with pytest.raises(InputError, match="do not belong together"):
        open_index(tmp_path / "odd")


def test_a_table_has_all_runs_of_a_length_and_none_that_joins_two_recordings():
    recordings = [(str(n), sequence_of(random_melody(n, 40))) for n in range(3)]
    index = CorpusIndex.build(recordings)
    gram, entries = index.table(9)
    runs = np.concatenate(
        [
            np.lib.stride_tricks.sliding_window_view(tokens_of(sequence), 9)
            for _, sequence in recordings
        ]
    )
    assert gram == 9
    assert entries.tolist() == sorted(set(grams_of(runs, 9)[:, 0].tolist()))
    assert CorpusIndex.build([("short", recordings[0][1][:9])]).table(9).entries.tolist() == []
