"""What a piece is written as for other programs: settings that change its files, not its music."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import soundfile

from deep_piano.config.sections import GenerateConfig
from deep_piano.errors import InputError
from deep_piano.generate.piece import make_pieces
from deep_piano.generate.seeds import SR
from deep_piano.generate.tags import tags_of
from deep_piano.models import checkpoint
from deep_piano.music import ffmpeg, transcription
from deep_piano.music.midi import read_midi, write_midi
from tests.support import recordings
from tests.support.fakes import arpeggios, random_checkpoint


@pytest.fixture
def make(tmp_path, weights, small_piano, rng):
    """Return a function that makes a piece in a folder of its own."""
    notes = arpeggios(6, rng=rng)
    write_midi(tmp_path / "seed.mid", notes)

    def make(out="piece.mid", *, source="seed.mid", folder="out", only_new=False, **settings):
        settings = {
            "checkpoint": str(weights),
            "sound": str(small_piano),
            "seconds": 14.0,
            "candidates": 1,
        } | settings
        [piece] = make_pieces(
            tmp_path / source,
            tmp_path / folder / out,
            GenerateConfig.model_validate(settings),
            only_new=only_new,
        )
        return piece

    return make


@pytest.fixture
def recording(tmp_path, monkeypatch, rng):
    """A recording that begins with a rest of half a second, and what is heard in it."""
    notes = arpeggios(6, rng=rng)
    notes["onset"] += 0.5
    notes["offset"] += 0.5
    samples = np.zeros(round(7 * SR), np.float32)
    for note in notes:
        tone = recordings.struck(int(note["pitch"]), level=0.05, seconds=1.0, sr=SR, channels=1)
        begin = round(float(note["onset"]) * SR)
        part = np.ravel(tone)[: len(samples) - begin]
        samples[begin : begin + len(part)] += part
    soundfile.write(tmp_path / "seed.wav", samples, SR)
    monkeypatch.setattr(transcription, "transcribe", lambda *_, **__: notes.copy())
    monkeypatch.setattr("deep_piano.generate.seeds.cache.ensure", lambda *_, **__: None)
    return samples


def test_the_midi_file_sounds_the_same_however_it_is_written(make):
    from symusic import Score

    read, scores = {}, {}
    for name, settings in {
        "sounding": {"midi": "sounding"},
        "pedal": {},
        "two": {"two_tracks": True},
    }.items():
        piece = make(folder=name, **settings)
        read[name], scores[name] = read_midi(piece.path), Score(piece.path)
    for name in ("pedal", "two"):
        assert read[name]["pitch"].tolist() == read["sounding"]["pitch"].tolist()
        for time in ("onset", "offset"):
            np.testing.assert_allclose(read[name][time], read["sounding"][time], atol=2e-3)
    assert [track.name for track in scores["two"].tracks] == ["Seed", "Continuation"]
    assert [marker.text for marker in scores["pedal"].markers] == ["Continuation"]
    assert not scores["sounding"].markers


def test_only_new_has_no_marker(make):
    from symusic import Score

    piece = make(only_new=True)
    score = Score(piece.path)
    assert not score.markers
    assert len(score.tracks) == 1


@pytest.mark.parametrize(
    ("out", "settings"), [("piece.musicxml", {}), ("piece.mid", {"score": True})]
)
def test_a_score_stands_beside_the_others(make, tmp_path, out, settings):
    pytest.importorskip("music21")
    piece = make(out, **settings)
    assert piece.path.name == out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["piece.json", "piece.mid", "piece.musicxml", "piece.png"]
    facts = json.loads((tmp_path / "out" / "piece.json").read_text())
    assert sorted(facts["files"]) == names[1:]
    assert "<staves>2</staves>" in (tmp_path / "out" / "piece.musicxml").read_text()


def test_a_score_without_music21_is_refused_before_anything_is_made(make, tmp_path, monkeypatch):
    monkeypatch.setattr("deep_piano.report.musicxml.find_spec", lambda name: None)
    for out, settings in (("piece.musicxml", {}), ("piece.mid", {"score": True})):
        with pytest.raises(InputError, match=r"deep-piano\[score\]"):
            make(out, **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "flac"])
def test_players_are_told_what_it_is(make, suffix):
    piece = make(f"my piece.{suffix}", random_state=7)
    told = subprocess.run(
        [str(ffmpeg.ffmpeg_binary()), "-hide_banner", "-i", str(piece.path)],
        capture_output=True,
        text=True,
        check=False,
    ).stderr
    for tag in ("title", "my piece", "Continuation of seed.mid, take 1, random state 7"):
        assert tag in told
    assert "Weights" not in told  # of random ones no licence is known


def test_the_licence_of_the_weights_that_ship():
    shipped = checkpoint.load(checkpoint.find("notes"))
    tags = tags_of("x", "caf\udce9.mp3", 1, GenerateConfig(random_state=3), shipped)
    assert tags["license"] == "Weights: CC BY-NC-SA 4.0"
    assert tags["comment"] == "Continuation of caf\ufffd.mp3, take 2, random state 3"
    assert checkpoint.licence_of(random_checkpoint()) is None


def test_the_recording_is_kept(make, recording, tmp_path):
    piece = make("kept.wav", source="seed.wav", keep_recording=True)
    kept, sr = soundfile.read(piece.path, dtype="float32")
    assert sr == SR
    begun = recording[round(0.5 * SR) :]
    own = kept[: 2 * SR, 0]
    assert np.corrcoef(own, begun[: len(own)])[0, 1] > 0.999
    played, _ = soundfile.read(make("played.wav", source="seed.wav").path, dtype="float32")
    assert np.corrcoef(played[: 2 * SR, 0], begun[: len(own)])[0, 1] < 0.9
    assert kept.shape == played.shape == (14 * SR, 2)


@pytest.mark.parametrize(
    ("out", "arguments", "message"),
    [
        ("piece.mid", {"source": "seed.wav"}, "holds no sound"),
        ("piece.wav", {"source": "seed.wav", "only_new": True}, "--only-new leaves it out"),
        ("piece.wav", {"source": "seed.mid"}, "is a MIDI file"),
    ],
)
def test_a_recording_that_cannot_be_kept(make, recording, out, arguments, message):
    with pytest.raises(InputError, match=message):
        make(out, keep_recording=True, **arguments)
