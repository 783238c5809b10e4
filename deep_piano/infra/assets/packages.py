"""Packages by name and version, through the clients that people have: pip and npm.

`pip download` and `npm pack` honour the mirrors, proxies and wheel folders that are configured,
so nothing here needs an address. pooch checks a package before anything reads it. Only regular
files are unpacked, each under its last name. This module knows package clients and archives; it
does not know what a package is for, nor where its contents will be kept.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from deep_piano.errors import AssetError
from deep_piano.infra.programs import environment

Manager = Literal["pip", "npm"]

CLIENT_TIME_LIMIT_S = 3600


class ClientError(AssetError):
    """A package client failed, or there is none.

    The caller adds what cannot be fetched before the message, and what else helps after it.
    """


def obtain(manager: Manager, package: str, version: str, *, sha256: str, target: Path) -> None:
    """Put a package file at `target`, unless the right one is there.

    Parameters
    ----------
    manager : {"pip", "npm"}
        The client to call. `$DEEP_PIANO_PIP` and `$DEEP_PIANO_NPM` name another command.
    package, version : str
        As the client names them.
    sha256 : str
        Of the whole package file; another file is not kept.
    target : Path
        The file to write; its folder is created.

    Raises
    ------
    ClientError
        No such client, or it failed.
    AssetError
        The client did not fetch exactly one file with this SHA-256.
    OSError
        When `target` cannot be written.
    """
    import pooch

    def ask_client(url: str, output: str, _: object) -> None:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as arriving:
            _run_client(manager, package, version, Path(arriving))
            files = [file for file in Path(arriving).iterdir() if file.is_file()]
            if len(files) != 1:
                raise AssetError(
                    f"{manager} brought {len(files)} files for {package} {version} where one was "
                    "expected. Try again."
                )
            files[0].replace(output)

    pooch.get_logger().setLevel(logging.WARNING)  # our own log and progress say what is fetched
    try:
        pooch.retrieve(
            f"{manager}:{package}@{version}",
            known_hash=f"sha256:{sha256}",
            fname=target.name,
            path=target.parent,
            downloader=ask_client,
        )
    except ValueError as error:  # another SHA-256
        raise AssetError(
            f"{package} {version} is not the package it should be: {error} Check where your "
            f"{manager} fetches from."
        ) from error


def take_members(package: Path, patterns: tuple[str, ...], target: Path) -> None:
    """Write the members of a zip or tar that match a pattern into a folder.

    Parameters
    ----------
    package : Path
        A zip (or wheel), or a tar in any compression.
    patterns : tuple of str
        Of whole member names, as for `fnmatch`.
    target : Path
        The folder. Members are written under their last names; links and devices are skipped.

    Raises
    ------
    AssetError
        When the package is damaged, or no member matches.
    """
    taken = False
    try:
        for member, stream in _members(package):
            if any(fnmatch.fnmatchcase(member, pattern) for pattern in patterns):
                # The last name only, so that no member can be written elsewhere.
                with (target / PurePosixPath(member).name).open("wb") as file:
                    shutil.copyfileobj(stream, file)
                taken = True
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise AssetError(f"{package.name} cannot be unpacked: {error}. Fetch it again.") from error
    if not taken:
        raise AssetError(f"{package.name} holds none of {', '.join(patterns)}.")


def _members(package: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and the content of every regular member of a zip or tar."""
    if zipfile.is_zipfile(package):
        with zipfile.ZipFile(package) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    with archive.open(info) as stream:
                        yield info.filename, stream
        return
    with tarfile.open(package) as tar:
        for entry in tar:
            content = tar.extractfile(entry) if entry.isfile() else None
            if content is not None:
                yield entry.name, content


def _run_client(manager: Manager, package: str, version: str, target: Path) -> None:
    """Fetch the package file into the folder `target` with the first client that exists."""
    if manager == "pip":
        request = f"{package}=={version}"
        options = ["download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        options += ["--no-input", "--disable-pip-version-check", "--dest", str(target), request]
    else:
        request = f"{package}@{version}"
        # One retry, not two: without a network npm would be silent for 70 s.
        options = ["pack", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
        options += [f"--pack-destination={target}", request]
    commands = _client_commands(manager)
    for command in commands:
        program = shutil.which(command[0])
        if program is None:
            continue
        try:
            run = subprocess.run(
                [program, *command[1:], *options],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=CLIENT_TIME_LIMIT_S,
                env=environment(),
            )
        except subprocess.TimeoutExpired:
            reason = f"no end after {CLIENT_TIME_LIMIT_S} s"
        else:
            if run.returncode == 0:
                return
            errors = run.stderr.decode("utf-8", "replace")
            if run.returncode == 127 or "No module named pip" in errors:
                continue
            reason = f"exit code {run.returncode}: {_first_error(errors)}"
        raise ClientError(f"`{shlex.join(command)} {options[0]} {request}` failed ({reason}).")
    tried = ", ".join(map(shlex.join, commands))
    maker = "Node.js" if manager == "npm" else "pip"
    raise ClientError(f"no {manager} was found (tried: {tried}). Install {maker}, or:")


def _client_commands(manager: Manager) -> list[list[str]]:
    """Return the ways to call a package client, in the order in which to try them."""
    own = os.environ.get(f"DEEP_PIANO_{manager.upper()}")
    if own:
        return [shlex.split(own)]
    if manager == "npm":
        return [["npm"]]
    # An environment from uv has no pip.
    return [[sys.executable, "-m", "pip"], ["pip"], ["pip3"], ["uvx", "pip"]]


def _first_error(errors: str) -> str:
    """Return the first real error of a client's output; later lines repeat it or advise."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() and "error code" not in line]
    return (telling or lines or ["no reason given"])[0][:240]
