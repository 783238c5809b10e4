"""The installed versions of packages."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

import deep_piano

_SAME = {"tensorflow": "tensorflow-cpu"}  # one module, two distributions
_DECISIVE = (
    *("numpy", "scipy", "numba", "tensorflow"),
    *("soxr", "soundfile", "matplotlib", "music21"),
)


def version(package: str) -> str | None:
    """Return the version of an installed package, None where it is not installed."""
    for name in filter(None, (package, _SAME.get(package))):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


@cache
def of_a_piece() -> dict[str, str | None]:
    """Return the versions that determine the bytes of a piece.

    Cached, since asking FFmpeg starts a process.
    """
    from deep_piano.music.ffmpeg import ffmpeg_version

    packages = {package: version(package) for package in _DECISIVE}
    return _ours() | packages | {"ffmpeg": ffmpeg_version()}


def of_a_dataset() -> dict[str, str | None]:
    """Return the versions that determine the bytes of a dataset."""
    from deep_piano.music.ffmpeg import ffmpeg_version

    packages = ("numpy", "scipy", "librosa", "numba", "pyarrow")
    found = {package: version(package) for package in packages}
    return _ours() | {"ffmpeg": ffmpeg_version()} | found


def of_a_run() -> dict[str, str | None]:
    """Return the versions that determine the weights of a training."""
    packages = ("numpy", "keras", "tensorflow", "torch", "jax", "ray")
    return _ours() | {package: version(package) for package in packages}


def _ours() -> dict[str, str | None]:
    return {"deep_piano": deep_piano.__version__, "python": platform.python_version()}
