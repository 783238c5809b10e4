"""Caches the machine code of Numba between processes, keyed by its source files.

Numba's own cache depends on one source file: it misses changes of constants from other modules and
of types. Here the cache folder is named after the contents of all files that matter. It also
numbers its files, so that two processes can write code for different types under one name; here
files are named after the types. And it fails where a file of it is damaged or the disk is full;
here it compiles. This module loads Numba when it is imported.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar, cast

from deep_piano.infra.assets.cache import cache_dir
from deep_piano.infra.caches import settle_libraries

settle_libraries()

import numba  # noqa: E402 (it reads its settings when it is loaded)
from numba.core import caching  # noqa: E402

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., object])


class _CacheFile(caching.IndexDataCacheFile):
    """Numba's files of one function, safe to write from several processes at once.

    A file of machine code is named after what it was compiled for, not by the next free number,
    and is there before the index names it. A process that calls code for other types crashes.
    """

    def save(self, key: object, data: object) -> None:
        compiled_for = self._dump((self._source_stamp, key))
        name = self._data_name(int.from_bytes(hashlib.sha256(compiled_for).digest()[:8], "big"))
        self._save_data(name, data)
        self._save_index(self._load_index() | {key: name})

    def _load_index(self) -> dict[object, str]:
        try:
            return super()._load_index()
        except Exception as error:  # damaged bytes raise anything; so it is written anew
            logger.debug("%s cannot be read: %r", self._index_path, error)
            return {}


def _if_possible(use: Callable[..., object]) -> Callable[..., object]:
    """Return a method of Numba's cache that does nothing where it fails: it serves speed alone."""

    @functools.wraps(use)
    def tried(self: caching.Cache, *args: object) -> object:
        try:
            return use(self, *args)
        except Exception as error:
            logger.debug("%s: the cache %s does not serve: %r", self, self.cache_path, error)
            return None

    return tried


caching.IndexDataCacheFile = _CacheFile  # type: ignore[misc]
caching.Cache.load_overload = _if_possible(caching.Cache.load_overload)  # type: ignore[method-assign]
caching.Cache.save_overload = _if_possible(caching.Cache.save_overload)  # type: ignore[method-assign]


def compiler(
    *sources: str, fastmath: Collection[str] = (), inner: bool = False
) -> Callable[[Function], Function]:
    """Return a decorator that compiles a function on first use.

    Parameters
    ----------
    *sources : str
        The files that determine the machine code.
    fastmath : collection of str, optional
        Liberties of LLVM with sums and products of floats: "contract", "reassoc".
    inner : bool
        Only compiled functions call it: without a way in from Python it compiles much faster, and a
        call from there crashes.
    """
    contents = b"".join(Path(source).read_bytes() for source in (__file__, *sources))
    digest = hashlib.sha256(contents).hexdigest()[:16]

    config: Any = numba.config
    options: Any = {"error_model": "numpy", "nogil": True, "fastmath": set(fastmath) or False}
    options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": inner}

    def compiled(function: Function) -> Function:
        before = config.CACHE_DIR
        try:
            config.CACHE_DIR = str(Path(before or cache_dir() / "numba") / digest)
            made = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no writable cache folder
            made = numba.njit(**options)(function)
        finally:
            config.CACHE_DIR = before
        return cast(Function, made)

    return compiled
