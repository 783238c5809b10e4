"""`prepare` and `inspect` at the command line: what users see, and the exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deep_piano.cli import terminal
from deep_piano.infra.progress import Progress
from deep_piano.music.midi import write_midi
from deep_piano.music.segments import Performance
from tests.support.clusters import contents, one_node
from tests.support.commands import everything, in_a_process, made, refused, run
from tests.support.hostile import improvised
from tests.support.recordings import SR, write_silence, write_sound

pytestmark = pytest.mark.usefixtures("desk")

ODD_NAMES = [
    "quo'te\"s, a comma.mid",
    "-y.mid",
    "new\nline.mid",
    "bell\a\x1b[31m.mid",
    "\N{MUSICAL KEYBOARD} \N{HIRAGANA LETTER A}.mid",
    os.fsdecode(b"latin-\xe9.mid"),
]
ROOT = Path(__file__).parents[2]
PROGRESS = re.compile(r"(looking|looking at shards|preparing): [\d,]+ of [\d,]+, .*\d failed.*")

FOUND = "files found: 8 = 5 recordings + 0 dropped + 2 failed + 1 ignored (1 .txt)"


@pytest.fixture(scope="module")
def _ray():
    with one_node():
        yield


@pytest.fixture
def corpus():
    """Five pieces, two files that are none, and one that nobody asked about."""
    folder = Path("corpus")
    for number in range(5):
        write_midi(folder / f"{number}.mid", improvised(random_state=number))
    (folder / "bad.mid").write_text("no MIDI")
    (folder / "worse.mid").write_text("no MIDI either")
    (folder / "notes.txt").write_text("buy milk")
    return folder


def prepared(result):
    """Require success, with nothing but progress on standard error; return the output's lines."""
    assert result.exit_code == 0, result.output
    for line in result.stderr.splitlines():
        assert PROGRESS.fullmatch(line), line
    return result.stdout.removesuffix("\n").split("\n")


