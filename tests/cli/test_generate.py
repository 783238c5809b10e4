"""Every bad input of a user, through the real command line: one line, an exit code, no files."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deep_piano.cli.options import FIELDS
from deep_piano.codecs.notes import SPEC
from deep_piano.generate import notes, piece
from deep_piano.infra.assets import cache, catalogue
from deep_piano.models import checkpoint
from deep_piano.music import audio, synth, transcription
from deep_piano.music.midi import read_midi, write_midi
from deep_piano.music.notes import excerpt, make_notes
from tests.support import hostile, recordings
from tests.support.commands import everything, in_a_process, made, refused, run
from tests.support.fakes import arpeggios, random_checkpoint

pytestmark = pytest.mark.usefixtures("desk")

NAMES = [
    "with spaces",
    "quo'te\"s",
    "-y",
    "--force",
    "co:lon",
    "naïve 雨だれ",
    "new\nline",
    "100%d?*[a]",
    "$(touch x);&|",
    "$x_{$",
    "dots.in.it",
    "bell\a\x1b[31m",
    os.fsdecode(b"latin-\xe9"),
]


@pytest.fixture
def music(rng):
    return arpeggios(12, rng=rng)


@pytest.fixture
def seed(music):
    write_midi(Path("seed.mid"), music)
    return Path("seed.mid")


@pytest.fixture
def transcriber(monkeypatch, music):
    """A network that finds arpeggios in everything; yields its inputs."""
    given = []

    def transcribe(samples, *, sr, progress=None):
        given.append(samples)
        return excerpt(music, 0, len(samples) / sr)

    monkeypatch.setattr(cache, "ensure", lambda name, progress=None: Path(name))
    monkeypatch.setattr(transcription, "transcribe", transcribe)
    return given


def generate(weights, seed, out, *options):
    arguments = ["generate", "-o", out, "--checkpoint", weights, "--seconds", 20, *options]
    return run(*arguments, "--", seed)


def write_broken_midi(path):
    path.write_bytes(b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\x01\xe0MTrk\x00\x00\xff\xff\x00")


def write_empty_midi(path):
    write_midi(path, make_notes([], [], [], []))


def write_two_notes(path):
    write_midi(path, make_notes([0, 1], [1, 3], [60, 64], [60, 60]))


def write_short_midi(path):
    write_midi(path, make_notes([0, 0.3, 0.6, 0.9], [0.2, 0.5, 0.8, 1.25], [60] * 4, [60] * 4))


@pytest.mark.parametrize(
    ("name", "write", "fragments"),
    [
        ("seed.mp3", lambda path: None, ["no such file: seed.mp3", "Check its name"]),
        ("seed.mid", lambda path: None, ["no such file: seed.mid", "Check its name"]),
        ("s" * 300 + ".mp3", lambda path: None, ["File name too long"]),
        ("seed.mp3", Path.mkdir, ["'seed.mp3' is a folder of seeds", "Give a folder"]),
        ("seed.mp3", os.mkfifo, ["seed.mp3 is not an ordinary file"]),
        ("seed.mp3", recordings.write_nothing, ["seed.mp3 is empty (0 bytes)", "Give another"]),
        ("seed.mid", recordings.write_nothing, ["seed.mid is empty (0 bytes)", "Give another"]),
        ("seed.mp3", recordings.write_text, ["seed.mp3 is not audio"]),
        ("seed.mid", recordings.write_text, ["seed.mid is not a MIDI file"]),
        ("seed.mp3", recordings.write_picture, ["seed.mp3 is not audio"]),
        ("seed.mp4", recordings.write_silent_film, ["seed.mp4 holds no sound", "audio track"]),
        ("seed.wav", recordings.write_header_only, ["seed.wav"]),
        ("seed.wav", recordings.write_silence, ["silent (every sample is zero)", "louder"]),
        ("seed.wav", recordings.write_faint, ["silent (its peak is -66 dBFS)", "louder"]),
        ("seed.wav", recordings.write_short, ["too short: 1.50 s", "at least 2 s"]),
        ("seed.wav", recordings.write_nan, ["NaN or infinite", "Export it again"]),
        ("seed.wav", recordings.write_inf, ["NaN or infinite", "Export it again"]),
        ("seed.mid", write_broken_midi, ["seed.mid"]),
        ("seed.mid", write_empty_midi, ["only 0 piano notes found in 10.0 s of seed.mid"]),
        ("seed.mid", write_two_notes, ["only 2 piano notes found in 3.0 s", "at least 4"]),
        ("seed.mid", write_short_midi, ["too short: 1.25 s", "at least 2 s"]),
    ],
)
def test_a_seed_that_cannot_be_used(transcriber, weights, name, write, fragments):
    write(Path(name))
    before = everything() if name != "seed.mp3" or not Path(name).is_fifo() else None
    refused(generate(weights, name, "new/piece.mp3"), *fragments)
    assert transcriber == []
    if before is not None:
        assert everything() == before
    assert not Path("new").exists()


@pytest.mark.parametrize("name", ["a", "a.kar", "a.mp3"])
def test_a_midi_seed_is_told_by_its_content(weights, seed, small_piano, name):
    Path(name).write_bytes(Path(seed).read_bytes())
    assert generate(weights, name, "piece.mid").exit_code == 0
    assert generate(weights, seed, "other.mid").exit_code == 0
    assert Path("piece.mid").read_bytes() == Path("other.mid").read_bytes()


def test_a_checkpoint_of_sound_refuses_midi_seeds(seed):
    Path("a.mp3").write_bytes(Path(seed).read_bytes())
    for name in (seed, "a.mp3"):
        result = generate("mulaw", name, "new/piece.wav")
        refused(result, f"{name} is MIDI: it holds notes, and sound is needed")


def test_a_seed_that_is_not_there_is_what_is_wrong(weights):
    refused(
        run("generate", "seedz/", "-o", "pieces/", "--checkpoint", weights), "no such file", "seedz"
    )


def test_a_seed_that_is_lost_half_way(transcriber, weights):
    recordings.write_half(Path("seed.flac"))
    before = everything()
    result = generate(weights, "seed.flac", "piece.mid")
    refused(result, "seed.flac is damaged: it says that it is", "Ask for a part before that")
    result = generate(weights, "seed.flac", "piece.mid", "--seed-start", 0, "--seed-seconds", 15)
    refused(result, "seed.flac is damaged: it decodes only up to", "Ask for a part before that")
    assert everything() == before
    made(generate(weights, "seed.flac", "piece.mid", "--seed-end", "0:08"))
    assert len(transcriber[0]) == 8 * transcription.SAMPLE_RATE


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_seed_with_few_notes_says_how_many(transcriber, weights, monkeypatch, count):
    few = arpeggios(10, rng=np.random.default_rng(0))[:count]
    monkeypatch.setattr(transcription, "transcribe", lambda *_, **__: few)
    recordings.write_sound(Path("seed.wav"), recordings.white_noise())
    before = everything()
    result = generate(weights, "seed.wav", "piece.mp3")
    plural = "" if count == 1 else "s"
    refused(result, f"only {count} piano note{plural} found in 10.0 s of seed.wav", "--seed-start")
    assert everything() == before


def test_notes_as_short_as_clicks_are_a_seed_only_where_they_are_in_tune(
    transcriber, weights, monkeypatch
):
    onset = np.arange(20) / 2
    short = make_notes(onset, onset + 0.07, [44] * 20, [37] * 20)
    monkeypatch.setattr(transcription, "transcribe", lambda *_, **__: short)
    recordings.write_sound(Path("seed.wav"), recordings.speech_like())
    result = generate(weights, "seed.wav", "piece.mid")
    refused(result, "20 piano notes were found in 10.0 s of seed.wav", "sound for 1.4 s", "speech")
    recordings.write_sound(Path("seed.wav"), hostile.played(short, sr=recordings.SR))
    made(generate(weights, "seed.wav", "piece.mid"))


@pytest.mark.assets
@pytest.mark.tf
@pytest.mark.parametrize("kind", ["noise", "speech"])
def test_the_network_hears_no_piano_in(weights, kind):
    if cache.path("transkun") is None:
        pytest.skip("transkun is not fetched")
    make = {"noise": recordings.white_noise, "speech": recordings.speech_like}[kind]
    recordings.write_sound(Path("seed.wav"), make())
    before = everything()
    refused(generate(weights, "seed.wav", "piece.mid"), "piano note", "found in 10.0 s")
    assert everything() == before


@pytest.mark.parametrize("seconds", [2.0, 3.3, 9.9])
def test_a_seed_of_two_to_ten_seconds_will_do(transcriber, weights, seconds):
    recordings.write_tone(Path("seed.wav"), seconds=seconds)
    made(generate(weights, "seed.wav", "piece.mid"))
    assert len(transcriber[0]) == round(seconds * transcription.SAMPLE_RATE)


def test_of_an_hour_only_the_asked_seconds_are_decoded(transcriber, weights, monkeypatch):
    recordings.write_hour(Path("hour.mp3"))
    decoded = []
    run_ffmpeg = audio.run_ffmpeg

    def spy(*options, **limits):  # of `audio`, not of `length`, which decodes the end to find it
        finished = run_ffmpeg(*options, **limits)
        decoded.append(len(finished.output) / 4 / transcription.SAMPLE_RATE)
        return finished

    monkeypatch.setattr(audio, "run_ffmpeg", spy)
    made(generate(weights, "hour.mp3", "piece.mid", "--seed-start", 1800))
    assert len(transcriber[0]) == 10 * transcription.SAMPLE_RATE
    assert decoded == [pytest.approx(10, abs=0.5)]


def test_a_start_beyond_the_end(transcriber, weights, seed):
    recordings.write_tone(Path("seed.wav"))
    result = generate(weights, "seed.wav", "piece.mid", "--seed-start", 60)
    refused(result, "seed.wav is 10.0 s long: it cannot start at 60 s")
    refused(generate(weights, seed, "piece.mid", "--seed-start", 60), "only 0 piano notes")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_seed(transcriber, weights, seed, name):
    for suffix in (".wav", ".mid"):
        named = Path(name + suffix)
        if suffix == ".wav":
            recordings.write_tone(Path("plain.wav"))
            Path("plain.wav").rename(named)
        else:
            seed.rename(named)
        made(generate(weights, named, f"piece{suffix}.mid"))
        facts = json.loads(Path(f"piece{suffix}.json").read_text())
        assert facts["seed"]["file"] == named.name


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_piece(weights, seed, small_piano, name):
    out = Path(f"folder {name}", name + ".flac")
    last = made(generate(weights, seed, out, "--sound", small_piano)).splitlines()
    assert len(last) == 1
    assert sorted(path.name for path in out.parent.iterdir()) == sorted(
        name + kind for kind in (".flac", ".mid", ".png", ".json")
    )
    result = generate(weights, seed, out, "--sound", small_piano)
    refused(result, "already exists", "--force")


@pytest.mark.parametrize("name", ["-x.mid", "--force.mid"])
def test_a_name_with_a_dash_may_have_a_folder_before_it(weights, seed, name):
    seed.rename(name)
    options = ["--checkpoint", weights, "--seconds", 20]
    made(run("generate", f"./{name}", "-o", f"./out{name}", *options))
    made(run("generate", f"./{name}", f"--output={name[:-4]}2.mid", *options))
    assert Path(f"{name[:-4]}2.mid").is_file()
    refused(run("generate", name, "-o", "other.mid", *options), "No such option", "--help")


def out_under_a_file():
    Path("file").write_text("mine")
    return Path("file", "piece.mp3")


def out_that_is_a_folder():
    Path("piece.mp3").mkdir()
    return Path("piece.mp3")


def out_beside_a_folder():
    Path("piece.png").mkdir()
    return Path("piece.mp3")


@pytest.mark.parametrize(
    ("out", "fragments"),
    [
        (lambda: Path("/proc/piece.mp3"), ["cannot write to /proc", "Choose another folder"]),
        (lambda: Path("/proc/no/piece.mp3"), ["cannot write to /proc/no"]),
        (out_under_a_file, ["cannot write to file", "Choose another folder"]),
        (out_that_is_a_folder, ["piece.mp3 is a folder", "Give the name of a file"]),
        (out_beside_a_folder, ["piece.png is a folder"]),
        (lambda: Path("p" * 252 + ".mp3"), ["File name too long"]),
        (lambda: Path("piece"), ["cannot write piece", ".flac, .mp3, .ogg, .wav, .mid"]),
        (lambda: Path(".mp3"), ["cannot write .mp3", "must end in one of"]),
        (lambda: Path("piece.m4a"), ["cannot write piece.m4a", "must end in one of"]),
        (lambda: Path("piece.mp3.json"), ["must end in one of"]),
        (lambda: Path("/"), ["must end in one of"]),
        (lambda: "", ["must end in one of"]),
    ],
)
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_piece_that_cannot_be_written(transcriber, weights, seed, out, fragments, force):
    out = out()
    before = everything()
    refused(generate(weights, seed, out, *force), *fragments)
    assert everything() == before


@pytest.mark.parametrize("there", ["piece.wav", "piece.mid", "piece.png", "piece.json"])
def test_what_is_there_is_replaced_by_force_alone(weights, seed, small_piano, there):
    Path(there).write_text("mine")
    before = everything()
    result = generate(weights, seed, "piece.wav", "--sound", small_piano)
    refused(result, f"{there} already exists", "--force")
    assert everything() == before
    made(generate(weights, seed, "piece.wav", "--sound", small_piano, "--force"))
    assert Path(there).read_bytes() != b"mine"
    assert len(everything()) == 5


def test_another_take_is_there_already(weights, seed):
    Path("piece-2.png").write_text("mine")
    before = everything()
    refused(generate(weights, seed, "piece.mid", "--takes", 3), "piece-2.png already exists")
    assert everything() == before


def test_a_link_that_leads_nowhere_is_there_already(weights, seed):
    Path("piece.mid").symlink_to("nowhere")
    refused(generate(weights, seed, "piece.mid"), "piece.mid already exists")
    assert Path("piece.mid").is_symlink()


@pytest.mark.parametrize(
    ("seed_name", "out", "options"),
    [
        ("seed.mid", "seed.mid", []),
        ("seed.mid", "./seed.mid", []),
        ("seed.mid", "seed.wav", []),
        ("seed.wav", "seed.wav", []),
        ("seed-2.mid", "seed.mid", ["--takes", 3]),
        ("seed.mid", "linked.mid", []),
        ("seed.mid", "twin.mid", []),
        ("linked.mid", "seed.mid", []),
    ],
)
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_the_seed_is_never_replaced(transcriber, weights, seed, seed_name, out, options, force):
    if seed_name.endswith(".wav"):
        recordings.write_tone(Path(seed_name))
        seed = seed.rename("other.mid")
    Path("linked.mid").symlink_to(seed)
    Path("twin.mid").hardlink_to(seed)
    if seed_name == "seed-2.mid":
        seed.rename(seed_name)
    before = everything()
    result = generate(weights, seed_name, out, *options, *force)
    refused(result, "one of your input files", "Give another name")
    assert everything() == before


def test_nothing_else_that_was_given_is_replaced(tmp_path, weights, seed, small_piano):
    settings = Path("settings.json")
    settings.write_text('{"generate": {"takes": 1}}')
    common = ["generate", seed, "--seconds", 20, "--force"]
    by = ["--checkpoint", weights]
    for arguments in (
        ["--config", settings, *common, *by, "-o", "settings.mid"],
        [*common, *by, "-o", weights / "checkpoint.mid"],
        [*common, *by, "-o", small_piano / "E2v4.flac", "--sound", small_piano],
    ):
        refused(run(*arguments), "one of your input files")
    assert sorted(path.name.split("-")[0] for path in weights.iterdir()) == [
        checkpoint.CARD,
        "weights",
    ]


def test_a_checkpoint_that_cannot_be_used(weights, seed, tmp_path):
    other = tmp_path / "other"
    wave = random_checkpoint()
    checkpoint.save(other, replace(wave, spec=replace(SPEC, codec="mulaw")))
    damaged = tmp_path / "damaged"
    checkpoint.save(damaged, wave)
    next(damaged.glob("weights-*")).write_bytes(b"\x08")
    before = everything()
    for given, fragments in {
        "nowhere": ["no checkpoint 'nowhere'", "checkpoint.json"],
        str(tmp_path): ["no checkpoint"],
        str(weights / checkpoint.CARD): ["no checkpoint"],
        str(other): ["belongs to the codec 'mulaw', not 'notes"],
        str(damaged): ["damaged is damaged"],
        "": ["generate.checkpoint"],
    }.items():
        refused(generate(given, seed, "piece.mid"), *fragments)
    assert everything() == before


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--seconds", 0], ["generate.seconds", "greater than or equal to 5", "Received: 0"]),
        (["--seconds", -3], ["generate.seconds", "Received: -3"]),
        (["--seconds", 36000], ["generate.seconds", "less than or equal to 3600", "36000"]),
        (["--seconds", "nan"], ["generate.seconds", "finite", "nan"]),
        (["--seconds", "inf"], ["generate.seconds", "finite", "inf"]),
        (["--seconds", "three"], ["--seconds", "'three'"]),
        (["--seconds", 12], ["12 s leaves no room", "the 10.0 s that", "fewer --seed-seconds"]),
        (["--seconds", 12, "--keep-until", "0:10"], ["leaves no room", "an earlier --keep-until"]),
        (["--seconds", 12, "--seed-start", 1, "--seed-end", 11], ["--seed-end closer together"]),
        (["--two-tracks", "--midi", "sounding"], ["only one of two_tracks and midi: sounding"]),
        (["--seed-seconds", 1], ["generate.seed_seconds", "Received: 1"]),
        (["--seed-seconds", 61], ["generate.seed_seconds", "Received: 61"]),
        (["--seed-start", -1], ["generate.seed_start", "Received: -1"]),
        (["--seed-end", 1], ["generate.seed_end", "Received: 1"]),
        (["--seed-start", 9, "--seed-end", 10], ["2 to 60 s between seed_start (9) and"]),
        (["--keep-until", 9, "--seed-end", 10], ["only one of keep_until and seed_end"]),
        (["--seed-start", "inf"], ["generate.seed_start", "inf"]),
        (["--between", "0:40"], ["--between", "'0:40' is no span. Give it as 0:40-0:55."]),
        (["--between", "a-b"], ["--between", "'a' is no time"]),
        (["--between", "5-5.5"], ["between (5 to 5.5 s) lasts 1 to 60 s"]),
        (["--between", "9-5"], ["between (9 to 5 s) lasts 1 to 60 s"]),
        (["--between", "1-5"], ["generate.between.0", "greater than or equal to 2"]),
        (["--between", "5-9", "--keep-until", 5], ["only one of between and keep_until"]),
        (["--between", "1:00-1:09"], ["a span cannot begin at 60 s"]),
        (["--between", "5-59"], ["nothing is struck after 59 s"]),
        (["--between", "5-9", "--only-new"], ["--only-new", "--between"]),
        (["--remix", "tempo"], ["generate.remix", "'rhythm' or 'pitches'", "Received: 'tempo'"]),
        (["--remix", "rhythm", "--density", 2], ["only one of remix and density"]),
        (
            ["--temperature", 0],
            ["generate.temperature", "greater than or equal to 0.01", "Received: 0"],
        ),
        (["--temperature", "nan"], ["generate.temperature", "nan"]),
        (["--temperature", "pitch=abc"], ["'pitch=abc' is neither a number nor like", "onset"]),
        (["--temperature", "pitch"], ["'pitch' is neither a number nor like"]),
        (["--temperature", "pitch=1,0.5"], ["is neither a number nor like"]),
        (["--temperature", ""], ["is neither a number nor like"]),
        (
            ["--temperature", "pich=0.9"],
            ["'generate.temperature.pich'", "'generate.temperature.pit"],
        ),
        (["--top-p", 2], ["generate.top_p", "less than or equal to 1", "Received: 2"]),
        (["--top-p", "velocity=0"], ["generate.top_p.velocity", "greater than 0"]),
        (["--top-k", -1], ["generate.top_k", "Received: -1"]),
        (["--top-k", 1.5], ["--top-k", "'1.5' is neither"]),
        (["--min-p", 1], ["generate.min_p", "less than 1", "Received: 1"]),
        (["--form", "fugue"], ["generate.form", "'aba'", "Received: 'fugue'"]),
        (["--key", "H minor"], ["generate.key", "A minor or Bb major", "Received: 'H minor'"]),
        (["--key", "a minor"], ["generate.key", "free, stay", "Received: 'a minor'"]),
        (["--density", 0], ["generate.density", "greater than or equal to 0.25", "Received: 0"]),
        (["--density", 2, "--hold-density", 0], ["hold_density is above 0"]),
        (["--register", 30], ["generate.register_shift", "less than or equal to 24"]),
        (["--register", "low"], ["--register", "'low'"]),
        (["--dynamics", 9], ["generate.dynamics", "less than or equal to 4"]),
        (["--plan", "none.yaml"], ["none.yaml", "No such file"]),
        (["--takes", 0], ["generate.takes", "greater than or equal to 1", "Received: 0"]),
        (["--random-state", -1], ["generate.random_state", "Received: -1"]),
        (["--random-state", 2**32], ["generate.random_state", str(2**32)]),
        (["--sound", ""], ["generate.sound"]),
        (["--sound", "kazoo"], ["there is no sound 'kazoo'", "steinway"]),
        (["--sound", "kazoo.sf2"], ["kazoo.sf2"]),
        (["--sound", "."], ["holds no samples", "A4v8.flac"]),
        (["--sound", "transkun"], ["there is no sound 'transkun'"]),
        (["--bogus"], ["No such option '--bogus'", "generate --help"]),
        (["--second", 20], ["No such option '--second'", "--seconds"]),
        (["--force=yes"], ["--force"]),
    ],
)
def test_a_setting_that_cannot_be_used(weights, seed, options, fragments):
    before = everything()
    refused(generate(weights, seed, "piece.wav", *options), *fragments)
    assert everything() == before


@pytest.mark.parametrize(
    ("plan", "fragments"),
    [
        ("name: A", ["is no list of sections", "- {name: A, seconds: 60}"]),
        ("", ["is no list of sections"]),
        ("[", ["plan.yaml", "cannot be understood"]),
        ("[]", ["the plan has a section"]),
        ("[A]", ["generate.plan.0", "Received: 'A'"]),
        ("[{seconds: 9}]", ["generate.plan.0.name", "required"]),
        ("[{name: A, second: 9}]", ["no setting 'generate.plan.0.second'"]),
        ("[{name: A, seconds: 21}]", ["plan (21 s)", "no longer than the piece (20 s)"]),
        ("[{name: A}, {name: B}]", ["but the last have seconds"]),
        ("[{name: A, seconds: 9}, {name: A}]", ["one section of the plan is named 'A'"]),
        ("[{name: seed}]", ["one section of the plan is named 'seed'"]),
        ("[{name: A, recall: B}]", ["'A' recalls one before it (seed), not 'B'"]),
        ("[{name: A, recall: A}]", ["'A' recalls one before it (seed), not 'A'"]),
        ("[{name: A, strength: 21}]", ["generate.plan.0.strength", "Received: 21"]),
        ("[{name: A, key: X}]", ["generate.plan.0.key", "A minor"]),
        ("[{name: A, bridge: -1}]", ["generate.plan.0.bridge", "Received: -1"]),
        ("[{name: A, bridge: 31}]", ["generate.plan.0.bridge", "Received: 31"]),
        ("[{name: A, bridge: long}]", ["generate.plan.0.bridge", "Received: 'long'"]),
    ],
)
def test_a_plan_that_cannot_be_used(weights, seed, plan, fragments):
    Path("plan.yaml").write_text(plan)
    before = everything()
    refused(
        generate(weights, seed, "piece.mid", "--plan", "plan.yaml", "--seconds", 20), *fragments
    )
    assert everything() == before


def test_a_plan_and_a_form_do_not_go_together(weights, seed):
    Path("plan.yaml").write_text("[{name: A}]")
    options = ["--plan", "plan.yaml", "--form", "aba"]
    refused(generate(weights, seed, "piece.mid", *options), "a plan or a form (aba), not both")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--between", "0:04-6"], "0:04\N{EN DASH}0:06 of 0:12 made anew"),
        (["--remix", "rhythm"], "with the rhythm of 0:00\N{EN DASH}0:12 of 0:12"),
        (["--remix", "pitches"], "with the pitches of 0:00\N{EN DASH}0:12 of 0:12"),
    ],
)
def test_a_piece_is_made_anew_in_part(weights, seed, options, line):
    result = generate(weights, seed, "piece.mid", *options)
    assert result.exit_code == 0, result.output
    assert line in result.stdout
    facts = json.loads(Path("piece.json").read_text())
    assert "fill" in facts or "remix" in facts


def test_a_plan_stands_in_the_facts(weights, seed):
    Path("plan.yaml").write_text("[{name: A, seconds: 12}, {name: B, recall: seed}]")
    made(generate(weights, seed, "piece.mid", "--plan", "plan.yaml"))
    facts = json.loads(Path("piece.json").read_text())
    assert facts["form"] == [
        {"name": "A", "start_s": 0.0, "end_s": 12.0},
        {"name": "B", "recall": "seed", "start_s": 12.0, "end_s": 20.0},
    ]


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["gen"], ["No such command 'gen'", "deep-piano"]),
        (["--bogus"], ["No such option '--bogus'"]),
        (["generate"], ["Missing argument 'SEED'", "generate --help"]),
        (["generate", "seed.mid"], ["Missing option '-o' / '--output'"]),
        (["generate", "seed.mid", "-o"], ["'-o' requires an argument"]),
        (["generate", "seed.mid", "other.mid", "-o", "p.mid"], ["unexpected extra argument"]),
        (["assets", "fetch", "kazoo"], ["there is no asset 'kazoo'", "transkun"]),
        (["--config", "none.yaml", "generate", "s", "-o", "p.mid"], ["none.yaml", "No such file"]),
        (["--config", ".", "generate", "s", "-o", "p.mid"], ["Is a directory"]),
        (["--profile", "laptop", "generate", "s", "-o", "p.mid"], ["'laptop'", "--config ray_con"]),
        (["generate", "s", "-o", "p.mid", "--profile", "laptop"], ["'laptop'", "--config ray_con"]),
    ],
)
def test_a_command_line_that_cannot_be_understood(arguments, fragments):
    refused(run(*arguments), *fragments)


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("generate: {secs: 3}", ["'generate.secs'", "did you mean 'generate.seconds'"]),
        ("generat: {}", ["'generat'", "did you mean 'generate'"]),
        ("generate: {temperature: {pich: 1}}", ["'generate.temperature.pitch'"]),
        ("generate: {seconds: long}", ["generate.seconds", "'long'"]),
        ("generate: [", ["settings.yaml", "line"]),
        ("42", ["42"]),
        ("generate: {seconds: 20}\ngenerate: {}", ["'generate' is given twice"]),
    ],
)
def test_settings_that_cannot_be_used(weights, seed, text, fragments):
    Path("settings.yaml").write_text(text)
    arguments = ["generate", seed, "-o", "piece.mid", "--checkpoint", weights]
    before = everything()
    refused(run("--config", "settings.yaml", *arguments), *fragments)
    assert everything() == before


def test_the_command_line_wins_over_the_settings(weights, seed):
    Path("settings.yaml").write_text("generate: {seconds: 30, random_state: 7}")
    options = ["-o", "piece.mid", "--checkpoint", weights, "--seconds", 25]
    made(run("--config", "settings.yaml", "generate", seed, *options))
    settings = json.loads(Path("piece.json").read_text())["settings"]
    assert (settings["seconds"], settings["random_state"]) == (25, 7)


def test_missing_assets_without_a_network_say_which_command_brings_them(
    tmp_path, monkeypatch, weights, seed
):
    client = tmp_path / "pip"
    client.write_text("#!/bin/sh\necho 'ERROR: no route to host' >&2\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("DEEP_PIANO_PIP", str(client))
    recordings.write_tone(Path("seed.wav"))
    before = everything()
    for given, out, needed in (
        ("seed.wav", "piece.mid", "transkun"),
        (seed, "piece.mp3", "steinway"),
    ):
        result = generate(weights, given, out)
        refused(result, f"`deep-piano assets fetch {needed}`", "no route to host", code=1)
    result = generate(weights, "none.mp3", "piece.mid")
    refused(result, "no such file")  # and nothing is fetched for it
    assert everything() == before
    made(generate(weights, seed, "piece.mid"))  # notes in, notes out needs none


def test_the_last_line_says_where_how_long_and_how_long_it_took(weights, seed):
    (line,) = made(generate(weights, seed, "new/piece.mid")).splitlines()
    where, _, rest = line.partition(": ")
    length, notes, which, took = rest.split(", ")
    count = len(read_midi(Path(where)))
    assert (where, length, notes) == ("new/piece.mid", "0:20.0", f"{count} notes")
    assert which == "continuing 0:02\N{EN DASH}0:12 of 0:12"
    assert took.startswith("made in ")
    assert took.endswith(" s")
    assert float(took.split()[2]) > 0


def test_takes_are_listed_one_a_line(weights, seed):
    lines = made(generate(weights, seed, "piece.mid", "--takes", 3)).splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"piece-{n}.mid" for n in (1, 2, 3)]
    assert "3 pieces made in " in lines[-1]


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (["--temperature", "0.8"], "temperature", dict.fromkeys([*FIELDS, "sample"], 0.8)),
        (["--top-k", "pitch=5"], "top_k", {**dict.fromkeys(FIELDS, 0), "pitch": 5}),
        (["--min-p", "0.1"], "min_p", dict.fromkeys(FIELDS, 0.1)),
        (["--form", "aba"], "form", "aba"),
        (["--key", "F# minor"], "key", "F# minor"),
        (["--density", "1.5"], "density", 1.5),
        (["--register", "-7"], "register_shift", -7.0),
        (["--dynamics", "0.7"], "dynamics", 0.7),
        (["--only-new"], "only_new", True),
        (["--random-state", "4294967295"], "random_state", 4294967295),
    ],
)
def test_options_arrive(weights, seed, options, field, value):
    made(generate(weights, seed, "piece.mid", *options))
    assert json.loads(Path("piece.json").read_text())["settings"][field] == value


def test_an_unexpected_error_is_one_line_too(weights, seed, monkeypatch):
    def fail(*_, **__):
        raise ValueError("two\nlines")

    monkeypatch.setattr(piece, "make_pieces", fail)
    result = generate(weights, seed, "piece.mid")
    refused(result, "unexpected ValueError: two\\nlines", "--debug", code=1)


def test_debug_shows_where_an_error_comes_from(weights):
    result = run("--debug", "generate", "none.mp3", "-o", "p.mid", "--checkpoint", weights)
    assert result.exit_code == 2  # as without it
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("deep-piano: no such file: none.mp3")


def test_ctrl_c_is_one_line_and_leaves_nothing(weights, seed, small_piano, monkeypatch):
    def interrupt(*_, seconds, **__):
        if seconds:
            raise KeyboardInterrupt
        return np.zeros((0, 2), np.float32)

    monkeypatch.setattr(synth, "render", interrupt)
    before = everything()
    result = generate(weights, seed, "piece.wav", "--sound", small_piano)
    assert result.exit_code == 130
    assert "no incomplete file was kept" in result.stderr
    assert everything() == before


def test_a_full_disk(weights, seed, small_piano, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(notes, "write_performance", fail)
    before = everything()
    result = generate(weights, seed, "piece.mid")
    refused(result, "cannot write to .: No space left on device", code=1)
    assert everything() == before


def test_quiet_where_there_is_no_terminal(weights, seed):
    arguments = ["generate", seed, "-o", "piece.mid", "--checkpoint", weights, "--seconds", 20]
    process = in_a_process(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = process.communicate(timeout=250)
    assert process.returncode == 0
    for line in errors.splitlines():  # where it takes longer than ten seconds
        assert line.startswith(("reading", "composing"))
    assert output.startswith("piece.mid: 0:20.0, ")
    assert "\x1b" not in output
    assert output[:-1].isprintable()


def test_progress_on_a_terminal_and_gone_in_the_end(weights, seed):
    ours, theirs = pty.openpty()
    arguments = ["generate", seed, "-o", "piece.mid", "--checkpoint", weights, "--seconds", 120]
    process = in_a_process(*arguments, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0
    assert b"composing" in shown
    assert b"\x1b[?25h" in shown  # the cursor is back
    assert shown.endswith(b"\x1b[2K")  # and the last bar erased
    assert output[:-1].isprintable()


def _read(terminal):
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux says so when the other end is closed
        return b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_request_to_end_leaves_nothing(weights, seed, small_piano, number, code):
    script = (
        "import sys, time\n"
        "from deep_piano.cli.main import main\n"
        "from deep_piano.music import synth\n"
        "play = synth.render\n"
        "def render(notes, **options):\n"
        "    if len(notes):\n"
        "        print('rendering', flush=True)\n"
        "        time.sleep(120)\n"
        "    return play(notes, **options)\n"
        "synth.render = render\n"
        "main(sys.argv[1:])\n"
    )
    before = everything()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", script, "generate", str(seed), "-o", "piece.wav"),
            *("--checkpoint", str(weights), "--sound", str(small_piano), "--seconds", "20"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.readline() == b"rendering\n"
    assert len(everything()) > len(before)  # it is in the middle of it
    process.send_signal(number)
    _, errors = process.communicate(timeout=250)
    assert process.returncode == code
    assert b"Traceback" not in errors
    assert everything() == before


def test_a_reader_who_stops_reading_is_no_error(weights):
    process = in_a_process("generate", "--help", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(timeout=250)
    process.stderr.close()
    assert errors == b""
    assert process.returncode in (0, 1)


def test_no_command_shows_the_help():
    result = run()
    assert "generate" in result.output
    assert "Traceback" not in result.output


def test_assets_are_listed(monkeypatch):
    output = made(run("assets", "list"))
    for name in catalogue.ASSETS:
        assert f"{name}: " in output
    assert output.count("not fetched") == len(catalogue.ASSETS)


def test_assets_fetch_says_where_and_under_which_terms(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "fetch", lambda name, progress=None: tmp_path / name)
    output = made(run("assets", "fetch", "transkun"))
    assert str(tmp_path / "transkun") in output
    assert "MIT" in output


@pytest.mark.parametrize("status", ["ok", "warn", "missing"])
def test_doctor_fails_where_something_needed_is_missing(monkeypatch, status):
    from deep_piano.api import doctor

    found = [doctor.Check("ffmpeg", status, "none", "Install it.")]
    monkeypatch.setattr(doctor, "checks", lambda: found)
    result = run("doctor")
    assert result.exit_code == (1 if status == "missing" else 0)
    assert "ffmpeg: none" in result.stdout
    assert "Install it." in result.stdout


def test_one_json_document_says_all_of_the_pieces(weights, seed):
    said = made(generate(weights, seed, "piece.mid", "--takes", 3, "--keep", 2, "--json"))
    told = json.loads(said)
    assert told["took_s"] > 0
    for number, facts in enumerate(told["pieces"], 1):
        path = facts.pop("path")
        assert path == f"piece-{number}.mid"
        assert facts == json.loads(Path(path).with_suffix(".json").read_text())
    assert [row["take"] for row in told["pieces"][0]["ranking"]][:2] == [
        facts["take"] for facts in told["pieces"]
    ]


def test_it_is_said_which_take_was_kept_and_why(weights, seed):
    said = made(generate(weights, seed, "piece.mid", "--takes", 3, "--keep", 1))
    take = json.loads(Path("piece.json").read_text())["take"]
    assert f", take {take} of 3 kept as number 1 (the judge's log-odds of a pianist " in said
    assert ", of the others at most " in said


def test_a_log_of_json_tells_what_is_done(weights, seed, caplog):
    made(generate(weights, seed, "p.mid", "--log-json"))
    events = [(record.event, getattr(record, "seed", None)) for record in caplog.records]
    assert ("read", "seed.mid") in events
    assert events[-1] == ("written", "seed.mid")
    work = [record.work for record in caplog.records if record.event == "progress"]
    assert {"reading", "composing"} <= set(work)


def test_quiet_shows_results_and_errors_only(weights, seed):
    Path("odd.mid").write_bytes(seed.read_bytes() + b"junk")
    for arguments in (["-q", "generate"], ["generate", "-q"]):
        result = run(*arguments, "odd.mid", "-o", "p.mid", "--force", "--checkpoint", weights)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith("p.mid: ")
    refused(run("-q", "generate", "gone.mid", "-o", "q.mid"), "no such file: gone.mid")


@pytest.mark.parametrize("status", ["ok", "missing"])
def test_doctor_tells_programs(monkeypatch, status):
    from deep_piano.api import doctor

    found = [doctor.Check("ffmpeg", status, "none", "Install it.")]
    monkeypatch.setattr(doctor, "checks", lambda: found)
    result = run("doctor", "--json")
    assert result.exit_code == (1 if status == "missing" else 0)
    known = {"name": "ffmpeg", "status": status, "found": "none", "advice": "Install it."}
    assert json.loads(result.stdout) == {"checks": [known]}
