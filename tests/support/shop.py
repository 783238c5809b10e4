"""A shop of made-up packages, and package clients that serve them."""

from __future__ import annotations

import hashlib
import io
import stat
import sys
import tarfile
import zipfile

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


def open_shop(folder, monkeypatch):
    """Fill a folder with packages and the clients that serve them, and let those be asked."""
    folder.mkdir()
    make_zip(folder / "bells==1.0")
    make_tar(folder / "@ring-soft@2.0")
    make_tar(folder / "@ring-loud@2.0", {"package/c.txt": b"DONG"})
    for manager in ("pip", "npm"):
        write_client(folder, manager, SERVE)
        monkeypatch.setenv(f"DEEP_PIANO_{manager.upper()}", str(folder / manager))
    return folder


def calls(shop):
    log = shop / "calls"
    return log.read_text().splitlines() if log.exists() else []


def everything_under(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
