from __future__ import annotations

import numpy as np
import pytest

from deep_piano.analysis.keys import Key
from deep_piano.codecs.notes import ONSET, encode
from deep_piano.decoding.course import Course, Heard
from deep_piano.decoding.ending import CLOSING_DENSITY, CLOSING_LOUDNESS, CLOSING_S
from deep_piano.decoding.note_task import NoteTask
from deep_piano.decoding.notes import Engine
from deep_piano.decoding.sections import Section, dominant_of, wish_for_key
from tests.support.decoding import composed
from tests.support.fakes import arpeggios, random_checkpoint

SEED = encode(arpeggios(8, rng=np.random.default_rng(0), tonic=48))
C, F_SHARP = Key(0, "major"), Key(6, "minor")


def heard(now=800, *, made=0, key=None, density=1.0):
    return Heard(SEED, np.cumsum(SEED[:, ONSET]), made, now, density, np.array([40.0, 16.0]), key)


def course(*sections, closes=True):
    return Course(sections, SEED, end_s=60.0, seed_end=800, final=5500, closes=closes)


def begun(*sections):
    found = course(*sections)
    found.turn(heard())
    return found


def test_a_section_leads_to_the_next_one():
    first = Section(0.0, 30.0, density=2.0, register=6.0, key=C)
    wishes = begun(first, Section(30.0, 60.0, loudness=0.5, key=F_SHARP, bridge_s=4.0)).wishes
    before, amid, after = (wishes.at(now) for now in (2600, 2800, 3000))
    assert before is wishes.aims
    np.testing.assert_allclose(amid.density, (before.density + after.density) / 2)
    np.testing.assert_allclose(amid.levels, (before.levels + after.levels) / 2)
    softer = (SEED[:, 2].mean() + 0.5) / 2 - 0.5
    np.testing.assert_allclose(after.levels, [SEED[:, 1].mean(), softer])
    assert after.density[0] == 0
    np.testing.assert_allclose(after.of_key, wish_for_key(F_SHARP, dominant_of(F_SHARP)), rtol=1e-5)
    np.testing.assert_array_equal(before.of_key, wish_for_key(C))


def test_without_a_bridge_a_section_leads_nowhere():
    wishes = begun(Section(0.0, 30.0, key=C), Section(30.0, 60.0, key=F_SHARP)).wishes
    assert wishes.at(3000) is wishes.aims


def test_a_bridge_that_is_longer_than_what_is_before_it_begins_with_that():
    wishes = begun(Section(0.0, 12.0, loudness=2.0), Section(12.0, bridge_s=10.0)).wishes
    assert wishes.ramp[:2] == (800, 1200)


def test_a_bridge_prepares_the_key_of_what_comes_again():
    back = Section(30.0, recalled=(0.0, 8.0), semitones=2, bridge_s=4.0)
    ahead = begun(Section(0.0, 30.0), back).wishes.at(3000)
    key = Key(2, "major")
    np.testing.assert_array_equal(ahead.of_key, wish_for_key(key, dominant_of(key)))


def test_a_piece_closes_slower_and_softer_in_its_key():
    piece = begun()
    assert piece.wishes is None
    assert piece.stop == 5500 - 100 * CLOSING_S
    piece.turn(heard(5090, made=300, key=F_SHARP, density=1.3))
    assert piece.is_over
    assert piece.section.key == F_SHARP
    now, end = piece.wishes.at(5100), piece.wishes.at(5500)
    assert now.density[0] == 0
    assert now.levels.tolist() == [40.0, 16.0]
    assert not now.of_key.any()
    assert end.density[:2].tolist() == [pytest.approx(np.log(1.3 * CLOSING_DENSITY)), 0]
    assert end.levels.tolist() == [40.0, pytest.approx(16 * CLOSING_LOUDNESS)]
    np.testing.assert_array_equal(end.of_key, wish_for_key(F_SHARP, dominant_of(F_SHARP)))


@pytest.mark.parametrize("end_s", [52.0, 54.5, 58.0, 60.0])
def test_a_last_section_without_room_still_gives_the_closing_its_key(end_s):
    """However late the one before was to end, the piece closes as long as any other."""
    piece = begun(Section(0.0, end_s, key=C), Section(end_s, key=F_SHARP))
    assert piece.stop == 5500 - 100 * CLOSING_S
    assert not piece.is_over
    piece.turn(heard(5090, made=300))
    assert piece.section.key == F_SHARP
    assert not piece.is_over
    piece.turn(heard(5090, made=300))
    assert piece.is_over
    assert piece.section.key == F_SHARP
    assert piece.wishes.ramp[:2] == (5500 - 100 * CLOSING_S, 5500)


def test_what_leads_back_to_given_notes_does_not_close():
    filled = course(closes=False)
    filled.turn(heard())
    assert filled.is_over


def test_a_bridge_is_heard():
    faint = Engine(random_checkpoint(seed=4, scale=0.05))  # it hardly wishes for anything itself

    def before(bridge_s):
        sections = (Section(0.0, 30.0, key=C), Section(30.0, key=F_SHARP, bridge_s=bridge_s))
        seed = arpeggios(8, rng=np.random.default_rng(0))
        tasks = [
            NoteTask(seed, 8.0, 45.0, np.random.default_rng(n), None, sections) for n in range(8)
        ]
        pieces = composed(*tasks, engine=faint)
        notes = np.concatenate(pieces)
        return notes[(notes["onset"] > 26.0) & (notes["onset"] < 30.0)]["pitch"] % 12

    share = [np.isin(before(s), dominant_of(F_SHARP)).mean() for s in (0.0, 6.0)]
    assert share[1] > share[0] + 0.1
