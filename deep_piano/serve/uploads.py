"""A recording arrives: streamed to disk, within its limit, by the name that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from deep_piano.errors import DeepPianoError, InputError
from deep_piano.infra.storage.atomic import room_required
from deep_piano.serve.store import shown_name

MOST_BYTES: Final = 50_000_000
NAME: Final = "X-Name"
_PIECE = 2**16


class TooLargeError(InputError):
    """A body is larger than it may be."""


def name_of(request: web.Request) -> str:
    """Return the name of a file that is sent, which its header has percent-encoded."""
    return shown_name(unquote(request.headers.get(NAME, "")))


def require_small(request: web.Request) -> None:
    """Raise where a body says that it is too large; nothing of it is read."""
    if (request.content_length or 0) > MOST_BYTES:
        raise _too_large(request.content_length or 0)


async def receive(request: web.Request, path: Path) -> None:
    """Write a body to a file.

    Raises
    ------
    TooLargeError
        When it has more than `MOST_BYTES`, whatever it said before.
    InputError
        When it is empty.
    DeepPianoError
        When there is no room.
    """
    count = 0
    try:
        with room_required(path), path.open("wb") as file:
            async for data in request.content.iter_chunked(_PIECE):
                count += len(data)
                if count > MOST_BYTES:
                    raise _too_large(count)
                file.write(data)
    except OSError as error:
        raise DeepPianoError(f"the recording could not be kept: {error.strerror}.") from error
    if not count:
        raise InputError("the file is empty (0 bytes). Give another copy of it.")


def _too_large(count: int) -> TooLargeError:
    return TooLargeError(
        f"the file has more than {MOST_BYTES / 1e6:.0f} MB ({count / 1e6:.0f} MB). Cut out the "
        "minute that you want continued, or save it as mp3."
    )
