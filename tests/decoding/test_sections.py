from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deep_piano.analysis.keys import Key
from deep_piano.codecs.note_context import NoteContext
from deep_piano.codecs.notes import ONSET_CLASSES
from deep_piano.decoding.base import Sampling
from deep_piano.decoding.ending import CLOSING_S
from deep_piano.decoding.notes import NoteDecoder
from deep_piano.decoding.rules import Piece
from deep_piano.decoding.sections import (
    LATEST_GAP,
    THEME_NOTES,
    Aims,
    Section,
    Wishes,
    wish_for_key,
)
from deep_piano.music.notes import make_notes
from tests.support.decoding import ENGINE, FIELDS, SEED_S, composed, finished, task

LEVELS = np.array([1.0, 40.0, 16.0])


def recalled(theme, notes, at_s, semitones=0):
    """Return the share of a theme's notes that are struck at their time after `at_s`."""
    apart_s = np.abs(notes["onset"] - at_s - theme["onset"][:, None])
    same = notes["pitch"] == theme["pitch"][:, None].astype(int) + semitones
    return ((apart_s <= 0.06) & same).any(1).mean()


def test_a_section_that_recalls_the_seed_brings_it_back():
    shares = []
    for strength in (0.0, 4.0, 8.0):
        theme = Section(30.0, recalled=(0.0, SEED_S), strength=strength)
        [notes] = composed(task(Section(0.0, 30.0), theme))
        shares.append(recalled(task().seed, notes, 30.0))
    assert shares[0] < 0.1
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.8


def test_it_comes_back_in_another_key():
    theme = Section(30.0, recalled=(0.0, SEED_S), semitones=-5, strength=8.0)
    [notes] = composed(task(Section(0.0, 30.0), theme))
    assert recalled(task().seed, notes, 30.0, -5) > 0.8
    assert recalled(task().seed, notes, 30.0) < 0.2


def test_what_follows_a_long_rest_of_the_seed_comes_again_at_its_time():
    first = task().seed
    later = first.copy()
    for name in ("onset", "offset"):
        later[name] += SEED_S + 12.0
    theme = Section(50.0, recalled=(SEED_S + 12.0, 2 * SEED_S + 12.0), strength=8.0)
    plain = task(Section(0.0, 50.0), theme, seconds=90.0)
    rested = replace(plain, seed=np.concatenate([first, later]), seed_seconds=2 * SEED_S + 12.0)
    [notes] = composed(rested)
    assert recalled(first, notes, 50.0) > 0.7


def test_a_passage_that_comes_again_has_its_own_beat():
    onset = np.arange(16) * 0.5
    seed = make_notes(onset, onset + 0.4, [60, 64, 67, 72] * 4, [70] * 16)
    times = [20.0, 20.12, 20.24, 20.36]
    shares = {}
    for hold_beat in (0.0, 2.0):
        decoder = NoteDecoder(ENGINE, dict.fromkeys(FIELDS, Sampling()), hold_beat=hold_beat)
        for at_s in times:
            theme = Section(at_s, recalled=(0.0, SEED_S), strength=8.0)
            decoder.add(at_s, replace(task(Section(end_s=at_s), theme), seed=seed))
        made = finished(decoder)
        shares[hold_beat] = np.mean([recalled(seed, made[at].notes, at) for at in times])
    assert shares[2.0] > 0.9 * shares[0.0] > 0.4


def test_a_section_recalls_one_that_was_composed_before():
    middle, last = Section(SEED_S, 25.0), Section(40.0, recalled=(10.0, 20.0), strength=8.0)
    [notes] = composed(task(middle, Section(25.0, 40.0), last))
    theme = notes[(notes["onset"] >= 10.0) & (notes["onset"] < 20.0)].copy()
    theme["onset"] -= 10.0
    assert recalled(theme, notes, 40.0) > 0.7
    assert recalled(theme, notes, 25.0) < 0.2


def test_without_wishes_a_piece_is_as_without_sections():
    plain, divided = composed(task(), task(Section(0.0, 60.0)))
    np.testing.assert_array_equal(plain, divided)


def test_a_piece_with_a_course_does_not_change_the_one_beside_it():
    alone = composed(task(number=1))[0]
    beside = composed(task(Section(key=Key(0, "major"), register=9.0)), task(number=1))[1]
    np.testing.assert_array_equal(alone, beside)


@pytest.mark.parametrize(
    ("control", "values", "figure"),
    [
        ("density", (0.5, 1.0, 2.0), len),
        ("register", (-9.0, 0.0, 9.0), lambda notes: notes["pitch"].mean()),
        ("loudness", (0.6, 1.0, 1.4), lambda notes: notes["velocity"].mean()),
    ],
)
def test_a_control_moves_its_figure(control, values, figure):
    found = [
        np.mean([figure(one) for one in composed(*(task(section, number=n) for n in range(3)))])
        for section in (Section(**{control: value}) for value in values)
    ]
    assert found[0] < found[1] < found[2]


def test_the_wish_for_a_key_is_for_its_pitch_classes():
    wish = wish_for_key(Key(0, "major"))  # of keys from A0 on
    assert wish[3] == wish[15] == wish.max()  # C
    assert wish[4] < -1  # C#
    assert not wish_for_key(None).any()


