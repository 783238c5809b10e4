from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.realism import density_drift
from deep_piano.analysis.keys import Key, estimate_key, key_of, pitch_class_histogram
from deep_piano.analysis.note_figures import (
    DRONE_NOTES,
    DRONE_S,
    density_per_s,
    density_ratio,
    effective_number,
    fewest_pitch_classes,
    figures,
    has_fault,
    longest_loop,
    longest_note_s,
    longest_silence_s,
    longest_slow_scale,
    pitch_class_cosine,
)
from deep_piano.codecs.notes import STEPS_PER_SECOND
from deep_piano.music.notes import NOTE, make_notes

EMPTY = np.empty(0, NOTE)


def melody(pitches, *, step_s=0.5, length_s=0.4):
    onset = np.arange(len(pitches)) * step_s
    return make_notes(onset, onset + length_s, pitches, np.full(len(pitches), 80))


@st.composite
def pieces(draw, *, most=40, lowest=33, highest=96):
    """Notes on a 10 ms grid."""
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 3000), st.integers(1, 800), st.integers(lowest, highest)),
            max_size=most,
        )
    )
    onset, length, pitch = np.array(rows).reshape(-1, 3).T
    return make_notes(onset / 100, (onset + length) / 100, pitch, np.full(len(rows), 64))


def shifted(notes, *, semitones=0, seconds=0.0):
    moved = notes.copy()
    moved["pitch"] = moved["pitch"].astype(int) + semitones
    moved["onset"] += seconds
    moved["offset"] += seconds
    return moved


def test_the_histogram_weighs_by_duration():
    notes = make_notes([0, 1, 2], [1, 4, 3], [60, 72, 67], [80, 80, 80])
    histogram = pitch_class_histogram(notes)
    assert histogram[[0, 7]] == pytest.approx([4 / 5, 1 / 5])
    assert histogram.shape == (12,)
    assert not pitch_class_histogram(EMPTY).any()


@given(pieces())
def test_the_histogram_sums_to_one_and_knows_no_octave(notes):
    histogram = pitch_class_histogram(notes)
    assert histogram.sum() == pytest.approx(1.0 if len(notes) else 0.0)
    assert pitch_class_histogram(shifted(notes, semitones=12)) == pytest.approx(histogram)
    assert pitch_class_histogram(shifted(notes, semitones=5)) == pytest.approx(
        np.roll(histogram, 5)
    )


@given(pieces(), pieces())
def test_the_cosine_is_symmetric_and_one_for_itself(a, b):
    assert 0 <= pitch_class_cosine(a, b) <= 1
    assert pitch_class_cosine(a, b) == pytest.approx(pitch_class_cosine(b, a))
    assert pitch_class_cosine(a, a) == pytest.approx(1.0 if len(a) else 0.0)


def test_parts_without_a_common_pitch_class_have_cosine_zero():
    assert pitch_class_cosine(melody([60, 64]), melody([61, 66])) == 0.0
    assert pitch_class_cosine(melody([60]), EMPTY) == 0.0


@pytest.mark.parametrize(
    ("pitches", "name"),
    [
        ([60, 62, 64, 65, 67, 69, 71, 72, 67, 64, 60], "C major"),
        ([69, 71, 72, 74, 76, 77, 80, 81, 76, 72, 69], "A minor"),
        ([64, 67, 71], "E minor"),
        ([63, 67, 70], "Eb major"),
        ([61, 64, 68], "C# minor"),
        ([66, 70, 73], "F# major"),
    ],
)
def test_keys(pitches, name):
    assert key_of(melody(pitches)).name == name


@pytest.mark.parametrize("semitones", range(12))
@pytest.mark.parametrize("mode", ["major", "minor"])
def test_a_transposed_piece_has_the_transposed_key(semitones, mode):
    third = 4 if mode == "major" else 3
    notes = melody([48, 60, 60 + third, 67, 72])
    assert key_of(shifted(notes, semitones=semitones)) == Key(semitones, mode)


