"""What is asked for on the page, as settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deep_piano.config.load import load_config
from deep_piano.errors import ConfigError
from deep_piano.serve.wishes import another, wished

TAKE = {"take": 2, "stem": "piece-2", "seconds": 60.0}
PIECE = {"title": "song", "seed": {}, "seed_seconds": 9.5, "takes": [TAKE]}
BUSY = load_config(None, {"generate": {"form": "rondo", "density": 1.5, "key": "A minor"}})


class Shelf:
    """A store of one recording and one piece."""

    def __init__(self, **window):
        self.window = window

    def seed(self, name):
        return {"from_s": 30.0, "name": "song.wav"}

    def seed_file(self, name):
        return Path("seeds/recording.wav")

    def take(self, name, number):
        return {**PIECE, "window": self.window}, TAKE, Path("pieces")


def asked(shelf=None, config=BUSY, controls=(), **more):
    return wished({"controls": dict(controls), **more}, shelf or Shelf(), config)


RECORDING = {"seed": "a", "begin": 2.0, "end": 9.0}
OF_TAKE = {"piece": "a", "take": 2}


def test_a_window_of_a_recording_is_continued_or_remixed():
    plain, remix = asked(**RECORDING), asked(**RECORDING, remix="pitches")
    assert (plain.settings.seed_start, plain.settings.seed_seconds) == (32, 7)
    assert (remix.settings.seed_start, remix.settings.seed_end) == (32, 39)
    assert remix.settings.seed_seconds == 10  # of it, to be like
    assert (plain.about["title"], remix.about["title"]) == ("song", "song, remixed")


def test_what_the_server_began_with_gives_way_where_it_is_of_no_use():
    assert asked(**RECORDING).settings.form == "rondo"
    span = asked(**OF_TAKE, between=[20, 30.004]).settings
    assert (span.form, span.density, span.key, span.between) == ("auto", 1.5, "A minor", [20, 30])
    rhythm, pitches = (asked(**RECORDING, remix=kept).settings for kept in ("rhythm", "pitches"))
    assert (rhythm.form, rhythm.density, rhythm.key) == ("auto", 1.0, "A minor")
    assert (pitches.form, pitches.density, pitches.key) == ("auto", 1.5, "free")


def test_what_is_asked_for_does_not_give_way():
    with pytest.raises(ConfigError, match="only one of remix and key"):
        asked(**RECORDING, remix="pitches", controls={"key": "C major"})


@pytest.mark.parametrize(("window", "manner_s"), [({"seed_seconds": 8.0}, 8.0), ({}, 9.5)])
def test_what_a_changed_piece_is_to_be_like_stays(window, manner_s):
    for kept in ({"keep_until": 30.0}, {"between": [20.0, 30.0]}):
        assert asked(Shelf(**window), **OF_TAKE, **kept).settings.seed_seconds == manner_s


def test_what_was_changed_alike_is_known_again_though_less_of_the_seed_was_left():
    wish = asked(**OF_TAKE, keep_until=12.0, config=load_config(None, {}))
    wish = replace(wish, about={**wish.about, "seed": {"id": "a"}})
    made = {"seed": {"id": "a"}, "window": {**wish.about["window"], "seed_seconds": 4.5}}
    assert another(wish, [(made, 0)]).settings.random_state == 1


@pytest.mark.parametrize(
    ("begun", "taken", "next_one"),
    [(7, [], 7), (7, [7, 8, 10], 9), (2**32 - 1, [2**32 - 1, 0], 1)],
)
def test_another_has_the_next_random_state_of_its_seed_and_window(begun, taken, next_one):
    wish = asked(**RECORDING, controls={"random_state": begun})
    about = {"seed": {"id": "a"}, "window": {"seed_start": 32.0, "seed_seconds": 7.0}}
    others = [about | {"window": {"seed_start": 31.0}}, about | {"seed": {"id": "b"}}]
    others.append({"seed": {"id": "a"}})
    made = [(about, state) for state in taken] + [(one, next_one) for one in others]
    new = another(wish, made)
    assert new.settings == wish.settings.model_copy(update={"random_state": next_one})
    assert new.about == wish.about | {"controls": {"random_state": next_one}}
