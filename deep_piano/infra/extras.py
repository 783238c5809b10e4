"""Packages that come with an extra of this one, and what to say where they are missing.

A piece is made without them. This module knows names of packages; it loads none.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

from deep_piano.errors import InputError

EXTRAS: Final = {"bulk": ("ray", "pyarrow"), "train": ("keras", "tensorflow")}
"""The packages to look for; an extra brings more."""

ADDED: Final = {
    "bulk": "folders and clusters: prepare, inspect and index DATASET, generate FOLDER, submit",
    "train": "training: train, evaluate, pipeline",
}
"""What each extra is for."""


def missing(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed."""
    return [package for package in EXTRAS[extra] if not _installed(package)]


def require(package: str) -> None:
    """Raise `InputError` where a package of an extra is not installed."""
    if not _installed(package):
        raise InputError(advice_for(package))


def _installed(package: str) -> bool:
    return sys.modules.get(package) is not None or find_spec(package) is not None


def advice_for(package: str) -> str | None:
    """Return what to do where a package is not installed; None where no extra brings it."""
    for extra, packages in EXTRAS.items():
        if package in packages:
            return (
                f"this needs {package}, which is not installed. "
                f"Run `pip install 'deep-piano[{extra}]'`, which adds {ADDED[extra]}."
            )
    return None