def manifest(dataset="set"):
    return json.loads(Path(dataset, "manifest.json").read_text(encoding="utf-8"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("_ray")
class TestPrepare:
    def test_the_card_and_a_last_line_that_counts(self, corpus):
        lines = prepared(run("prepare", corpus, "-o", "set"))
        assert lines[-1] == FOUND
        assert lines[0] == "  set"
        assert any("8 = 5 recordings + 0 dropped + 2 failed + 1 ignored" in line for line in lines)
        assert any("bad.mid" in line and "'MThd'" in line for line in lines)
        assert all(len(line) <= 80 for line in lines)
        again = prepared(run("prepare", corpus, "-o", "set"))
        assert again == lines
        assert [*made(run("inspect", "set")).split("\n")[:-1], lines[-1]] == lines

    def test_a_rerun_of_what_is_whole_says_nothing_on_the_way(self, corpus):
        first = run("prepare", corpus, "-o", "set")
        assert "looking: 7 of 7" in first.stderr
        assert "preparing: 7 of 7" in first.stderr
        before = contents(Path("set"))
        assert run("prepare", corpus, "-o", "set").stderr == ""
        assert contents(Path("set")) == before

    @pytest.mark.parametrize("place", ["before", "after", "both"])
    def test_settings_before_and_after_the_command(self, corpus, place):
        Path("a.yaml").write_text("prepare: {min_notes: 100, test_share: 0.5}")
        Path("b.yaml").write_text("prepare: {min_notes: 200}")
        before = ["--config", "b.yaml" if place == "both" else "a.yaml"] * (place != "after")
        after = ["--config", "a.yaml"] * (place != "before")
        prepared(run(*before, "prepare", corpus, "-o", "set", *after, "--min-seconds", 3))
        settings = manifest()["settings"]
        assert (settings["min_notes"], settings["test_share"]) == (100, 0.5)
        assert settings["min_seconds"] == 3  # and the command line wins

    def test_options_arrive(self, corpus):
        options = {"codec": "mulaw", "sr": 8000, "max-seconds": 99, "trim-end-seconds": 1}
        options |= {"trim-start-seconds": 2, "group": "(.)-", "workers": 1, "transcribers": 1}
        given = [text for name, value in options.items() for text in (f"--{name}", value)]
        result = run("prepare", corpus, "-o", "set", *given)
        assert (result.exit_code, "no recording was kept" in result.stderr) == (1, True)
        assert result.stdout.split("\n")[-2] == FOUND.replace(
            "5 recordings + 0 dropped + 2", "0 recordings + 7 dropped + 0"
        )
        settings = manifest()["settings"]
        for name in ("codec", "sr", "max-seconds", "trim-end-seconds", "trim-start-seconds"):
            assert settings[name.replace("-", "_")] == options[name]
        assert settings["group"] == "(.)-"
        assert "workers" not in settings

    def test_too_many_failures_are_exit_code_1_and_the_next_run_goes_on(self, corpus):
        (corpus / "bad.mid").rename(corpus / "b\nad.mid")
        result = run("prepare", corpus, "-o", "set", "--max-failures", 1)
        assert result.exit_code == 1
        assert result.stdout == ""
        *progress, line = result.stderr.splitlines()
        assert all(PROGRESS.fullmatch(one) for one in progress)
        assert line.startswith("deep-piano: stopped: 2 files failed and 1 may (one is b\\nad.mid: ")
        assert "raise max_failures" in line
        assert not Path("set/manifest.json").exists()
        refused(run("inspect", "set"), "set holds no dataset", "run that again if it was stopped")
        lines = prepared(run("prepare", corpus, "-o", "set", "--max-failures", 2))
        assert lines[-1].startswith("files found: 8 = ")

    def test_other_settings_are_exit_code_2_without_rebuild(self, corpus):
        prepared(run("prepare", corpus, "-o", "set"))
        before = everything()
        for more in ([], ["--dry-run"]):
            result = run("prepare", corpus, "-o", "set", "--min-seconds", 3, *more)
            refused(result, "other settings (min_seconds 10.0 -> 3.0)", "--rebuild")
        assert everything() == before
        options = ["--min-seconds", 3, "--rebuild"]
        assert "min_seconds" not in made(run("prepare", corpus, "-o", "set", *options, "--dry-run"))
        assert everything() == before
        prepared(run("prepare", corpus, "-o", "set", *options))
        assert manifest()["settings"]["min_seconds"] == 3

    def test_failures_are_tried_again_when_asked(self, corpus):
        prepared(run("prepare", corpus, "-o", "set"))
        before = contents(Path("set"))
        result = run("prepare", corpus, "-o", "set", "--retry-failures")
        assert "preparing: 7 of 7" in result.stderr
        prepared(result)
        assert contents(Path("set")) == before

    def test_any_name_is_one_line(self):
        folder = Path("corpus")
        for number, name in enumerate(ODD_NAMES):
            write_midi(folder / "a" / name, improvised(random_state=number))
            (folder / "b").mkdir(exist_ok=True)
            (folder / "b" / name).write_text(f"no MIDI {number}")
            shutil.copy(folder / "a" / name, folder / "b" / f"copy of {name}")
        lines = prepared(run("prepare", folder, "-o", "set"))
        assert lines[-1] == "files found: 18 = 6 recordings + 6 dropped + 6 failed"
        dry = made(run("prepare", folder, "-o", "other", "--dry-run")).split("\n")[:-1]
        for line in (*lines, *dry, *made(run("inspect", "set")).split("\n")[:-1]):
            assert line.isprintable(), line

    @pytest.mark.parametrize(
        ("name", "dataset"),
        [
            ("new\nline", "new\nset"),
            ("-o", "-set"),
            ("100% #?*", "$(x) co:lon"),
            (os.fsdecode(b"latin-\xe9"), "\N{MUSICAL KEYBOARD}"),
        ],
    )
    def test_any_name_of_a_corpus_and_a_dataset(self, corpus, name, dataset):
        corpus.rename(name)
        lines = prepared(run("prepare", "-o", dataset, "--", name))
        assert all(line.isprintable() for line in lines)
        assert lines[-1] == FOUND
        made(run("inspect", "--plot", f"{dataset}.plots", "--", dataset))
        assert Path(f"{dataset}.plots", "dataset.png").is_file()

    def test_the_job_does_the_same(self, corpus):
        import ray

        prepared(run("prepare", corpus, "-o", "set"))
        for source, code in (("nowhere", 2), ("corpus", 0)):
            process = in_a_process(
                *(Path(source).absolute(), "-o", Path("job").absolute()),
                module="jobs.prepare",
                env={"RAY_ADDRESS": ray.get_runtime_context().gcs_address},
                cwd=ROOT,  # the cluster's workers find the package there
                **PIPES,
            )
            output, errors = process.communicate(timeout=250)
            assert process.returncode == code, errors
        assert output.endswith(f"\n{FOUND}\n")
        here, there = contents(Path("set")), contents(Path("job"))
        assert set(here) == set(there)
        assert {name for name in here if here[name] != there[name]} == {"manifest.json"}
        assert manifest("job")["corpus"]["uri"] == str(Path("corpus").absolute())


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}


@pytest.mark.ray
@pytest.mark.slow
def test_the_real_command_with_a_cluster_of_its_own_where_all_is_ascii(corpus):
    (corpus / "bad.mid").rename(corpus / "b\N{MUSICAL KEYBOARD}d.mid")
    ascii_only = {"PYTHONIOENCODING": "ascii", "RAY_ADDRESS": ""}
    commands = {
        "dry": ["prepare", "corpus", "-o", "set", "--dry-run"],
        "run": ["prepare", "corpus", "-o", "set", "--workers", 2],
        "inspect": ["inspect", "set"],
    }
    outputs = {}
    for name, arguments in commands.items():
        process = in_a_process(*arguments, env=ascii_only, **PIPES)
        outputs[name], errors = process.communicate(timeout=250)
        assert process.returncode == 0, errors
        assert outputs[name].isascii()
        assert all(line.isprintable() for line in outputs[name].splitlines())
        told = [line for line in errors.splitlines() if not PROGRESS.fullmatch(line)]
        assert len(errors.splitlines()) - len(told) >= (2 if name == "run" else 0)
        assert [line.split(": ")[:2] for line in sorted(told)] == (
            [["deep-piano", r"b\U0001f3b9d.mid"], ["deep-piano", "worse.mid"]]
            if name == "run"
            else []
        )
        assert Path("set").exists() == (name != "dry")
    assert r"b\U0001f3b9d.mid" in outputs["dry"]
    assert "#" in outputs["run"]  # the bars
    assert outputs["run"].endswith(f"\n{FOUND}\n")
    assert outputs["run"].startswith(outputs["inspect"])


def test_a_dry_run_writes_nothing_and_needs_no_ray(corpus, monkeypatch):
    monkeypatch.setattr("deep_piano.infra.cluster.connection.connected", None)
    (corpus / "short.mid").write_bytes((corpus / "0.mid").read_bytes())
    before = everything()
    text = made(run("prepare", corpus, "-o", "set", "--dry-run"))
    assert text.startswith("8 files that are recordings by their names")
    assert "as unreadable: 2 (bad.mid, worse.mid)" in text
    assert "as duplicate: 1 (short.mid)" in text
    assert everything() == before


def empty():
    Path("empty").mkdir()


def a_file():
    Path("file").write_text("mine")


def other_kinds():
    Path("other").mkdir()
    Path("other/notes.txt").write_text("buy milk")


def wrong_split():
    Path("split").mkdir()
    write_midi(Path("split/a.mid"), improvised(random_state=1))
    Path("split/split.csv").write_text("name,split\na.mid,exam\n")


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("prepare", "given", "fragments"),
    [
        (None, "nowhere", ["no such folder: nowhere", "Give another folder"]),
        (None, "no\nwhere", ["no such folder: no\\nwhere"]),
        (a_file, "file", ["no such folder: file", "Not a directory"]),
        (empty, "empty", ["empty holds no recording (0 other files)"]),
        (other_kinds, "other", ["other holds no recording (1 other files", ".mid"]),
        (wrong_split, "split", ["split.csv gives a.mid the split 'exam'", "train, validation"]),
        (None, "http://host/x", ["http://host/x is of an unknown kind", "s3://bucket/prefix"]),
        (None, "s3://", ["names no bucket"]),
        (None, "", ["'' is not a folder"]),
    ],
)
def test_a_corpus_that_cannot_be_used(prepare, given, fragments, dry):
    if prepare:
        prepare()
    before = everything()
    refused(run("prepare", given, "-o", "set", *dry), *fragments)
    assert everything() == before


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize("out", ["corpus", "corpus/set", ".", "corpus/../corpus/x"])
def test_a_dataset_within_its_corpus_is_refused(corpus, out, dry):
    before = everything()
    refused(run("prepare", corpus, "-o", out, *dry), "contain each other", "folder of its own")
    assert everything() == before