@pytest.mark.parametrize("notes", [EMPTY, make_notes([0] * 12, [1] * 12, range(60, 72), [80] * 12)])
def test_no_key_where_none_fits_better(notes):
    assert key_of(notes) is None
    assert estimate_key(notes) == (None, "none")
    assert estimate_key(notes).name == "none"


SCALE = [60, 62, 64, 65, 67, 69, 71, 72]
SONG = [60, 64, 67, 65, 62, 67, 71, 74, 60, 64, 67, 72, 69, 65, 62, 59, 67, 60]


@pytest.mark.parametrize(
    ("pitches", "name", "certainty"),
    [
        (SONG, "C major", "sure"),
        ([pitch + 9 for pitch in SONG], "A major", "sure"),
        (SCALE, "C major", "fairly sure"),
        (list(range(60, 72)), None, "unclear"),
        ([60, 62, 64, 66, 68, 70], None, "unclear"),
        ([64, 67, 71], "E minor", "fairly sure"),
    ],
)
def test_a_key_has_a_certainty(pitches, name, certainty):
    found = estimate_key(melody(pitches))
    assert found.certainty == certainty
    assert name in (None, found.name)


def test_the_beginning_and_the_end_say_more_of_a_key_than_the_middle():
    cadence = [60, 64, 67, 72, 65, 69, 72, 67, 71, 74, 77, 72, 67, 64, 60]
    away = [pitch + 7 for pitch in cadence]
    notes = melody([*cadence * 2, *away * 5, *cadence * 2])
    notes["onset"] *= 4
    notes["offset"] *= 4
    assert estimate_key(notes).name == "C major"
    middle = notes[30:-30]
    assert estimate_key(middle).name == "G major"


def test_densities():
    notes = melody([60] * 10, step_s=0.5, length_s=0.5)
    assert density_per_s(notes) == pytest.approx(2.0)
    assert density_per_s(EMPTY) == 0.0
    assert density_ratio(notes, melody([60] * 10, step_s=0.25, length_s=0.25)) == pytest.approx(2)
    assert density_ratio(EMPTY, notes) == 0.0
    assert density_ratio(notes, EMPTY) == 0.0


def test_silence_is_where_nothing_is_held():
    # The long low note covers the gap between the two short ones.
    notes = make_notes([1, 1, 3, 9], [8, 2, 4, 10], [40, 60, 62, 64], [80] * 4)
    assert longest_silence_s(notes) == pytest.approx(1.0)
    assert longest_silence_s(notes, start_s=0, end_s=15) == pytest.approx(5.0)
    assert longest_silence_s(notes, start_s=0, end_s=10.5) == pytest.approx(1.0)
    assert longest_silence_s(notes, start_s=2, end_s=8.5) == pytest.approx(0.5)
    assert longest_silence_s(EMPTY) == 0.0
    assert longest_silence_s(EMPTY, start_s=0, end_s=7) == 7.0


@given(pieces(), st.integers(-200, 3000), st.integers(1, 4000))
def test_silence_agrees_with_counting(notes, start, length):
    end = start + length
    silent = np.ones(length, bool)  # cells of 10 ms
    for note in notes:
        first, last = round(note["onset"] * 100), round(note["offset"] * 100)
        silent[max(0, first - start) : max(0, last - start)] = False
    runs = [len(list(run)) for quiet, run in itertools.groupby(silent) if quiet]
    found = longest_silence_s(notes, start_s=start / 100, end_s=end / 100)
    assert found == pytest.approx(max(runs, default=0) / 100, abs=1e-9)


def test_the_longest_note():
    assert longest_note_s(make_notes([0, 1], [21.5, 2], [60, 62], [80, 80])) == 21.5
    assert longest_note_s(EMPTY) == 0.0


