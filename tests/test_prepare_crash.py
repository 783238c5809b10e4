"""A file that takes down whatever process reads it costs itself, and nothing else."""

from __future__ import annotations

import os
import shlex

import pytest

from deep_piano import audio
from deep_piano.config import load_config
from deep_piano.notes import write_midi
from deep_piano.stages.prepare import prepare
from deep_piano.storage import open_folder
from tests.clusters import one_node
from tests.fakes import listener
from tests.hostile import improvised, played
from tests.recordings import SR, write_sound

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def deadly_ffmpeg(tmp_path, monkeypatch):
    """Put an FFmpeg on PATH that kills who calls it for ``deadly.wav``."""
    path = tmp_path / "bin" / "ffmpeg"
    path.parent.mkdir()
    real = shlex.quote(str(audio.ffmpeg_binary()))
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *deadly.wav*) kill -9 $PPID ;; esac\nexec {real} "$@"\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


def test_a_file_that_kills_its_reader_is_a_failure_and_the_rest_is_not(tmp_path, deadly_ffmpeg):
    corpus = tmp_path / "corpus"
    for number, name in enumerate(["a.wav", "deadly.wav", "z.wav"]):
        corpus.mkdir(exist_ok=True)
        write_sound(corpus / name, played(improvised(random_state=number)), sr=SR)
    write_midi(corpus / "b.mid", improvised(random_state=9))
    with one_node():
        manifest = prepare(
            open_folder(corpus),
            open_folder(tmp_path / "dataset"),
            load_config(),
            transcriber=listener,
        )
        [reject] = manifest["rejects"]
        assert (reject["name"], reject["kind"], reject["rule"]) == (
            *("deadly.wav", "failure", "crashed"),
        )
        assert manifest["totals"]["recordings"] == 3
        again = prepare(
            open_folder(corpus),
            open_folder(tmp_path / "dataset"),
            load_config(),
            transcriber=listener,
        )
    assert again == manifest
