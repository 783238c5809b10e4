"""A file that takes down whatever process reads it costs itself, and nothing else."""

from __future__ import annotations

import os

import pytest

from deep_piano.config.load import load_config
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.midi import write_midi
from deep_piano.prepare.on_ray import prepare
from tests.support.clusters import one_node
from tests.support.fakes import crashing_transcriber, fake_transcriber
from tests.support.hostile import improvised, played
from tests.support.recordings import SR, write_ffmpeg, write_sound

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def ray_with_deadly_ffmpeg(tmp_path_factory):
    """Have Ray where FFmpeg kills who calls it for ``deadly.wav``."""
    path = tmp_path_factory.mktemp("deadly") / "bin" / "ffmpeg"
    write_ffmpeg(path, "kill -9 $PPID", for_file="deadly.wav")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
        with one_node():
            yield


def run(folder, transcriber):
    return prepare(
        open_folder(folder / "corpus"),
        open_folder(folder / "dataset"),
        load_config(),
        transcriber=transcriber,
    )


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    write_midi(folder / "b.mid", improvised(random_state=9))
    for number, name in enumerate(["a.wav", "z.wav"]):
        write_sound(folder / name, played(improvised(random_state=number)), sr=SR)
    return folder


def test_a_file_that_kills_its_reader_is_a_failure_and_the_rest_is_not(
    tmp_path, corpus, ray_with_deadly_ffmpeg
):
    write_sound(corpus / "deadly.wav", played(improvised(random_state=5)), sr=SR)
    manifest = run(tmp_path, fake_transcriber)
    [reject] = manifest.rejects
    assert (reject.name, reject.kind) == ("deadly.wav", "failure")
    assert reject.rule == "crashed"
    assert manifest.totals.recordings == 3
    assert run(tmp_path, fake_transcriber) == manifest


def test_a_recording_that_kills_the_transcribers_costs_itself_only(
    tmp_path, corpus, ray_with_deadly_ffmpeg
):
    short = played(improvised(12.0, random_state=5), seconds=12.0)
    write_sound(corpus / "short.wav", short, sr=SR)
    manifest = run(tmp_path, crashing_transcriber)
    [reject] = manifest.rejects
    assert (reject.name, reject.rule) == ("short.wav", "crashed")
    assert manifest.totals.recordings == 3
