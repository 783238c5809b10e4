from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano.analysis.note_figures import (
    FEWEST_PITCH_CLASSES,
    MOST_REPETITIONS,
    fewest_pitch_classes,
    longest_loop,
    longest_silence_s,
    pitch_class_cosine,
)
from deep_piano.codecs.note_context import NoteContext
from deep_piano.codecs.notes import LOG_WIDTHS, STEPS_PER_SECOND
from deep_piano.decoding.base import Sampling
from deep_piano.decoding.ending import RING_S
from deep_piano.decoding.note_task import NoteTask
from deep_piano.decoding.notes import Engine, NoteDecoder
from deep_piano.decoding.rules import (
    LONGEST_GAP_S,
    LONGEST_NOTE_S,
    MOST_NOTES_AT_ONCE,
    MOST_PULL,
    Piece,
)
from deep_piano.decoding.sections import FREE_DENSITY, Section
from deep_piano.models.config import ModelConfig
from deep_piano.music.notes import make_notes
from tests.support.decoding import finished
from tests.support.fakes import arpeggios, random_checkpoint

ENGINE = Engine(random_checkpoint())
FIELDS = [field.name for field in ENGINE.spec.fields]


def compose(seed, *, seconds=40.0, random_state=0, sampling=None, engine=ENGINE, seed_seconds=8.0):
    decoder = NoteDecoder(engine, sampling or dict.fromkeys(FIELDS, Sampling()))
    decoder.add("mine", task(seed, seed_seconds, seconds, random_state))
    return finished(decoder)["mine"].notes


def task(seed, seed_seconds=8.0, seconds=40.0, random_state=0):
    return NoteTask(seed, seed_seconds, seconds, np.random.default_rng(random_state))


@given(st.integers(0, 10_000), st.floats(14, 60))
@settings(max_examples=25)
def test_whatever_the_network_wishes_the_rules_are_kept(random_state, seconds):
    rng = np.random.default_rng(random_state)
    engine = Engine(random_checkpoint(seed=random_state, scale=rng.uniform(0.05, 3)))
    new = compose(arpeggios(8, rng=rng), seconds=seconds, random_state=random_state, engine=engine)
    end = seconds - RING_S
    assert new["onset"][0] >= 8.0 - 0.005
    assert new["offset"].max() == pytest.approx(end, abs=0.006)
    assert np.diff(new["onset"]).max(initial=0) <= LONGEST_GAP_S + 0.005
    assert longest_silence_s(new) <= 4
    lengths = new["offset"] - new["onset"]
    assert lengths.max() <= LONGEST_NOTE_S
    for key in np.unique(new["pitch"]):
        mine = new[new["pitch"] == key]
        assert (mine["offset"][:-1] <= mine["onset"][1:] + 1e-9).all()


def test_the_same_random_state_gives_the_same_notes(rng):
    seed = arpeggios(8, rng=rng)
    np.testing.assert_array_equal(compose(seed), compose(seed))
    assert (
        len(compose(seed, random_state=1)) != len(compose(seed))
        or (compose(seed, random_state=1) != compose(seed)).any()
    )


def test_the_seed_is_heard(rng):
    other = compose(arpeggios(8, rng=rng, tonic=50))
    mine = compose(arpeggios(8, rng=np.random.default_rng(20250101)))
    assert len(mine) != len(other) or (mine["pitch"] != other["pitch"]).any()


def test_a_seed_with_a_long_pause_behind_it_is_continued_soon(rng):
    new = compose(arpeggios(3, rng=rng), seed_seconds=5.0)
    assert 5.0 - 0.005 <= new["onset"][0] <= 6.01


def test_progress_goes_forward(rng):
    decoder = NoteDecoder(ENGINE, dict.fromkeys(FIELDS, Sampling()))
    decoder.add(1, task(arpeggios(8, rng=rng), seconds=30.0))
    told = []
    while len(decoder):
        told.append(decoder.done_s)
        decoder.step()
    assert told == sorted(told)
    assert 7 <= told[0] < told[-1] <= 30


def test_the_surprise_is_that_of_the_network_itself(rng):
    """In a piece of which the end is far, no rule excludes anything likely."""
    seed = arpeggios(8, rng=rng)
    checkpoint = random_checkpoint(scale=0.2)
    decoder = NoteDecoder(Engine(checkpoint), dict.fromkeys(FIELDS, Sampling()))
    decoder.add(0, task(seed, 8.0, 60.0))
    nats = finished(decoder)[0].nats
    mean_width = np.mean([LOG_WIDTHS[0].mean(), LOG_WIDTHS[3].mean()])
    near_uniform = sum(np.log(field.size) for field in Engine(checkpoint).spec.fields)
    assert near_uniform - 1 < nats < near_uniform + 4 * mean_width
    decoder = NoteDecoder(Engine(checkpoint), dict.fromkeys(FIELDS, Sampling(temperature=0.1)))
    decoder.add(0, task(seed, 8.0, 60.0))
    assert finished(decoder)[0].nats < nats  # the likeliest notes surprise least


