"""Machine code that Numba makes is kept from process to process, under what it was made of.

Numba keeps it beside the source, and trusts it as long as that one file is the same: constants
that come from another module, and types that have been renamed since, would go unnoticed. Here the
folder is named after the contents of all files that decide. This module loads Numba when it is
imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from deep_piano.infra.assets.cache import cache_dir

Function = TypeVar("Function", bound=Callable[..., object])


def compiler(*sources: str, fastmath: Collection[str] = ()) -> Callable[[Function], Function]:
    """Return a decorator that compiles a function on first use.

    Parameters
    ----------
    *sources : str
        The files that decide over what it does.
    fastmath : collection of str, optional
        What LLVM may do with sums and products of floats: "contract", "reassoc".
    """
    contents = b"".join(Path(source).read_bytes() for source in sources)
    digest = hashlib.sha256(contents).hexdigest()[:16]

    config: Any = numba.config
    options: Any = {"error_model": "numpy", "nogil": True, "fastmath": set(fastmath) or False}

    def compiled(function: Function) -> Function:
        before = config.CACHE_DIR
        try:
            config.CACHE_DIR = str(Path(before or cache_dir() / "numba") / digest)
            made = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # nowhere to keep it
            made = numba.njit(**options)(function)
        finally:
            config.CACHE_DIR = before
        return cast(Function, made)

    return compiled
