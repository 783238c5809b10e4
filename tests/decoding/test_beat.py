from dataclasses import replace

import numpy as np
import pytest

from deep_piano.codecs.notes import ONSETS, STEPS_PER_SECOND
from deep_piano.decoding.base import Sampling
from deep_piano.decoding.beat import EXPECTED, LATER, MOST_PULL, Beat, to_the_beat
from deep_piano.decoding.notes import NoteDecoder
from deep_piano.music.notes import make_notes
from tests.support.decoding import ENGINE, FIELDS, finished, task


def heard(gaps):
    beat = Beat()
    for gap in gaps:
        beat.take(int(gap))
    return beat


def test_after_a_steady_beat_the_next_is_expected():
    expected = heard([50] * 20).expected()
    assert expected.shape == (ONSETS,)
    assert int(expected.argmax()) == 50
    assert expected[50] > 1
    assert expected[25] == expected[EXPECTED].min() < 0
    assert not expected[:LATER].any()  # a chord is never expected or not
    assert not expected[EXPECTED.stop :].any()


def test_after_a_late_onset_the_beat_stays_where_it_was():
    expected = heard([50] * 20 + [58]).expected()
    assert abs(int(expected.argmax()) - 42) <= 2


@pytest.mark.parametrize("gaps", [[150] * 20, [200] * 10, [150, 0, 0] * 20, [50] * 20 + [150] * 11])
def test_a_beat_that_is_slower_than_what_can_be_expected_makes_no_note_likely(gaps):
    expected = heard(gaps).expected()[EXPECTED]
    assert expected.max() <= 0
    assert expected[:3].max() < -1


@pytest.mark.parametrize("gaps", [[50] * 20, [16] * 40, [75, 25] * 20])
def test_what_came_now_is_not_expected_once_more(gaps):
    expected = heard(gaps).expected()
    assert expected[LATER : LATER + 3].max() < 0


def test_chords_make_no_beat_of_their_own():
    chords = heard([50, 0, 1] * 20).expected()
    assert abs(int(chords.argmax()) - 50) <= 2


def test_nothing_is_expected_after_one_chord():
    assert not heard([0, 0, 1]).expected().any()


def test_after_a_long_rest_the_beat_begins_anew():
    assert abs(int(heard([50] * 20 + [777]).expected().argmax()) - 50) <= 2


def test_steadiness_tells_a_beat_from_chance(rng):
    steady, jittered, free = (
        heard(gaps).steadiness
        for gaps in (
            [50] * 60,
            np.diff(np.arange(60) * 50 + rng.normal(0, 3, 60)).round(),
            rng.integers(10, 90, 60),
        )
    )
    assert steady > jittered > 0.5
    assert free < 0.5


def test_what_is_expected_counts_more_after_a_steady_seed_and_where_the_beat_is_lost(rng):
    steady, free = heard([50] * 20), heard(rng.integers(10, 90, 20))
    for beat in (steady, free):
        beat.settle()
    assert 0 <= free.pull() < 0.5
    assert steady.pull() == pytest.approx(min(steady.of_seed, MOST_PULL))
    loose = heard(np.diff(np.arange(20) * 50 + rng.normal(0, 8, 20)).round())
    loose.settle()
    before = loose.pull()
    for gap in rng.integers(10, 90, 20).tolist():
        loose.take(gap)
    assert before < loose.pull() <= MOST_PULL


def test_a_copy_goes_on_by_itself():
    beat = heard([50] * 20)
    twin, before = beat.copy(), beat.expected().copy()
    for _ in range(3):
        twin.take(30)
    np.testing.assert_array_equal(beat.expected(), before)
    assert twin.steadiness != beat.steadiness
    np.testing.assert_array_equal(heard([50] * 20 + [30] * 3).expected(), twin.expected())


def test_tilted_onsets_leave_chords_as_likely_as_they_were(rng):
    logits = rng.normal(0, 2, (3, ONSETS)).astype(np.float32)
    tilt = np.zeros((3, ONSETS))
    tilt[:, EXPECTED] = rng.normal(0, 2, (3, EXPECTED.stop - EXPECTED.start))

    def shares(logits):
        weights = np.exp(logits.astype(np.float64))
        return weights / weights.sum(1, keepdims=True)

    before, after = shares(logits), shares(to_the_beat(logits, tilt))
    np.testing.assert_allclose(after[:, :LATER], before[:, :LATER], rtol=1e-5)
    ratio = (after / before)[:, LATER:] / np.exp(tilt[:, LATER:])
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(ratio.shape[1], 1), rtol=1e-4)
    assert to_the_beat(logits, tilt).dtype == np.float32


def test_pieces_keep_the_beat_of_their_seed():
    def steadiness(hold_beat):
        decoder = NoteDecoder(ENGINE, dict.fromkeys(FIELDS, Sampling()), hold_beat=hold_beat)
        pieces = []
        for number in range(4):
            decoder.add(number, task(number=number))
            pieces.append(decoder.piece(number))
        finished(decoder)
        found = []
        for piece in pieces:
            beat = heard(piece.seed[:, 0])
            for step in piece.made[:-8]:  # without the last chord
                beat.take(step[0])
            found.append(beat.steadiness)
        return np.mean(found)

    assert steadiness(1.0) > steadiness(0.0) + 0.2


def test_a_piece_is_as_steady_as_what_it_is_to_be_like(rng):
    steady, free = np.arange(20) * 0.5, np.sort(rng.uniform(10, 40, 60))
    onset = np.concatenate([steady, free])
    seed = make_notes(onset, onset + 0.3, [60, 64, 67, 72] * 20, [70] * 80)
    decoder = NoteDecoder(ENGINE, dict.fromkeys(FIELDS, Sampling()))
    begun = replace(task(), seed=seed, seed_seconds=40.0, manner_seconds=10.0)
    decoder.add(0, begun)
    piece = decoder.piece(0)
    assert piece.beat.of_seed == heard([0, *[50] * 19]).steadiness > 1


def test_a_beat_slower_than_five_seconds_is_out_of_reach():
    beat = heard([5 * STEPS_PER_SECOND + 1] * 8)
    assert not beat.expected().any()
