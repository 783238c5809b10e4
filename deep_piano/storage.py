"""Files that appear whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deep_piano.errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, so that writers which choose a format by it work.

    Raises
    ------
    InputError
        When the folder cannot be written to.

    Examples
    --------
    >>> with atomic_path(Path("notes.txt")) as temporary:  # doctest: +SKIP
    ...     temporary.write_text("whole")
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise InputError(
            f"cannot write to {path.parent}: {error.strerror}. Choose another folder."
        ) from error
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
