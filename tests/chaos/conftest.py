"""What is there to break, and the table of what happened."""

from __future__ import annotations

import os

import pytest

from deep_piano.infra.assets import cache
from tests.chaos.machines import bed_to_break

_HAPPENED = pytest.StashKey[list[tuple[str, str, str]]]()


def pytest_configure(config):
    config.stash[_HAPPENED] = []


@pytest.fixture
def happened(request):
    """Return a function that notes what a fault did to a stage."""
    return lambda *row: request.config.stash[_HAPPENED].append(row)


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[_HAPPENED]
    if rows:
        terminalreporter.section("what happened")
        for row in rows:
            terminalreporter.write_line(f"| {' | '.join(row)} |")


@pytest.fixture(scope="session")
def bed(tmp_path_factory):
    """A cluster of three nodes with token authentication, and S3 behind a door."""
    if not os.environ.get("DEEP_PIANO_CHAOS"):
        pytest.skip("this breaks networks and processes: run it with `make chaos`, on Linux")
    folder = tmp_path_factory.mktemp("bed")
    known, home = cache.cache_dir(), folder / "home"
    home.mkdir()
    (home / "assets").symlink_to(known / "assets")  # it may lead nowhere
    with bed_to_break(folder, home) as bed:
        yield bed
