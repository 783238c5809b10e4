"""A span of a given piece made anew, with random weights."""

from __future__ import annotations

import numpy as np
import pytest

from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import STEPS_PER_SECOND, encode
from deep_piano.config.sections import GenerateConfig
from deep_piano.decoding.open import open_decoder
from deep_piano.errors import InputError
from deep_piano.generate import seeds
from deep_piano.generate.fill import FillRoad, lead
from deep_piano.generate.piece import decode_takes, make_pieces, road_of
from deep_piano.infra.progress import no_progress
from deep_piano.models import checkpoint
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.music.notes import make_notes
from tests.support.fakes import arpeggios, random_checkpoint
from tests.support.recordings import write_tone

BEGIN_S, END_S = 12.0, 17.0


@pytest.fixture
def piece(tmp_path, rng):
    """Return a MIDI file of half a minute, of which notes ring on across both joins."""
    notes = arpeggios(30, rng=rng)
    held = make_notes([11.5, 16.9, 5.0], [13.5, 18.5, 29.0], [36, 40, 43], [70, 70, 70])
    path = tmp_path / "piece.mid"
    write_midi(path, np.sort(np.concatenate([notes, held]), order=["onset", "pitch"]))
    return path


def filled(path, between=(BEGIN_S, END_S), index=None, **settings):
    made = GenerateConfig.model_validate({"between": list(between), "candidates": 1} | settings)
    road = FillRoad(random_checkpoint(), made, index=index)
    seed = road.read(path, no_progress)
    [take] = decode_takes(road, open_decoder(road.checkpoint, made), seed)
    return road, seed, take


@pytest.mark.parametrize("state", range(4))
def test_all_notes_outside_the_span_stay_to_the_last_bit(piece, state):
    _, _, take = filled(piece, random_state=state)
    old, new = read_midi(piece), take.notes
    for outside in (lambda n: n["onset"] < BEGIN_S, lambda n: n["onset"] >= END_S):
        assert new[outside(new)].tobytes() == old[outside(old)].tobytes()
    inside = new[(new["onset"] >= BEGIN_S) & (new["onset"] < END_S)]
    assert len(inside)
    assert not np.isin(inside["onset"], old["onset"]).all()


@pytest.mark.parametrize("state", range(4))
def test_no_key_is_struck_while_it_sounds(piece, state):
    _, _, take = filled(piece, random_state=state)
    assert (np.diff(take.notes["onset"]) >= 0).all()
    for key in np.unique(take.notes["pitch"]):
        mine = take.notes[take.notes["pitch"] == key]
        assert (mine["offset"][:-1] <= mine["onset"][1:] + 1e-9).all()
        assert (mine["offset"] > mine["onset"]).all()


def test_it_is_as_long_as_it_was(piece):
    road, seed, take = filled(piece)
    end_s = read_midi(piece)["offset"].max()
    assert take.seconds == pytest.approx(end_s + 0.75, abs=0.01)
    facts = road.facts(seed, take)
    assert facts["piece"]["seconds"] == take.seconds
    assert facts["piece"]["nats_a_note_after"] > 0
    assert facts["fill"]["from_s"] == BEGIN_S
    assert facts["fill"]["to_s"] == END_S
    assert (
        facts["fill"]["notes"]
        == len(take.notes)
        - len(read_midi(piece))
        + ((read_midi(piece)["onset"] >= BEGIN_S) & (read_midi(piece)["onset"] < END_S)).sum()
    )


def test_of_notes_that_last_longer_than_an_hour_none_is_lost(tmp_path):
    path = tmp_path / "long.mid"
    beat = np.arange(4200.0)
    write_midi(path, make_notes(beat, beat + 0.9, 60 + beat % 12, np.full(len(beat), 70)))
    road, seed, take = filled(path, (40.0, 45.0))
    old, new = read_midi(path), take.notes
    assert new[new["onset"] >= 45].tobytes() == old[old["onset"] >= 45].tobytes()
    assert seed.facts["to_s"] == seed.facts["of_s"] == 4199.9
    assert road.facts(seed, take)["piece"]["seconds"] == 4200.65


def test_a_recording_that_is_too_long_to_be_transcribed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(seeds, "LONGEST_WHOLE_S", 13.0)
    write_tone(tmp_path / "a.wav", seconds=14)
    with pytest.raises(InputError, match=r"a\.wav is 14\.0 s long, and .* at most 13 s") as error:
        filled(tmp_path / "a.wav", (5.0, 8.0))
    assert "\n" not in str(error.value)


def test_what_is_new_is_known_and_drawn_so(piece, tmp_path, weights, monkeypatch):
    road, seed, take = filled(piece)
    assert take.new_notes == road.facts(seed, take)["fill"]["notes"] < len(take.notes)
    assert take.continuation_s is None
    drawn = {}
    monkeypatch.setattr(
        "deep_piano.report.roll.piano_roll", lambda path, notes, **it: drawn.update(it)
    )
    settings = {"between": [BEGIN_S, END_S], "checkpoint": str(weights), "candidates": 1}
    make_pieces(piece, tmp_path / "new.mid", GenerateConfig.model_validate(settings))
    assert (drawn["seed_seconds"], drawn["new_until_s"]) == (BEGIN_S, END_S)
    assert drawn["names"] == ("kept", "made anew")


