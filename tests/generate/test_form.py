from __future__ import annotations

import math
from itertools import pairwise

import pytest

from deep_piano.analysis.keys import Key, key_of
from deep_piano.config.load import load_config
from deep_piano.generate.form import FORMS, course, stretches
from tests.support.fakes import arpeggios


def settings(**asked):
    return load_config(None, {"generate": {"form": "free"} | asked}).generate


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seconds", [20.0, 180.0, 3600.0])
def test_a_form_is_scaled_to_the_piece(form, seconds):
    parts = stretches(settings(form=form, seconds=seconds))
    assert parts[0].start_s == 0
    assert parts[-1].end_s == seconds
    assert all(a.end_s == b.start_s < b.end_s for a, b in pairwise(parts))
    assert sum(share for _, share, _ in FORMS[form]) == pytest.approx(1)


def test_by_default_a_long_piece_comes_back_to_its_beginning_and_ends_in_its_key():
    named = [part.plan.name for part in stretches(settings(form="auto", seconds=90.0))]
    assert named == ["A", "B", "A again"]
    assert stretches(settings(form="auto", seconds=89.0)) == []
    for given in ({"remix": "rhythm"}, {"between": [20.0, 30.0]}):
        assert stretches(settings(form="auto", seconds=180.0, **given)) == []
    for form in FORMS:
        assert [part.plan.key for part in stretches(settings(form=form))][-1] == "stay"


def test_what_is_not_asked_for_is_no_course(rng):
    assert course(settings(), arpeggios(8, rng=rng), seed_s=8.0) == ()


def test_a_plan_becomes_sections(rng):
    plan = [
        {"name": "A", "seconds": 60.0, "key": "stay"},
        {"name": "B", "seconds": 30.0, "density": 0.5, "register_shift": 5.0, "dynamics": 0.5},
        {"name": "C", "recall": "A", "transpose": 3, "strength": 7.0, "bridge": 0.0},
        {"name": "D", "recall": "seed"},
    ]
    plan[2]["seconds"] = 20.0
    seed = arpeggios(8, rng=rng)
    asked = settings(plan=plan, density=2.0, register_shift=-2.0, dynamics=1.5, key="F# minor")
    a, b, c, d = course(asked, seed, seed_s=8.0, from_s=4.0)
    assert (a.start_s, a.end_s, a.recalled, a.key) == (0.0, 64.0, None, key_of(seed))
    assert (b.density, b.register, b.loudness, b.key) == (1.0, 3.0, 0.75, Key(6, "minor"))
    assert (c.recalled, c.semitones, c.strength) == ((0.0, 64.0), 3, 7.0)
    assert (d.start_s, d.end_s, d.recalled) == (114.0, math.inf, (0.0, 8.0))
    assert (b.bridge_s, c.bridge_s, d.bridge_s) == (6.0, 0.0, 6.0)


@pytest.mark.parametrize("mode", ["major", "minor"])
def test_every_key_has_its_name(mode, rng):
    seed = arpeggios(8, rng=rng)
    for key in (Key(tonic, mode) for tonic in range(12)):
        [whole] = course(settings(key=key.name), seed, seed_s=8.0)
        assert whole.key == key
    assert course(settings(key=f"A# {mode}"), seed, seed_s=8.0)[0].key == Key(10, mode)
    assert course(settings(key=f"Cb {mode}"), seed, seed_s=8.0)[0].key == Key(11, mode)


@pytest.mark.parametrize("form", ["aba", "rondo", "theme"])
def test_a_form_ends_in_the_key_that_is_asked_for_or_else_in_the_seeds(form, rng):
    seed = arpeggios(8, rng=rng, tonic=62)
    home = course(settings(form=form), seed, seed_s=8.0)
    assert [part.key for part in home[:-1]] == [None] * (len(home) - 1)
    assert home[-1].key == Key(2, "major")
    asked = course(settings(form=form, key="F# major"), seed, seed_s=8.0)
    assert {part.key for part in asked} == {Key(6, "major")}


def test_controls_alone_are_one_section(rng):
    [whole] = course(settings(density=0.5), arpeggios(8, rng=rng), seed_s=8.0)
    assert (whole.start_s, whole.end_s, whole.density) == (0.0, math.inf, 0.5)


def test_the_facts_of_a_section_say_what_was_asked():
    plan = [{"name": "A", "seconds": 60.0}, {"name": "B", "recall": "A", "transpose": 3}]
    facts = [part.facts for part in stretches(settings(plan=plan))]
    assert facts == [
        {"name": "A", "start_s": 0.0, "end_s": 60.0},
        {"name": "B", "recall": "A", "transpose": 3, "start_s": 60.0, "end_s": 180.0},
    ]
