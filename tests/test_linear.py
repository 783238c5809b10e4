from __future__ import annotations

import numpy as np
import pytest

from deep_piano.begin import begin
from deep_piano.codecs import CODECS
from deep_piano.config import TrainConfig
from deep_piano.dataset import Dataset
from deep_piano.errors import InputError
from deep_piano.linear import middles, numbers, prediction, spread
from deep_piano.sizes import ModelConfig
from deep_piano.storage import open_folder
from tests.rows import arpeggio_rows, sound_row, write_dataset


def tones(folder, codec):
    rows = [sound_row(codec, f"{n}", split=s) for n, s in enumerate(["train", "validation"])]
    wave = (np.sin(np.arange(16_000) / 9) * 0.5).astype(np.float32)
    for row in rows:
        row.sequence[:] = CODECS[codec].encode(wave)
    return Dataset(write_dataset(folder, rows, codec=codec))


@pytest.mark.parametrize("codec", ["mulaw", "samples"])
def test_a_tone_is_scaled_and_predicted(codec, tmp_path):
    with tones(tmp_path, codec) as dataset:
        scale = spread(dataset)
        assert scale == pytest.approx(np.sqrt(0.125), rel=0.01)
        config = ModelConfig(1, 8, 8, frame=4, past=32, scale=scale)
        weights = prediction(dataset, config)
        assert weights.shape == (32, 4 if codec == "samples" else 1)
        [values] = [v[:, 0] / scale for v in numbers(dataset)]
        assert values[:32] @ weights[:, 0] == pytest.approx(values[32], abs=0.05)
        assert len(middles(dataset)) == 1


def test_the_network_is_sized_by_codec_and_target(tmp_path):
    with tones(tmp_path / "sound", "samples") as dataset:
        settings = TrainConfig(preset="tiny", target=16)
        _, config = begin(dataset, open_folder(tmp_path / "run"), settings)
        assert (config.frame, config.past, config.units) == (16, 256, 64)
        assert config.scale == pytest.approx(np.sqrt(0.125), rel=0.01)
    with (
        Dataset(write_dataset(tmp_path / "notes", arpeggio_rows(8))) as dataset,
        pytest.raises(InputError, match=r"train\.target is 2, .* one note"),
    ):
        begin(dataset, open_folder(tmp_path / "other"), TrainConfig(target=2))
