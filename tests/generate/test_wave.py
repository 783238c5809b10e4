from __future__ import annotations

import json

import numpy as np
import pytest

from deep_piano.config.sections import GenerateConfig
from deep_piano.errors import InputError
from deep_piano.generate.piece import make_pieces
from deep_piano.models import checkpoint as checkpoints
from deep_piano.music import audio
from tests.support.fakes import SOUND_CODECS, sound_checkpoint

SR = 16_000
SECONDS = {"seconds": 5.0, "seed_seconds": 3.0}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("seed") / "seed.flac"
    t = np.arange(4 * SR) / SR
    wave = sum(np.sin(2 * np.pi * hz * t) for hz in (262, 330, 392)) * np.exp(-t % 1) * 0.02
    audio.encode(path, wave.astype(np.float32), sr=SR)
    return path


@pytest.fixture(scope="module", params=SOUND_CODECS)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoints.save(folder, sound_checkpoint(request.param, frame=8))
    return str(folder)


def made(recording, out, checkpoint, **settings):
    chosen = GenerateConfig(checkpoint=checkpoint, **(SECONDS | settings))
    return make_pieces(recording, out, chosen)


def test_sound_goes_on_after_the_recording_itself(recording, trained, tmp_path):
    [piece] = made(recording, tmp_path / "a.wav", trained)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png", "a.wav"]
    heard = audio.decode(piece.path, sr=SR)
    seed = audio.decode(recording, sr=SR, seconds=3.0)
    assert len(heard) == 5 * SR
    same = np.corrcoef(heard[: 3 * SR], seed)[0, 1]
    assert same > 0.999
    assert np.isfinite(heard).all()
    assert heard[3 * SR :].std() > 0
    facts = json.loads((tmp_path / "a.json").read_text())
    assert facts["piece"]["seconds"] == 5.0
    assert facts["seed"]["seconds"] == 3.0
    assert facts["files"]["a.wav"] == audio.content_hash(piece.path)


def test_the_same_bytes_and_other_takes(recording, trained, tmp_path):
    for name in ("a.wav", "b.wav"):
        made(recording, tmp_path / name, trained, takes=2)
    read = {path.name: path.read_bytes() for path in tmp_path.glob("*.wav")}
    assert read["a-1.wav"] == read["b-1.wav"]
    assert read["a-2.wav"] == read["b-2.wav"] != read["a-1.wav"]


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("a.mid", {}, r"a\.mid: sound is written"),
        ("a.wav", {"keep": 1}, "cannot be ranked"),
        ("a.wav", {"index": "corpus.index"}, "cannot be compared"),
        ("a.wav", {"sound": "steinway"}, "sounds by itself"),
        ("a.wav", {"form": "aba"}, "--form: there are no notes to choose"),
        ("a.wav", {"register_shift": 3.0}, "--register: there are no notes to choose"),
        ("a.wav", {"candidates": 8}, "--candidates: there are no notes to choose"),
        ("a.wav", {"guidance": 3.0}, "--guidance: there are no notes to choose"),
        ("a.wav", {"hold_density": 0.5}, "--hold-density: there are no notes to choose"),
        ("a.wav", {"hold_beat": 0.5}, "--hold-beat: there are no notes to choose"),
        ("a.wav", {"midi": "sounding"}, "--midi: there are no notes to choose"),
        ("a.wav", {"seed_seconds": 4.5, "seconds": 5.0, "seed_start": 0.0}, "no room"),
    ],
)
def test_what_only_notes_have_is_refused(recording, trained, tmp_path, name, settings, problem):
    if "no room" in problem:
        long = tmp_path / "long.flac"
        audio.encode(long, np.tile(audio.decode(recording, sr=SR), 2), sr=SR)
        recording = long
    with pytest.raises(InputError, match=problem):
        made(recording, tmp_path / "out" / name, trained, **settings)
    assert not (tmp_path / "out").exists()
