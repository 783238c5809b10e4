"""Remixes of a seed and of a whole MIDI file, with random weights."""

from __future__ import annotations

import numpy as np
import pytest

from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import encode
from deep_piano.config.sections import GenerateConfig
from deep_piano.decoding.open import open_decoder
from deep_piano.errors import InputError
from deep_piano.generate.piece import decode_takes, make_pieces
from deep_piano.generate.remix import RemixRoad
from deep_piano.infra.progress import no_progress
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.music.notes import make_notes
from tests.support.fakes import arpeggios, random_checkpoint


@pytest.fixture
def song(tmp_path, rng):
    """Return a MIDI file with chords, a long silence, and a note longer than the codec's."""
    notes = arpeggios(20, rng=rng)
    chords = make_notes(
        np.repeat([32.0, 33.0007, 34.5], 3),
        np.repeat([33.0, 34.0, 64.5], 3),
        [48, 60, 64, 48, 60, 67, 45, 57, 61],
        np.arange(9) * 9 + 20,
    )
    path = tmp_path / "song.mid"
    write_midi(path, np.concatenate([notes, chords]))
    return path


def remixed(path, kind, index=None, **settings):
    made = GenerateConfig.model_validate({"remix": kind, "candidates": 1} | settings)
    road = RemixRoad(random_checkpoint(), made, index=index)
    seed = road.read(path, no_progress)
    [take] = decode_takes(road, open_decoder(road.checkpoint, made), seed)
    return road, seed, take


def test_a_file_that_is_too_long_is_refused_and_not_cut(tmp_path):
    path = tmp_path / "long.mid"
    beat = np.arange(3601.0)
    write_midi(path, make_notes(beat, beat + 0.9, 60 + beat % 12, np.full(len(beat), 70)))
    with pytest.raises(InputError, match=r"long\.mid is 3600\.9 s long, and .* at most 3600 s"):
        remixed(path, "rhythm")
    _, seed, take = remixed(path, "rhythm", seed_start=3590.0, seed_end=3600.0)
    assert len(take.notes) == 10
    assert seed.facts["of_s"] == 3600.9


def rhythm_of(notes):
    return sorted(notes[["onset", "offset", "velocity"]].tolist())


@pytest.mark.parametrize("candidates", [1, 3])
def test_a_rhythm_is_kept_to_the_last_bit(song, candidates):
    road, seed, take = remixed(song, "rhythm", candidates=candidates)
    old = read_midi(song)
    assert rhythm_of(take.notes) == rhythm_of(old)
    assert (take.notes["pitch"] != old["pitch"]).mean() > 0.5
    facts = road.facts(seed, take)
    assert facts["remix"]["kept"] == "rhythm"
    assert facts["remix"]["changed_pitches"] > 0.5
    assert take.seconds == pytest.approx(old["offset"].max() + 0.75, abs=0.01)


def test_no_key_of_a_rhythm_sounds_twice_at_once(song):
    _, _, take = remixed(song, "rhythm")
    for key in np.unique(take.notes["pitch"]):
        mine = take.notes[take.notes["pitch"] == key]
        assert (mine["offset"][:-1] <= mine["onset"][1:]).all()


@pytest.mark.parametrize("candidates", [1, 3])
def test_pitches_are_kept_in_their_order(song, candidates):
    road, seed, take = remixed(song, "pitches", candidates=candidates)
    old = read_midi(song)
    assert take.notes["pitch"].tolist() == old["pitch"].tolist()
    assert take.notes["onset"][0] == 0
    gaps = [np.diff(notes["onset"]) for notes in (old, take.notes)]
    assert (np.abs(gaps[0] - gaps[1]) > 0.02).mean() > 0.5
    assert gaps[1].max() <= 3.0
    assert road.facts(seed, take)["remix"] == {"kept": "pitches"}


def test_new_pitches_are_kept_apart_from_a_corpus(song):
    _, _, free = remixed(song, "rhythm")
    index = CorpusIndex.build([("mine", encode(free.notes))])
    _, _, same = remixed(song, "rhythm", index=index)
    assert same.shared.notes == len(free.notes)
    _, _, apart = remixed(song, "rhythm", index=index, most_shared=8)
    assert apart.shared.notes <= 8
    assert rhythm_of(apart.notes) == rhythm_of(free.notes)


def test_the_seed_is_chosen_as_for_a_piece(song):
    _, _, take = remixed(song, "rhythm", seed_start=5.0, seed_end=9.0)
    old = read_midi(song)
    old = old[(old["onset"] >= 5) & (old["onset"] < 9)]
    np.testing.assert_allclose(take.notes["onset"], old["onset"] - 5, atol=1e-9)
    assert take.notes["velocity"].sum() == old["velocity"].sum()


@pytest.mark.parametrize("kind", ["rhythm", "pitches"])
def test_the_same_settings_give_the_same_bytes(song, tmp_path, weights, kind):
    def make(name, state=0):
        settings = {"remix": kind, "checkpoint": str(weights), "random_state": state}
        [one] = make_pieces(song, tmp_path / name, GenerateConfig.model_validate(settings))
        return one

    first = make("a.mid")
    assert make("b.mid").path.read_bytes() == first.path.read_bytes()
    assert make("c.mid", state=1).path.read_bytes() != first.path.read_bytes()
    assert first.facts["settings"]["remix"] == kind
    assert len(read_midi(first.path)) == len(read_midi(song))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"remix": "tempo"}, "'rhythm' or 'pitches'"),
        ({"remix": "rhythm", "density": 2.0}, "only one of remix and density"),
        ({"remix": "pitches", "key": "A minor"}, "only one of remix and key"),
        ({"remix": "pitches", "keep_until": 9.0}, "only one of remix and keep_until"),
        ({"remix": "rhythm", "form": "aba"}, "only one of remix and form"),
        ({"remix": "pitches", "most_shared": 12}, "only one of remix and most_shared"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GenerateConfig.model_validate(settings)


def test_controls_lead_what_is_made_anew(song):
    means = [
        remixed(song, "rhythm", register_shift=shift)[2].notes["pitch"].mean()
        for shift in (-12.0, 12.0)
    ]
    assert means[0] < means[1] - 4
    lengths = [remixed(song, "pitches", density=density)[2].seconds for density in (0.5, 2.0)]
    assert lengths[0] > lengths[1]
