"""Workers that train one model: the same means and the same order on all of them."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import AuthenticationError, get_context

import numpy as np
import pytest

from deep_piano.train import workers
from deep_piano.train.workers import OneMachine, TensorFlowWorkers, join
from tests.support.bucket import free_port

KEY = b"secret of the workers"
SHAPES = [(300, 7), (11,), ()]


def on_all(size, what):
    """Do something in so many workers of this machine, a thread each; return what they return."""
    port = free_port()
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: what(OneMachine(rank, size, port, KEY)), range(size)))


def arrays_of(rank, turn):
    rng = np.random.default_rng([rank, turn])
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_all_get_the_same_means_update_after_update(size):
    def work(worker):
        return [worker._means(*arrays_of(worker.rank, turn)) for turn in range(20)]

    every = on_all(size, work)
    for turn, means in enumerate(every[0]):
        for other in every[1:]:
            for mean, same in zip(means, other[turn], strict=True):
                np.testing.assert_array_equal(mean, same)
        expected = zip(*(arrays_of(rank, turn) for rank in range(size)), strict=True)
        for mean, each in zip(means, expected, strict=True):
            np.testing.assert_allclose(mean, np.mean(each, 0), rtol=1e-5, atol=1e-6)


def test_arrays_are_stacked_by_rank():
    for stacked in on_all(4, lambda worker: worker.gather(np.array([worker.rank, 7]))):
        np.testing.assert_array_equal(stacked, [[0, 7], [1, 7], [2, 7], [3, 7]])


@pytest.mark.parametrize("dies", [0, 1])
def test_who_waits_for_a_worker_that_has_ended_learns_it(dies):
    def work(worker):
        worker._means(np.ones(10, np.float32))
        if worker.rank == dies:
            worker._others[0].close()
            return None
        with pytest.raises((EOFError, OSError)):
            worker._means(np.ones(10, np.float32))
        return "learnt"

    assert "learnt" in on_all(2, work)


def test_a_stranger_is_refused_and_the_others_still_meet():
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(OneMachine, 0, 2, port, KEY)
        with pytest.raises(AuthenticationError):
            OneMachine(1, 2, port, b"a guess")
        second = OneMachine(1, 2, port, KEY)
        gathered = pool.submit(first.result(timeout=200).gather, np.array(1))
        np.testing.assert_array_equal(second.gather(np.array(2)), [1, 2])
        np.testing.assert_array_equal(gathered.result(timeout=200), [1, 2])


def test_a_first_worker_that_never_comes_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(workers, "_MEETING_S", 0.2)
    with pytest.raises(ConnectionRefusedError):
        OneMachine(1, 2, free_port(), KEY)


def test_a_full_memory_is_passed_by_and_nothing_is_left_behind(tmp_path, monkeypatch):
    asked = []
    made = workers.NamedTemporaryFile

    def no_room_in_memory(*, prefix, dir):
        asked.append(dir)
        if dir is not None:
            raise OSError("no room")
        return made(prefix=prefix, dir=tmp_path)

    monkeypatch.setattr(workers, "NamedTemporaryFile", no_room_in_memory)
    for (mean,) in on_all(2, lambda worker: worker._means(np.ones(10, np.float32))):
        np.testing.assert_array_equal(mean, np.ones(10))
    assert asked == ["/dev/shm", None]
    assert not list(tmp_path.iterdir())


def in_a_graph(place):
    """Return a worker's class, and what it finds by mean and gather; in a process of its own."""
    rank, addresses, of_tensorflow = place
    task = {"type": "worker", "index": rank}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    worker = TensorFlowWorkers() if of_tensorflow else join(KEY)
    update = tf.function(worker.mean)
    means = []
    for turn in range(3):
        tensors = [tf.constant(array) for array in arrays_of(rank, turn)]
        tensors.append(tf.cast(tensors[0], tf.bfloat16))
        means.append([tf.cast(mean, tf.float32).numpy() for mean in update(tensors)])
    return type(worker).__name__, means, worker.gather(np.array([float(rank)]))


@pytest.mark.tf
@pytest.mark.slow
def test_one_machine_finds_what_tensorflow_finds():
    found = {}
    for of_tensorflow in (False, True):
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            places = [(rank, addresses, of_tensorflow) for rank in range(2)]
            found[of_tensorflow] = list(pool.map(in_a_graph, places))
    assert [name for name, *_ in found[False]] == ["OneMachine"] * 2
    assert [name for name, *_ in found[True]] == ["TensorFlowWorkers"] * 2
    for here, there in zip(found[False], found[True], strict=True):
        np.testing.assert_array_equal(here[2], there[2])
        for mine, theirs in zip(here[1], there[1], strict=True):
            for mean, same in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(mean, same, rtol=1e-5, atol=1e-6)