@pytest.mark.parametrize("out", ["/proc/set", "corpus.txt/set"])
def test_a_dataset_that_cannot_be_written_is_refused_before_any_work(corpus, out, monkeypatch):
    Path("corpus.txt").write_text("mine")
    monkeypatch.setattr("deep_piano.prepare.on_ray.connected", None)
    before = everything()
    refused(run("prepare", corpus, "-o", out), "cannot write to ", f"{out}: ", "Choose another")
    assert everything() == before


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--codec", "flute"], ["prepare.codec", "'notes', 'mulaw'", "'flute'"]),
        (["--sr", 100], ["prepare.sr", "greater than or equal to 4000", "Received: 100"]),
        (["--workers", 0], ["prepare.workers", "Received: 0"]),
        (["--max-failures", -1], ["prepare.max_failures", "Received: -1"]),
        (["--max-failures", "few"], ["--max-failures", "'few'"]),
        (["--min-seconds", "nan"], ["prepare.min_seconds", "nan"]),
        (["--trim-start-seconds", -1], ["prepare.trim_start_seconds", "Received: -1"]),
        (["--group", "("], ["prepare.group", "regular expression"]),
        (["--group", "x"], ["prepare.group", "a group in parentheses", "'x'"]),
        (["--endpoint", "127.0.0.1:9000"], ["storage.endpoint", "127.0.0.1:9000"]),
        (["--dryrun"], ["No such option '--dryrun'", "--dry-run"]),
        (["--config", "none.yaml"], ["none.yaml", "No such file"]),
        (["--config", "bad.yaml"], ["'prepare.codek'", "did you mean 'prepare.codec'"]),
    ],
)
def test_a_setting_that_cannot_be_used(corpus, options, fragments):
    Path("bad.yaml").write_text("prepare: {codek: notes}")
    before = everything()
    refused(run("prepare", corpus, "-o", "set", *options), *fragments)
    assert everything() == before


