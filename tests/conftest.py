"""Fixtures that every test may use. No test needs a network, `shared` or fetched assets."""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from tests.support.bucket import UNWANTED, Server, serve

# No test asserts a time, nor does Hypothesis. A run in CI tries the same examples as the last one.
hypothesis.settings.register_profile(
    "local", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("local"), derandomize=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read once, when TensorFlow is loaded
# What Numba compiles is kept, though many tests have a home of their own.
_COMPILED = Path(__file__).parents[1] / ".pytest_cache" / "numba"
os.environ.setdefault("NUMBA_CACHE_DIR", str(_COMPILED))
os.environ.setdefault("RAY_worker_niceness", "0")  # or all else that runs comes before Ray
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # 30 s are little on a busy machine


_STARTED = time.monotonic()


def _shared_folder() -> Path:
    beside = Path(__file__).parents[2] / "shared"
    return Path(os.environ.get("DEEP_PIANO_SHARED") or beside)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--begin-within",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        help="skip slow tests whose turn comes later than this",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    seconds = item.config.getoption("--begin-within")
    if item.get_closest_marker("slow") and time.monotonic() - _STARTED > seconds:
        pytest.skip(f"its turn came later than after {seconds:g} s")
    if item.get_closest_marker("shared") and not _shared_folder().is_dir():
        pytest.skip(f"there is no folder {_shared_folder()} (set DEEP_PIANO_SHARED)")
    if item.get_closest_marker("gpu") and not _tensorflow_sees_a_gpu():
        pytest.skip("TensorFlow sees no GPU")


@functools.cache
def _tensorflow_sees_a_gpu() -> bool:
    from deep_piano.infra.backend import load_tensorflow

    return bool(load_tensorflow().config.list_physical_devices("GPU"))


def pytest_runtest_teardown() -> None:
    """End what a test that failed has left running."""
    commands = sys.modules.get("tests.support.commands")
    if commands:
        commands.end_all()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have files on Ray run first, then those on TensorFlow: the longest must not be begun last."""
    paths = {
        marker: {item.path for item in items if item.get_closest_marker(marker)}
        for marker in ("ray", "tf")
    }
    items.sort(key=lambda item: [item.path not in of_marker for of_marker in paths.values()])


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator with the same numbers in every run."""
    return np.random.default_rng(20250101)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings and data beside the repository, for tests marked `shared`."""
    folder = _shared_folder()
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder} (set DEEP_PIANO_SHARED)")
    return folder


@pytest.fixture(scope="session")
def piano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthesised piano: every minor third, in three layers."""
    from tests.support.recordings import write_piano

    return write_piano(tmp_path_factory.mktemp("sounds") / "piano", range(36, 100, 3))


@pytest.fixture(scope="session")
def one_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A brighter piano: every tritone, in one layer."""
    from tests.support.recordings import write_piano

    folder = tmp_path_factory.mktemp("sounds") / "one"
    return write_piano(folder, range(36, 100, 6), layers=((0, 0.5),), partials=30)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights."""
    from deep_piano.models import checkpoint
    from tests.support.fakes import random_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints") / "random"
    checkpoint.save(folder, random_checkpoint())
    return folder


@pytest.fixture(autouse=True)
def _no_lines_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that take long on a slow machine say no more than on a fast one."""
    monkeypatch.setattr("deep_piano.cli.terminal.EVERY_S", math.inf)


@pytest.fixture(scope="session")
def _small_piano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.recordings import write_piano

    folder = tmp_path_factory.mktemp("sounds") / "piano"
    return write_piano(folder, [40, 60, 80], layers=((4, 0.1), (12, 0.5)), seconds=8.0)


@pytest.fixture
def small_piano(_small_piano: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A piano of three keys, whose prepared samples are kept from one test to the next."""
    monkeypatch.setenv("DEEP_PIANO_HOME", str(_small_piano.with_name("home")))
    return _small_piano


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder of one's own; leave logging and warnings as they were."""
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "warnoptions", ["error"])  # commands do not hide warnings then
    logger = logging.getLogger("deep_piano")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def _own_home(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep tests off the user's cache, except those marked `assets`, which read it."""
    if not request.node.get_closest_marker("assets"):
        monkeypatch.setenv("DEEP_PIANO_HOME", str(tmp_path / "deep-piano-home"))


@pytest.fixture(scope="session")
def _s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    import botocore.session

    with (
        serve(tmp_path_factory.mktemp("s3") / "server.log") as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        # What botocore knows of AWS, 1 MB of JSON, is read once, and not for every client.
        patch.setattr(
            botocore.session, "create_loader", functools.cache(botocore.session.create_loader)
        )
        yield server


@pytest.fixture
def s3(_s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A real S3 server, to which this test's environment leads; `s3.bucket()` makes a bucket."""
    from deep_piano.infra.storage.bucket import connect

    for name in UNWANTED:
        monkeypatch.delenv(name, raising=False)
    for name, value in _s3_server.env.items():
        monkeypatch.setenv(name, value)
    connect.cache_clear()  # clients keep the environment that they were made in
    yield _s3_server
    connect.cache_clear()