def test_a_span_is_kept_apart_from_a_corpus(piece):
    """From what would be there otherwise."""
    span = 8.0, 28.0
    _, seed, free = filled(piece, span)
    made = free.notes[(free.notes["onset"] >= span[0]) & (free.notes["onset"] < span[1])]
    made["onset"] -= seed.begins_s
    made["offset"] -= seed.begins_s
    index = CorpusIndex.build([("mine", encode(made))])
    _, _, take = filled(piece, span, index=index)
    assert take.shared.notes == len(made) > 8
    _, _, apart = filled(piece, span, index=index, most_shared=8)
    assert apart.shared.notes <= 8
    assert apart.new_notes > 8


def test_the_same_settings_give_the_same_bytes(piece, tmp_path, weights):
    def make(name, state=0):
        settings = {"between": [BEGIN_S, END_S], "checkpoint": str(weights)}
        made = GenerateConfig.model_validate(settings | {"random_state": state, "candidates": 2})
        [one] = make_pieces(piece, tmp_path / name, made)
        return one.path.read_bytes()

    first = make("a.mid")
    assert make("b.mid") == first
    assert make("c.mid", state=1) != first
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_read_back_from_its_file_all_outside_is_there(piece, tmp_path, weights):
    settings = {"between": [BEGIN_S, END_S], "checkpoint": str(weights), "candidates": 1}
    [made] = make_pieces(piece, tmp_path / "new.mid", GenerateConfig.model_validate(settings))
    old, new = read_midi(piece), read_midi(made.path)
    before = old["onset"] < BEGIN_S
    same = new[: before.sum()]
    np.testing.assert_allclose(same["onset"], old["onset"][before], atol=0.002)
    np.testing.assert_allclose(same["offset"], old["offset"][before], atol=0.002)
    assert same["pitch"].tolist() == old["pitch"][before].tolist()


@pytest.mark.parametrize(
    ("between", "message"),
    [
        ((40.0, 50.0), r"is 30.* s long: a span cannot begin at 40 s"),
        ((25.0, 31.0), r"nothing is struck after 31 s.*--keep-until 25"),
    ],
)
def test_a_span_outside_the_piece_is_refused(piece, between, message):
    with pytest.raises(InputError, match=message) as error:
        filled(piece, between)
    assert "\n" not in str(error.value)


def test_a_span_without_music_before_it_is_refused(tmp_path, rng):
    notes = arpeggios(20, rng=rng)
    late = notes.copy()
    late["onset"] += 30
    late["offset"] += 30
    path = tmp_path / "gap.mid"
    write_midi(path, np.concatenate([notes, late]))
    with pytest.raises(InputError, match="no music shortly before 28 s"):
        filled(path, (28.0, 32.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"between": [20.0, 20.5]}, "lasts 1 to 60 s"),
        ({"between": [20.0, 10.0]}, "lasts 1 to 60 s"),
        ({"between": [20.0, 90.0]}, "lasts 1 to 60 s"),
        ({"between": [1.0, 9.0]}, "greater than or equal to 2"),
        ({"between": [20.0]}, "at least 2"),
        ({"between": [10.0, 20.0], "keep_until": 9.0}, "only one of between and keep_until"),
        ({"between": [10.0, 20.0], "remix": "rhythm"}, "only one of between and remix"),
        ({"between": [10.0, 20.0], "form": "aba"}, "only one of between and form"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GenerateConfig.model_validate(settings)


def test_it_leaves_nothing_out(tmp_path, weights):
    settings = GenerateConfig.model_validate({"between": [10.0, 20.0]})
    with pytest.raises(InputError, match="--only-new"):
        road_of(checkpoint.load(str(weights)), settings, tmp_path / "a.mid", only_new=True)


def test_the_end_of_a_span_leads_to_what_follows(piece):
    road, seed, _ = filled(piece)
    task = road.task(seed, 0)
    first, last = task.sections
    assert (first.chord, first.key) == ((), None)
    assert first.end_s == last.start_s == pytest.approx(END_S - seed.begins_s - 2.5)
    coming = read_midi(piece)
    coming = coming[(coming["onset"] >= END_S) & (coming["onset"] < END_S + 0.4)]
    assert set(last.chord) >= {int(pitch) % 12 for pitch in coming["pitch"]}
    assert last.key is not None
    higher = seed.after.copy()
    higher["pitch"] += 12
    _, up = lead(first, task, higher, END_S)
    assert up.register == pytest.approx(last.register + 12, abs=1.5)


def test_a_span_ends_on_the_grid_of_the_piece(piece):
    _, seed, take = filled(piece)
    inside = take.notes[(take.notes["onset"] > BEGIN_S) & (take.notes["onset"] < END_S)]
    steps = (inside["onset"] - seed.begins_s) * STEPS_PER_SECOND
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
