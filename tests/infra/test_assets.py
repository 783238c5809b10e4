"""The cache of weights and sounds, filled through package clients that are made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deep_piano.errors import AssetError, InputError
from deep_piano.infra.assets import cache
from deep_piano.infra.assets.catalogue import ASSETS, Archive, Asset
from tests.support import shop as shops


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder of packages and clients that serve them; an empty cache; two made-up assets."""
    folder = shops.open_shop(tmp_path / "shop", monkeypatch)
    monkeypatch.setenv("DEEP_PIANO_HOME", str(tmp_path / "cache"))
    made_up = (
        Asset(
            name="bells",
            what="two bells",
            manager="pip",
            archives=(Archive("bells", "1.0", shops.digest(folder / "bells==1.0"), ("*.txt",)),),
            licence="MIT (A. Bell)",
            source="https://example.org/bells",
            download_bytes=100,
        ),
        Asset(
            name="rings",
            what="three rings",
            manager="npm",
            archives=(
                Archive("@ring/soft", "2.0", shops.digest(folder / "@ring-soft@2.0"), ("*/a.txt",)),
                Archive("@ring/loud", "2.0", shops.digest(folder / "@ring-loud@2.0"), ("*.txt",)),
            ),
            licence="CC0",
            source="https://example.org/rings",
            download_bytes=100,
            convert=lambda made: (made / "a.txt").rename(made / "A.txt"),
        ),
    )
    for asset in made_up:
        monkeypatch.setitem(ASSETS, asset.name, asset)
    return folder


def test_fetch_takes_the_members_and_says_whose_they_are(shop, tmp_path):
    assert cache.path("bells") is None
    told = []
    folder = cache.fetch("bells", progress=told.append)
    assert cache.path("bells") == folder == tmp_path / "cache" / "assets" / "bells-1.0-1"
    assert (folder / "a.txt").read_bytes() == b"ding"
    assert shops.everything_under(folder) == ["a.txt", "asset.json", "b.txt"]
    record = json.loads((folder / "asset.json").read_text())
    assert record["licence"] == "MIT (A. Bell)"
    assert record["source"] == "https://example.org/bells"
    assert [(now.done, now.total) for now in told] == [(0, 2), (1, 2), (2, 2)]
    assert shops.everything_under(tmp_path / "cache" / "downloads") == []


def test_several_packages_and_a_converter(shop):
    folder = cache.ensure("rings")
    assert shops.everything_under(folder) == ["A.txt", "asset.json", "c.txt"]
    assert (folder / "c.txt").read_bytes() == b"DONG"


def test_ensure_fetches_once(shop):
    assert cache.ensure("bells") == cache.ensure("bells") == cache.fetch("bells")
    assert len(shops.calls(shop)) == 1


def test_a_wrong_hash_keeps_nothing(shop, tmp_path):
    shops.make_zip(shop / "bells==1.0", {"bells/a.txt": b"not the bell you know"})
    with pytest.raises(AssetError, match=r"not the package it should be: .* but got [0-9a-f]{64}"):
        cache.fetch("bells")
    assert cache.path("bells") is None
    assert shops.everything_under(tmp_path / "cache") == ["assets/.bells.lock"]


@pytest.mark.parametrize("name", ["bells", "rings"])
def test_offline_says_what_to_do(shop, name):
    for manager in ("pip", "npm"):
        shops.write_client(shop, manager, shops.OFFLINE)
    with pytest.raises(AssetError, match="connection error: no route to host") as raised:
        cache.ensure(name)
    message = str(raised.value)
    assert f"`deep-piano assets fetch {name}`" in message
    assert str(cache._folder(ASSETS[name])) in message
    assert "\n" not in message
    assert cache.path(name) is None


def test_what_arrived_before_an_interruption_is_not_fetched_again(shop):
    shops.write_client(shop, "npm", f"if 'loud' in request: sys.exit(1)\n{shops.SERVE}")
    with pytest.raises(AssetError, match="exit code 1: no reason given"):
        cache.fetch("rings")
    assert cache.path("rings") is None
    shops.write_client(shop, "npm", shops.SERVE)
    cache.fetch("rings")
    assert [call.split()[-1] for call in shops.calls(shop)] == [
        "@ring/soft@2.0",
        "@ring/loud@2.0",
        "@ring/loud@2.0",
    ]


