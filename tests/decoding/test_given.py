from __future__ import annotations

import numpy as np
import pytest

from deep_piano.analysis.judge import Judge
from deep_piano.codecs.notes import DURATION, ONSET, PITCH, VELOCITY, decode, encode
from deep_piano.decoding.base import Sampling
from deep_piano.decoding.choosing import ChoosingDecoder
from deep_piano.decoding.given import FOLLOWING_NOTES, FREE, Given
from deep_piano.decoding.note_task import NoteTask
from deep_piano.decoding.notes import Engine, NoteDecoder
from deep_piano.music.notes import LOWEST_PITCH, excerpt, make_notes
from tests.support.fakes import arpeggios, random_checkpoint

ENGINE = Engine(random_checkpoint(seed=4, scale=0.3))
FIELDS = [field.name for field in ENGINE.spec.fields]
SEED_S = 8.0


def decoder():
    return NoteDecoder(ENGINE, dict.fromkeys(FIELDS, Sampling()), hold_density=1.0)


def composed(given, *, seconds=60.0, number=0, within=None):
    seed = arpeggios(8, rng=np.random.default_rng(1))
    opened = decoder() if within is None else within
    task = NoteTask(seed, SEED_S, seconds, np.random.default_rng(number), given=given)
    opened.add("it", task)
    while len(opened):
        done = opened.step()
    return done["it"]


def chords(count):
    """Return chords with gaps that the codec would cut, and keys that are struck at once again."""
    onset = np.repeat(np.cumsum(np.resize([0.5, 0.123, 9.7, 0.2501], count)), 3)
    pitch = np.resize([48, 55, 64, 48, 52, 67], 3 * count)
    until = np.append(onset[3:], [onset[-1] + 30] * 3)
    return make_notes(onset, until, pitch, np.resize([30, 61, 90, 127], 3 * count))


def test_a_given_rhythm_is_kept_with_new_pitches():
    old = chords(12)
    found = composed(Given.rhythm(old, SEED_S))
    kept = [ONSET, VELOCITY, DURATION]
    assert found.steps.shape == (len(old), 4)
    np.testing.assert_array_equal(found.steps[1:, kept], encode(old)[1:, kept])
    assert found.nats_after is None
    assert (found.steps[:, PITCH] + LOWEST_PITCH != old["pitch"]).mean() > 0.5


def test_no_key_is_struck_that_sounds_in_a_given_rhythm():
    old = chords(12)
    pitch = composed(Given.rhythm(old, SEED_S)).steps[:, PITCH]
    new = make_notes(old["onset"], old["offset"], pitch + LOWEST_PITCH, old["velocity"])
    assert len(new) == len(old)
    for key in np.unique(new["pitch"]):
        mine = new[new["pitch"] == key]
        assert (mine["offset"][:-1] <= mine["onset"][1:]).all()


def test_given_pitches_are_kept_in_their_order_with_a_new_rhythm():
    old = chords(20)
    steps = composed(Given.pitches(old)).steps
    assert decode(steps)["pitch"].tolist() == old["pitch"].tolist()
    gaps = encode(old)[1:, ONSET]
    assert (steps[1:, ONSET] != gaps).mean() > 0.5
    assert steps[0, ONSET] > 0


def span(seed_notes, *, ends_s=14.0):
    after = arpeggios(10, rng=np.random.default_rng(2), tonic=55)
    after["onset"] += ends_s
    after["offset"] += ends_s
    return after, Given.following(seed_notes, after, ends_s)


def test_a_span_is_filled_up_to_what_follows():
    seed = arpeggios(8, rng=np.random.default_rng(1))
    after, given = span(seed)
    found = composed(given)
    assert found.notes["onset"].min() >= SEED_S
    assert 12.0 < found.notes["onset"].max() < 14.0
    assert found.notes["offset"].max() <= after["onset"][0] + 0.06
    assert found.nats_after > 0
    assert len(found.steps) == len(found.notes)


def test_what_follows_costs_what_the_network_says():
    """The notes of the fill given too: the same losses for the same notes."""
    seed = arpeggios(8, rng=np.random.default_rng(1))
    _, given = span(seed)
    found = composed(given)
    begun = round(float(seed["onset"][-1]) * 100)
    steps = np.concatenate([found.steps, given.steps])
    steps[0, ONSET] += begun
    steps[len(found.steps), ONSET] -= begun + int(found.steps[:, ONSET].sum())
    both = Given(steps, np.full((len(steps), 2), np.nan))
    nats = composed(both).nats
    shares = np.array([len(found.steps), FOLLOWING_NOTES]) / len(steps)
    assert nats == pytest.approx(shares @ [found.nats, found.nats_after])


def test_keys_that_stay_are_left_alone():
    held = make_notes([0.0, 0.5, 0.9], [13.0, 13.0, 13.0], [60, 64, 67], [60, 60, 60])
    struck = make_notes([14.02] * 40, [15.0] * 40, range(40, 80), [60] * 40)
    given = Given.following(held, struck, 14.0)
    for number in range(4):
        notes = composed(given, number=number).notes
        assert not (np.isin(notes["pitch"], held["pitch"]) & (notes["onset"] < 13)).any()
        late = notes["onset"] >= 13.93
        assert not (np.isin(notes["pitch"], struck["pitch"]) & late).any()


def test_a_short_span_has_a_note():
    seed = arpeggios(8, rng=np.random.default_rng(1))
    for number in range(8):
        _, given = span(seed, ends_s=SEED_S + 1)
        found = composed(given, number=number)
        assert len(found.notes)
        assert (found.notes["onset"] < SEED_S + 1).all()


class Flat(Judge):
    def __init__(self):
        pass

    def score(self, figures):
        return np.zeros(len(figures))


def test_of_several_fills_the_one_is_kept_after_which_what_follows_is_likeliest():
    seed = arpeggios(8, rng=np.random.default_rng(1))
    _, given = span(seed, ends_s=10.0)  # no other choice within it
    rng = np.random.default_rng(5)
    alone = decoder()
    for number, mine in enumerate(rng.spawn(4)):
        alone.add(number, NoteTask(seed, SEED_S, 60.0, mine, given=given))
    ends = {}
    while len(alone):
        ends |= alone.step()
    best = min(ends.values(), key=lambda end: end.nats_after)
    assert len({end.nats_after for end in ends.values()}) == 4
    found = composed(given, number=5, within=ChoosingDecoder(decoder(), Flat(), 4))
    assert found.notes.tolist() == best.notes.tolist()


@pytest.mark.parametrize("kind", ["rhythm", "pitches", "following"])
def test_the_same_chances_give_the_same_notes_with_candidates_too(kind):
    old = chords(40)
    seed = arpeggios(8, rng=np.random.default_rng(1))
    given = {
        "rhythm": Given.rhythm(old, SEED_S),
        "pitches": Given.pitches(old),
        "following": span(seed, ends_s=40.0)[1],
    }[kind]
    one, other, else_ = (
        composed(given, number=number, within=ChoosingDecoder(decoder(), Flat(), 2))
        for number in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.steps, other.steps)
    assert one.steps.tolist() != else_.steps.tolist()


def test_what_is_free_is_said():
    notes = excerpt(chords(3), 0.0, 99.0)
    assert (Given.rhythm(notes, 0.0).steps == FREE).sum(0).tolist() == [0, 9, 0, 0]
    assert (Given.pitches(notes).steps == FREE).sum(0).tolist() == [9, 0, 9, 9]
