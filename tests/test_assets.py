"""Fetching third-party weights and sounds, through package clients that are made up here."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from deep_piano import assets
from deep_piano.errors import AssetError

CONTENT = {"bells/a.txt": b"ding", "bells/b.txt": b"dong", "bells/skip.py": b"raise SystemExit"}


def make_zip(path, members=CONTENT):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def make_tar(path, members=CONTENT):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_client(folder, name, body):
    """Write a package client: a Python script that knows the last argument and its target."""
    script = folder / name
    script.write_text(
        f"#!{sys.executable}\n"
        "import os, shutil, sys, time, pathlib\n"
        "request = sys.argv[-1]\n"
        "target = next(a.partition('=')[2] or sys.argv[i + 1] for i, a in enumerate(sys.argv)\n"
        "              if a.startswith(('--dest', '--pack-destination')))\n"
        f"shop = pathlib.Path({str(folder)!r})\n"
        "with (shop / 'calls').open('a') as calls: calls.write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"{body}\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


SERVE = "shutil.copy(shop / request.replace('/', '-'), target)"
OFFLINE = (
    "sys.stderr.write('WARNING: Retrying after connection error: no route to host\\n"
    "ERROR: No matching distribution found\\n')\nsys.exit(1)"
)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder of packages and clients that serve them; an empty cache; two made-up assets."""
    folder = tmp_path / "shop"
    folder.mkdir()
    make_zip(folder / "bells==1.0")
    make_tar(folder / "@ring-soft@2.0")
    make_tar(folder / "@ring-loud@2.0", {"package/c.txt": b"DONG"})
    for manager in ("pip", "npm"):
        write_client(folder, manager, SERVE)
        monkeypatch.setenv(f"DEEP_PIANO_{manager.upper()}", str(folder / manager))
    monkeypatch.setenv("DEEP_PIANO_HOME", str(tmp_path / "cache"))
    made_up = (
        assets.Asset(
            name="bells",
            what="two bells",
            manager="pip",
            archives=(assets.Archive("bells", "1.0", digest(folder / "bells==1.0"), ("*.txt",)),),
            licence="MIT (A. Bell)",
            source="https://example.org/bells",
            download_bytes=100,
        ),
        assets.Asset(
            name="rings",
            what="three rings",
            manager="npm",
            archives=(
                assets.Archive(
                    "@ring/soft", "2.0", digest(folder / "@ring-soft@2.0"), ("*/a.txt",)
                ),
                assets.Archive("@ring/loud", "2.0", digest(folder / "@ring-loud@2.0"), ("*.txt",)),
            ),
            licence="CC0",
            source="https://example.org/rings",
            download_bytes=100,
            convert=lambda made: (made / "a.txt").rename(made / "A.txt"),
        ),
    )
    for asset in made_up:
        monkeypatch.setitem(assets.ASSETS, asset.name, asset)
    return folder


def calls(shop):
    log = shop / "calls"
    return log.read_text().splitlines() if log.exists() else []


