from __future__ import annotations

import numpy as np
import pytest

from deep_piano.errors import InputError
from deep_piano.music.notes import NOTE, make_notes
from deep_piano.report.charts import dataset_charts, recording_charts
from tests.support.datasets import AUDIO, NOTES, a_manifest, an_empty_manifest

SR = 8000
BLUE, ORANGE = (8, 48, 107), (199, 76, 5)


def pixels(path):
    from matplotlib.image import imread

    return np.rint(imread(path)[..., :3] * 255).astype(np.uint8)


def count(image, colour):
    return int((np.abs(image.astype(int) - colour).max(axis=2) <= 6).sum())


def a_tone(seconds=3.0):
    t = np.arange(round(seconds * SR)) / SR
    return (0.4 * np.exp(-t) * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


def test_a_dataset_is_one_picture_of_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        dataset_charts(tmp_path / name, a_manifest())
    assert pixels(tmp_path / "a.png").shape == (900, 1600, 3)
    assert count(pixels(tmp_path / "a.png"), BLUE) > 5000
    assert count(pixels(tmp_path / "a.png"), ORANGE) > 500
    first = (tmp_path / "a.png").read_bytes()
    assert first == (tmp_path / "b.png").read_bytes()
    assert b"matplotlib" not in first.lower()


def test_an_empty_dataset_is_drawn(tmp_path):
    manifest = an_empty_manifest()
    corpus = manifest.corpus.model_copy(update={"uri": "$x_1$ caf\udce9 \x1b[31m"})
    manifest = manifest.model_copy(update={"corpus": corpus})
    dataset_charts(tmp_path / "none.png", manifest)
    image = pixels(tmp_path / "none.png")
    assert image.shape == (900, 1600, 3)
    assert count(image, BLUE) == 0


def test_a_recording_is_one_tall_picture_of_the_same_bytes(tmp_path):
    notes = make_notes([0.0, 1.0], [1.0, 2.9], [69, 60], [80, 110])
    for name in ("a.png", "b.png"):
        recording_charts(
            *(tmp_path / name, a_tone(), SR, notes),
            title="nocturne",
            audio_features=AUDIO,
            note_features=NOTES,
        )
    image = pixels(tmp_path / "a.png")
    assert image.shape[1] == 1600
    assert image.shape[0] > 1200
    assert count(image, BLUE) > 5000
    assert count(image, ORANGE) > 5000  # the chroma of the tone
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_notes_and_sound_share_their_time(tmp_path):
    """The sound lasts one of ten seconds: nothing of it lies beyond a tenth of the axis."""
    notes = make_notes([0.0], [10.0], [60], [10])
    recording_charts(tmp_path / "r.png", a_tone(1.0), SR, notes, title="")
    image = pixels(tmp_path / "r.png")
    columns = np.flatnonzero((np.abs(image[:700].astype(int) - BLUE).max(axis=2) <= 6).any(axis=0))
    assert 84 <= columns.min() < 90
    assert 220 < columns.max() < 84 + 0.1 * 1492 + 3


@pytest.mark.parametrize(
    ("samples", "notes"),
    [
        (None, make_notes([0.0], [0.5], [60], [80])),
        (a_tone(0.1), None),
        (np.zeros(2 * SR, np.float32), np.empty(0, NOTE)),
        (np.zeros(1, np.float32), None),
        (np.zeros(0, np.float32), np.empty(0, NOTE)),
        (None, None),
    ],
    ids=["midi", "sound", "silence", "sample", "nothing", "neither"],
)
def test_either_may_be_missing_or_empty(tmp_path, samples, notes):
    recording_charts(tmp_path / "r.png", samples, SR, notes, title="日本\n$\\frac{ caf\udce9")
    assert pixels(tmp_path / "r.png").shape[1] == 1600


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot write to"):
        dataset_charts(tmp_path / "file" / "card.png", a_manifest())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
