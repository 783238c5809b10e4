from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from deep_piano.analysis.judge import judged_figures
from deep_piano.codecs.notes import decode, encode
from deep_piano.config.sections import GenerateConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.decoding.note_task import NoteTask
from deep_piano.decoding.notes import Engine, NoteDecoder
from deep_piano.decoding.open import drawing
from deep_piano.errors import InputError
from deep_piano.models import checkpoint as checkpoints
from deep_piano.train.judging import train_judge
from tests.support.fakes import arpeggios, random_checkpoint

SETTINGS = GenerateConfig(seed_seconds=6.0)


class Arpeggios(Dataset):
    """Arpeggios of three corpora, in no file."""

    def __init__(self, count, seconds=40.0):
        self.count, self.seconds = count, seconds

    def recordings(self, split):
        assert split == "train"
        for number in range(self.count):
            notes = arpeggios(self.seconds, rng=np.random.default_rng(number), tonic=40 + number)
            corpus = f"corpus {number % 3}"
            name = f"{corpus}/{number}.mid"
            yield SimpleNamespace(
                name=name, corpus=corpus, duration_s=self.seconds, sequence=encode(notes)
            )


@pytest.fixture(scope="module")
def trained():
    return train_judge(random_checkpoint(scale=0.5), Arpeggios(12), SETTINGS, recordings=12)


def test_it_tells_what_was_played_from_what_an_untrained_network_makes(trained):
    assert trained.recordings == 12
    assert trained.moments > 40
    assert trained.right > 0.9
    other = random_checkpoint(seed=9, scale=0.5)
    decoder = NoteDecoder(Engine(other), *drawing(SETTINGS))
    seed = arpeggios(6, rng=np.random.default_rng(99), tonic=57)
    decoder.add(0, NoteTask(seed, 6.0, 40.0, np.random.default_rng(0)))
    done = {}
    while len(decoder):
        done |= decoder.step()
    real = decode(encode(arpeggios(40, rng=np.random.default_rng(99), tonic=57)))
    real = real[real["onset"] >= 6]
    figures = [judged_figures(seed, notes, now_s=30.0) for notes in (real, done[0].notes)]
    of_real, of_made = trained.judge.score(np.array(figures))
    assert of_real > of_made


def test_the_same_inputs_give_the_same_judge(trained):
    again = train_judge(random_checkpoint(scale=0.5), Arpeggios(12), SETTINGS, recordings=12)
    for name, array in again.judge.arrays().items():
        np.testing.assert_array_equal(array, trained.judge.arrays()[name])


def test_a_checkpoint_keeps_its_judge(trained, tmp_path):
    checkpoint = random_checkpoint()
    checkpoints.save(tmp_path, checkpoint)
    assert checkpoints.load(str(tmp_path)).judge is None
    checkpoints.save_judge(checkpoints.find(str(tmp_path)), trained.judge)
    loaded = checkpoints.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.judge.value, trained.judge.value)
    checkpoints.save(tmp_path / "copy", loaded)
    assert checkpoints.load(str(tmp_path / "copy")).judge is not None


def test_too_few_recordings_are_refused():
    with pytest.raises(InputError, match=r"needs 10 recordings .* 9 do"):
        train_judge(random_checkpoint(), Arpeggios(9), SETTINGS)
    with pytest.raises(InputError, match="0 do"):
        train_judge(random_checkpoint(), Arpeggios(12, seconds=20.0), SETTINGS)
