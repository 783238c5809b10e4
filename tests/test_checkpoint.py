from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deep_piano import checkpoint as checkpoints
from deep_piano.codecs.notes import SPEC
from deep_piano.errors import CheckpointError
from deep_piano.model import build_model
from tests.fakes import TINY, random_checkpoint


def test_round_trip(tmp_path):
    saved = replace(random_checkpoint(), facts={"step": 7})
    checkpoints.save(tmp_path / "c", saved)
    loaded = checkpoints.load(str(tmp_path / "c"), codec=SPEC.codec)
    assert (loaded.spec, loaded.config, loaded.facts) == (SPEC, TINY, {"step": 7})
    assert len(loaded.digest) == 64
    for name, array in saved.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], array)


def test_half_precision_is_near_and_half_the_size(tmp_path):
    saved = random_checkpoint()
    checkpoints.save(tmp_path / "full", saved)
    checkpoints.save(tmp_path / "half", saved, half=True)
    sizes = [(tmp_path / name / checkpoints.WEIGHTS).stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = checkpoints.load(str(tmp_path / "half"), codec=SPEC.codec)
    for name, array in saved.weights.items():
        assert loaded.weights[name].dtype == np.float32
        np.testing.assert_allclose(loaded.weights[name], array, rtol=1e-3, atol=1e-4)


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    checkpoints.save(tmp_path / "c", random_checkpoint(seed=1), optimizer={"000": np.ones(3)})
    checkpoints.save(tmp_path / "c", random_checkpoint(seed=2))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    loaded = checkpoints.load(str(tmp_path / "c"), codec=SPEC.codec)
    expected = random_checkpoint(seed=2).weights["input/kernel"]
    np.testing.assert_array_equal(loaded.weights["input/kernel"], expected)
    with pytest.raises(CheckpointError, match="cannot be resumed from"):
        checkpoints.load_optimizer(tmp_path / "c")


@pytest.mark.parametrize("before", [True, False])
def test_what_was_there_is_put_back_when_it_cannot_be_replaced(tmp_path, monkeypatch, before):
    if before:
        checkpoints.save(tmp_path / "c", random_checkpoint(seed=1))
    replace_path = Path.replace

    def fail(self, target):
        if self.name.startswith(".c.") and not self.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        return replace_path(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(tmp_path / "c", random_checkpoint(seed=2))
    assert [path.name for path in tmp_path.iterdir()] == ["c"] * before


def test_others_may_read_what_is_saved(tmp_path):
    checkpoints.save(tmp_path / "c", random_checkpoint(), optimizer={"000": np.ones(3)})
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "c").iterdir())


@pytest.mark.parametrize("wrong", [[], 3, {"layers": "two"}])
def test_a_card_of_the_wrong_shape_is_refused(tmp_path, wrong):
    checkpoints.save(tmp_path / "c", random_checkpoint())
    card = tmp_path / "c" / checkpoints.CARD
    content = json.loads(card.read_text())
    content["config"] = wrong
    card.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoints.load(str(tmp_path / "c"), codec=SPEC.codec)


def test_a_missing_one_names_those_that_are_shipped():
    with pytest.raises(CheckpointError, match=r"no checkpoint 'nowhere'.*shipped \("):
        checkpoints.load("nowhere", codec=SPEC.codec)


def test_another_codec_is_refused(tmp_path):
    checkpoints.save(tmp_path / "c", random_checkpoint())
    with pytest.raises(CheckpointError, match="belongs to the codec 'notes-1', not 'mulaw-1'"):
        checkpoints.load(str(tmp_path / "c"), codec="mulaw-1")


@pytest.mark.parametrize("part", [checkpoints.CARD, checkpoints.WEIGHTS])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "garbage"])
def test_a_damaged_one_is_refused(tmp_path, part, damage):
    checkpoints.save(tmp_path / "c", random_checkpoint())
    path = tmp_path / "c" / part
    content = path.read_bytes()
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "emptied": b""}.get(damage, b"\x93")
    )
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoints.load(str(tmp_path / "c"), codec=SPEC.codec)


def test_weights_of_another_shape_are_refused(tmp_path):
    checkpoints.save(tmp_path / "c", random_checkpoint())
    card = tmp_path / "c" / checkpoints.CARD
    content = json.loads(card.read_text())
    content["config"]["units"] = 32
    card.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"is damaged: .*input/kernel"):
        checkpoints.load(str(tmp_path / "c"), codec=SPEC.codec)


@pytest.mark.tf
def test_weights_go_into_a_keras_model_and_come_back():
    model = build_model(SPEC, TINY, batch=1, window=2)
    saved = random_checkpoint().weights
    checkpoints.assign_weights(model, saved)
    again = checkpoints.weights_of(model)
    assert again.keys() == saved.keys()
    for name, array in saved.items():
        np.testing.assert_array_equal(again[name], array)
