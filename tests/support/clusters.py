"""Ray for tests: a cluster of this test run alone, which nothing else on the machine sees."""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def one_node(*, cpus=2, gpus=0):
    import ray

    ray.init(
        address="local",
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


def contents(folder):
    """Return every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def several_nodes(count=3):
    """Start a cluster of nodes with one CPU each, as processes of this machine; connect to it."""
    import ray
    from ray.cluster_utils import Cluster

    impatient = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": impatient})
    try:
        for _ in range(count - 1):
            cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def below(root):
    """Return the command lines of the processes that a process started, by their numbers."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            titles[int(folder.name)] = (folder / "cmdline").read_bytes()
            after_the_name = (folder / "stat").read_text().rpartition(")")[2]
            parents[int(folder.name)] = int(after_the_name.split()[1])

    def is_below(number):
        while number and number != root:
            number = parents.get(number, 0)
        return bool(number)

    return {
        number: title for number, title in titles.items() if number != root and is_below(number)
    }


def processes(title):
    """Return the process numbers of this run's Ray workers that are at work on such a task."""
    wanted = f"ray::{title}".encode()
    return [number for number, said in below(os.getpid()).items() if said.startswith(wanted)]


@contextmanager
def soon(when, do, undo=lambda: None, *, after_s=None, missed="it was disturbed"):
    """Do something beside the body, as soon as it is time; undo it later, at the body's end.

    Where doing it returns False, it is tried again.
    """
    over, done = threading.Event(), []

    def act():
        while not over.wait(0.005):
            if when() and do() is not False:
                done.append(True)
                over.wait(after_s)
                undo()
                return

    actor = threading.Thread(target=act, daemon=True)
    actor.start()
    try:
        yield
    finally:
        over.set()
        actor.join()
    assert done, missed


def killing(title, *, when=lambda: True, by=signal.SIGKILL):
    """Kill one Ray worker that is at work on such a task, as soon as one is, beside the body.

    Another signal may be given: after SIGSTOP it hangs, until it is killed at the body's end.
    """
    victims = []

    def strike():
        for number in processes(title):
            with suppress(ProcessLookupError):
                os.kill(number, by)
                victims.append(number)
                return True
        return False

    def end():
        with suppress(ProcessLookupError):
            os.kill(victims[0], signal.SIGKILL)

    return soon(when, strike, end, missed=f"nothing was seen at work on {title}")