@pytest.mark.parametrize(
    ("notes", "repeats"),
    [
        (EMPTY, 0),
        (melody([60]), 1),
        (melody([60, 62, 64]), 1),
        (melody([60, 60]), 2),
        (melody([60] * 17), 17),
        (melody([60, 64, 67] * 5), 5),
        (melody([60, 64, 67] * 5 + [60]), 5),
        (melody([50, 52, *([60, 64, 67] * 5), 55]), 5),
        (melody(list(range(40, 72)) * 3), 3),
        (melody(list(range(40, 73)) * 3), 1),  # 33 notes: longer than a pattern may be
    ],
)
def test_loops(notes, repeats):
    assert longest_loop(notes) == repeats


def test_a_loop_ends_where_the_rhythm_changes():
    onset = np.r_[np.arange(6) * 0.5, 3.2 + np.arange(4) * 0.5]
    notes = make_notes(onset, onset + 0.4, [60] * 10, [80] * 10)
    assert longest_loop(notes) == 6


def test_a_loop_survives_small_changes_of_time_and_any_of_velocity(rng):
    onset = np.arange(20) * 0.5 + rng.uniform(-0.01, 0.01, 20)
    notes = make_notes(onset, onset + 0.4, [60, 64] * 10, rng.integers(1, 128, 20))
    assert longest_loop(notes) == 10


