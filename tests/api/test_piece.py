"""A seed continued from Python: the same bytes as at the command line, whatever is given."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.io import wavfile

import deep_piano as dp
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import encode
from deep_piano.errors import ConfigError, InputError
from deep_piano.generate.ranking import RANKED_BY
from deep_piano.infra.assets import cache
from deep_piano.music import transcription
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.music.notes import excerpt
from tests.support import recordings
from tests.support.commands import everything, made, run
from tests.support.fakes import arpeggios

pytestmark = pytest.mark.usefixtures("desk")


@pytest.fixture
def music(rng):
    return arpeggios(14, rng=rng)


@pytest.fixture
def seed(music):
    write_midi(Path("seed.mid"), music)
    return Path("seed.mid")


@pytest.fixture
def settings(weights, small_piano):
    return {"checkpoint": weights, "sound": small_piano, "seconds": 15}


@pytest.fixture
def hears(monkeypatch, music):
    """A network that finds arpeggios in everything."""
    monkeypatch.setattr(cache, "ensure", lambda name, progress=None: Path(name))
    monkeypatch.setattr(
        transcription,
        "transcribe",
        lambda samples, *, sr, progress=None: excerpt(music, 0, len(samples) / sr),
    )


def options(settings):
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".mid"])
def test_the_command_line_writes_the_same_bytes(seed, settings, suffix):
    out = f"piece{suffix}"
    made(run("generate", seed, "-o", Path("there", out), *options(settings), "--top-k", 20))
    piece = dp.continue_piece(str(seed), top_k=20, **settings)
    assert piece.save(f"here/{out}", beside=True) == Path("here", out)
    there = {path.name: path.read_bytes() for path in Path("there").iterdir()}
    assert there == {path.name: path.read_bytes() for path in Path("here").iterdir()}
    assert len(there) == (3 if suffix == ".mid" else 4)


@pytest.mark.parametrize("suffix", [".wav", ".mid", ".png"])
def test_one_file_is_the_one_that_would_stand_beside_others(seed, settings, suffix):
    piece = dp.continue_piece(seed, **settings)
    piece.save("all/piece.wav", beside=True)
    piece.save(f"one/piece{suffix}")
    assert [path.name for path in Path("one").iterdir()] == [f"piece{suffix}"]
    same = Path("all", f"piece{suffix}").read_bytes()
    assert Path("one", f"piece{suffix}").read_bytes() == same


def test_what_is_there_is_replaced_by_force_alone(seed, settings):
    piece = dp.continue_piece(seed, **settings)
    Path("piece.mid").write_text("mine")
    with pytest.raises(InputError, match=r"piece\.mid already exists"):
        piece.save("piece.mid")
    piece.save("piece.mid", force=True)
    assert len(read_midi(Path("piece.mid"))) == len(piece.notes)
    with pytest.raises(InputError, match=r"its name must end in one of \.png"):
        piece.save("piece.txt")


@pytest.mark.parametrize(
    ("given", "out", "beside"),
    [
        ({}, "seed.wav", True),
        ({}, "seed.mid", False),
        ({"config": "mine.json"}, "mine.mid", True),
        ({"checkpoint": "weights"}, "weights/checkpoint.mid", True),
        ({"sound": "piano"}, "piano/notes.json", False),
        ({"index": "corpus.json"}, "corpus.json", False),
    ],
)
def test_what_it_was_made_from_is_never_replaced(
    seed, music, settings, weights, small_piano, given, out, beside
):
    shutil.copytree(weights, "weights")
    shutil.copytree(small_piano, "piano")
    Path("piano/notes.json").write_text("{}")
    Path("mine.json").write_text("{}")
    CorpusIndex.build([("a", encode(music))]).save(Path("corpus.json"))
    piece = dp.continue_piece(str(seed), **settings | given)
    there, place = everything(), Path(out).absolute()
    with (
        contextlib.chdir("/"),
        pytest.raises(InputError, match="is one of your input files, which are never replaced"),
    ):
        piece.save(place, beside=beside, force=True)
    assert everything() == there


@pytest.mark.parametrize("place", ["s3://bucket/piece.mid", "https://host/piece.mid"])
def test_nothing_is_written_to_a_folder_called_as_an_address(seed, settings, place):
    piece = dp.continue_piece(seed, **settings)
    there = everything()
    for beside in (False, True):
        with pytest.raises(InputError, match=r"is in S3|is on another machine"):
            piece.save(place, beside=beside)
    assert everything() == there
    there = Path("piece.mid").absolute()
    assert piece.save(there.as_uri()) == there


def test_its_notes_cannot_be_changed_under_it(seed, settings):
    piece = dp.continue_piece(seed, **settings)
    with pytest.raises(ValueError, match="read-only"):
        piece.notes["pitch"] -= 12
    assert piece.notes.copy().flags.writeable


def test_a_loaded_checkpoint_goes_by_the_name_that_it_was_loaded_by(seed, settings, weights):
    named = dp.continue_piece(seed, **settings)
    given = dp.continue_piece(seed, **settings | {"checkpoint": dp.load_checkpoint(weights)})
    assert given.facts == named.facts
    assert given.facts["checkpoint"]["name"] == str(weights)


def test_settings_may_have_any_of_pythons_forms(seed, settings):
    made = dp.continue_piece(seed, between=(4, 8), **settings)
    for between in ([4.0, 8.0], np.array([4, 8])):
        assert dp.continue_piece(seed, between=between, **settings).facts == made.facts
    plan = ({"name": "A", "seconds": np.float32(12)}, {"name": "B", "transpose": np.int64(2)})
    assert dp.continue_piece(seed, plan=plan, **settings).facts["settings"]["plan"]


@pytest.mark.parametrize("sr", [0, -1, 0.5, "44100", float("nan"), 10**10, True])
def test_a_rate_that_is_none_is_refused(music, sr):
    with pytest.raises(InputError, match="a sampling rate is a whole number of Hz"):
        dp.render(music, sr=sr)
    with pytest.raises(InputError, match="a sampling rate is a whole number of Hz"):
        dp.transcribe(np.zeros(100), sr=sr)


@pytest.mark.parametrize("seconds", [-3, float("nan"), float("inf"), "0:05"])
def test_a_time_that_is_none_is_refused(music, seconds):
    with pytest.raises(InputError, match="seconds is a number of seconds, 0 or more"):
        dp.render(music, seconds=seconds)
    with pytest.raises(InputError, match="start is a number of seconds, 0 or more"):
        dp.transcribe("seed.wav", start=seconds)


def test_a_piece_says_what_it_is(seed, settings):
    piece = dp.continue_piece(seed, **settings)
    assert piece.notes.dtype == dp.NOTE
    assert (piece.seconds, piece.take, piece.sr) == (15, 1, 44_100)
    assert piece.seed_seconds == pytest.approx(10, abs=0.3)
    audio = piece.audio()
    assert (audio.shape, audio.dtype) == ((15 * 44_100, 2), np.float32)
    assert piece.audio() is audio
    piece.save("piece.json")
    facts = json.loads(Path("piece.json").read_text())
    assert facts.pop("files") == {}
    assert facts == json.loads(json.dumps(piece.facts))
    assert piece.figures.items() <= facts["piece"].items()
    assert "pitch_class_cosine" in piece.figures
    assert repr(piece).startswith("<Piece of 0:15.0, ")
    assert repr(piece).endswith(", continuing 0:04\N{EN DASH}0:14 of 0:14 of 'seed.mid'>")


def test_a_notebook_shows_its_roll_and_a_player(seed, settings):
    shown = dp.continue_piece(seed, **settings)._repr_html_()
    assert '<img src="data:image/png;base64,iVBOR' in shown
    assert '<audio controls src="data:audio/mpeg;base64,' in shown
    assert "&lt;" not in shown


def test_a_notebook_shows_the_roll_of_a_piece_that_cannot_be_played(seed, settings):
    piece = dp.continue_piece(seed, **settings | {"sound": "gone.sf2"})
    shown = piece._repr_html_()
    assert "<img " in shown
    assert "<audio " not in shown
    assert "gone.sf2" in shown


def test_a_seed_is_a_path_its_bytes_a_note_array_or_a_score(seed, music, settings):
    pytest.importorskip("symusic")
    piece = dp.continue_piece(seed, **settings)
    with seed.open("rb") as file:
        ways = [seed.read_bytes(), file.read(), music]
    for given in ways:
        again = dp.continue_piece(given, **settings)
        np.testing.assert_array_equal(again.notes, piece.notes)
    score = piece.to_symusic()
    assert sum(len(track.notes) for track in score.tracks) == len(piece.notes)
    other = dp.continue_piece(score, seed_end=10, **settings)
    assert len(other.notes) > 20
    assert len(dp.continue_piece(piece, seed_end=10, **settings).notes) > 20


def test_samples_are_a_wave_file_of_them(hears, settings):
    recordings.write_tone(Path("a.wav"), seconds=14)
    samples, sr = soundfile.read("a.wav", dtype="float32")
    given = dp.continue_piece(samples, sr=sr, **settings)
    assert given.facts["seed"]["to_s"] == 14
    wavfile.write("seed.wav", sr, samples)
    file = dp.continue_piece("seed.wav", **settings)
    assert file.facts == given.facts
    np.testing.assert_array_equal(file.notes, given.notes)
    integers, _ = soundfile.read("a.wav", dtype="int16")
    stereo = np.stack([integers, integers], 1)
    assert dp.continue_piece(stereo, sr=sr, **settings).facts["seed"]["to_s"] == 14


@pytest.mark.parametrize(
    ("music", "named", "fragment"),
    [
        (np.zeros(100), {}, "give sr="),
        (np.zeros((2, 44_100)), {"sr": 44_100}, "channels are the columns"),
        (np.zeros(100, complex), {"sr": 44_100}, "must be real numbers"),
        ({"a": 1}, {}, "of the type dict is not understood"),
        (b"", {}, "is empty"),
        (".", {}, "is a folder"),
        ("gone.mp3", {}, "no such file: gone.mp3"),
    ],
)
def test_what_is_no_music_is_refused_in_one_line(settings, music, named, fragment):
    with pytest.raises(InputError, match=fragment) as refused:
        dp.continue_piece(music, **named, **settings)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("at", "value"), [("onset", -0.5), ("onset", np.nan), ("offset", np.inf), ("offset", -np.inf)]
)
def test_notes_at_no_time_are_refused_in_one_line(music, settings, at, value):
    music[at][3] = value
    said = f"note 3 has the {at} {value:g}, and times are seconds from 0 on"
    calls = (dp.continue_piece, settings), (dp.render, {"sound": settings["sound"]})
    for call, named in calls:
        with pytest.raises(InputError, match=said) as refused:
            call(music, **named)
        assert str(refused.value).isprintable()


def test_a_setting_that_there_is_not_is_named(seed, settings):
    with pytest.raises(ConfigError, match=r"'generate.second': did you mean 'generate.seconds'"):
        dp.continue_piece(seed, second=9, **settings)
    with pytest.raises(ConfigError, match=r"\(in the call\)"):
        dp.continue_piece(seed, **settings | {"seconds": 1})


def test_settings_come_from_a_file_too(seed, settings):
    Path("mine.yaml").write_text("generate: {seconds: 16, random_state: 3}")
    del settings["seconds"]
    piece = dp.continue_piece(seed, config="mine.yaml", random_state=np.int64(4), **settings)
    assert (piece.seconds, piece.facts["random_state"]) == (16, 4)


def test_of_several_takes_the_best_is_returned(seed, settings):
    every = dp.continue_pieces(seed, takes=3, **settings)
    assert [piece.take for piece in every] == [1, 2, 3]
    assert "ranking" not in every[0].facts
    best = dp.continue_piece(seed, takes=3, **settings)
    ranking = best.facts["ranking"]
    assert ranking[0]["take"] == best.take
    assert {row["take"] for row in ranking} == {1, 2, 3}
    assert all(row.keys() == {"take", *RANKED_BY, "broken"} for row in ranking)
    np.testing.assert_array_equal(best.notes, every[best.take - 1].notes)
    Path("mine.yaml").write_text("generate: {takes: 3}")
    again = dp.continue_piece(seed, config="mine.yaml", **settings)
    assert again.take == best.take


def test_a_checkpoint_may_be_loaded_once(seed, settings, weights):
    loaded = dp.load_checkpoint(weights)
    piece = dp.continue_piece(seed, **settings | {"checkpoint": loaded})
    assert piece.facts["checkpoint"]["sha256"] == loaded.digest


def test_progress_is_told(seed, settings):
    told = []
    dp.continue_piece(seed, progress=told.append, **settings)
    assert {now.what for now in told} == {"reading", "composing"}


def test_a_piece_of_sound_has_no_notes():
    recordings.write_sound(Path("a.wav"), recordings.struck(60, seconds=4.0, sr=16_000), sr=16_000)
    with pytest.raises(InputError, match="call continue_pieces for all"):
        dp.continue_piece("a.wav", checkpoint="mulaw", seconds=6, takes=2)
    piece = dp.continue_piece("a.wav", checkpoint="mulaw", seconds=6)
    assert (piece.sr, len(piece.audio())) == (16_000, 6 * 16_000)
    for call in (lambda: piece.notes, lambda: piece.save("a.mid")):
        with pytest.raises(InputError, match="sound without notes"):
            call()
    made(run("generate", "a.wav", "-o", "b.wav", "--checkpoint", "mulaw", "--seconds", 6))
    assert piece.save("c/b.wav").read_bytes() == Path("b.wav").read_bytes()


def test_notes_are_heard_and_played(hears, music, small_piano):
    recordings.write_tone(Path("a.wav"), seconds=14)
    notes = dp.transcribe("a.wav", start=1, seconds=10)
    np.testing.assert_array_equal(notes, excerpt(music, 0, 10))
    write_midi(Path("a.mid"), music)
    assert len(dp.transcribe("a.mid")) == len(music)
    later = dp.transcribe("a.mid", start=2, seconds=3)
    np.testing.assert_array_equal(later, excerpt(dp.transcribe("a.mid"), 2, 5))
    assert 0 < len(later) < len(music)
    played = dp.render(music, sound=small_piano, seconds=3)
    assert (played.shape, played.dtype) == ((3 * 44_100, 2), np.float32)
    again = dp.render(read_midi(Path("a.mid")), sound=small_piano, seconds=3)
    np.testing.assert_array_equal(dp.render("a.mid", sound=small_piano, seconds=3), again)
    ends_s = music["offset"].max() + 2
    assert len(dp.render(music, sound=small_piano)) == round(ends_s * 44_100)
    with pytest.raises(InputError, match="notes are needed"):
        dp.render("a.wav", sound=small_piano)