@pytest.mark.parametrize(("hurry", "step_s"), [(0.0, 0.1), (5.0, 0.5)])
def test_a_piece_is_held_to_the_density_of_its_seed(hurry, step_s):
    checkpoint = random_checkpoint(seed=1)
    checkpoint.weights["onset/bias"][1:10] += hurry  # noise, and noise that is dense
    seed = arpeggios(8, rng=np.random.default_rng(1), step_s=step_s)

    def beside_the_seed(strength):
        draws = dict.fromkeys(FIELDS, Sampling())
        decoder = NoteDecoder(Engine(checkpoint), draws, hold_density=strength)
        decoder.add(0, task(seed, 8.0, 120.0))
        return abs(np.log(len(finished(decoder)[0].notes) / 112 / (len(seed) / 8)))

    loose, tight, tighter = map(beside_the_seed, (0, 1, 4))
    assert tighter < tight < loose
    assert tighter < loose / 2


def test_near_the_density_of_the_seed_nothing_is_pulled():
    seed = arpeggios(8, rng=np.random.default_rng(1), step_s=0.2)  # five notes a second
    piece = Piece("mine", task(seed))
    wait, note = 20, 1
    assert piece.pull() == 0
    pulls = []
    for _ in range(200):
        piece.take([wait, 40, 16, 10])
        pulls.append(piece.pull())
    assert pulls == [0.0] * 200
    assert piece.density == pytest.approx(1, abs=0.1)
    for _ in range(200):
        piece.take([note, 40, 16, 10])
    assert piece.density > FREE_DENSITY
    assert piece.pull() == pytest.approx(np.log(piece.density / FREE_DENSITY))
    for _ in range(10):
        piece.take([round(LONGEST_GAP_S * STEPS_PER_SECOND), 40, 16, 10])
    assert piece.density < 1 / FREE_DENSITY
    assert piece.pull() == pytest.approx(np.log(piece.density * FREE_DENSITY))
    piece.begin_last_chord()
    assert piece.pull() == 0


@pytest.mark.parametrize(("asked", "pull"), [(4.0, -MOST_PULL), (0.25, MOST_PULL)])
def test_no_density_that_is_asked_for_pulls_without_bound(asked, pull):
    plain = task(arpeggios(8, rng=np.random.default_rng(1)))
    assert Piece("mine", plain).pull() == 0
    assert Piece("mine", replace(plain, sections=(Section(density=asked),))).pull() == pull


@pytest.mark.parametrize(("seconds", "reached"), [(16.0, True), (120.0, False)])
def test_a_short_stretch_knows_sooner_that_it_is_as_dense_as_asked(seconds, reached):
    seed = arpeggios(8, rng=np.random.default_rng(1), step_s=0.2)  # five notes a second
    sections = (Section(density=2.0),)
    piece = Piece("mine", replace(task(seed, seconds=seconds), sections=sections))
    for _ in range(40):  # four seconds of ten notes a second
        piece.take([10, 40, 16, 10])
    assert (piece.pull() > -0.8) == reached


def guided(strength, *, engine=ENGINE, random_state=0):
    decoder = NoteDecoder(engine, dict.fromkeys(FIELDS, Sampling()), {"pitch": strength})
    seed = arpeggios(8, rng=np.random.default_rng(1))
    decoder.add(0, task(seed, 8.0, 60.0, random_state))
    return finished(decoder)[0].notes


def test_guidance_of_one_is_none_and_of_almost_one_nearly_so():
    plain = guided(1.0)
    almost = guided(1.0 + 1e-6)  # by two streams
    assert len(plain) == len(almost)
    np.testing.assert_array_equal(plain["pitch"], almost["pitch"])
    assert guided(3.0).tobytes() != plain.tobytes()


def test_guidance_makes_more_of_what_the_seed_says():
    """A network that likes the pitches of the seed's pitch classes, and more so the stronger."""
    checkpoint = random_checkpoint(scale=0.05)
    units, head = checkpoint.config.units, checkpoint.config.head_units
    assert min(units, head) >= 12
    weights = checkpoint.weights
    first = sum(field.size for field in ENGINE.spec.fields) + 2 * 88 + 12
    for layer in range(checkpoint.config.layers):  # only the way around the LSTM layers is left
        weights[f"lstm_{layer}/kernel"][:] = weights[f"lstm_{layer}/recurrent_kernel"][:] = 0
        weights[f"lstm_{layer}/bias"][:] = 0
    weights["input/kernel"][first : first + 12] = np.eye(12, units) * 8
    weights["norm_out/gamma"][:] = 0.3
    weights["pitch_hidden/kernel"][:units] = np.eye(units, head)
    keys = (np.arange(88) + 21) % 12
    weights["pitch/kernel"][:] = 0
    weights["pitch/kernel"][keys, np.arange(88)] = 1
    engine = Engine(checkpoint)
    seed = arpeggios(8, rng=np.random.default_rng(1))
    cosines = [
        pitch_class_cosine(seed, guided(strength, engine=engine)) for strength in (0.0, 1.0, 4.0)
    ]
    assert cosines[0] < cosines[1] < cosines[2]


