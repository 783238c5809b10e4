"""Which versions of what decide over the bytes that come out."""

from __future__ import annotations

import platform
from importlib import metadata

import deep_piano

PACKAGES = ("numpy", "scipy", "tensorflow", "tensorflow-cpu", "keras", "symusic", "safetensors")


def installed() -> dict[str, str]:
    """Return the versions of deep_piano, Python and the packages that are installed."""
    found = {"deep_piano": deep_piano.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
