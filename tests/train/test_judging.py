from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from deep_piano.analysis.judge import judged_figures
from deep_piano.codecs.notes import SPEC, decode, encode
from deep_piano.codecs.waveform import MULAW_SPEC
from deep_piano.config.sections import GenerateConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.decoding.note_task import NoteTask
from deep_piano.decoding.notes import Engine, NoteDecoder
from deep_piano.decoding.open import drawing
from deep_piano.errors import CheckpointError, InputError
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint as checkpoints
from deep_piano.train import judging as module
from deep_piano.train.judging import store_judge, train_judge
from tests.support.fakes import arpeggios, random_checkpoint

SETTINGS = GenerateConfig(seed_seconds=6.0)


class Arpeggios(Dataset):
    """Arpeggios of three corpora, in no file."""

    def __init__(self, count, seconds=40.0, spec=SPEC):
        self.count, self.seconds, self.spec = count, seconds, spec

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


@pytest.fixture
def quick(monkeypatch, trained):
    """`train_judge` takes no time; what it calls is given by the test."""
    calls = []

    def train(*arguments, **options):
        for call in calls:
            call()
        return trained

    monkeypatch.setattr(module, "train_judge", train)
    return calls


def test_a_checkpoint_keeps_its_judge(trained, tmp_path, quick):
    checkpoints.save(tmp_path, random_checkpoint())
    assert checkpoints.load(str(tmp_path)).judge is None
    assert store_judge(open_folder(tmp_path), Arpeggios(12), SETTINGS) is trained
    loaded = checkpoints.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.judge.value, trained.judge.value)
    card = json.loads((tmp_path / "checkpoint.json").read_text())
    assert loaded.judge.digest == card["files"]["judge"]["sha256"]
    checkpoints.save(tmp_path / "copy", loaded)
    assert checkpoints.load(str(tmp_path / "copy")).judge is not None


def test_a_judge_is_replaced_by_force_alone(trained, tmp_path, quick):
    checkpoints.save(tmp_path, replace(random_checkpoint(), judge=trained.judge))
    quick.append(lambda: pytest.fail("the work was begun"))
    with pytest.raises(InputError, match=r"has a judge already.* --force"):
        store_judge(open_folder(tmp_path), Arpeggios(12), SETTINGS)
    quick.clear()
    assert store_judge(open_folder(tmp_path), Arpeggios(12), SETTINGS, force=True) is trained


def test_too_few_recordings_are_refused():
    with pytest.raises(InputError, match=r"needs 10 recordings .* 9 do"):
        train_judge(random_checkpoint(), Arpeggios(9), SETTINGS)
    with pytest.raises(InputError, match="0 do"):
        train_judge(random_checkpoint(), Arpeggios(12, seconds=20.0), SETTINGS)
    with pytest.raises(InputError, match=r"10 recordings or more, and 9 are asked for"):
        train_judge(random_checkpoint(), Arpeggios(12), SETTINGS, recordings=9)


def test_a_dataset_of_another_codec_is_refused():
    with pytest.raises(InputError, match="'notes-2' and the dataset of 'mulaw-1'"):
        train_judge(random_checkpoint(), Arpeggios(12, spec=MULAW_SPEC), SETTINGS)


def test_a_judge_is_not_stored_with_other_weights_than_it_was_trained_for(tmp_path, quick):
    checkpoints.save(tmp_path, random_checkpoint())
    quick.append(lambda: checkpoints.save(tmp_path, random_checkpoint(seed=1)))
    with pytest.raises(CheckpointError, match=r"has other weights than its judge"):
        store_judge(open_folder(tmp_path), Arpeggios(12), SETTINGS)
    assert checkpoints.load(str(tmp_path)).judge is None


def test_a_folder_that_cannot_be_written_to_is_refused_first(tmp_path, quick, monkeypatch):
    checkpoints.save(tmp_path, random_checkpoint())
    folder = open_folder(tmp_path)

    def refuse(self):
        raise InputError("cannot write to it")

    monkeypatch.setattr(type(folder), "require_writable", refuse)
    quick.append(lambda: pytest.fail("the work was begun"))
    with pytest.raises(InputError, match="cannot write"):
        store_judge(folder, Arpeggios(12), SETTINGS)
