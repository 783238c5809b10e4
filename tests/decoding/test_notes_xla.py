"""The compiled loop beside the reference, `decoding.notes.NoteDecoder`, here on the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deep_piano.analysis.compact_index import CompactIndex
from deep_piano.analysis.keys import Key
from deep_piano.analysis.note_figures import MOST_REPETITIONS, longest_loop
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import encode
from deep_piano.decoding.base import Sampling
from deep_piano.decoding.given import Given
from deep_piano.decoding.note_task import NoteTask
from deep_piano.decoding.notes import Engine, NoteDecoder
from deep_piano.decoding.rules import MOST_NOTES_AT_ONCE
from deep_piano.decoding.sections import Section
from tests.support.fakes import arpeggios, random_checkpoint

pytestmark = [pytest.mark.tf, pytest.mark.slow]

WIDTH = 4
FIELDS = ("onset", "pitch", "velocity", "duration")
PLAIN = {**dict.fromkeys(FIELDS, Sampling()), "pitch": Sampling(top_p=0.95)}, None
# Of few likely classes, so that pieces get stuck in loops, and are led out of them.
GUIDED = (
    dict.fromkeys(FIELDS, Sampling(0.3, 3, 0.9, 0.02)),
    {"pitch": 2.0, "onset": 0.5},
    1.0,  # the holds on density and beat
    2.0,
)


HASTY, STUBBORN = random_checkpoint(), random_checkpoint(seed=10, scale=1.0)
HASTY.weights["onset/bias"][0] += 8  # it wants all notes at one moment


@pytest.fixture(scope="module")
def plain():
    from deep_piano.decoding.notes_xla import NoteDecoderXla

    return NoteDecoderXla(HASTY, *PLAIN, width=WIDTH, notes_a_call=16)


@pytest.fixture(scope="module")
def guided():
    from deep_piano.decoding.notes_xla import NoteDecoderXla

    return NoteDecoderXla(STUBBORN, *GUIDED, width=WIDTH, notes_a_call=16)


def task(number, seconds=None):
    rng = np.random.default_rng(number)
    seed = arpeggios(2 + number % 8, rng=rng, tonic=48 + number % 12)
    return NoteTask(seed, 9.0, seconds or 12.0 + 2.5 * number, np.random.default_rng(number))


def with_course(number):
    """Return a task of sections: the seed comes again, then a section does; all controls move."""
    sections = (
        Section(0.0, 12.0 + number, density=0.7, register=5.0),
        Section(12.0 + number, 24.0, (0.0, 8.0), -3, 4.0, 6.0, key=Key(number % 12, "minor")),
        Section(24.0, 24.5, loudness=0.6, bridge_s=3.0),
        Section(24.5, 60.0, (12.0 + number, 24.0), 2, 3.0, 2.0, 1.4, loudness=1.3, bridge_s=2.0),
    )
    return replace(task(number, seconds=32.0 + number), sections=sections)


def with_given(number):
    """Return a remix, of a rhythm or of pitches, or a span to be filled, by turns."""
    rng = np.random.default_rng(100 + number)
    old = arpeggios(5 + number, rng=rng, tonic=50 + number)
    old["onset"] += 15.0
    old["offset"] += rng.uniform(15.0, 15.5, len(old))  # keys overlap
    plain = task(number)
    given = (
        Given.rhythm(old, 0.5),
        Given.pitches(old),
        Given.following(plain.seed, old, 14.5),
    )[number % 3]
    return replace(plain, seconds=40.0, given=given)


def composed(decoder, numbers, *, at_once=WIDTH, task=task):
    """Return the pieces of some tasks, each begun as soon as there is a place."""
    waiting, done = list(numbers), {}
    while waiting or len(decoder):
        while waiting and len(decoder) < at_once:
            number = waiting.pop(0)
            decoder.add(number, task(number))
        done |= decoder.step()
    return done


def require_the_same(found, expected):
    assert found.keys() == expected.keys()
    for name, piece in expected.items():
        np.testing.assert_array_equal(found[name].notes, piece.notes)
        assert found[name].nats == pytest.approx(piece.nats, abs=1e-4)


def test_pieces_are_those_of_the_reference(plain):
    expected = composed(NoteDecoder(Engine(HASTY), *PLAIN), range(12))
    require_the_same(composed(plain, range(12)), expected)
    onsets = [np.unique(piece.notes["onset"], return_counts=True)[1] for piece in expected.values()]
    assert max(map(max, onsets)) >= MOST_NOTES_AT_ONCE  # a rule that was needed


def test_guided_pieces_are_those_of_the_reference(guided):
    expected = composed(NoteDecoder(Engine(STUBBORN), *GUIDED), range(12))
    require_the_same(composed(guided, range(12)), expected)
    loops = [longest_loop(piece.notes) for piece in expected.values()]
    assert max(loops) <= MOST_REPETITIONS


@pytest.mark.parametrize("name", ["plain", "guided"])
def test_sections_are_those_of_the_reference(name, request):
    checkpoint, draws = {"plain": (HASTY, PLAIN), "guided": (STUBBORN, GUIDED)}[name]
    expected = composed(NoteDecoder(Engine(checkpoint), *draws), range(6), task=with_course)
    require_the_same(composed(request.getfixturevalue(name), range(6), task=with_course), expected)
    without = composed(NoteDecoder(Engine(checkpoint), *draws), [3], task=task)
    assert len(without[3].notes) != len(expected[3].notes)


@pytest.mark.parametrize("name", ["plain", "guided"])
def test_given_notes_are_those_of_the_reference(name, request):
    checkpoint, draws = {"plain": (HASTY, PLAIN), "guided": (STUBBORN, GUIDED)}[name]
    expected = composed(NoteDecoder(Engine(checkpoint), *draws), range(9), task=with_given)
    found = composed(request.getfixturevalue(name), range(9), task=with_given)
    require_the_same(found, expected)
    for number, piece in expected.items():
        np.testing.assert_array_equal(found[number].steps, piece.steps)
        if number % 3 == 2:
            assert found[number].nats_after == pytest.approx(piece.nats_after, abs=1e-4)
        else:
            assert len(piece.steps) == len(with_given(number).given.steps)


@pytest.mark.parametrize("name", ["plain", "guided"])
def test_a_piece_is_the_same_to_the_last_bit_in_any_slot_and_company(name, request):
    decoder = request.getfixturevalue(name)
    expected = composed(decoder, range(10))
    found = {}
    for at_once, numbers in ((1, [3]), (WIDTH, [9, 4, 3, 8, 0]), (2, [7, 6, 5, 2, 1])):
        found |= composed(decoder, numbers, at_once=at_once)
    for number, piece in expected.items():
        np.testing.assert_array_equal(found[number].notes, piece.notes)
        assert found[number].nats == piece.nats


def test_a_long_seed_is_heard_over_several_calls(guided):
    def long_one():
        seed = arpeggios(20, rng=np.random.default_rng(0))  # a hundred notes
        return NoteTask(seed, 20.5, 40.0, np.random.default_rng(5))

    reference, found = NoteDecoder(Engine(STUBBORN), *GUIDED), {}
    for decoder in (reference, guided):
        decoder.add("long", long_one())
        while len(decoder):
            found.setdefault(decoder, {}).update(decoder.step())
    require_the_same(found[guided], found[reference])


def test_progress_goes_forward_and_there_is_no_slot_too_many(plain):
    for number in range(WIDTH):
        plain.add(number, task(number, seconds=30.0))
    with pytest.raises(ValueError, match="not in list"):
        plain.add("one more", task(9))
    told = []
    while len(plain):
        told.append((len(plain), plain.done_s))
        plain.step()
    assert told[0][0] == WIDTH
    whole = [seconds for count, seconds in told if count == WIDTH]
    assert whole == sorted(whole)


@pytest.fixture(scope="module", params=["exact", "compact"])
def corpus(request):
    """An index of what the stubborn network plays, and the notes that may be shared with it."""
    made = composed(NoteDecoder(Engine(STUBBORN), *GUIDED), range(12), task=with_course)
    recordings = [(str(number), encode(piece.notes)) for number, piece in made.items()]
    kind, most = {"exact": (CorpusIndex, 8), "compact": (CompactIndex, 12)}[request.param]
    return kind.build(recordings), most


@pytest.mark.parametrize("name", ["plain", "guided"])
def test_pieces_are_kept_apart_as_by_the_reference(name, request, corpus):
    index, most = corpus
    checkpoint, draws = {"plain": (HASTY, PLAIN), "guided": (STUBBORN, GUIDED)}[name]

    def free(number):
        return (
            with_given(number // 3) if number % 3 == 2 else (task, with_course)[number % 3](number)
        )

    def apart(number):  # but for one, which is made beside the others
        return replace(free(number), corpus=index, most_shared=most) if number != 4 else free(4)

    def run(piece):
        return index.longest_run(encode(piece.notes)).notes

    expected = composed(NoteDecoder(Engine(checkpoint), *draws), range(12), task=apart)
    found = composed(request.getfixturevalue(name), range(12), task=apart)
    require_the_same(found, expected)
    given = (4, 5)  # not kept apart; of given pitches
    assert max(run(piece) for number, piece in found.items() if number not in given) <= most
    if name == "guided":
        led = composed(NoteDecoder(Engine(checkpoint), *draws), range(12), task=free)
        assert sum(run(piece) > most for piece in led.values()) >= 3
