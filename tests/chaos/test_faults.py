"""Every stage meets every fault, and it or a rerun makes what it would have made without."""

from __future__ import annotations

import json
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deep_piano.errors import DeepPianoError
from deep_piano.infra.storage.atomic import is_temporary
from deep_piano.music.midi import write_midi
from tests.chaos.machines import GCS, HEAD, ROOT, S3_PORT, command
from tests.chaos.places import Place, lasting
from tests.support.clusters import killing, processes, soon
from tests.support.fakes import arpeggios
from tests.support.hostile import improvised, played
from tests.support.recordings import SR, write_sound

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

LIMIT_S = 420  # no run may take longer, whatever is broken
OUTAGE_S = 20
PATIENCE = {"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "30"}  # instead of 10 minutes

SETTINGS = f"""
storage: {{endpoint: "http://{HEAD}:{S3_PORT}", region: us-east-1, attempts: 15}}
prepare: {{silence_seconds: 150, shard_mb: 1.0, validation_share: 0.2, max_similarity: 1.0}}
train:
  {{preset: tiny, batch: 8, window: 16, steps: 320, eval_every_steps: 40, warmup_steps: 4,
    precision: float32, workers: 2, silence_seconds: 150}}
generate: {{seconds: 25, takes: 3}}
bulk: {{silence_seconds: 60, format: mid, batch: 4, workers: 2}}
"""


@dataclass(frozen=True)
class Stage:
    """A stage, and how it is seen at work.

    Attributes
    ----------
    name : str
    given : tuple of str
        What it reads, by its place in the bucket, and its options.
    begun : str
        The end of a name that is in the output once some work is done, and more is to be done.
    worker, actor : str
        Titles of the processes that do the work.
    """

    name: str
    given: tuple[str, ...]
    begun: str
    worker: str
    actor: str


STAGES = [
    Stage("prepare", ("corpus",), ".parquet", "build_shard", "_Transcriber"),
    Stage(
        "train",
        ("undisturbed-prepare/out",),
        "history.parquet",
        "RayTrainWorker",
        "TrainController",
    ),
    Stage("generate", ("seeds",), "take-1.json", "write_piece", "ComposerActor"),
]


class Run:
    """A stage at work as a process of its own, whose output is watched."""

    def __init__(self, bed, place, stage, out, *more):
        self.stage, self.out = stage, out
        self._log = bed.folder / f"{stage.name}-{secrets.token_hex(4)}.log"
        given = f"s3://{place.bucket}/{stage.given[0]}"
        words = [stage.name, given, "-o", out, *stage.given[1:], *more]
        if stage.name == "generate":
            words += ["--checkpoint", f"s3://{place.bucket}/checkpoint"]
        if stage.name == "train" and place.holds(out, "run.json"):
            words += ["--resume"]
        with self._log.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.driver", "--config", place.settings, *words],
                env=bed.environment | PATIENCE | {"RAY_ADDRESS": GCS},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    @property
    def said(self):
        return self._log.read_text()

    def wait(self):
        """Wait until the stage has ended, and return its exit code."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"it did not end within {LIMIT_S} s: {self.said[-3000:]}")


@pytest.fixture(scope="session")
def place(bed, weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    (folder / "settings.yaml").write_text(SETTINGS)
    for number in range(6):
        write_midi(folder / f"corpus/{number}.mid", improvised(random_state=number))
        music = played(improvised(random_state=50 + number))
        write_sound(folder / f"corpus/{number}.wav", music, sr=SR)
    for number in range(5):
        music = arpeggios(9 + number, rng=np.random.default_rng(number))
        write_midi(folder / f"seeds/{number}.mid", music)
    with Place(bed, folder / "settings.yaml") as place:
        for name in ("corpus", "seeds"):
            place.put(folder / name, name)
        place.put(Path(weights), "checkpoint")
        yield place


@pytest.fixture(scope="session")
def undisturbed(bed, place):
    """Return a function that returns the output of an undisturbed stage."""
    known = {}

    def undisturbed(stage):
        if stage.name not in known:
            if stage.name == "train":
                undisturbed(STAGES[0])  # makes the dataset
            out = f"s3://{place.bucket}/undisturbed-{stage.name}/out"
            run = Run(bed, place, stage, out)
            assert run.wait() == 0, run.said
            known[stage.name] = lasting(place.files(out))
        return known[stage.name]

    return undisturbed


class Watch:
    """Looks at an output again and again, and at every file that appears under its final name."""

    def __init__(self, place, out, final):
        self._place, self._out, self._final = place, out, final
        self.names, self._seen, self.wrong = set(), set(), []
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._watcher.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._watcher.join()

    def _look(self):
        while not self._over.wait(0.2):
            now = self._place.names(self._out)
            for name, stamp in now.items():
                if (name, stamp) not in self._seen and not is_temporary(name.rpartition("/")[2]):
                    self._seen.add((name, stamp))
                    with suppress(DeepPianoError):  # it has gone meanwhile
                        self._require_whole(name, self._place.open(self._out).read_bytes(name))
            self.names = set(now)

    def _require_whole(self, name, data):
        try:
            if re.search(r"/(take-\d+|seed)\.|^shards/", name) or "-" in name.partition("last/")[2]:
                whole = self._final.get(name, data) == data or name.startswith("checkpoint")
                whole = whole and len(data) > 0
            elif name.endswith(".json"):
                whole = isinstance(json.loads(data), dict)
            elif name.endswith(".jsonl"):
                whole = all(json.loads(line) for line in data.splitlines()) and data[-1:] in b"\n"
            elif name.endswith(".parquet"):
                whole = pq.read_table(pa.BufferReader(data)).num_rows >= 0
            else:
                return
        except Exception as error:
            whole = error
        if whole is not True:
            self.wrong.append((name, len(data), whole))


@dataclass
class Case:
    """One fault in one stage."""

    bed: object
    place: Place
    stage: Stage
    out: str
    folder: Path
    run: Run | None = None

    def busy_node(self):
        """Return a node on which the stage is at work."""
        titles = (self.stage.worker, self.stage.actor)
        busy = [number for title in titles for number in processes(title)]
        nodes = self.bed.cluster.nodes
        return next((node for number in busy for node in nodes if node.has(number)), nodes[-1])


def worker_killed(case, when):
    return killing(case.stage.worker, when=when)


def actor_killed(case, when):
    return killing(case.stage.actor, when=when)


def worker_hangs(case, when):
    return killing(case.stage.worker, when=when, by=signal.SIGSTOP)


def node_lost(case, when):
    return soon(when, lambda: case.bed.cluster.lose(case.busy_node()))


def driver_killed(case, when):
    return soon(when, lambda: case.run.process.kill())


def s3_gone(case, when):
    return soon(when, case.bed.door.shut, case.bed.door.open, after_s=OUTAGE_S)


def s3_slow_and_cut(case, when):
    def bad(delay_s, cut):
        case.bed.door.delay_s, case.bed.door.cut = delay_s, cut

    return soon(when, lambda: bad(0.1, 0.02), lambda: bad(0.0, 0.0))


def disk_full(case, when):
    ballast = case.folder / "ballast"

    def fill():
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    return soon(when, fill, ballast.unlink)


def to_a_busy_node(case, when, do, undo, **more):
    victims = []

    def strike():
        victims.append(case.busy_node())
        do(victims[0])

    return soon(when, strike, lambda: undo(victims[0]), **more)


def node_hangs(case, when):
    return to_a_busy_node(
        case, when, lambda node: node.signal(signal.SIGSTOP), case.bed.cluster.lose
    )


def cable_out(case, when):
    return to_a_busy_node(case, when, lambda node: node.link("down"), case.bed.cluster.lose)


def cable_out_for_a_while(case, when):
    return to_a_busy_node(
        case, when, lambda node: node.link("down"), lambda node: node.link("up"), after_s=OUTAGE_S
    )


@contextmanager
def cables_bad(case, when):
    """Delay and lose what goes between the nodes from the beginning on."""
    over = threading.Event()
    nodes = list(case.bed.cluster.nodes)

    def flicker():
        while not over.wait(0.7):
            for node in nodes:
                node.link("down")
            time.sleep(0.3)
            for node in nodes:
                node.link("up")

    flickering = threading.Thread(target=flicker, daemon=True)
    for node in nodes:
        node.throttle()
    flickering.start()
    try:
        yield
    finally:
        over.set()
        flickering.join()
        for node in nodes:
            node.unthrottle()


FAULTS = [
    worker_killed,
    actor_killed,
    worker_hangs,
    node_lost,
    driver_killed,
    s3_gone,
    s3_slow_and_cut,
    disk_full,
    node_hangs,
    cable_out,
    cable_out_for_a_while,
    cables_bad,
]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder)
    yield folder
    command("umount", folder)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_costs_time_and_nothing_else(
    fault, stage, bed, place, undisturbed, small_disk, happened
):
    final = undisturbed(stage)
    bed.cluster.repair()
    out = (
        f"s3://{place.bucket}/{fault.__name__}-{stage.name}/out"  # the page of pieces has its name
    )
    out = str(small_disk / "out") if fault is disk_full else out
    case = Case(bed, place, stage, out, small_disk)
    begun = time.monotonic()
    with (
        Watch(place, out, final) as watch,
        fault(case, lambda: any(name.endswith(stage.begun) for name in watch.names)),
    ):
        case.run = Run(bed, place, stage, out)
        code = case.run.wait()
    took_s = time.monotonic() - begun
    text = f"exit code {code} after {took_s:.0f} s"
    if code:
        text += f": {require_a_clear_end(case, fault)}"
        bed.cluster.repair()
        with Watch(place, out, final) as rerun_watch:
            again = Run(bed, place, stage, out)
            assert again.wait() == 0, again.said
        watch.wrong += rerun_watch.wrong
        text += f"; the rerun finished after {time.monotonic() - begun - took_s:.0f} s"
    happened(fault.__name__, stage.name, text)
    assert not watch.wrong
    found = lasting(place.files(out))
    assert {n: d for n, d in found.items() if not n.startswith(".")}.keys() == final.keys()
    assert [name for name in final if found[name] != final[name]] == []


def require_a_clear_end(case, fault):
    """Return the last line of a run that failed, which says why; Ray may say something after it."""
    said = case.run.said
    if fault is driver_killed:
        assert case.run.process.returncode == -signal.SIGKILL
        return "killed"
    assert case.run.process.returncode in (1, 2), said
    assert "Traceback" not in said, said
    ours = [line for line in said.splitlines() if line.startswith("deep-piano: ")]
    assert "unexpected" not in ours[-1]
    return ours[-1].removeprefix("deep-piano: ")