@given(st.integers(0, 10_000))
@settings(max_examples=10)
def test_a_piece_is_the_same_whatever_pieces_come_and_go_beside_it(random_state):
    rng = np.random.default_rng(random_state)
    scale = rng.uniform(0.05, 1)
    engine = Engine(random_checkpoint(ModelConfig(2, 24, 20), seed=random_state, scale=scale))
    sampling = dict.fromkeys(FIELDS, Sampling(top_p=0.95))
    guidance = {"pitch": 2.0, "onset": 0.5} if random_state % 2 else {}
    seeds = [arpeggios(rng.uniform(2, 9), rng=rng, tonic=48 + n) for n in range(7)]
    tasks = [
        lambda n=n: task(seeds[n], 9.0, seconds=12.0 + 4 * n, random_state=n) for n in range(7)
    ]
    alone = {}
    for n, make in enumerate(tasks):
        decoder = NoteDecoder(engine, sampling, guidance)
        decoder.add(n, make())
        alone |= finished(decoder)
    together, coming = {}, rng.permutation(7).tolist()
    decoder = NoteDecoder(engine, sampling, guidance)
    while coming or len(decoder):
        while coming and len(decoder) < 3:  # the next takes the place of one that ends
            n = coming.pop()
            decoder.add(n, tasks[n]())
        together |= decoder.step()
    assert together.keys() == alone.keys()
    for n, (notes, nats, *_) in alone.items():
        np.testing.assert_array_equal(notes, together[n].notes)
        assert nats == together[n].nats


def test_one_note_is_enough_of_a_seed():
    new = compose(make_notes([0], [1], [60], [64]), seed_seconds=2.0)
    assert len(new) > 5


@pytest.mark.parametrize("period", [4, 7])  # of few pitch classes it would be a drone first
def test_a_network_stuck_in_a_loop_is_led_out_of_it(period):
    """A network that always likes best what it heard a period ago, for as long as it may."""
    count = max(10, 4 * period)
    pattern = np.resize(60 + np.arange(period) * 2, count)
    onset = np.arange(count) * 0.2
    seed = make_notes(onset, onset + 0.15, pattern, np.full(count, 64))

    class Stuck(Engine):
        def logits(self, hidden, chosen, known):
            logits = super().logits(hidden, chosen, known)
            if chosen.shape[1] == 0:
                logits[:, 20] += 1000  # 0.2 s
            if chosen.shape[1] == 1:
                logits[:, pattern[len(made) % period] - 21] += 1000
                made.append(1)
            return logits

    made = [1] * count
    new = compose(seed, engine=Stuck(random_checkpoint()), seed_seconds=count / 5, seconds=60.0)
    whole = np.concatenate([seed, new])
    assert longest_loop(new) > 10
    assert longest_loop(whole) <= MOST_REPETITIONS


def test_a_network_stuck_on_one_moment_is_moved_on(rng):
    checkpoint = random_checkpoint()
    checkpoint.weights["onset/bias"][0] = 1000.0
    new = compose(arpeggios(8, rng=rng), engine=Engine(checkpoint), seconds=16.0)
    _, together = np.unique(new["onset"], return_counts=True)
    assert together.max() <= MOST_NOTES_AT_ONCE


def test_a_piece_is_like_the_beginning_of_a_seed_where_that_is_asked():
    seed = arpeggios(20, rng=np.random.default_rng(0))
    whole = NoteTask(seed, 20.0, 60.0, np.random.default_rng(0))
    kept = replace(whole, manner_seconds=8.0)
    assert len(whole.manner) == len(seed)
    np.testing.assert_array_equal(kept.manner, seed[seed["onset"] < 8])
    ends, first = [], []
    for task in (kept, whole, NoteTask(kept.manner, 8.0, 60.0, np.random.default_rng(0))):
        context, piece = NoteContext(1), Piece("mine", task)
        piece.begin_context(context, range(1))
        ends.append(int(context.state.seed_end[0]))
        first.append((piece.seed_end, piece.note_share))
    assert ends[0] == ends[2] < ends[1]
    assert first[0][0] == first[1][0] == 2000
    assert first[0][1] == first[2][1]


def test_a_seed_without_a_note_in_its_beginning_has_its_first_one():
    seed = arpeggios(20, rng=np.random.default_rng(0))[5:]
    task = NoteTask(seed, 20.0, 60.0, np.random.default_rng(0), manner_seconds=0.001)
    assert len(task.manner) == 1


def test_no_piece_stays_on_a_few_pitch_classes():
    stuck = random_checkpoint(scale=0.3)
    stuck.weights["pitch/bias"][:] = -8.0
    stuck.weights["pitch/bias"][[40, 43, 52]] = 8.0
    seed = arpeggios(10, rng=np.random.default_rng(0))
    for state in range(3):
        new = compose(seed, seconds=80.0, random_state=state, engine=Engine(stuck), seed_seconds=10)
        assert fewest_pitch_classes(np.concatenate([seed, new])) >= FEWEST_PITCH_CLASSES
        # It is led out of it now and then, and goes where it likes otherwise.
        assert np.isin(new["pitch"] - 21, [40, 43, 52]).mean() > 0.2
