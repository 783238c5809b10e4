"""Asking package clients that are made up here, and taking members out of what they bring."""

from __future__ import annotations

import io
import sys
import tarfile

import pytest

from deep_piano.errors import AssetError
from deep_piano.infra.assets import packages
from tests.support import shop as shops


@pytest.fixture
def shop(tmp_path, monkeypatch):
    return shops.open_shop(tmp_path / "shop", monkeypatch)


@pytest.fixture
def bring(shop, tmp_path):
    """Obtain the package that a client's request names, from the shop."""

    def obtain(request):
        manager, separator = ("pip", "==") if "==" in request else ("npm", "@")
        package, _, version = request.rpartition(separator)
        served = shop / request.replace("/", "-")
        target = tmp_path / "downloads" / served.name
        packages.obtain(manager, package, version, sha256=shops.digest(served), target=target)
        return target

    return obtain


def test_clients_are_asked_for_one_pinned_package_without_dependencies(shop, bring):
    for request in ("bells==1.0", "@ring/soft@2.0", "@ring/loud@2.0"):
        bring(request)
    pip, *npm = shops.calls(shop)
    assert pip.startswith("download --no-deps --only-binary=:all:")
    assert pip.endswith(" bells==1.0")
    assert [call.split()[0] for call in npm] == ["pack", "pack"]
    assert all("--ignore-scripts" in call for call in npm)
    assert [call.split()[-1] for call in npm] == ["@ring/soft@2.0", "@ring/loud@2.0"]


def test_a_package_that_is_there_is_not_asked_for_again(shop, bring):
    assert bring("bells==1.0").read_bytes() == bring("bells==1.0").read_bytes()
    assert len(shops.calls(shop)) == 1


def test_a_client_that_brings_nothing(shop, bring):
    shops.write_client(shop, "pip", "pass")
    with pytest.raises(AssetError, match="brought 0 files"):
        bring("bells==1.0")


def test_a_client_that_hangs(shop, bring, monkeypatch):
    shops.write_client(shop, "pip", "time.sleep(600)")
    monkeypatch.setattr(packages, "CLIENT_TIME_LIMIT_S", 0.5)
    with pytest.raises(AssetError, match=r"no end after 0\.5 s"):
        bring("bells==1.0")


def test_the_first_client_that_exists_is_used(shop, bring, monkeypatch):
    monkeypatch.delenv("DEEP_PIANO_PIP")
    no_pip = shops.write_client(
        shop, "python", "sys.stderr.write('No module named pip\\n'); sys.exit(1)"
    )
    shim = shops.write_client(
        shop, "pip3", "sys.stderr.write('pip3: command not found'); sys.exit(127)"
    )
    commands = [["no-such-client"], [str(no_pip), "-m", "pip"], [str(shim)], [str(shop / "pip")]]
    monkeypatch.setattr(packages, "_client_commands", lambda manager: commands)
    assert bring("bells==1.0").is_file()


def test_no_client_says_what_was_tried(bring, monkeypatch):
    monkeypatch.setenv("DEEP_PIANO_NPM", "no-such-npm --quiet")
    with pytest.raises(AssetError, match=r"no npm was found \(tried: no-such-npm --quiet\)"):
        bring("@ring/soft@2.0")


def test_by_default_the_clients_are_this_pythons_pip_and_npm(monkeypatch):
    monkeypatch.delenv("DEEP_PIANO_PIP", raising=False)
    monkeypatch.delenv("DEEP_PIANO_NPM", raising=False)
    assert packages._client_commands("pip")[0] == [sys.executable, "-m", "pip"]
    assert ["pip"] in packages._client_commands("pip")
    assert packages._client_commands("npm") == [["npm"]]


@pytest.mark.parametrize("pack", [shops.make_zip, shops.make_tar])
def test_members_go_into_the_folder_under_their_last_names(tmp_path, pack):
    pack(tmp_path / "package", {"../../../escaped.txt": b"x", "/abs.txt": b"y", "a/skip.py": b""})
    folder = tmp_path / "folder"
    folder.mkdir()
    packages.take_members(tmp_path / "package", ("*.txt",), folder)
    assert shops.everything_under(tmp_path) == [
        "folder/abs.txt",
        "folder/escaped.txt",
        "package",
    ]


def test_links_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "package", "w:gz") as archive:
        link = tarfile.TarInfo("a.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link, io.BytesIO())
    with pytest.raises(AssetError, match=r"holds none of \*\.txt"):
        packages.take_members(tmp_path / "package", ("*.txt",), tmp_path)


def test_a_package_without_the_members(shop, tmp_path):
    with pytest.raises(AssetError, match=r"holds none of \*\.flac"):
        packages.take_members(shop / "bells==1.0", ("*.flac",), tmp_path)


@pytest.mark.parametrize("name", ["bells==1.0", "@ring-soft@2.0"])
def test_a_damaged_package(shop, tmp_path, name):
    data = (shop / name).read_bytes()
    (shop / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(AssetError, match="cannot be unpacked"):
        packages.take_members(shop / name, ("*",), tmp_path)
