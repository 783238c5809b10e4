"""Several workers on real Ray train one model, through losses of workers."""

from __future__ import annotations

import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from deep_piano.config.sections import TrainConfig
from deep_piano.dataset.reader import Dataset
from deep_piano.errors import DeepPianoError, InputError, TrainingError
from deep_piano.infra.storage.open import open_folder
from deep_piano.models import checkpoint as checkpoints
from deep_piano.train.loop import go_on
from deep_piano.train.on_ray import train
from deep_piano.train.start import begin
from tests.support.clusters import killing, one_node
from tests.support.rows import arpeggio_rows, write_dataset

pytestmark = [pytest.mark.ray, pytest.mark.tf, pytest.mark.slow]

SETTINGS = TrainConfig(
    preset="tiny",
    batch=8,
    window=16,
    steps=24,
    eval_every_steps=8,
    warmup_steps=4,
    precision="float32",
    workers=2,
)
LOSSES = ("train_loss", "validation_loss", "validation_pitch")
TOLERANCE = 1e-4  # of a loss: the workers' sums are added in another order


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    return Dataset(write_dataset(folder, arpeggio_rows(), row_group_bytes=1500))


@pytest.fixture(scope="module")
def ray_here(_s3_server):
    """A cluster whose workers know, from its start on, where S3 is."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in _s3_server.env.items():
            environment.setenv(name, value)
        with one_node(cpus=3):
            yield


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    """The run of one process with the whole batch."""
    run = open_folder(tmp_path_factory.mktemp("runs") / "alone")
    settings = SETTINGS.model_copy(update={"workers": None})
    go_on(dataset, run, *begin(dataset, run, settings))
    return run


@pytest.fixture(scope="module")
def undisturbed(ray_here, dataset, tmp_path_factory):
    run = open_folder(tmp_path_factory.mktemp("runs") / "undisturbed")
    train(dataset, run, *begin(dataset, run, SETTINGS))
    return run


def history(run):
    with run.local("history.parquet") as path:
        return pq.read_table(path).to_pylist()


def last(run):
    place = run.inner("checkpoint/last")
    return checkpoints.load(place), checkpoints.load_training(place)


def require_the_same(run, other):
    (one, state), (two, its_state) = last(run), last(other)
    assert one.digest == two.digest
    for name, array in state.items():
        np.testing.assert_array_equal(array, its_state[name])
    for row, its_row in zip(history(run), history(other), strict=True):
        assert row | {"hours": 0} == its_row | {"hours": 0}


def test_two_workers_train_the_model_of_one_process(undisturbed, alone):
    """That their weights are equal bit for bit is required at every checkpoint, or it fails."""
    for row, expected in zip(history(undisturbed), history(alone), strict=True):
        assert row["step"] == expected["step"]
        for name in LOSSES:
            assert row[name] == pytest.approx(expected[name], rel=TOLERANCE)
    carried, expected = last(undisturbed)[1], last(alone)[1]
    assert carried.keys() == expected.keys()
    for name, array in carried.items():
        assert array.shape == expected[name].shape
        if name.startswith("carried/"):  # slots in the same order, though dealt out to two
            np.testing.assert_allclose(array, expected[name], atol=0.05)


def test_a_worker_killed_twice_costs_a_checkpoint_interval_and_changes_nothing_in_s3_either(
    undisturbed, dataset, s3
):
    bucket = s3.bucket()
    there = open_folder(f"s3://{bucket}/music/set", endpoint=s3.endpoint)
    for entry in dataset.folder.entries():
        with there.write(entry.name) as path:
            path.write_bytes(dataset.folder.read_bytes(entry.name))
    run = open_folder(f"s3://{bucket}/music/runs/one", endpoint=s3.endpoint)
    patient = SETTINGS.model_copy(update={"max_failures": 2})
    told = []

    def validated(step):
        return run.exists("history.parquet") and history(run)[-1]["step"] >= step

    with (
        Dataset(there) as remote,
        killing("RayTrainWorker", when=lambda: validated(8)),
        killing("RayTrainWorker", when=lambda: validated(16)),
    ):
        train(remote, run, *begin(remote, run, patient), progress=told.append)
    require_the_same(run, undisturbed)
    assert told
    assert {entry.name.split("/")[0] for entry in run.entries()} >= {
        *("checkpoint", "history.parquet", "history.png", "run.json", "tensorboard"),
    }


def test_workers_that_die_too_often_end_the_run_and_one_process_finishes_it(
    alone, ray_here, dataset, tmp_path
):
    run = open_folder(tmp_path / "run")

    mortal = SETTINGS.model_copy(update={"max_failures": 0})
    with (
        killing("RayTrainWorker", when=lambda: run.exists("history.parquet")),
        pytest.raises(DeepPianoError, match=r"failed more than 0 times.*--resume"),
    ):
        train(dataset, run, *begin(dataset, run, mortal))
    assert history(run)[-1]["step"] < SETTINGS.steps
    go_on(dataset, run, *begin(dataset, run, TrainConfig(), resume=True))
    for row, expected in zip(history(run), history(alone), strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=TOLERANCE)


def test_what_the_cluster_lacks_is_said(ray_here, dataset, tmp_path):
    run = open_folder(tmp_path / "run")
    settings, network = begin(dataset, run, SETTINGS)
    many = settings.model_copy(update={"workers": 8})
    with pytest.raises(InputError, match=r"8 workers ask for 8 CPUs, and the cluster has 3"):
        train(dataset, run, many, network)
    on_gpus = settings.model_copy(update={"gpus_per_worker": 1.0})
    with pytest.raises(InputError, match=r"ask for 2 GPUs.*has 0.*--gpus-per-worker 0"):
        train(dataset, run, on_gpus, network)
    begun = time.monotonic()
    patient = on_gpus.model_copy(update={"nodes_within_seconds": 1.5})
    with pytest.raises(InputError, match=r"ask for 2 GPUs.*has 0"):
        train(dataset, run, patient, network)
    assert time.monotonic() - begun >= 1.5


def test_only_tensorflow_trains_on_several_workers(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr("deep_piano.train.on_ray.keras_backend", lambda: "jax")
    run = open_folder(tmp_path / "run")
    with pytest.raises(InputError, match=r"KERAS_BACKEND is 'jax'.*--workers"):
        train(dataset, run, *begin(dataset, run, SETTINGS))


def test_an_error_that_all_have_is_not_tried_again(ray_here, dataset, tmp_path):
    run = open_folder(tmp_path / "run")
    wild = SETTINGS.model_copy(
        update={"learning_rate": 0.1, "clip_norm": 1000.0, "weight_decay": 1.0}
    )
    network = begin(dataset, run, wild)[1]
    poisoned = checkpoints.Checkpoint(
        dataset.spec,
        network,
        {
            name: np.full(shape, np.nan, np.float32)
            for name, shape in checkpoints.weight_shapes(dataset.spec, network).items()
        },
    )
    with pytest.raises(TrainingError, match="the loss is nan at update 1"):
        train(dataset, run, wild, network, init=poisoned)
