"""Keras is loaded with our settings, whatever others have left in a home folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deep_piano.infra import backend
from deep_piano.infra.backend import keras_backend

ASK = """
import os
before = dict(os.environ)
from deep_piano.infra.backend import load_keras
keras = load_keras()
assert load_keras() is keras
assert os.environ.get("KERAS_BACKEND") == before.get("KERAS_BACKEND"), os.environ
assert "KERAS_HOME" not in os.environ
print(keras.config.backend(), keras.config.floatx())
"""


@pytest.mark.tf
@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"backend": "theano", "floatx": "float32"}, None),
        ({"backend": "tensorflow", "floatx": "float64", "epsilon": 1}, "tensorflow"),
        ({"floatx": "float8"}, "torch-and-no-more"),
    ],
)
def test_keras_knows_nothing_of_a_users_settings(tmp_path, settings, asked):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(settings))
    env = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    env |= {"KERAS_BACKEND": asked} if asked else {}
    found = subprocess.run(
        [sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=False
    )
    assert found.stdout == "tensorflow float32\n", found.stderr
    assert ("torch-and-no-more" in found.stderr) == (asked == "torch-and-no-more")
    assert [path.name for path in (tmp_path / ".keras").iterdir()] == ["keras.json"]


@pytest.mark.parametrize(
    ("asked", "installed", "used", "reason"),
    [
        (None, True, "tensorflow", None),
        ("", True, "tensorflow", None),
        ("torch", True, "torch", None),
        ("torch", False, "tensorflow", "'torch', which is not installed"),
        ("theano", True, "tensorflow", "'theano', which is not one of tensorflow, torch, jax"),
    ],
)
def test_a_backend_that_cannot_be_used_is_said_once(
    monkeypatch, caplog, asked, installed, used, reason
):
    backend._usable_backend.cache_clear()
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: installed or None)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if asked is not None:
        monkeypatch.setenv("KERAS_BACKEND", asked)
    assert (keras_backend(), keras_backend()) == (used, used)
    assert [record.getMessage() for record in caplog.records if reason is None] == []
    if reason is not None:
        [record] = caplog.records
        assert reason in record.getMessage()
    backend._usable_backend.cache_clear()
