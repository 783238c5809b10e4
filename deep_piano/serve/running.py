"""A server from its first line to its last: address, token, signals."""

from __future__ import annotations

import asyncio
import errno
import secrets
import signal
import socket
import webbrowser
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from aiohttp import web

from deep_piano.codecs.notes import SPEC
from deep_piano.config.sections import Config
from deep_piano.errors import InputError
from deep_piano.generate.notes import ready_sound
from deep_piano.infra.assets.catalogue import SOUND_NAMES
from deep_piano.infra.progress import no_progress
from deep_piano.models import checkpoint
from deep_piano.serve import on_ray
from deep_piano.serve.app import Server
from deep_piano.serve.safety import TOKEN, Guard, is_this_machine_only
from deep_piano.serve.store import Store
from deep_piano.serve.worker import work


def serve(
    folder: Path,
    config: Config,
    *,
    host: str,
    port: int,
    names: tuple[str, ...] = (),
    most_gb: float,
    open_page: bool = False,
    address: str | None = None,
    say: Callable[[str], None],
) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Parameters
    ----------
    folder : Path
        Of recordings and pieces.
    config : Config
    host : str
        An address of this machine. Where others can connect to it, a token is asked for.
    port : int
        0 for a free one.
    names : tuple of str
        What others call this machine, beside its address.
    most_gb : float
        How much the folder may hold.
    open_page : bool
        Open it in a browser.
    address : str, optional
        Of a Ray cluster, where the work is done.
    say : callable
        Told what the user must know, a line at a time.

    Raises
    ------
    InputError
        When the checkpoint, the sound, the folder or the address cannot be used.
    """
    found = checkpoint.find(config.generate.checkpoint, config.storage)
    checkpoint.load(found, codec=SPEC.codec)  # of notes, and whole: the worker loads it again
    own_sound = config.generate.sound
    if own_sound is not None and own_sound not in SOUND_NAMES and address is None:
        ready_sound(own_sound, no_progress)
    with closing(Store(folder, round(most_gb * 1e9))) as store, _listening(host, port) as listening:
        port = listening.getsockname()[1]
        alone = is_this_machine_only(host)
        token = None if alone else secrets.token_urlsafe(24)
        where = "Nothing leaves this computer." if alone else "They stay on that computer."
        here: Callable[..., None] = work
        if address is not None:
            where, here = f"The work is done at {address}.", partial(on_ray.work, address=address)
        shown = _shown(host, listening, names)
        server = Server(store, config, Guard(port, (shown, *names), token), here, where)
        url = f"http://{shown}:{port}/" + (f"?{TOKEN}={token}" if token else "")
        say(f"{url} (Ctrl-C ends it)")
        if token:
            say(
                "Whoever has this address can use the page. The connection is not encrypted (no "
                "TLS): use it only in a network that you trust."
            )
        say(f"Pieces are stored in {store.root}. {where}")
        asyncio.run(_until_told(server.app(), listening, url if open_page else None))


def _shown(host: str, listening: socket.socket, names: tuple[str, ...]) -> str:
    """Return what the machine is called in the address that is printed."""
    if listening.getsockname()[0] in ("0.0.0.0", "::"):
        return (*names, socket.gethostname())[0]
    return f"[{host}]" if ":" in host else host


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; an `InputError` where the address cannot be used."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, reuse_port=False)
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise InputError(
                f"port {port} is in use. Give another --port, or --port 0 for a free one."
            ) from error
        raise InputError(
            f"cannot listen on {host}, port {port}: {error}. Give an address of this machine."
        ) from error


async def _until_told(app: web.Application, listening: socket.socket, url: str | None) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        if url is not None:
            await asyncio.to_thread(webbrowser.open, url)
        await told.wait()
    finally:
        await runner.cleanup()