def test_what_is_missing_is_said():
    refused(run("prepare"), "Missing argument 'CORPUS'")
    refused(run("prepare", "corpus"), "Missing option '-o' / '--output'")
    refused(run("inspect"), "Missing argument 'WHAT'")


def test_a_manifest_that_cannot_be_understood_is_refused(corpus):
    Path("set").mkdir()
    for text, fragments in {
        "{": ["set/manifest.json is broken", "another folder"],
        "[]": ["set/manifest.json has the format None"],
        '{"format": 99}': ["set/manifest.json has the format 99", "another folder"],
        '{"format": 1}': ["set/manifest.json is broken: it lacks codec, "],
    }.items():
        Path("set/manifest.json").write_text(text)
        for command in (["prepare", corpus, "-o", "set"], ["inspect", "set"]):
            refused(run(*command), *fragments)


@pytest.mark.parametrize(
    ("what", "fragments"),
    [
        ("nowhere", ["no such file: nowhere"]),
        ("nowhere.mid", ["no such file: nowhere.mid"]),
        ("no\nwhere.mid", ["no such file: no\\nwhere.mid"]),
        ("corpus", ["corpus holds no dataset", "deep-piano prepare"]),
        ("corpus/bad.mid", ["bad.mid is not a MIDI file"]),
        ("corpus/notes.txt", ["notes.txt is not audio"]),
        ("s3://", ["names no bucket"]),
    ],
)
def test_what_cannot_be_inspected(corpus, what, fragments):
    before = everything()
    refused(run("inspect", what, "--plot", "plots"), *fragments)
    assert everything() == before


