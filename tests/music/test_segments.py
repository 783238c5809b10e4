"""The best intervals of a score, and segments joined to a performance."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_piano.music.segments import SUSTAIN, best_intervals, join_segments
from tests.support.segments import as_rows, intervals


def total_score(chosen: list[tuple[int, int]], score: np.ndarray, single: np.ndarray) -> float:
    return sum(float(single[b]) if b == e else float(score[b, e]) * (e - b) for b, e in chosen)


def best_total_by_trying_all(score: np.ndarray, single: np.ndarray) -> float:
    frames = len(single)

    def best_from(frame: int) -> float:
        here = max(0.0, float(single[frame]))
        if frame == frames - 1:
            return here
        jumps = [
            float(score[frame, end]) * (end - frame) + best_from(end)
            for end in range(frame + 1, frames)
        ]
        return here + max(best_from(frame + 1), *jumps)

    return best_from(0)


@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(1, 7), symbols=st.integers(1, 3))
def test_best_intervals_are_the_best_of_all(seed: int, frames: int, symbols: int) -> None:
    rng = np.random.default_rng(seed)
    score = rng.normal(0, 1, (symbols, frames, frames)).astype(np.float32)
    single = rng.normal(0, 1, (symbols, frames)).astype(np.float32)
    symbol, begin, end = best_intervals(score, single)
    for s in range(symbols):
        chosen = [
            (int(b), int(e)) for b, e in zip(begin[symbol == s], end[symbol == s], strict=True)
        ]
        assert all(b <= e for b, e in chosen)
        assert all(one[1] <= two[0] for one, two in pairwise(chosen)), "intervals overlap"
        assert total_score(chosen, score[s], single[s]) == pytest.approx(
            best_total_by_trying_all(score[s], single[s]), abs=1e-5
        )


def test_best_intervals_of_scores_below_zero_are_none() -> None:
    symbol, begin, end = best_intervals(-np.ones((90, 20, 20), np.float32), -np.ones((90, 20)))
    assert symbol.size == begin.size == end.size == 0


def test_best_intervals_read_only_begin_before_end() -> None:
    score = np.full((1, 5, 5), 100, np.float32)
    score[0][np.triu_indices(5, 1)] = -1
    assert best_intervals(score, -np.ones((1, 5), np.float32))[0].size == 0


# Joining segments


def test_one_segment_keeps_its_outer_parts() -> None:
    heard = intervals((0.0, 1.0, 60), (15.5, 15.9, 62))
    keys = join_segments([heard], duration_s=16.0).keys
    assert as_rows(keys) == [(0.0, 1.0, 60), (15.5, 15.9, 62)]


def test_onsets_come_from_the_middle_of_segments() -> None:
    first = intervals((1, 2, 50), (13, 13.5, 60), (14.5, 15, 61))  # the last is not trusted
    second = intervals((1.0, 1.5, 60), (1.9, 2.1, 70), (5, 6, 62))  # 12 s later; nor is 13.9 s
    keys = join_segments([first, second], duration_s=28.0).keys
    assert as_rows(keys) == [(1, 2, 50), (13, 13.5, 60), (17, 18, 62)]


@pytest.mark.parametrize(
    ("in_first", "in_second"),
    [(13.99, 2.01), (13.99, 1.98), (14.01, 2.01), (14.01, 1.98)],
)
def test_an_onset_at_the_border_is_heard_exactly_once(in_first: float, in_second: float) -> None:
    first = intervals((in_first, in_first + 1, 60))
    second = intervals((in_second, in_second + 1, 60))
    keys = join_segments([first, second], duration_s=28.0).keys
    assert len(keys) == 1
    assert keys["onset"][0] == pytest.approx(14, abs=0.03)


def test_a_note_cut_by_its_segment_goes_on_in_the_next_ones() -> None:
    first = intervals((13, 16, 60), has_end=[False])
    second = intervals((1, 16, 60), has_end=[False])
    third = intervals((0, 6, 60), has_begin=[False])
    keys = join_segments([first, second, third], duration_s=40.0).keys
    assert as_rows(keys) == [(13, 30, 60)]


def test_a_cut_note_that_the_next_segment_does_not_hear_ends_at_the_cut() -> None:
    first = intervals((13, 16.01, 60), has_end=[False])
    keys = join_segments([first, intervals((1, 2, 60))], duration_s=28.0).keys
    assert as_rows(keys) == [(13, 16, 60)]


def test_a_cut_note_ends_where_its_key_is_struck_again() -> None:
    first = intervals((13, 16, 60), has_end=[False])
    second = intervals((1, 3, 60), (3, 6, 60))
    keys = join_segments([first, second], duration_s=28.0).keys
    assert as_rows(keys) == [(13, 15, 60), (15, 18, 60)]


def test_a_sound_that_began_before_the_recording_is_no_note() -> None:
    heard = intervals((0, 3, 60), (1, 2, 62), has_begin=[False, True])
    assert as_rows(join_segments([heard], duration_s=16.0).keys) == [(1, 2, 62)]


def test_nothing_ends_after_the_recording() -> None:
    heard = intervals((1, 9.5, 60), (8.5, 8.9, 62), (7, 9, SUSTAIN))
    performance = join_segments([heard], duration_s=8.0)
    assert as_rows(performance.sounding()) == [(1, 8, 60)]
    assert performance.pedal_up_s.tolist() == [8.0]


def test_pedal_is_folded_into_offsets_and_kept_apart_from_keys() -> None:
    heard = intervals((1, 2, 60), (4, 5, 60), (1.5, 3, SUSTAIN), (1, 9, -67))
    performance = join_segments([heard], duration_s=16.0)
    assert as_rows(performance.keys) == [(1, 2, 60), (4, 5, 60)]
    assert as_rows(performance.sounding()) == [(1, 3, 60), (4, 5, 60)]


def test_pedal_held_over_a_border_is_one_span() -> None:
    first, second = intervals((10, 16, SUSTAIN)), intervals((0, 5, SUSTAIN), (6, 7, SUSTAIN))
    performance = join_segments([first, second], duration_s=28.0)
    assert performance.pedal_down_s.tolist() == [10, 18]
    assert performance.pedal_up_s.tolist() == [17, 19]
