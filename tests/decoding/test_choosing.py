from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deep_piano.analysis.judge import Judge
from deep_piano.analysis.texture import TEXTURES
from deep_piano.decoding.base import Sampling
from deep_piano.decoding.choosing import ChoosingDecoder, best_of
from deep_piano.decoding.note_task import NoteTask
from deep_piano.decoding.notes import Engine, NoteDecoder
from deep_piano.decoding.sections import Section
from deep_piano.music.notes import make_notes
from tests.support.fakes import arpeggios, random_checkpoint

CHECKPOINT = random_checkpoint(seed=3, scale=0.5)
ENGINE = Engine(CHECKPOINT)
FIELDS = [field.name for field in ENGINE.spec.fields]
DRAWS = dict.fromkeys(FIELDS, Sampling()), {"pitch": 2.0}, 1.0
HIGHEST = TEXTURES.index("pitch, mean")


def ladder(figure, sign):
    """Return a judge that likes much of a figure, or little: a stump a threshold."""
    thresholds = np.linspace(20, 110, 400)
    trees = len(thresholds)
    return Judge(
        np.tile(np.array([figure, 0, 0], np.int32), (trees, 1)),
        np.stack([thresholds, np.zeros(trees), np.zeros(trees)], 1),
        np.tile(np.array([1, 1, 2], np.int32), (trees, 1)),
        np.tile(np.array([2, 1, 2], np.int32), (trees, 1)),
        np.tile(np.array([0.0, -sign, sign]), (trees, 1)),
    )


def task(number=0, seconds=50.0):
    rng = np.random.default_rng(number)
    return NoteTask(arpeggios(8, rng=rng), 8.0, seconds, np.random.default_rng(number))


def with_theme(number):
    theme = Section(25.0, recalled=(0.0, 8.0), strength=20.0, vary=2.0)
    return replace(task(number, 45.0), sections=(Section(0.0, 25.0), theme))


def chosen(judge, tasks, *, candidates=4, at_once=8, decoder=None):
    decoder = ChoosingDecoder(decoder or NoteDecoder(ENGINE, *DRAWS), judge, candidates)
    waiting, done = dict(tasks), {}
    while waiting or len(decoder):
        while waiting and len(decoder) < at_once:
            name = next(iter(waiting))
            decoder.add(name, waiting.pop(name))
        done |= decoder.step()
    return done


def test_what_the_judge_likes_is_what_comes():
    means = {}
    for sign in (-1, 1):
        pieces = chosen(ladder(HIGHEST, sign), {n: task(n) for n in range(10)})
        means[sign] = np.mean([piece.notes["pitch"].mean() for piece in pieces.values()])
    plain = chosen(ladder(HIGHEST, 0), {n: task(n) for n in range(10)})
    middle = np.mean([piece.notes["pitch"].mean() for piece in plain.values()])
    assert means[-1] < middle < means[1]


def test_a_piece_does_not_depend_on_those_beside_it():
    judge = ladder(HIGHEST, 1)
    together = chosen(judge, {n: task(n, 30 + 7 * n) for n in range(4)}, at_once=3)
    for number, piece in together.items():
        alone = chosen(judge, {number: task(number, 30 + 7 * number)})[number]
        np.testing.assert_array_equal(alone.notes, piece.notes)
        assert alone.nats == piece.nats


def test_a_piece_lasts_as_long_as_asked_and_tells_how_far_it_is():
    decoder = ChoosingDecoder(NoteDecoder(ENGINE, *DRAWS), ladder(HIGHEST, 1), 3)
    decoder.add("mine", task(seconds=40.0))
    far, done = [], {}
    while len(decoder):
        done |= decoder.step()
        far.append(decoder.done_s)
    assert done["mine"].notes["offset"].max() == pytest.approx(40 - 0.75, abs=0.01)
    assert 30 < max(far) <= 40
    assert far[-1] == 0


def test_a_judge_that_can_judge_nothing_lets_the_first_candidate_go_on():
    seed = arpeggios(8, rng=np.random.default_rng(0))[:4]  # too few for a texture
    judge = Judge(*(np.zeros((1, 1), d) for d in (np.int32, float, np.int32, np.int32, float)))
    short = NoteTask(seed, 8.0, 20.0, np.random.default_rng(1))
    assert len(chosen(judge, {"mine": short})["mine"].notes)


def test_a_candidate_with_a_fault_is_chosen_where_all_have_one():
    begun = np.arange(8, 20, 0.2)
    low = make_notes(begun, begun + 0.2, np.resize([40, 45, 50, 43, 47], 60), [80] * 60)
    drone, late = low.copy(), low.copy()
    drone["pitch"] = 90
    late["pitch"] += 30
    late["onset"][50:] += 5
    late["offset"][50:] += 5
    judge = ladder(HIGHEST, 1)

    def best(*candidates, from_s=8.0):
        spans = [(notes, float(notes["onset"][-1])) for notes in candidates]
        return best_of(judge, task(), spans, from_s)

    higher = low.copy()
    higher["pitch"] += 3
    assert best(low, higher, low) == 1
    assert best(drone, low, higher, late) == 2
    assert best(late, drone) == 1  # all have one: the judge decides
    assert best(late, low, from_s=23.5) == 0  # its silence was before the last choice


def test_a_theme_comes_back_whoever_is_chosen():
    pieces = chosen(ladder(HIGHEST, 1), {n: with_theme(n) for n in range(2)})
    for number, piece in pieces.items():
        seed = task(number).seed
        apart_s = np.abs(piece.notes["onset"] - 25.0 - seed["onset"][:, None])
        same = piece.notes["pitch"] == seed["pitch"][:, None]
        assert ((apart_s <= 0.06) & same).any(1).mean() > 0.9
        alone = chosen(ladder(HIGHEST, 1), {number: with_theme(number)})[number]
        np.testing.assert_array_equal(alone.notes, piece.notes)


@pytest.mark.tf
@pytest.mark.slow
@pytest.mark.parametrize("course", [None, with_theme])
def test_the_compiled_loop_chooses_the_same(course):
    from deep_piano.decoding.notes_xla import NoteDecoderXla

    begun = course or (lambda number: task(number, 25 + 10 * number))
    judge, tasks = ladder(HIGHEST, 1), lambda: {n: begun(n) for n in range(4)}
    compiled = NoteDecoderXla(CHECKPOINT, *DRAWS, width=6, notes_a_call=24)
    expected = chosen(judge, tasks(), candidates=3)
    found = chosen(judge, tasks(), candidates=3, at_once=2, decoder=compiled)
    for number, piece in expected.items():
        np.testing.assert_array_equal(found[number].notes, piece.notes)
