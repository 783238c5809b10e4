"""The same work on a Ray cluster: an actor does it, and its files come back.

The process that the queue knows is here and only passes on: a task's file goes to the actor, and
what the actor has written comes back into the task's folder. The actor ends with the process.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from deep_piano.config.sections import Config
from deep_piano.errors import DeepPianoError, one_line
from deep_piano.infra.cluster.connection import connected
from deep_piano.serve.worker import KEPT_SEEDS, Export, NotWantedError, Task, Worker, answered

POLL_S: Final = 0.2
_CPUS: Final = 2

Files = dict[str, bytes]


def work(pipe: Connection, config: Config, *, address: str) -> None:
    """Do what `worker.work` does, on the cluster at an address of Ray ("local": one of its own)."""
    os.setsid()
    os.environ["RAY_ADDRESS"] = address
    try:
        try:
            with connected():
                _pass_on(pipe, config)
        except DeepPianoError as error:  # no cluster: every job says so
            while True:
                job, task = pipe.recv()
                if task is not None:
                    pipe.send((job, "failed", str(error)))
    except (EOFError, OSError):
        return


def _pass_on(pipe: Connection, config: Config) -> None:
    import ray

    remote: Any = ray.remote(num_cpus=_CPUS, max_concurrency=2)(Composer)
    actor = remote.remote(config)
    while True:
        job, task = pipe.recv()
        if task is None:  # it ended before it could be cancelled
            continue
        try:
            answer = _done_there(pipe, actor, job, task)
        except ray.exceptions.RayError as error:
            actor = remote.remote(config)
            why = f"the cluster lost what worked on it ({type(error).__name__})"
            answer = ("failed", f"{why}: {one_line(error).partition('. ')[0]}. Try again.")
        pipe.send((job, *answer))


def _done_there(pipe: Connection, actor: Any, job: str, task: Task) -> tuple[str, Any]:
    """Have the actor do a task, pass on what it tells, and fetch its files."""
    import ray

    given, folder = _places(task)
    coming = actor.do.remote(task, given.read_bytes())
    while not ray.wait([coming], timeout=POLL_S)[0]:
        if pipe.poll() and pipe.recv() == (job, None):
            actor.cancel.remote()
        told = ray.get(actor.progress.remote())
        if told is not None:
            pipe.send((job, "progress", told))
    what, value, files = ray.get(coming)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return what, value


def _places(task: Task) -> tuple[Path, Path]:
    """Return the file that a task reads, and the folder that it writes into."""
    return (task.roll, task.out.parent) if isinstance(task, Export) else (task.path, task.folder)


def _moved(task: Task, given: Path, folder: Path) -> Task:
    """Return a task that reads and writes elsewhere."""
    if isinstance(task, Export):
        return replace(task, roll=given, out=folder / task.out.name)
    return replace(task, path=given, folder=folder)


class Composer:
    """The actor: a worker, and what can be asked while it is at work.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config) -> None:
        self._worker = Worker(config)
        self._worker.warm_up()
        self._told: tuple[str, float] | None = None
        self._wanted = threading.Event()
        self._seeds = tempfile.TemporaryDirectory(prefix="deep-piano-")
        self._kept: list[Path] = []  # what was given last comes last

    def do(self, task: Task, content: bytes) -> tuple[str, Any, Files]:
        """Do a task; return its answer as `worker.answered` does, and the files."""
        self._wanted.set()
        self._told = None
        given, _ = _places(task)
        # By its content, so that a seed that was read before is known again.
        place = Path(self._seeds.name) / hashlib.sha256(content).hexdigest() / given.name
        self._kept = [*(folder for folder in self._kept if folder != place.parent), place.parent]
        while len(self._kept) > KEPT_SEEDS:
            shutil.rmtree(self._kept.pop(0), ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
        with tempfile.TemporaryDirectory(prefix="deep-piano-") as name:
            folder = Path(name)
            what, value = answered(self._worker, _moved(task, place, folder), self._share)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return what, value, files if what == "done" else {}

    def progress(self) -> tuple[str, float] | None:
        """Return the stage and the share of what is being done."""
        return self._told

    def cancel(self) -> None:
        """End what is being done, at its next step."""
        self._wanted.clear()

    def _share(self, stage: str, done: float) -> None:
        if not self._wanted.is_set():
            raise NotWantedError
        self._told = stage, done