def test_a_damaged_download_is_fetched_again(shop, tmp_path):
    archive = ASSETS["bells"].archives[0]
    kept = cache._download_path(archive)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half of it")
    assert cache.fetch("bells").is_dir()


def test_a_failing_converter_leaves_nothing_visible(shop, tmp_path, monkeypatch):
    def fail(folder):
        raise AssetError("the weights are not what they should be.")

    broken = Asset(**{**vars(ASSETS["bells"]), "convert": fail})
    monkeypatch.setitem(ASSETS, "bells", broken)
    with pytest.raises(AssetError, match="not what they should be"):
        cache.fetch("bells")
    assert cache.path("bells") is None
    assert not [
        name for name in shops.everything_under(tmp_path / "cache") if name.endswith(".txt")
    ]


def test_an_incompletely_copied_folder_is_fetched_again(shop):
    folder = cache.fetch("bells")
    (folder / "b.txt").unlink()
    assert cache.path("bells") is None
    assert cache.ensure("bells") == folder
    assert (folder / "b.txt").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}'])
def test_a_folder_with_a_broken_record_counts_as_missing(shop, content):
    folder = cache.fetch("bells")
    (folder / "asset.json").write_text(content)
    assert cache.path("bells") is None


def test_a_copied_cache_works_without_a_network(shop, tmp_path, monkeypatch):
    cache.fetch("bells")
    (tmp_path / "cache").rename(tmp_path / "carried over")
    monkeypatch.setenv("DEEP_PIANO_HOME", str(tmp_path / "carried over"))
    shops.write_client(shop, "pip", shops.OFFLINE)
    assert cache.ensure("bells").is_dir()


def test_members_cannot_be_written_elsewhere(shop, tmp_path, monkeypatch):
    shops.make_zip(shop / "bells==1.0", {"../../../escaped.txt": b"x", "/abs.txt": b"y"})
    archive = Archive("bells", "1.0", shops.digest(shop / "bells==1.0"), ("*.txt",))
    escaping = Asset(**{**vars(ASSETS["bells"]), "archives": (archive,)})
    monkeypatch.setitem(ASSETS, "bells", escaping)
    folder = cache.fetch("bells")
    assert shops.everything_under(folder) == ["abs.txt", "asset.json", "escaped.txt"]
    assert not list(tmp_path.glob("escaped.txt"))


TWO_AT_ONCE = """
import sys
from pathlib import Path
from deep_piano.infra.assets import cache
from deep_piano.infra.assets.catalogue import ASSETS, Archive, Asset
archive = Archive("bells", "1.0", sys.argv[1], ("*.txt",))
ASSETS["bells"] = Asset(
    "bells", "two bells", "pip", (archive,), "MIT", "https://example.org", 100)
print(cache.ensure("bells"))
"""


def test_two_processes_at_once(shop):
    shops.write_client(shop, "pip", f"time.sleep(0.3)\n{shops.SERVE}")
    repository = Path(__file__).parents[2]
    command = [sys.executable, "-c", TWO_AT_ONCE, shops.digest(shop / "bells==1.0")]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=250)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1] == f"{cache.path('bells')}\n"
    assert len(shops.calls(shop)) == 1


def test_an_unwritable_cache(shop, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEEP_PIANO_HOME", str(tmp_path / "file"))
    with pytest.raises(AssetError, match=r"cannot store bells .* Set DEEP_PIANO_HOME"):
        cache.fetch("bells")


@pytest.mark.parametrize("use", [cache.path, cache.fetch, cache.ensure])
def test_an_unknown_asset_names_those_that_exist(use):
    with pytest.raises(InputError, match=r"no asset 'bösendorfer'. There are: transkun, "):
        use("bösendorfer")


def test_list_assets(shop):
    cache.fetch("bells")
    states = {state.asset.name: state.folder for state in cache.list_assets()}
    assert states["bells"] == cache.path("bells")
    assert states["rings"] is None
    assert {"transkun", "steinway", "salamander"} <= set(states)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DEEP_PIANO_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.cache_dir() == tmp_path / ".cache" / "deep_piano"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.cache_dir() == tmp_path / ".cache" / "deep_piano"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_dir() == tmp_path / "xdg" / "deep_piano"
    monkeypatch.setenv("DEEP_PIANO_HOME", "~/own")
    assert cache.cache_dir() == tmp_path / "own"