def test_sections_within_the_seed_are_over_and_one_begins_where_the_last_ends():
    course = Section(0.0, 3.0), Section(3.0, 20.0), Section(20.0, 60.0)
    piece = Piece("mine", task(*course))
    assert piece.course.section is course[1]
    assert not piece.is_late(20 * 100 - piece.now)
    assert piece.is_late(20 * 100 - piece.now + 1)
    piece.turn()
    assert piece.course.section is course[2]
    assert piece.course.stop == piece.final[0] - 100 * CLOSING_S
    piece.turn()
    assert piece.course.wishes.aims.levels[1] > piece.course.wishes.ramp.aims.levels[1]
    assert piece.course.stop == piece.final[0]
    piece.turn()
    assert piece.chord is not None


def wishing(when, keys, **strengths):
    aims = Aims.of(Section(), np.full((3, 4), 16, np.int32))
    return Wishes(aims, np.zeros(2), theme=(np.array(when), np.array(keys)), **strengths)


def test_no_more_notes_are_recalled_than_there_is_room_for():
    when, keys = np.arange(2 * THEME_NOTES), np.full(2 * THEME_NOTES, 40)
    keys[:5] = 90, -1, 88, 87, 0
    wishes = wishing(when, keys, strength=3.0)
    assert wishes.left.all()
    assert wishes.keys[:3].tolist() == [87, 0, 40]


def test_an_onset_is_wished_for_at_its_time():
    wishes = wishing([150, 1000], [40, 41], strength=4.0)
    wish = wishes.of([], 100, LEVELS, -1)
    assert wish.argmax() == ONSET_CLASSES[50]
    assert wish.max() == 6
    assert np.flatnonzero(wish).tolist() == list(range(47, 54))
    assert wishes.of([50], 100, LEVELS, -1).argmax() == 40
    wishes.take(152, 40)
    assert wishes.of([], 152, LEVELS, -1) is None  # the next one is further away than is waited for
    assert LATEST_GAP < 1000 - 152


def test_a_chord_that_is_late_keeps_its_spread():
    wishes = wishing([100, 101, 103, 150], [40, 44, 47, 50], strength=4.0)
    assert wishes.of([], 102, LEVELS, -1).argmax() == 0
    wishes.take(102, 40)
    assert wishes.of([], 102, LEVELS, -1).argmax() == 1
    wishes.take(102, 44)  # this one came together with the first
    assert wishes.of([], 102, LEVELS, -1).argmax() == 2
    wishes.take(104, 47)
    assert wishes.of([], 104, LEVELS, -1).argmax() == ONSET_CLASSES[46]  # the next is in time


def test_the_key_that_is_due_first_is_wished_for_first():
    wishes = wishing([100, 101, 150], [40, 44, 50], strength=4.0)
    wish = wishes.of([0], 100, LEVELS, -1)
    assert (wish[40], wish[44], wish[50]) == (4, 2, 0)
    wishes.take(102, 40)
    wish = wishes.of([1], 102, LEVELS, -1)  # as late as the note before
    assert (wish[40], wish[44]) == (0, 4)


def test_a_note_that_does_not_come_is_given_up_when_another_comes_at_its_time():
    wishes = wishing([100, 101, 102], [40, 44, 47], strength=4.0)
    wishes.take(90, 30)  # before its time
    assert wishes.left[:3].tolist() == [True, True, True]
    wishes.take(100, 44)
    assert wishes.left[:3].tolist() == [True, False, True]
    wishes.take(101, 30)
    assert wishes.left[:3].tolist() == [False, False, True]


def test_what_was_heard_before_the_section_is_left_where_no_note_is_due():
    wishes = wishing([150], [40], strength=4.0, vary=3.0)
    assert wishes.of([30], 100, LEVELS, 44).tolist() == [-3.0 * (key == 44) for key in range(88)]
    assert wishes.of([50], 100, LEVELS, 44).tolist() == [4.0 * (key == 40) for key in range(88)]
    piece = Piece("mine", task(Section(SEED_S, strength=4.0, vary=3.0)))
    piece.take([10, 40, 16, 10])
    assert piece.wish([30], 44, 2).min() == -3
    assert piece.wish([30], 44, 1).min() == 0  # it stood within the section


def test_the_memory_says_what_was_heard(rng):
    context = NoteContext(1)
    context.start(0)
    for onset, pitch in zip(
        [0] + [20] * 13, [30, 33, 35, 40, 38, 31, 30, 32, 35, 37, 42, 40, 33, 32], strict=True
    ):
        context.advance(np.array([[onset, pitch, 16, 10]], np.int32))
    assert context.heard(np.array([0]), 5).tolist() == [[34, 7]]
    assert context.heard(np.array([0]), 9)[0, 0] == -1


def test_a_branch_has_wishes_of_its_own():
    theme = Section(SEED_S, recalled=(0.0, SEED_S), strength=8.0)
    piece = Piece("mine", task(theme))
    twin = piece.branch("twin", np.random.default_rng(1))
    key = int(piece.course.wishes.keys[0])
    piece.take([int(piece.course.wishes.when[0]) - piece.now, key, 16, 10])
    assert twin.course.wishes.left[0]
    assert not piece.course.wishes.left[0]
    np.testing.assert_array_equal(twin.levels, Piece("other", task(theme)).levels)
