"""From a seed to the files of a piece, with random weights and a small synthesised piano."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deep_piano import versions
from deep_piano.analysis import note_figures
from deep_piano.analysis.compact_index import CompactIndex
from deep_piano.analysis.originality import CorpusIndex
from deep_piano.codecs.notes import encode
from deep_piano.config.sections import GenerateConfig
from deep_piano.errors import AudioError, DeepPianoError, InputError, MidiError
from deep_piano.generate import notes as in_notes
from deep_piano.generate import piece, seeds
from deep_piano.generate.piece import make_pieces
from deep_piano.generate.ranking import best_first
from deep_piano.generate.seeds import find_stretch, read_seed
from deep_piano.infra.assets import cache
from deep_piano.infra.progress import Progress
from deep_piano.music import audio, synth, transcription
from deep_piano.music.ffmpeg import ffmpeg_version
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.music.notes import make_notes
from tests.support import recordings
from tests.support.fakes import arpeggios

TICK_S = 1 / 960
SECONDS = 22.0


@pytest.fixture
def seed(tmp_path, rng):
    path = tmp_path / "seed.mid"
    write_midi(path, arpeggios(12, rng=rng))
    return path


@pytest.fixture
def make(tmp_path, seed, weights, small_piano):
    """Return a function that makes pieces in a folder of their own."""

    def make(out="piece.wav", *, source=seed, only_new=False, force=False, **settings):
        settings = {
            "checkpoint": str(weights),
            "sound": str(small_piano),
            "seconds": SECONDS,
        } | settings
        return make_pieces(
            source,
            tmp_path / "out" / out,
            GenerateConfig.model_validate(settings),
            only_new=only_new,
            force=force,
        )

    return make


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def heard(seed):
    found = find_stretch(seed, GenerateConfig())
    return read_seed(
        seed,
        start_s=found.start_s,
        seconds=found.seconds,
        of_s=found.of_s,
        progress=lambda *_: None,
    )


@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".flac", ".ogg", ".FLAC", ".mid", ".MID"])
def test_every_file_stands_there(make, tmp_path, suffix):
    (made,) = make(f"piece{suffix}")
    expected = {".mid", ".png", ".json", suffix}
    if suffix == ".MID":
        expected.remove(".mid")
    assert names(tmp_path / "out") == sorted(f"piece{kind}" for kind in expected)
    assert made.path == tmp_path / "out" / f"piece{suffix}"
    assert sorted(made.files) == sorted((tmp_path / "out").iterdir())
    assert (tmp_path / "out" / "piece.png").read_bytes().startswith(b"\x89PNG")
    if suffix.lower() != ".mid":
        assert soundfile.info(made.path).samplerate == seeds.SR
        assert soundfile.info(made.path).channels == 2


def test_the_json_says_what_the_piece_is_made_of(make, tmp_path, seed, weights, small_piano):
    (made,) = make(random_state=5, temperature=0.9, top_k={"pitch": 20})
    facts = json.loads((tmp_path / "out" / "piece.json").read_text())
    assert facts == made.facts
    assert facts["seed"] == {
        "file": "seed.mid",
        "sha256": sha256(seed),
        "seconds": heard(seed).seconds,
        "notes": len(heard(seed).notes),
        **find_stretch(seed, GenerateConfig()).facts,
    }
    digest = sha256(next(weights.glob("weights-*")))
    assert facts["checkpoint"] == {"name": str(weights), "sha256": digest}
    settings = facts["settings"]
    assert GenerateConfig(
        checkpoint=str(weights),
        sound=str(small_piano),
        seconds=SECONDS,
        random_state=5,
        temperature=0.9,
        top_k={"pitch": 20},
    ) == GenerateConfig(**{k: v for k, v in settings.items() if k != "only_new"})
    assert settings["only_new"] is False
    assert (facts["random_state"], facts["take"]) == (5, 1)
    assert facts["versions"] == {
        **versions.of_a_piece(),
        "ffmpeg": ffmpeg_version(),
    }
    assert facts["sound"]["name"] == str(small_piano)
    for file, digest in facts["files"].items():
        assert sha256(tmp_path / "out" / file) == digest
    assert sorted(facts["files"]) == ["piece.mid", "piece.png", "piece.wav"]


def test_the_figures_are_those_of_the_midi_file(make):
    (made,) = make("piece.mid")
    written = read_midi(made.path)
    figures = made.facts["piece"]
    ends = made.facts["seed"]["seconds"] - TICK_S
    old, new = (written[part] for part in (written["onset"] < ends, written["onset"] >= ends))
    again = note_figures.figures(old, new, from_s=float(old["offset"].max()))
    assert figures["notes"] == len(written)
    assert figures["seconds"] == SECONDS
    assert figures["seed_notes"] == again["seed_notes"] == made.facts["seed"]["notes"]
    assert figures["seed_notes"] + figures["continuation_notes"] == len(written)
    assert figures["continuation_key"] == again["continuation_key"]
    assert figures["longest_silence_s"] == pytest.approx(again["longest_silence_s"], abs=0.02)


@pytest.mark.parametrize("only_new", [False, True])
@pytest.mark.parametrize("seconds", [16.0, 22.5, 31.4159])
def test_it_lasts_as_long_as_asked(make, seconds, only_new):
    (made,) = make(seconds=seconds, only_new=only_new)
    assert soundfile.info(made.path).frames == round(seconds * seeds.SR)
    notes = read_midi(made.path.with_suffix(".mid"))
    assert seconds - 1 <= notes["offset"].max() <= seconds
    samples, _ = soundfile.read(made.path)
    # Soft as the random network may have struck the last chord: -80 dBFS.
    assert np.abs(samples[-round(1.5 * seeds.SR) :]).max() > 10 ** (-80 / 20)
    assert np.abs(samples[-5:]).max() < 0.001  # where it is silent


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg"])
def test_no_sample_reaches_full_scale(make, suffix):
    (made,) = make(f"piece{suffix}")
    samples, sr = soundfile.read(made.path)
    peak_dbfs = 20 * math.log10(np.abs(samples).max())
    assert peak_dbfs < 0
    assert made.facts["sound"]["peak_dbfs"] <= -1 + 0.01
    assert len(samples) / sr == pytest.approx(SECONDS, abs=0.1)


def test_the_seed_is_kept_note_for_note(make, seed):
    (made,) = make("piece.mid")
    original, written = heard(seed), read_midi(made.path)
    old = written[: len(original.notes)]
    assert old["pitch"].tolist() == original.notes["pitch"].tolist()
    assert old["velocity"].tolist() == original.notes["velocity"].tolist()
    np.testing.assert_allclose(old["onset"], original.notes["onset"], atol=TICK_S)
    # What still sounds when the continuation begins is let go where its key is struck again.
    over = original.notes["offset"] < original.seconds
    np.testing.assert_allclose(old["offset"][over], original.notes["offset"][over], atol=TICK_S)
    assert (old["offset"] <= original.notes["offset"] + TICK_S).all()
    assert (written["onset"][len(old) :] >= original.seconds - TICK_S).all()


def test_no_key_is_struck_while_it_sounds(make):
    (made,) = make("piece.mid")
    written = read_midi(made.path)
    for pitch in np.unique(written["pitch"]):
        mine = written[written["pitch"] == pitch]
        assert (mine["offset"][:-1] <= mine["onset"][1:] + TICK_S).all()


def test_only_new_leaves_nothing_for_a_track_of_the_seed(make):
    with pytest.raises(InputError, match=r"--two-tracks gives the seed .* --only-new leaves it"):
        make("new.mid", only_new=True, two_tracks=True)


def test_only_new_leaves_the_seed_out(make, seed):
    (whole,) = make("whole.mid", seconds=SECONDS + heard(seed).seconds)
    (new,) = make("new.mid", only_new=True)
    whole_notes, new_notes = read_midi(whole.path), read_midi(new.path)
    assert new.facts["settings"]["only_new"] is True
    assert len(new_notes) == len(whole_notes) - len(heard(seed).notes)
    assert new_notes["pitch"].tolist() == whole_notes["pitch"][-len(new_notes) :].tolist()
    assert new_notes["onset"][0] < 1.0
    assert new.facts["piece"]["seed_notes"] == whole.facts["piece"]["seed_notes"]


@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
def test_the_same_settings_give_the_same_bytes(make, tmp_path, suffix):
    (first,) = make(f"piece{suffix}")
    before = {path.name: path.read_bytes() for path in first.files}
    (again,) = make(f"piece{suffix}", force=True)
    assert {path.name: path.read_bytes() for path in again.files} == before


def test_the_same_recording_elsewhere_gives_the_same_music(make, tmp_path, seed):
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "copy.mid"
    copy.write_bytes(seed.read_bytes())
    (first,), (second,) = make("first.mid"), make("second.mid", source=copy)
    assert first.path.read_bytes() == second.path.read_bytes()


def test_another_random_state_another_piece(make):
    (first,), (second,) = make("first.mid"), make("second.mid", random_state=1)
    assert first.path.read_bytes() != second.path.read_bytes()


def test_another_seed_another_piece(make, tmp_path, rng):
    other = tmp_path / "other.mid"
    write_midi(other, arpeggios(12, rng=rng, tonic=55))
    (first,), (second,) = make("a.mid", only_new=True), make("b.mid", only_new=True, source=other)
    assert first.path.read_bytes() != second.path.read_bytes()


def test_takes_are_numbered_and_different(make, tmp_path):
    pieces = make("piece.mid", takes=3)
    assert [made.path.name for made in pieces] == ["piece-1.mid", "piece-2.mid", "piece-3.mid"]
    assert len(names(tmp_path / "out")) == 9
    assert len({made.path.read_bytes() for made in pieces}) == 3
    assert [made.facts["take"] for made in pieces] == [1, 2, 3]
    (alone,) = make("alone.mid")
    assert alone.path.read_bytes() == pieces[0].path.read_bytes()


@pytest.mark.parametrize(
    "name", ["render", "piano_roll", "write_performance", "encode", "normalise"]
)
def test_a_failure_leaves_nothing(make, tmp_path, monkeypatch, name):
    from deep_piano.music import loudness
    from deep_piano.report import roll

    where = {"render": synth, "piano_roll": roll, "write_performance": in_notes, "encode": audio}
    module = where.get(name, loudness)
    honest = getattr(module, name)

    def fail(*arguments, **options):
        if name == "render" and not len(arguments[0]):
            return honest(*arguments, **options)  # looks whether the sound can be played
        raise RuntimeError("broken")

    monkeypatch.setattr(module, name, fail)
    with pytest.raises(RuntimeError, match="broken"):
        make()
    assert names(tmp_path / "out") == []


def test_a_failure_leaves_what_was_there(make, tmp_path, monkeypatch):
    (made,) = make()
    before = {path: path.read_bytes() for path in made.files}

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audio, "encode", fail)
    with pytest.raises(DeepPianoError, match="No space left on device"):
        make(force=True, random_state=1)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_take_that_fails_leaves_those_before_it(make, tmp_path, monkeypatch):
    written = []

    def write(path, notes, **_):
        if written:
            raise RuntimeError("broken")
        written.append(path)
        write_midi(path, notes)

    monkeypatch.setattr(in_notes, "write_performance", write)
    with pytest.raises(RuntimeError, match="broken"):
        make("piece.mid", takes=2)
    assert names(tmp_path / "out") == ["piece-1.json", "piece-1.mid", "piece-1.png"]


def test_a_sound_that_cannot_be_played_is_refused_before_composing(make, monkeypatch):
    monkeypatch.setattr(piece, "open_decoder", None)
    with pytest.raises(InputError, match="there is no sound 'kazoo'"):
        make(sound="kazoo")


def test_files_have_ordinary_permissions(make, tmp_path):
    (made,) = make()
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert {path.stat().st_mode for path in made.files} == {ordinary.stat().st_mode}


def test_progress_names_each_stage_and_ends_full(tmp_path, seed, weights, small_piano):
    told = {}
    make_pieces(
        seed,
        tmp_path / "piece.wav",
        GenerateConfig(checkpoint=str(weights), sound=str(small_piano), seconds=SECONDS),
        progress=lambda now: told.setdefault(now.what, []).append((now.done, now.total)),
    )
    assert list(told) == ["reading", "composing", "rendering", "encoding"]
    for steps in told.values():
        assert steps[-1][0] == steps[-1][1]
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_a_recording_is_heard_from_where_it_is_told(tmp_path, monkeypatch, rng):
    music = arpeggios(6, rng=rng)
    asked, fetched = [], []

    def hear(samples, *, sr, progress=None):
        asked.append((len(samples), sr))
        progress(Progress("transcribing", 1, 1))
        return music

    monkeypatch.setattr(cache, "ensure", lambda name, progress=None: fetched.append(name))
    monkeypatch.setattr(transcription, "transcribe", hear)
    path = tmp_path / "seed.wav"
    recordings.write_tone(path, seconds=9)
    seed = read_seed(path, start_s=2.5, seconds=10, progress=lambda *_: None)
    assert asked == [(round(6.5 * transcription.SAMPLE_RATE), transcription.SAMPLE_RATE)]
    assert fetched == ["transkun"]
    assert seed.digest == sha256(path)
    assert seed.name == "seed.wav"
    assert len(seed.notes) == len(music)


def test_silence_around_a_seeds_music_is_not_continued(tmp_path):
    onset = np.array([3.0, 3.5, 4.0, 4.5])
    path = tmp_path / "late.mid"
    write_midi(path, make_notes(onset, onset + 0.4, [60, 64, 67, 72], [70] * 4))
    seed = heard(path)
    np.testing.assert_allclose(seed.notes["onset"], onset - 3, atol=TICK_S)
    assert seed.seconds == pytest.approx(4.9 - 3, abs=0.01)


def test_a_long_last_note_ends_with_the_seed(tmp_path):
    path = tmp_path / "held.mid"
    write_midi(path, make_notes([0, 1, 2, 3], [0.9, 1.9, 2.9, 60], [60, 64, 67, 72], [70] * 4))
    seed = heard(path)
    assert seed.seconds == pytest.approx(3 + seeds.LONGEST_TRAILING_SILENCE_S, abs=0.01)
    assert seed.notes["offset"].max() <= seed.seconds + seeds.LONGEST_TRAILING_SILENCE_S


def test_a_midi_file_is_known_by_its_content(tmp_path, seed):
    path = tmp_path / "seed.mp3"
    path.write_bytes(seed.read_bytes())
    np.testing.assert_array_equal(heard(path).notes, heard(seed).notes)


def test_a_seed_ends_on_the_codecs_grid(tmp_path, rng):
    for shift in rng.uniform(0, 1, 20):
        path = tmp_path / "seed.mid"
        write_midi(path, arpeggios(8 + shift, rng=rng))
        seed = heard(path)
        assert seed.seconds * 100 == pytest.approx(round(seed.seconds * 100), abs=1e-9)
        assert seed.notes["onset"][-1] <= seed.seconds


@pytest.mark.parametrize(
    ("notes", "error", "message"),
    [
        (make_notes([0, 1, 2], [1, 2, 3], [60] * 3, [60] * 3), MidiError, "only 3 piano notes"),
        (make_notes([0.0], [3.0], [60], [60]), MidiError, "only 1 piano note found in 3.0 s"),
    ],
)
def test_too_few_notes(tmp_path, notes, error, message):
    path = tmp_path / "seed.mid"
    write_midi(path, notes)
    with pytest.raises(error, match=message):
        heard(path)


def test_a_seed_that_is_no_file(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        heard(tmp_path / "none.mid")
    with pytest.raises(AudioError, match="is a folder"):
        heard(tmp_path)


def test_a_piece_needs_room_behind_its_seed(make):
    with pytest.raises(InputError, match="leaves no room"):
        make("piece.mid", seconds=14.0)
    (made,) = make("piece.mid", seconds=14.0, only_new=True)
    assert read_midi(made.path)["offset"].max() == pytest.approx(13.25, abs=0.3)


def test_the_callers_files_are_kept(tmp_path, seed, weights):
    mine = tmp_path / "mine.json"
    mine.write_text("{}")
    settings = GenerateConfig(checkpoint=str(weights), seconds=SECONDS)
    with pytest.raises(InputError, match="one of your input files"):
        make_pieces(seed, tmp_path / "mine.mid", settings, force=True, keep=[Path(mine)])
    assert mine.read_text() == "{}"


def test_with_an_index_the_json_says_what_the_piece_shares_with_the_corpus(make, tmp_path):
    (plain,) = make("plain.mid", seconds=60.0)
    assert "originality" not in plain.facts
    notes = read_midi(tmp_path / "out" / "plain.mid")
    copied = encode(notes[notes["onset"] >= plain.facts["seed"]["seconds"]])
    index = tmp_path / "corpus.index"
    part = copied[: len(copied) - 2]
    CorpusIndex.build([("other.mid", part), ("copied.mid", copied)], dataset="d").save(index)
    before = index.read_bytes()
    (piece,) = make("piece.mid", seconds=60.0, index=str(index))
    assert piece.facts["originality"] == {
        "longest_shared_run_notes": len(copied),
        "exact": True,
        "recording": "copied.mid",
        "corpus_sha256": "d",
    }
    assert index.read_bytes() == before
    (tmp_path / "out" / "no.mid").write_bytes(b"")
    with pytest.raises(InputError, match="not an index of a corpus"):
        make("never.mid", index=str(tmp_path / "out" / "no.mid"))


@pytest.mark.parametrize("kind", [CorpusIndex, CompactIndex])
@pytest.mark.parametrize("candidates", [1, 3])
def test_a_piece_that_follows_a_corpus_note_by_note_is_led_elsewhere(
    make, tmp_path, kind, candidates
):
    (plain,) = make("plain.mid", candidates=candidates, seconds=60.0)
    notes = read_midi(tmp_path / "out" / "plain.mid")
    followed = encode(notes[notes["onset"] >= plain.facts["seed"]["seconds"]])
    kind.build([("followed.mid", followed)]).save(tmp_path / "corpus.index")
    exact = CorpusIndex.build([("followed.mid", followed)])
    options = {"index": str(tmp_path / "corpus.index"), "candidates": candidates, "seconds": 60.0}
    (same,) = make("same.mid", **options)
    assert same.facts["originality"]["longest_shared_run_notes"] == len(followed) > 12
    (apart,) = make("apart.mid", most_shared=12, **options)
    assert apart.facts["originality"]["longest_shared_run_notes"] <= 12
    notes = read_midi(tmp_path / "out" / "apart.mid")
    made = encode(notes[notes["onset"] >= plain.facts["seed"]["seconds"]])
    assert exact.longest_run(made).notes <= 12


def test_what_an_index_cannot_keep_is_said(make, tmp_path):
    with pytest.raises(InputError, match=r"--most-shared needs an index .* has none"):
        make("never.mid", most_shared=20)
    CompactIndex.build([]).save(tmp_path / "corpus.index")
    with pytest.raises(InputError, match="--most-shared 11 is less than the 12 notes"):
        make("never.mid", most_shared=11, index=str(tmp_path / "corpus.index"))


def test_only_the_best_takes_are_kept(make, tmp_path):
    every = make("every.mid", takes=4)
    figures = [piece.facts["piece"] for piece in every]
    best = [every[place].facts["take"] for place in best_first(figures)]
    (kept,) = make("piece.mid", takes=4, keep=1)
    assert kept.facts["take"] == best[0]
    assert kept.path == tmp_path / "out" / "piece.mid"
    mine = (tmp_path / "out" / f"every-{best[0]}.mid").read_bytes()
    assert kept.path.read_bytes() == mine
    two = make("two.mid", takes=4, keep=2)
    assert [piece.path.name for piece in two] == ["two-1.mid", "two-2.mid"]
    assert [piece.facts["take"] for piece in two] == best[:2]
    assert len(make("all.mid", takes=2, keep=2)) == 2


def test_a_piece_is_kept_up_to_a_moment_and_continued_differently(make):
    (first,) = make("first.mid")
    whole = read_midi(first.path)
    moment = float(whole["onset"][len(whole) // 2]) + 0.005
    kept = whole[whole["onset"] < moment]
    assert len(kept) < len(whole) - 10
    (again,) = make("again.mid", source=first.path, keep_until=moment, random_state=7)
    found = read_midi(again.path)
    same = found[: len(kept)]
    for field in ("pitch", "velocity"):
        np.testing.assert_array_equal(same[field], kept[field])
    np.testing.assert_allclose(same["onset"], kept["onset"], atol=0.002)
    ended = kept["offset"] < moment  # others are let go where the key is struck anew
    np.testing.assert_allclose(same["offset"][ended], kept["offset"][ended], atol=0.002)
    assert found["onset"][len(kept)] >= moment
    assert found["offset"].max() == pytest.approx(SECONDS - 0.75, abs=0.02)
    assert found[len(kept) :].tolist() != whole[len(kept) :].tolist()
    assert again.facts["settings"]["keep_until"] == moment


def test_keeping_all_leaves_no_room(make):
    (first,) = make("first.mid")
    with pytest.raises(InputError, match="leaves no room"):
        make("again.mid", source=first.path, keep_until=SECONDS - 1)
