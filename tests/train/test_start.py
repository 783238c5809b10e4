"""How a run begins and resumes: what it writes, what it measures, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from deep_piano.codecs.registry import CODECS
from deep_piano.config.sections import TrainConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import CheckpointError, InputError
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint as checkpoints
from deep_piano.models.config import PRESETS, ModelConfig
from deep_piano.train import start as module
from deep_piano.train.start import begin, middles, numbers, spectrum, spread
from tests.support.fakes import SOUND_CODECS, TINY, random_checkpoint
from tests.support.rows import arpeggio_rows, note_row, sound_row, write_dataset

SETTINGS = TrainConfig(preset="tiny", batch=8, window=16, steps=80)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(write_dataset(tmp_path_factory.mktemp("dataset"), arpeggio_rows(8)))


@pytest.fixture
def run(tmp_path):
    return open_folder(tmp_path / "run")


@pytest.fixture
def begun(dataset, run):
    """A run that has no checkpoint yet."""
    begin(dataset, run, SETTINGS)
    return run


@pytest.fixture
def validated(begun):
    """A run with a checkpoint to resume from."""
    checkpoints.save(begun.inner("checkpoint/last"), random_checkpoint())
    return begun


def tones(folder, codec):
    rows = [sound_row(codec, f"{n}", split=s) for n, s in enumerate(["train", "validation"])]
    wave = (np.sin(np.arange(16_000) / 9) * 0.5).astype(np.float32)
    for row in rows:
        row.sequence[:] = CODECS[codec].encode(wave)
    return Dataset(write_dataset(folder, rows, codec=codec))


def about(run):
    return json.loads(run.read_bytes("run.json"))


def test_a_run_says_what_it_is_before_it_is_trained(dataset, run):
    settings, network = begin(dataset, run, SETTINGS)
    assert (settings, network) == (SETTINGS, PRESETS["tiny"])
    said = about(run)
    assert TrainConfig.model_validate(said["settings"]) == SETTINGS
    assert ModelConfig.from_json(said["network"]) == network
    assert said["init"] is None
    assert said["dataset"]["digest"] == dataset.digest
    assert said["dataset"]["splits"]["train"]["recordings"] == 6
    assert said["versions"]["keras"]


def test_a_run_is_not_overwritten_nor_resumed_from_nothing(dataset, validated, tmp_path):
    before = validated.read_bytes("run.json")
    with pytest.raises(InputError, match=r"already holds a run.*--resume"):
        begin(dataset, validated, SETTINGS)
    assert validated.read_bytes("run.json") == before
    with pytest.raises(InputError, match="holds no run to resume"):
        begin(dataset, open_folder(tmp_path / "none"), SETTINGS, resume=True)
    assert not (tmp_path / "none").exists()


def test_a_run_resumes_with_its_own_settings_and_those_that_may_change(dataset, validated):
    assert begin(dataset, validated, TrainConfig(), resume=True) == (SETTINGS, PRESETS["tiny"])
    before = about(validated)
    longer = TrainConfig(steps=200, workers=2, patience=3)
    settings, network = begin(dataset, validated, longer, resume=True)
    assert settings == SETTINGS.model_copy(update={"steps": 200, "workers": 2, "patience": 3})
    assert network == PRESETS["tiny"]
    assert about(validated) == before | {"settings": settings.model_dump()}
    assert begin(dataset, validated, TrainConfig(), resume=True) == (settings, network)


@pytest.mark.parametrize(
    ("values", "said"), [({"preset": "small"}, "preset tiny -> small"), ({"window": 32}, "window")]
)
def test_a_run_is_resumed_with_its_own_settings_only(dataset, validated, values, said):
    way = rf"in another run: --init {validated.place('checkpoint/last')} -o OTHER"
    with pytest.raises(InputError, match=rf"begun with other settings .*{said}.*{way}"):
        begin(dataset, validated, TrainConfig(**values), resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_without_a_checkpoint_begins_anew_with_any_settings(dataset, begun, resume):
    smaller = TrainConfig(preset="small", batch=4, learning_rate=0.001)
    settings, network = begin(dataset, begun, smaller, resume=resume)
    kept = SETTINGS.model_dump(include={"window", "steps"}) if resume else {}
    assert settings == smaller.model_copy(update=kept)
    assert network == PRESETS["small"]
    assert about(begun)["settings"] == settings.model_dump()
    assert ModelConfig.from_json(about(begun)["network"]) == network


def test_a_run_without_a_checkpoint_resumes_with_its_settings_on_any_dataset(
    dataset, begun, tmp_path
):
    assert begin(dataset, begun, TrainConfig(), resume=True) == (SETTINGS, PRESETS["tiny"])
    other = Dataset(write_dataset(tmp_path / "other", arpeggio_rows(12)))
    begin(other, begun, TrainConfig(), resume=True)
    assert about(begun)["dataset"]["digest"] == other.digest


def test_another_dataset_or_codec_is_refused_saying_which(dataset, validated, tmp_path):
    other = Dataset(write_dataset(tmp_path / "other", arpeggio_rows(12)))
    with pytest.raises(InputError, match=r"the dataset has changed.*digest"):
        begin(other, validated, TrainConfig(), resume=True)
    with (
        tones(tmp_path / "sound", "mulaw") as sound,
        pytest.raises(InputError, match=r"the codec 'notes-2'.*'mulaw-1'"),
    ):
        begin(sound, validated, TrainConfig(), resume=True)


@pytest.mark.parametrize("part", ["settings", "network"])
def test_what_this_version_cannot_go_on_with_is_said(dataset, begun, part):
    said = about(begun)
    said[part] |= {"of a later version": 1}
    with begun.write("run.json") as path:
        path.write_text(json.dumps(said))
    refusal = r"run\.json cannot be resumed by this version"
    with pytest.raises(InputError, match=rf"{refusal}.*Leave --resume out"):
        begin(dataset, begun, TrainConfig(), resume=True)
    checkpoints.save(begun.inner("checkpoint/last"), random_checkpoint())
    with pytest.raises(InputError, match=rf"{refusal}.*--init"):
        begin(dataset, begun, TrainConfig(), resume=True)
    begin(dataset, open_folder(f"{begun.uri}-2"), SETTINGS)


def test_a_run_begins_with_other_weights_and_resumes_only_with_these(dataset, run, tmp_path):
    def saved(seed):
        checkpoints.save(tmp_path / f"{seed}", random_checkpoint(TINY, seed=seed))
        return checkpoints.load(str(tmp_path / f"{seed}"))

    init = saved(0)
    _, network = begin(dataset, run, TrainConfig(), init=init)
    assert network == TINY  # its size, as no preset was asked for
    assert about(run)["init"] == init.digest
    assert begin(dataset, run, TrainConfig(), resume=True, init=init)[1] == TINY
    with pytest.raises(InputError, match=rf"no checkpoint yet.*--init .*{init.digest[:12]}"):
        begin(dataset, run, TrainConfig(), resume=True)
    checkpoints.save(run.inner("checkpoint/last"), init)
    for same in (init, None):
        assert begin(dataset, run, TrainConfig(), resume=True, init=same)[1] == TINY
    with pytest.raises(InputError, match=rf"begun with other settings .*{init.digest[:12]}"):
        begin(dataset, run, TrainConfig(), resume=True, init=saved(1))


def test_layers_are_added_to_other_weights_but_not_taken_away(dataset, run):
    init = random_checkpoint(TINY)
    deeper = TrainConfig(layers=TINY.layers + 2)
    _, network = begin(dataset, run, deeper, init=init)
    assert network == replace(TINY, layers=TINY.layers + 2)
    assert begin(dataset, run, deeper, resume=True, init=init)[1] == network
    checkpoints.save(run.inner("checkpoint/last"), init)
    with pytest.raises(InputError, match=r"other settings \(layers 4 -> 3\)"):
        begin(dataset, run, TrainConfig(layers=TINY.layers + 1), resume=True)
    many = replace(init, config=network)
    with pytest.raises(CheckpointError, match=r"has 4 LSTM layers, and train\.layers is 2"):
        begin(dataset, run.inner("other"), TrainConfig(layers=2), init=many)


def test_other_weights_must_fit(dataset, run, tmp_path):
    other = random_checkpoint(TINY)
    with pytest.raises(CheckpointError, match="the preset 'tiny' has"):
        begin(dataset, run, SETTINGS, init=other)
    with (
        tones(tmp_path / "sound", "mulaw") as sound,
        pytest.raises(CheckpointError, match=r"'notes-2' and the dataset of 'mulaw-1'"),
    ):
        begin(sound, run, TrainConfig(), init=other)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_refused_before_anything_is_written(run, tmp_path, split):
    rows = [note_row(f"{n}.mid", split=split, seed=n) for n in range(3)]
    one_sided = Dataset(write_dataset(tmp_path / "dataset", rows))
    with pytest.raises(InputError, match="holds 0 recordings"):
        begin(one_sided, run, SETTINGS)
    assert not (tmp_path / "run").exists()


def test_the_network_is_sized_by_codec_and_target(dataset, run, tmp_path):
    with tones(tmp_path / "sound", "samples") as sound:
        _, config = begin(sound, run, TrainConfig(preset="tiny", target=16))
    assert (config.frame, config.past, config.order, config.units) == (16, 128, 1024, 64)
    assert config.scale == pytest.approx(np.sqrt(0.125), rel=0.01)
    assert len(config.spectrum) == 129
    assert ModelConfig.from_json(config.to_json()) == config
    with pytest.raises(InputError, match=r"train\.target is 2, .* one note"):
        begin(dataset, open_folder(tmp_path / "other"), TrainConfig(target=2))


@pytest.mark.parametrize("codec", SOUND_CODECS)
def test_a_tone_is_measured(codec, tmp_path):
    with tones(tmp_path, codec) as dataset:
        assert spread(dataset) == pytest.approx(np.sqrt(0.125), rel=0.01)
        loud = spectrum(dataset)
        assert np.argmax(loud) / (len(loud) - 1) == pytest.approx(1 / (9 * np.pi), abs=0.01)
        assert len(middles(dataset)) == len(list(numbers(dataset))) == 1


def test_of_many_recordings_some_are_measured_evenly_and_long_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STEPS", 4000)
    monkeypatch.setattr(module, "_FEWEST_STEPS", 1000)
    rows = [sound_row("samples", f"{n}", seconds=0.2) for n in range(9)]
    for number, row in enumerate(rows):
        row.sequence[:] = number
    read = []
    dataset = Dataset(write_dataset(tmp_path, rows, codec="samples", row_group_bytes=1))
    order = [float(row.sequence[0, 0]) for row in dataset.recordings("train")]
    monkeypatch.setattr(
        dataset, "rows", lambda group: read.append(group) or Dataset.rows(dataset, group)
    )
    found = middles(dataset)
    assert [float(steps[0, 0]) for steps in found] == [order[n] for n in (0, 2, 4, 6)]
    assert [len(steps) for steps in found] == [1000] * 4
    assert len(read) == 4