def everything_under(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_fetch_takes_the_members_and_says_whose_they_are(shop, tmp_path):
    assert assets.path("bells") is None
    told = []
    folder = assets.fetch("bells", progress=lambda *step: told.append(step))
    assert assets.path("bells") == folder == tmp_path / "cache" / "assets" / "bells-1.0-1"
    assert (folder / "a.txt").read_bytes() == b"ding"
    assert everything_under(folder) == ["a.txt", "asset.json", "b.txt"]
    record = json.loads((folder / "asset.json").read_text())
    assert record["licence"] == "MIT (A. Bell)"
    assert record["source"] == "https://example.org/bells"
    assert [step[:2] for step in told] == [(0, 2), (1, 2), (2, 2)]
    assert everything_under(tmp_path / "cache" / "downloads") == []


def test_clients_are_asked_for_one_pinned_package_without_dependencies(shop):
    assets.fetch("bells")
    assets.fetch("rings")
    pip, *npm = calls(shop)
    assert pip.startswith("download --no-deps --only-binary=:all:")
    assert pip.endswith(" bells==1.0")
    assert [call.split()[0] for call in npm] == ["pack", "pack"]
    assert all("--ignore-scripts" in call for call in npm)
    assert [call.split()[-1] for call in npm] == ["@ring/soft@2.0", "@ring/loud@2.0"]


def test_several_packages_and_a_converter(shop):
    folder = assets.ensure("rings")
    assert everything_under(folder) == ["A.txt", "asset.json", "c.txt"]
    assert (folder / "c.txt").read_bytes() == b"DONG"


def test_ensure_fetches_once(shop):
    assert assets.ensure("bells") == assets.ensure("bells") == assets.fetch("bells")
    assert len(calls(shop)) == 1


def test_a_wrong_hash_keeps_nothing(shop, tmp_path):
    make_zip(shop / "bells==1.0", {"bells/a.txt": b"not the bell you know"})
    with pytest.raises(AssetError, match=r"not the package it should be: its SHA-256 is [0-9a-f]+"):
        assets.fetch("bells")
    assert assets.path("bells") is None
    assert everything_under(tmp_path / "cache") == ["assets/.bells.lock"]


@pytest.mark.parametrize("name", ["bells", "rings"])
def test_offline_says_what_to_do(shop, name):
    for manager in ("pip", "npm"):
        write_client(shop, manager, OFFLINE)
    with pytest.raises(AssetError, match="connection error: no route to host") as raised:
        assets.ensure(name)
    message = str(raised.value)
    assert f"`deep-piano assets fetch {name}`" in message
    assert str(assets._folder(assets.ASSETS[name])) in message
    assert "\n" not in message
    assert assets.path(name) is None


def test_what_arrived_before_an_interruption_is_not_fetched_again(shop):
    write_client(shop, "npm", f"if 'loud' in request: sys.exit(1)\n{SERVE}")
    with pytest.raises(AssetError, match="exit code 1: no reason given"):
        assets.fetch("rings")
    assert assets.path("rings") is None
    write_client(shop, "npm", SERVE)
    assets.fetch("rings")
    assert [call.split()[-1] for call in calls(shop)] == [
        "@ring/soft@2.0",
        "@ring/loud@2.0",
        "@ring/loud@2.0",
    ]


def test_a_damaged_download_is_fetched_again(shop, tmp_path):
    archive = assets.ASSETS["bells"].archives[0]
    kept = assets._download_path(archive)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half of it")
    assert assets.fetch("bells").is_dir()


def test_a_failing_converter_leaves_nothing_visible(shop, tmp_path, monkeypatch):
    def fail(folder):
        raise AssetError("the weights are not what they should be.")

    broken = assets.Asset(**{**vars(assets.ASSETS["bells"]), "convert": fail})
    monkeypatch.setitem(assets.ASSETS, "bells", broken)
    with pytest.raises(AssetError, match="not what they should be"):
        assets.fetch("bells")
    assert assets.path("bells") is None
    assert not [name for name in everything_under(tmp_path / "cache") if name.endswith(".txt")]


def test_an_incompletely_copied_folder_is_fetched_again(shop):
    folder = assets.fetch("bells")
    (folder / "b.txt").unlink()
    assert assets.path("bells") is None
    assert assets.ensure("bells") == folder
    assert (folder / "b.txt").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}'])
def test_a_folder_with_a_broken_record_counts_as_missing(shop, content):
    folder = assets.fetch("bells")
    (folder / "asset.json").write_text(content)
    assert assets.path("bells") is None


def test_a_copied_cache_works_without_a_network(shop, tmp_path, monkeypatch):
    assets.fetch("bells")
    (tmp_path / "cache").rename(tmp_path / "carried over")
    monkeypatch.setenv("DEEP_PIANO_HOME", str(tmp_path / "carried over"))
    write_client(shop, "pip", OFFLINE)
    assert assets.ensure("bells").is_dir()


def test_members_cannot_be_written_elsewhere(shop, tmp_path, monkeypatch):
    make_zip(shop / "bells==1.0", {"../../../escaped.txt": b"x", "/abs.txt": b"y"})
    archive = assets.Archive("bells", "1.0", digest(shop / "bells==1.0"), ("*.txt",))
    escaping = assets.Asset(**{**vars(assets.ASSETS["bells"]), "archives": (archive,)})
    monkeypatch.setitem(assets.ASSETS, "bells", escaping)
    folder = assets.fetch("bells")
    assert everything_under(folder) == ["abs.txt", "asset.json", "escaped.txt"]
    assert not list(tmp_path.glob("escaped.txt"))


def test_a_package_without_the_members(shop, monkeypatch):
    archive = assets.Archive("bells", "1.0", digest(shop / "bells==1.0"), ("*.flac",))
    other = assets.Asset(**{**vars(assets.ASSETS["bells"]), "archives": (archive,)})
    monkeypatch.setitem(assets.ASSETS, "bells", other)
    with pytest.raises(AssetError, match=r"holds none of \*\.flac"):
        assets.fetch("bells")


def test_a_client_that_brings_nothing(shop):
    write_client(shop, "pip", "pass")
    with pytest.raises(AssetError, match="brought 0 files"):
        assets.fetch("bells")