@given(
    st.lists(st.tuples(st.integers(60, 62), st.integers(0, 2)), max_size=14),
)
def test_loops_agree_with_counting(steps):
    onset = np.cumsum([0.1 * wait for _, wait in steps])
    notes = make_notes(onset, onset + 0.05, [p for p, _ in steps], [80] * len(steps))
    pitch, wait = notes["pitch"].tolist(), np.rint(np.diff(notes["onset"]) / 0.05).tolist()
    most = min(1, len(notes))
    for begin in range(len(notes)):
        for period in range(1, len(notes) // 2 + 1):
            for count in range(2, (len(notes) - begin) // period + 1):
                end = begin + count * period
                pitches_fit = all(pitch[i] == pitch[i - period] for i in range(begin + period, end))
                waits_fit = all(wait[i] == wait[i - period] for i in range(begin + period, end - 1))
                if pitches_fit and waits_fit:
                    most = max(most, count)
    assert longest_loop(notes) == most


@given(pieces(), st.integers(-12, 12), st.integers(0, 100))
def test_figures_of_time_and_repetition_do_not_depend_on_place(notes, semitones, seconds):
    moved = shifted(notes, semitones=semitones, seconds=seconds)
    assert longest_loop(moved) == longest_loop(notes)
    assert longest_silence_s(moved) == pytest.approx(longest_silence_s(notes), abs=1e-6)
    assert longest_note_s(moved) == pytest.approx(longest_note_s(notes))
    assert density_per_s(moved) == pytest.approx(density_per_s(notes))


@pytest.mark.parametrize(
    ("seed", "continuation"),
    [(EMPTY, EMPTY), (melody([60]), EMPTY), (EMPTY, melody([60])), (melody([60]), melody([64]))],
)
def test_figures_are_json_whatever_the_parts(seed, continuation):
    found = figures(seed, continuation)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_figures_of_a_piece():
    seed = melody([64, 67, 71] * 4)
    found = figures(seed, shifted(melody([64, 67, 71, 76] * 10), seconds=10))
    assert found["seed_key"] == found["continuation_key"] == "E minor"
    assert found["continuation_notes"] == 40
    assert found["pitch_class_cosine"] > 0.9
    assert found["longest_loop"] == 10
    assert found["longest_silence_s"] == pytest.approx(0.1)


def test_the_pause_before_the_continuation_counts():
    new = make_notes([8, 9], [9, 10], [60, 62], [64] * 2)
    assert figures(melody([60]), new)["longest_silence_s"] == 0.0
    assert figures(melody([60]), new, from_s=5.5)["longest_silence_s"] == 2.5


def test_density_drifts_by_how_much_denser_one_half_is():
    onset = np.r_[np.arange(0, 10, 0.5), np.arange(10.25, 20, 0.25)]
    notes = make_notes(onset, onset + 0.2, np.full(len(onset), 60), np.full(len(onset), 64))
    assert density_drift(notes) == pytest.approx(2.0, abs=0.1)
    steady = melody([60] * 40)
    assert density_drift(steady) == pytest.approx(1.0, abs=0.1)
    assert density_drift(make_notes([0, 0, 0, 9], [1, 1, 1, 10], [60, 62, 64, 60], [64] * 4)) == 3


@pytest.mark.parametrize("notes", [EMPTY, melody([60])])
def test_next_to_nothing_does_not_drift(notes):
    assert density_drift(notes) == 1.0


def test_a_drone_is_counted_wherever_it_stands_and_in_any_octave(rng):
    onset = np.arange(0, 120, 0.25)
    pitch = rng.integers(40, 80, len(onset))
    drone = (onset >= 30) & (onset < 70)
    pitch[drone] = rng.choice([40, 52, 64, 59], drone.sum())
    notes = make_notes(onset, onset + 0.2, pitch, np.full(len(onset), 70))
    assert 1.5 < fewest_pitch_classes(notes) < 3
    assert fewest_pitch_classes(notes[onset < 30]) > 6


def test_slow_notes_and_short_parts_are_no_drone():
    onset = np.arange(0, 90, 2.0)
    slow = make_notes(onset, onset + 1, np.resize([60, 64], 45), np.full(45, 70))
    assert fewest_pitch_classes(slow) == 12
    assert fewest_pitch_classes(slow[:0]) == 12


def test_what_the_figure_sums_up_is_what_a_piece_keeps_note_by_note(rng):
    onset = np.sort(rng.uniform(0, 60, 200))
    notes = make_notes(onset, onset + 0.2, rng.integers(60, 66, 200), np.full(200, 70))
    lately, last, least = np.zeros(12), 0.0, 12.0
    for note in notes:
        lately *= np.exp((last - note["onset"]) / DRONE_S)
        lately[note["pitch"] % 12] += 1
        last = note["onset"]
        if lately.sum() >= DRONE_NOTES:
            least = min(least, effective_number(lately))
    assert fewest_pitch_classes(notes) == pytest.approx(least)


@pytest.mark.parametrize(
    ("pitches", "gap_s", "steps"),
    [
        (range(60, 80), 0.3, 19),
        (range(80, 60, -1), 0.3, 19),
        (range(60, 80), 0.1, 0),  # a run
        ([60, 67] * 10, 0.3, 0),
        ([60, 62, 64, 64, 65, 67, 69, 67], 0.3, 3),
        ([], 0.3, 0),
    ],
)
def test_a_slow_scale_is_counted_in_steps(pitches, gap_s, steps):
    onset = np.arange(len(pitches)) * gap_s
    notes = make_notes(onset, onset + 0.2, list(pitches), [80] * len(pitches))
    assert longest_slow_scale(notes) == steps


@pytest.mark.parametrize("from_step", [0, 7, 33, 100, 777])
def test_a_scale_is_slow_or_fast_wherever_it_is_on_the_grid(from_step):
    for gap, steps in ((15, 0), (16, 19)):
        onset = (from_step + gap * np.arange(20)) / STEPS_PER_SECOND
        notes = make_notes(onset, onset + 0.1, list(range(60, 80)), [80] * 20)
        assert longest_slow_scale(notes) == steps


def test_a_scale_that_ends_where_one_looks_from_is_over():
    onset = np.arange(12) * 0.3
    notes = make_notes(onset, onset + 0.2, [*range(60, 70), 60, 67], [80] * 12)
    assert longest_slow_scale(notes, from_s=float(onset[8])) == 9
    assert longest_slow_scale(notes, from_s=float(onset[9])) == 0


def test_a_scale_that_goes_on_counts_from_its_beginning():
    onset = np.arange(30) * 0.3
    notes = make_notes(onset, onset + 0.2, [*range(60, 75), *[60, 67] * 7, 60], [80] * 30)
    assert longest_slow_scale(notes, from_s=4.0) == 14
    assert longest_slow_scale(notes, from_s=5.0) == 0
    assert has_fault(notes, from_s=4.0)
    assert not has_fault(notes, from_s=5.0)