@pytest.mark.parametrize("name", ["a piece.mid", *ODD_NAMES])
def test_one_recording_is_inspected(name):
    write_midi(Path("x.mid"), improvised(random_state=1))
    Path("x.mid").rename(name)
    output = made(run("inspect", "--plot", "plots", "--", name))
    *card, picture = output.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in (*card, picture))
    assert picture.startswith("plots/")
    assert [path.suffix for path in Path("plots").iterdir()] == [".png"]
    assert any(line.split() == ["notes", "112"] for line in card)


def test_sound_is_inspected_too_silence_included(monkeypatch):
    from deep_piano.infra.assets import cache
    from deep_piano.music import transcription
    from tests.support.hostile import played

    notes_played = improvised(random_state=1)
    performance = Performance(notes_played, np.zeros(0), np.zeros(0))
    network = SimpleNamespace(performance=lambda *_, **__: performance)
    monkeypatch.setattr(cache, "ensure", lambda name: Path(name))
    monkeypatch.setattr(transcription, "Transcriber", lambda folder: network)
    write_sound(Path("take.wav"), played(notes_played), sr=SR)
    write_silence(Path("silence.wav"))
    for name in ("take.wav", "silence.wav"):
        output = made(run("inspect", name, "--plot", "plots"))
        assert "LUFS" in output or name == "silence.wav"
        assert Path(f"plots/{name}.inspect.png").is_file()


class Clock:
    def __init__(self, monkeypatch):
        self.now_s = 1000.0
        monkeypatch.setattr(terminal.time, "monotonic", lambda: self.now_s)


def report(done, total=100, stage="preparing", **facts):
    return Progress(stage, done, total, **facts)


def test_progress_tells_rate_and_time_left_of_what_is_new(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with terminal.reports(every_s=10) as show:
        show(report(40))  # already read: no work of this run
        clock.now_s += 11
        show(report(51, failures=2, drops=3, duration_s=7200))
        show(report(52))
        clock.now_s += 9
        show(report(99))
        show(report(100))
        show(report(100))
    assert capsys.readouterr().err.splitlines() == [
        "preparing: 51 of 100, 2.00 h of music, 3 dropped, 2 failed, 1.0/s, "
        "10.9 min of music/s, 0:49 left",
        "preparing: 100 of 100, 0 failed, 3.0/s",
    ]


def test_every_stage_has_a_line_at_its_end(monkeypatch, capsys):
    Clock(monkeypatch)
    with terminal.reports(every_s=10) as show:
        for stage in ("looking", "preparing"):
            show(report(0, 2000, stage))
            show(report(2000, 2000, stage))
    assert capsys.readouterr().err.splitlines() == [
        "looking: 2,000 of 2,000, 0 failed",
        "preparing: 2,000 of 2,000, 0 failed",
    ]
