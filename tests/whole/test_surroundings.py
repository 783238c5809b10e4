"""What surrounds a command: other runs, streams, folders, memory, and settings of other libraries.

Each as a process of its own, as users have it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from deep_piano.generate import piece
from deep_piano.music.midi import write_midi
from tests.support.commands import beside_progress, everything, in_a_process, made, refused, run
from tests.support.fakes import arpeggios

pytestmark = pytest.mark.usefixtures("desk")

OUT = ("piece.json", "piece.mid", "piece.png")


@pytest.fixture
def seed(rng):
    write_midi(Path("seed.mid"), arpeggios(12, rng=rng))
    return Path("seed.mid").absolute()


@pytest.fixture
def command(weights, seed):
    """Return the arguments that make a short piece of notes."""
    return ["generate", "-o", "piece.mid", "--checkpoint", weights, "--seconds", 20, seed]


def ended(process):
    """Return what a process wrote, once it has ended."""
    out, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess([], process.returncode, out, errors)


def in_process(*arguments, **options):
    return ended(
        in_a_process(*arguments, **{"stdout": PIPE, "stderr": PIPE, "text": True} | options)
    )


def said(result, code, *fragments):
    """Require an exit code and one line of error that holds these fragments."""
    assert (result.returncode, result.stderr.count("\n")) == (code, 1), result.stderr
    assert result.stderr.startswith("deep-piano: ")
    assert all(fragment in result.stderr for fragment in fragments), result.stderr


# Other runs.


def test_of_two_runs_into_one_name_one_is_kept_whole(command):
    runs = [
        in_a_process(*command, "--random-state", number, stdout=PIPE, stderr=PIPE, text=True)
        for number in (1, 2)
    ]
    results = [ended(process) for process in runs]
    assert sorted(result.returncode for result in results) == [0, 2]
    [lost] = [result for result in results if result.returncode == 2]
    said(lost, 2, "--force")
    kept = 1 + results.index(next(result for result in results if result.returncode == 0))
    facts = json.loads(Path("piece.json").read_text())
    assert facts["random_state"] == kept
    from deep_piano.infra.storage.atomic import sha256_of

    for name, digest in facts["files"].items():
        assert sha256_of(Path(name)) == digest


# Places.


def test_a_seed_may_be_named_by_a_url(command, seed):
    made(run(*command[:-1], seed.as_uri()))
    assert json.loads(Path("piece.json").read_text())["seed"]["file"] == "seed.mid"


def test_a_seed_in_s3_is_one_seed(command, seed, s3):
    bucket = s3.bucket()
    s3.client.put_object(Bucket=bucket, Key="my/one.mid", Body=seed.read_bytes())
    made(run(*command[:-1], f"s3://{bucket}/my/one.mid"))
    assert json.loads(Path("piece.json").read_text())["seed"]["file"] == "one.mid"
    s3.client.put_object(Bucket=bucket, Key="my/bad.mid", Body=b"MThd no more")
    result = run(*command[:-1], "--force", f"s3://{bucket}/my/bad.mid")
    line = refused(result, f"s3://{bucket}/my/bad.mid")
    assert "/tmp" not in line
    refused(run(*command[:-1], "--force", f"s3://{bucket}/my"), "is a folder of seeds")
    made(run("inspect", f"s3://{bucket}/my/one.mid"))


def test_what_lies_elsewhere_is_refused_in_a_sentence(command, seed):
    before = everything()
    refused(run(*command[:-1], "https://host/one.mid"), "https://host/one.mid", "Download it")
    refused(run("inspect", "https://host/one.mid"), "https://host/one.mid", "Download it")
    for out in ("s3://bucket/piece.mid", "https://host/piece.mid"):
        refused(run("generate", seed, "-o", out), out)
    refused(run("gallery", "a", "-o", "s3://bucket/page.html"), "is in S3")
    assert everything() == before


def test_a_working_folder_that_is_gone(command):
    def leave():
        folder = Path("gone").absolute()
        folder.mkdir()
        os.chdir(folder)
        folder.rmdir()

    said(in_process("generate", "seed.mid", "-o", "p.mid", preexec_fn=leave), 2, "folder is gone")


# Streams.


@pytest.mark.parametrize("closed", [(2,), (1, 2), (0, 1, 2)])
def test_streams_that_are_closed(command, closed):
    def close():
        for number in closed:
            os.close(number)

    options = dict(stdin=None, stdout=None, stderr=None, preexec_fn=close)
    assert ended(in_a_process_with(command, options)).returncode == 0
    assert sorted(path.name for path in Path().glob("piece.*")) == list(OUT)
    assert Path("piece.mid").read_bytes()[:4] == b"MThd"


def in_a_process_with(command, options):
    words = [sys.executable, "-m", "deep_piano", *map(str, command)]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(words, env=env, **options)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_streams_that_take_nothing(command, unbuffered):
    env = {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        no_result = in_process(*command, stdout=full, env=env)
        said(no_result, 1, "standard output", "No space left", "kept")
        assert sorted(path.name for path in Path().glob("piece.*")) == list(OUT)
        again = [*command, "--force"]
        assert in_process(*again, stderr=full, env=env).returncode == 0
        assert in_process(*again, "--seconds", "no", stderr=full, env=env).returncode == 2


# Memory.


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("RESOURCE_EXHAUSTED: OOM"),
    ],
)
def test_memory_that_ran_out_is_one_line(command, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(piece, "make_pieces", fail)
    line = refused(run(*command), "memory ran out", "fewer seconds", code=1)
    assert "--debug" not in line


# Pictures and libraries.


def test_a_picture_never_costs_a_piece(command, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("no fonts")

    made(run(*command))
    before = Path("piece.mid").read_bytes()
    monkeypatch.setattr("deep_piano.report.roll.draw_roll", fail)
    result = run(*command, "--force")
    assert result.exit_code == 0
    [record] = caplog.records
    assert "no fonts" in record.getMessage()
    assert sorted(path.name for path in Path().glob("piece.*")) == ["piece.json", "piece.mid"]
    assert Path("piece.mid").read_bytes() == before
    assert list(json.loads(Path("piece.json").read_text())["files"]) == ["piece.mid"]


def test_a_piece_is_the_same_without_a_home_and_in_a_notebook(command, tmp_path):
    assert in_process(*command).returncode == 0
    before = {name: Path(name).read_bytes() for name in OUT}
    Path("matplotlibrc").write_text("text.usetex: True\n")
    Path("tmp").mkdir()
    env = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "HOME": "/dev/null/home"}
    env |= {"TMPDIR": str(Path("tmp").absolute()), "DEEP_PIANO_HOME": ""}
    result = in_process(*command, "--force", env=env)
    assert (result.returncode, beside_progress(result.stderr)) == (0, [])
    assert {name: Path(name).read_bytes() for name in OUT} == before
    assert [path.name for path in Path("tmp").iterdir()] == [f"deep_piano-{os.getuid()}"]
