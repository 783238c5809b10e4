"""The whole path on a cluster: submitted from a clean clone, from and to S3, with a token, and the
same bytes as on one machine."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from deep_piano.infra.assets import cache
from deep_piano.music.midi import write_midi
from tests.chaos.machines import HEAD, JOB_SERVER, ROOT, S3_PORT
from tests.chaos.places import Place, lasting
from tests.support.clusters import contents
from tests.support.fakes import arpeggios
from tests.support.hostile import improvised, played
from tests.support.recordings import SR, ffmpeg, write_sound

pytestmark = [pytest.mark.chaos, pytest.mark.assets, pytest.mark.timeout(1800)]

TAKES = 2
SETTINGS = """
storage: {{endpoint: "http://{host}:{port}", region: us-east-1}}
prepare: {{validation_share: 0.3, test_share: 0.1, shard_mb: 0.5}}
train:
  {{preset: tiny, batch: 4, window: 16, steps: 8, eval_every_steps: 4, precision: float32,
    workers: 2}}
generate: {{seconds: 14, seed_seconds: 8, takes: {takes}, sound: "{sound}"}}
bulk: {{format: mp3}}
"""


@pytest.fixture(scope="module")
def place(bed, _small_piano, tmp_path_factory):
    """A corpus and seeds in S3, notes and sound of each."""
    if cache.path("transkun") is None:
        pytest.skip("run `deep-piano assets fetch transkun` first")
    folder = tmp_path_factory.mktemp("given")
    settings = folder / "trial.yaml"
    text = SETTINGS.format(host=HEAD, port=S3_PORT, takes=TAKES, sound=_small_piano)
    settings.write_text(text)
    (folder / "corpus").mkdir()
    (folder / "seeds").mkdir()
    for number in range(6):
        write_midi(folder / f"corpus/{number}.mid", improvised(random_state=number))
    for name, number in (("corpus/a", 10), ("corpus/b", 11), ("seeds/c", 12)):
        wav = folder / "sound.wav"
        write_sound(wav, played(improvised(random_state=number)), sr=SR)
        ffmpeg("-i", wav, folder / f"{name}.mp3")
    for number in range(2):
        write_midi(folder / f"seeds/{number}.mid", arpeggios(9, rng=np.random.default_rng(number)))
    with Place(bed, settings) as place:
        for name in ("corpus", "seeds"):
            place.put(folder / name, name)
        yield place


@pytest.fixture(scope="module")
def user(bed, place, tmp_path_factory):
    """Return a function that runs a command as a user with only a clone and a token."""
    home = tmp_path_factory.mktemp("user")
    clone = home / "deep_piano"
    subprocess.run(["git", "clone", "--quiet", ROOT.as_uri(), clone], check=True)
    (clone / place.settings.name).write_text(place.settings.read_text())

    def user(*words, token=None):
        environment = {"PATH": bed.environment["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
        if token:
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        return subprocess.run(
            list(map(str, words)),
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return user


def of_pipeline(place, out):
    folders = [f"s3://{place.bucket}/{name}" for name in ("corpus", "seeds")]
    return [*folders, "-o", out, "--config", place.settings.name]


@pytest.fixture(scope="module")
def by_ray(bed, place, user):
    """What `ray job submit` makes, as README has it."""
    out = f"s3://{place.bucket}/by-ray/out"
    submit = ("ray", "job", "submit", "--address", JOB_SERVER, "--working-dir", ".", "--")
    ended = user(
        *submit, "python", "-m", "jobs.pipeline", *of_pipeline(place, out), token=bed.token
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{out}: pieces asked for: 6 = 6 there + 0 failed" in ended.stdout
    return place.files(out)


def test_a_corpus_in_s3_becomes_pieces_in_s3(by_ray, bed):
    manifest = json.loads(by_ray["dataset/manifest.json"])
    assert (manifest["totals"]["recordings"], manifest["rejects"]) == (8, [])
    assert "run/checkpoint/best/checkpoint.json" in by_ray
    for seed in ("0.mid", "1.mid", "c.mp3"):
        for take in range(1, TAKES + 1):
            for suffix in ("mp3", "mid", "png", "json"):
                assert by_ray[f"pieces/{seed}/take-{take}.{suffix}"]


def test_submit_makes_the_same(by_ray, bed, place, user):
    out = f"s3://{place.bucket}/by-submit/out"
    submit = (sys.executable, "-m", "deep_piano", "submit", "--address", JOB_SERVER)
    ended = user(*submit, "pipeline", *of_pipeline(place, out), token=bed.token)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{out}: pieces asked for: 6 = 6 there + 0 failed" in ended.stdout
    require_the_same(place.files(out), by_ray)


@pytest.mark.parametrize("token", [None, "0" * 32])
def test_nobody_submits_without_the_token(bed, place, user, token):
    before = place.names(f"s3://{place.bucket}")
    words = ["pipeline", *of_pipeline(place, f"s3://{place.bucket}/never")]
    at = ("submit", "--address", JOB_SERVER)
    ours = user(sys.executable, "-m", "deep_piano", *at, *words, token=token)
    assert ours.returncode == 1
    assert ours.stderr.startswith(f"deep-piano: the cluster at {JOB_SERVER} requires its token")
    job = (*at, "--working-dir", ".", "--", "python", "-m", f"jobs.{words[0]}", *words[1:])
    theirs = user("ray", "job", *job, token=token)
    assert theirs.returncode != 0
    assert "AuthenticationError" in theirs.stdout + theirs.stderr
    assert place.names(f"s3://{place.bucket}") == before


def test_ray_on_one_machine_makes_the_same(by_ray, bed, place, tmp_path):
    folders = of_pipeline(place, tmp_path / "out")[:-1]
    here(bed, "pipeline", *folders, place.settings, environment={"RAY_ADDRESS": ""})
    require_the_same(contents(tmp_path / "out"), by_ray)


def test_one_process_makes_the_same_pieces(by_ray, bed, place, tmp_path):
    checkpoint = f"s3://{place.bucket}/by-ray/out/run/checkpoint/best"
    for seed in ("0.mid", "c.mp3"):
        (tmp_path / seed).write_bytes(place.files(f"s3://{place.bucket}/seeds")[seed])
        out = tmp_path / f"of-{seed}" / "take.mp3"
        words = (tmp_path / seed, "-o", out, "--checkpoint", checkpoint)
        here(bed, "generate", *words, "--config", place.settings)
        made = contents(out.parent)
        assert len(made) == 4 * TAKES
        for name, data in made.items():
            other = by_ray[f"pieces/{seed}/{name}"]
            if name.endswith(".json"):  # each says by which name it was given the checkpoint
                data, other = json.loads(data), json.loads(other)
                names = (data, checkpoint), (other, "run/checkpoint/best")
                for facts, known_as in names:
                    assert facts["checkpoint"].pop("name") == known_as
                    assert facts["settings"].pop("checkpoint") == known_as
            assert data == other, name


def here(bed, *words, environment=None):
    ended = subprocess.run(
        [sys.executable, "-m", "deep_piano", *map(str, words)],
        cwd=ROOT,
        env=bed.environment | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def require_the_same(files, others):
    """Require that two pipelines made the same, but for the time that things took."""
    files, others = lasting(files), lasting(others)
    assert files.keys() == others.keys()
    assert [name for name in files if files[name] != others[name]] == []
