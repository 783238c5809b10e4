"""Every codec is told to users by its name, and what it makes of a recording comes back."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import numpy as np
import pytest

from deep_piano.cli.prepare import prepare
from deep_piano.codecs.registry import CODECS, codec_of
from deep_piano.config.sections import PrepareConfig
from tests.support.fakes import SOUND_CODECS

ROOT = Path(__file__).parents[2]


def test_the_settings_know_the_codecs():
    annotation = PrepareConfig.model_fields["codec"].annotation
    assert typing.get_args(annotation) == tuple(CODECS)


@pytest.mark.parametrize("name", CODECS)
def test_users_are_told_of_it(name):
    [option] = [one for one in prepare.params if one.name == "codec"]
    [comment] = re.findall("codec: notes +# (.+)", (ROOT / "ray_config.yaml").read_text("utf-8"))
    assert name in re.findall(r"\w+", option.help)
    assert name in re.findall(r"\w+", comment)
    assert f"| `{name}`" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", CODECS)
def test_it_is_found_by_its_specification_and_named_by_its_version(name):
    spec = CODECS[name].spec
    assert re.fullmatch(rf"{name}-\d+", spec.codec)
    assert codec_of(spec) is codec_of(spec.bare) is CODECS[name]


@pytest.mark.parametrize("name", SOUND_CODECS)
def test_sound_comes_back(name):
    codec = CODECS[name]
    samples = (0.5 * np.sin(np.arange(2000) / 9)).astype(np.float32)
    steps = codec.encode(samples)
    assert steps.shape == (2000, 1)
    back = codec.to_samples(steps)
    assert (back.shape, back.dtype) == (samples.shape, np.float32)
    assert np.abs(back - samples).max() < 0.02
    assert len(codec.encode(samples[:0])) == len(codec.to_samples(steps[:0])) == 0
    assert len(codec.log_widths) == int(not codec.spec.continuous)
