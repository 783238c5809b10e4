"""PREPARE survives: workers, actors, nodes and drivers die, and the dataset is the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deep_piano.config.load import load_config
from deep_piano.infra.storage.atomic import is_temporary
from deep_piano.infra.storage.open import open_folder
from deep_piano.music.midi import write_midi
from deep_piano.prepare.on_ray import prepare
from tests.support.clusters import contents, killing, several_nodes
from tests.support.commands import in_a_process
from tests.support.fakes import slow_transcriber
from tests.support.hostile import improvised, played
from tests.support.recordings import SR, write_sound

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SETTINGS = {"shard_mb": 1.5, "validation_share": 0.2, "max_similarity": 1.0}


@pytest.fixture(scope="module")
def cluster():
    with several_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    for number in range(10):
        write_midi(folder / f"{number}.mid", improvised(random_state=number))
        write_sound(folder / f"{number}.wav", played(improvised(random_state=50 + number)), sr=SR)
    return folder


@pytest.fixture(scope="module")
def undisturbed(cluster, corpus, tmp_path_factory):
    """What a run makes that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed") / "dataset"
    run(corpus, folder)
    return contents(folder)


def run(corpus, folder, *, disturb=None, **settings):
    """Prepare; call `disturb` once, when the first shard is there and others are at work."""
    waiting = [disturb] if disturb else []

    def watch(progress):
        if progress.what == "preparing" and 0 < progress.done < progress.total and waiting:
            waiting.pop()()

    prepare(
        open_folder(corpus),
        open_folder(folder),
        load_config(None, {"prepare": SETTINGS | settings}),
        transcriber=slow_transcriber,
        progress=watch,
    )
    assert not waiting, "the run was disturbed"


def test_one_worker_makes_the_same_bytes_as_three_nodes(cluster, corpus, undisturbed, tmp_path):
    run(corpus, tmp_path / "dataset", workers=1)
    assert contents(tmp_path / "dataset") == undisturbed


@pytest.mark.parametrize("victim", ["build_shard", "_Transcriber"])
def test_a_process_killed_at_work_changes_nothing(victim, cluster, corpus, undisturbed, tmp_path):
    shards = tmp_path / "dataset" / "shards"
    with killing(victim, when=lambda: shards.is_dir() and any(shards.glob("*.parquet"))):
        run(corpus, tmp_path / "dataset")
    assert contents(tmp_path / "dataset") == undisturbed


def test_a_node_removed_at_work_changes_nothing(cluster, corpus, undisturbed, tmp_path):
    node = cluster.list_all_nodes()[-1]
    run(
        corpus,
        tmp_path / "dataset",
        disturb=lambda: cluster.remove_node(node, allow_graceful=False),
    )
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    assert contents(tmp_path / "dataset") == undisturbed


@pytest.mark.timeout(900)  # three runs, one after the other
def test_a_driver_killed_and_run_again_changes_nothing(cluster, corpus, tmp_path):
    midi = tmp_path / "midi"
    midi.mkdir()
    for number in range(300):
        write_midi(midi / f"{number}.mid", improvised(40.0, random_state=number))
    settings = tmp_path / "settings.yaml"
    settings.write_text("prepare: {shard_mb: 0.01, max_similarity: 1.0}\n")
    env = {"RAY_ADDRESS": cluster.address}

    def start(name):
        command = [midi, "-o", tmp_path / name, "--config", settings]
        with (tmp_path / f"{name}.log").open("wb") as log:
            return in_a_process(
                *command, module="jobs.prepare", env=env, stdout=log, stderr=log, cwd=ROOT
            )

    whole = start("whole")
    assert whole.wait(280) == 0, (tmp_path / "whole.log").read_text()
    driver = start("dataset")
    shards = tmp_path / "dataset" / "shards"
    limit = time.monotonic() + 280

    def written():
        return [path for path in shards.glob("*.parquet") if not is_temporary(path.name)]

    while not written():
        assert time.monotonic() < limit
        assert driver.poll() is None, "the driver is killed before it ends"
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    assert not (tmp_path / "dataset" / "manifest.json").exists()
    there = len(written())
    assert 0 < there < len(list((tmp_path / "whole" / "shards").iterdir()))
    again = start("dataset")
    assert again.wait(280) == 0, (tmp_path / "dataset.log").read_text()
    assert contents(tmp_path / "dataset") == contents(tmp_path / "whole")