def test_a_client_that_hangs(shop, monkeypatch):
    write_client(shop, "pip", "time.sleep(600)")
    monkeypatch.setattr(assets, "CLIENT_TIME_LIMIT_S", 0.5)
    with pytest.raises(AssetError, match=r"no end after 0\.5 s"):
        assets.fetch("bells")


def test_the_first_client_that_exists_is_used(shop, monkeypatch):
    monkeypatch.delenv("DEEP_PIANO_PIP")
    no_pip = write_client(shop, "python", "sys.stderr.write('No module named pip\\n'); sys.exit(1)")
    shim = write_client(shop, "pip3", "sys.stderr.write('pip3: command not found'); sys.exit(127)")
    commands = [["no-such-client"], [str(no_pip), "-m", "pip"], [str(shim)], [str(shop / "pip")]]
    monkeypatch.setattr(assets, "_client_commands", lambda manager: commands)
    assert assets.fetch("bells").is_dir()


def test_no_client_says_what_was_tried(shop, monkeypatch):
    monkeypatch.setenv("DEEP_PIANO_NPM", "no-such-npm --quiet")
    with pytest.raises(AssetError, match=r"no npm was found \(tried: no-such-npm --quiet\)"):
        assets.fetch("rings")


def test_by_default_the_clients_are_this_pythons_pip_and_npm(monkeypatch):
    monkeypatch.delenv("DEEP_PIANO_PIP", raising=False)
    monkeypatch.delenv("DEEP_PIANO_NPM", raising=False)
    assert assets._client_commands("pip")[0] == [sys.executable, "-m", "pip"]
    assert ["pip"] in assets._client_commands("pip")
    assert assets._client_commands("npm") == [["npm"]]


TWO_AT_ONCE = """
import sys
from pathlib import Path
from deep_piano import assets
archive = assets.Archive("bells", "1.0", sys.argv[1], ("*.txt",))
assets.ASSETS["bells"] = assets.Asset(
    "bells", "two bells", "pip", (archive,), "MIT", "https://example.org", 100)
print(assets.ensure("bells"))
"""


def test_two_processes_at_once(shop):
    write_client(shop, "pip", f"time.sleep(0.3)\n{SERVE}")
    repository = Path(assets.__file__).parents[1]
    command = [sys.executable, "-c", TWO_AT_ONCE, digest(shop / "bells==1.0")]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1] == f"{assets.path('bells')}\n"
    assert len(calls(shop)) == 1


def test_an_unwritable_cache(shop, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEEP_PIANO_HOME", str(tmp_path / "file"))
    with pytest.raises(AssetError, match=r"cannot store bells .* Set DEEP_PIANO_HOME"):
        assets.fetch("bells")


@pytest.mark.parametrize("use", [assets.path, assets.fetch, assets.ensure])
def test_an_unknown_asset_names_those_that_exist(use):
    with pytest.raises(AssetError, match=r"no asset 'bösendorfer'. There are: transkun, steinway"):
        use("bösendorfer")


def test_list_assets(shop):
    assets.fetch("bells")
    states = {state.asset.name: state.folder for state in assets.list_assets()}
    assert states["bells"] == assets.path("bells")
    assert states["rings"] is None
    assert {"transkun", "steinway", "salamander"} <= set(states)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DEEP_PIANO_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert assets.cache_dir() == tmp_path / ".cache" / "deep_piano"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert assets.cache_dir() == tmp_path / ".cache" / "deep_piano"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert assets.cache_dir() == tmp_path / "xdg" / "deep_piano"
    monkeypatch.setenv("DEEP_PIANO_HOME", "~/own")
    assert assets.cache_dir() == tmp_path / "own"


def test_the_registry_is_complete():
    for name, asset in assets.ASSETS.items():
        assert asset.name == name
        assert asset.what
        assert asset.licence
        assert asset.source.startswith("https://")
        assert asset.download_bytes > 1_000_000
        for archive in asset.archives:
            assert len(archive.sha256) == 64
            assert archive.version == asset.version
            assert archive.members


def test_the_steinways_mislabelled_keys_are_put_right(tmp_path):
    names = ["A0", "Bb0", "B0", "C1", "Db1"]
    make_zip(
        tmp_path / "piano_samples.zip",
        {f"Piano.ff.{name}.flac": name.encode() for name in names},
    )
    assets._convert_steinway(tmp_path)
    assert everything_under(tmp_path) == [
        "Piano.ff.Bb0.flac",
        "Piano.ff.C1.flac",
        "Piano.ff.Db1.flac",
    ]
    assert (tmp_path / "Piano.ff.Bb0.flac").read_bytes() == b"A0"
