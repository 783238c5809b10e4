"""The server: what can be asked, and what is answered.

A thin layer: `store` has the pieces, `jobs` the worker, `safety` decides who may ask. All answers
but files are JSON; an error is one plain sentence, under "error".
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler

from deep_piano import __version__
from deep_piano.config.sections import Config
from deep_piano.errors import DeepPianoError, InputError, one_line
from deep_piano.generate.files import MEDIA_TYPES
from deep_piano.serve import controls, uploads
from deep_piano.serve.alone import page_of
from deep_piano.serve.events import Events
from deep_piano.serve.jobs import Job, Jobs, QueueFull
from deep_piano.serve.safety import Guard, add_headers, middleware
from deep_piano.serve.store import NotThereError, Store, continuation_s
from deep_piano.serve.window import window_facts
from deep_piano.serve.wishes import another, file_name, known, wished
from deep_piano.serve.worker import Compose, Export, Look, Read

PAGE_FILES: Final = {
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        ("page.js", "ask.js", "play.js", "trim.js", "shape.js", "listen.js", "roll.js", "span.js"),
        "text/javascript",
    ),
}
SHOWN: Final = ("look", "piece")
"""The kinds of jobs that the page shows."""

_MOST_JSON_BYTES = 64 * 1024
_HEARTBEAT_S = 15.0
_LOOK_S = 0.5
_ID = "{id:[0-9a-f]{16}}"
_TAKE = "{take:[1-9][0-9]{0,3}}"
# Facts are to be read in the browser.
_MEDIA_TYPES = MEDIA_TYPES | {".json": "text/plain"}

logger = logging.getLogger(__name__)


class Server:
    """The handlers, and what they share.

    Parameters
    ----------
    store : Store
    config : Config
        The defaults of what can be set on the page.
    guard : Guard
    work : callable
        What the worker process runs: `worker.work`, `on_ray.work`.
    where : str
        A sentence on where recordings go.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        guard: Guard,
        work: Callable[..., None],
        where: str = "Nothing leaves this computer.",
    ) -> None:
        self._store, self._config, self._guard = store, config, guard
        self._where = where
        self._work = work
        self._events = Events()
        self._jobs: Jobs

    def app(self) -> web.Application:
        """Return the application; its worker starts with it."""
        guards = [middleware(self._guard), _errors]
        app = web.Application(middlewares=guards, client_max_size=_MOST_JSON_BYTES)
        app.on_response_prepare.append(add_headers)
        app.on_startup.append(self._start)
        app.on_shutdown.append(self._say_goodbye)
        app.on_cleanup.append(self._stop)
        app.add_routes(
            [
                web.get("/", self.page),
                web.get("/page/{name}", self.page_file),
                web.get("/api/state", self.state),
                web.get("/api/events", self.events),
                web.post("/api/seeds", self.add_seed),
                web.post("/api/example", self.add_example),
                web.get(f"/api/seeds/{_ID}", self.seed),
                web.get(f"/api/seeds/{_ID}/sound", self.seed_sound),
                web.get(f"/api/seeds/{_ID}/window", self.window),
                web.post("/api/pieces", self.compose),
                web.patch(f"/api/pieces/{_ID}", self.change),
                web.delete(f"/api/pieces/{_ID}", self.delete),
                web.get(f"/api/pieces/{_ID}/{_TAKE}/{{kind:[a-z0-9]+}}", self.file),
                web.delete(f"/api/jobs/{_ID}", self.cancel),
            ]
        )
        return app

    # ------------------------------------------------------------------ its life

    async def _start(self, app: web.Application) -> None:
        loop = asyncio.get_running_loop()

        def tell(job: Job) -> None:
            if job.kind in SHOWN:
                loop.call_soon_threadsafe(self._events.tell, job.facts)

        self._jobs = Jobs(self._work, (self._config,), tell)

    async def _say_goodbye(self, app: web.Application) -> None:
        self._events.end()

    async def _stop(self, app: web.Application) -> None:
        await asyncio.to_thread(self._jobs.close)

    # ------------------------------------------------------------------ the page

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Return the page, and the cookie; the page takes the token out of its address.

        A redirection would lose whoever follows a link of another site: without the cookie.
        """
        response = web.Response(body=_packaged("page.html"), content_type="text/html")
        response.charset = "utf-8"
        self._guard.admit(response)
        return response

    async def page_file(self, request: web.Request) -> web.StreamResponse:
        """Return a script or a style of the page."""
        name = request.match_info["name"]
        if name not in PAGE_FILES:
            raise web.HTTPNotFound
        response = web.Response(body=_packaged(name), content_type=PAGE_FILES[name])
        response.charset = "utf-8"
        return response

    async def state(self, request: web.Request) -> web.StreamResponse:
        """Return all that the page shows at its beginning, and the last event."""
        last = self._events.last
        jobs = [job.facts for job in self._jobs.all if job.kind in SHOWN]
        return web.json_response(
            {
                "last": last,
                "version": __version__,
                "folder": str(self._store.root),
                "where": self._where,
                "controls": controls.described(self._config.generate),
                "score": find_spec("music21") is not None,
                "jobs": jobs,
                "pieces": await asyncio.to_thread(self._store.pieces),
            }
        )

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send what happens, from the event on that the page has seen last."""
        seen = request.headers.get("Last-Event-ID") or request.query.get("after", "")
        listener = self._events.listen()
        try:
            missed = self._events.since(seen)
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            if missed is None:  # of another run, or too long ago
                await response.write(b"event: reload\ndata: {}\n\n")
            for event in missed or []:
                await response.write(f"id: {event.id}\ndata: {event.data}\n\n".encode())
            while True:
                try:
                    coming = await asyncio.wait_for(listener.get(), _HEARTBEAT_S)
                except TimeoutError:
                    await response.write(b": still here\n\n")
                    continue
                if coming is None:
                    return response
                await response.write(f"id: {coming.id}\ndata: {coming.data}\n\n".encode())
        except ConnectionResetError:
            return response
        finally:
            self._events.leave(listener)

    # ------------------------------------------------------------------ recordings

    async def add_seed(self, request: web.Request) -> web.StreamResponse:
        """Receive a recording, and have it heard."""
        uploads.require_small(request)
        name = uploads.name_of(request)
        folder = await asyncio.to_thread(self._store.begin)
        path = self._store.recording_path(folder, name)
        try:
            await uploads.receive(request, path)
            return self._submitted(self._look(folder, path, name))
        except BaseException:
            self._store.drop(folder)
            raise

    async def add_example(self, request: web.Request) -> web.StreamResponse:
        """Have the example heard."""
        folder = await asyncio.to_thread(self._store.begin)
        path = folder / "recording.mp3"
        path.write_bytes(_example().read_bytes())
        try:
            return self._submitted(self._look(folder, path, "example.mp3"))
        except BaseException:
            self._store.drop(folder)
            raise

    def _look(self, folder: Path, path: Path, name: str) -> Job:
        def finish(heard: Any) -> dict[str, Any]:
            seed = self._store.add_seed(folder, name, heard, self._to_be_read())
            self._read_ahead(seed)
            return {"seed": seed["id"]}

        return Job(
            kind="look",
            about={"name": name},
            task=Look(path, name, folder),
            finish=finish,
            undo=partial(self._store.drop, folder),
        )

    def _to_be_read(self) -> set[Path]:
        """Return the files that jobs which have not ended read, but for what is not kept yet."""
        tasks = [job.task for job in self._jobs.all if not job.ended.done()]
        return {
            task.roll if isinstance(task, Export) else task.path
            for task in tasks
            if not isinstance(task, Look)
        }

    def _read_ahead(self, seed: Mapping[str, Any]) -> None:
        """Have the window that the page begins with read, while its user looks at it."""
        begin, end = seed["window"]
        asked = {"seed": seed["id"], "begin": begin, "end": end, "controls": {}}
        with suppress(InputError):  # it is too short, or others are waiting
            wish = wished(asked, self._store, self._config)
            task = Read(wish.path, wish.name, wish.settings, self._store.root)
            self._jobs.submit(Job("read", {}, task, lambda read: {}, lambda: None))

    async def seed(self, request: web.Request) -> web.StreamResponse:
        """Return what was heard of a recording."""
        return web.json_response(self._store.seed(request.match_info["id"]))

    async def seed_sound(self, request: web.Request) -> web.StreamResponse:
        """Return the sound of a recording, as far as it was heard."""
        path = self._store.seed_file(request.match_info["id"]).with_name("heard.mp3")
        return web.FileResponse(path, headers={"Content-Type": "audio/mpeg"})

    async def window(self, request: web.Request) -> web.StreamResponse:
        """Say what a part of a recording holds."""
        try:
            begin, end = (float(request.query[name]) for name in ("begin", "end"))
        except (KeyError, ValueError):
            raise InputError("a window has a begin and an end, in seconds.") from None
        heard = self._store.seed(request.match_info["id"])
        return web.json_response(window_facts(heard["notes"], begin, end))

    # ------------------------------------------------------------------ pieces

    async def compose(self, request: web.Request) -> web.StreamResponse:
        """Have a piece made: of a window of a recording, or of a take up to a moment."""
        asked = await _json(request)
        folder = await asyncio.to_thread(self._store.begin)
        undo = partial(self._store.drop, folder)

        def finish(made: Any) -> dict[str, Any]:
            return {"piece": self._store.add_piece(folder, wish.about, made)["id"]}

        try:
            # Nothing is awaited until it is submitted: from then on the recording stays.
            wish = wished(asked, self._store, self._config)
            if asked.get("another"):
                wish = another(wish, self._made())
            about = {"name": wish.about["title"], "takes": wish.settings.takes}
            about |= {name: wish.about[name] for name in ("seed", "window")}
            about |= {"random_state": wish.settings.random_state}
            task = Compose(wish.path, wish.name, wish.settings, folder)
            return self._submitted(Job("piece", about, task, finish, undo))
        except BaseException:
            undo()
            raise

    def _made(self) -> list[tuple[Mapping[str, Any], int]]:
        """Return what is remembered of pieces, those to come too, and their random states."""
        coming = [
            job.about
            for job in self._jobs.all
            if isinstance(job.task, Compose) and not job.ended.done()
        ]
        return [(about, about["random_state"]) for about in coming] + [
            (piece, take["random_state"])
            for piece in self._store.pieces()
            for take in piece["takes"]
        ]

    async def change(self, request: web.Request) -> web.StreamResponse:
        """Rename a piece, or give a take its star."""
        asked = await _json(request)
        title, starred = asked.get("title"), asked.get("starred")
        title = None if title is None else known(title, str, "title")
        starred = None if starred is None else known(starred, int, "starred")
        name = request.match_info["id"]
        piece = await asyncio.to_thread(self._store.change, name, title=title, starred=starred)
        self._events.tell({"kind": "pieces"})
        return web.json_response(piece)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete a piece that no job needs."""
        name = request.match_info["id"]
        if any(path.parent.name == name for path in self._to_be_read()):
            raise InputError(
                "something is being made of this piece. Wait until that is there, or cancel it."
            )
        await asyncio.to_thread(self._store.delete, name)
        self._events.tell({"kind": "pieces"})
        return web.json_response({})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Return a file of a take; what is not kept is made."""
        number, kind = int(request.match_info["take"]), request.match_info["kind"]
        piece, take, folder = self._store.take(request.match_info["id"], number)
        roll = folder / f"roll-{number}.json"
        if kind == "roll":
            return web.FileResponse(roll, headers={"Content-Type": "application/json"})
        if kind == "page":
            sound, name = folder / f"{take['stem']}.mp3", file_name(piece, take, "")
            page = await asyncio.to_thread(page_of, sound, roll, name, piece, take)
            name = file_name(piece, take, ".html")
            return web.Response(text=page, content_type="text/html", headers=_as_file(name))
        endings = {"mp3": ".mp3", "midi": ".mid", "facts": ".json"}
        endings |= {"wav": ".wav", "score": ".musicxml"}
        if kind not in endings:
            raise web.HTTPNotFound
        ending = endings[kind]
        headers = {"Content-Type": _MEDIA_TYPES[ending]}
        if request.query.get("play") is None:
            headers |= _as_file(file_name(piece, take, ending))
        if kind in ("wav", "score"):
            return await self._exported(request, piece, take, folder, ending, headers)
        return web.FileResponse(folder / f"{take['stem']}{ending}", headers=headers)

    async def _exported(
        self,
        request: web.Request,
        piece: Mapping[str, Any],
        take: Mapping[str, Any],
        folder: Path,
        ending: str,
        headers: Mapping[str, str],
    ) -> web.StreamResponse:
        """Have a file made of a take's notes, send it, and keep nothing."""
        out = await asyncio.to_thread(self._store.begin, keep=False)
        target = out / f"{take['stem']}{ending}"
        roll, title = folder / f"roll-{take['take']}.json", str(piece["title"])
        task = Export(roll, target, title, take["seconds"], continuation_s(piece, take))
        job = Job("export", {"name": title}, task, lambda made: {}, lambda: None)
        try:
            self._jobs.submit(job)
        except BaseException:
            self._store.drop(out)
            raise
        try:
            await self._ended(job, request)
            if job.state != "done":
                raise DeepPianoError(job.message or "it was cancelled.")
            response = web.StreamResponse(headers=dict(headers))
            response.content_length = target.stat().st_size
            await response.prepare(request)
            with target.open("rb") as file:
                while data := await asyncio.to_thread(file.read, 2**20):
                    await response.write(data)
            return response
        finally:
            self._jobs.cancel(job)
            job.ended.add_done_callback(lambda job: self._store.drop(out))  # it writes until then

    async def _ended(self, job: Job, request: web.Request) -> None:
        """Wait until a job has ended; it is cancelled where the browser that asks has gone."""
        ended = asyncio.wrap_future(job.ended)
        while not ended.done():
            await asyncio.wait([ended], timeout=_LOOK_S)
            if request.transport is None:
                self._jobs.cancel(job)

    # ------------------------------------------------------------------ jobs

    def _submitted(self, job: Job) -> web.Response:
        return web.json_response({"job": self._jobs.submit(job).id}, status=202)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """End a job."""
        job = self._jobs.get(request.match_info["id"])
        if job is None:
            raise NotThereError("there is no such job any more.")
        await asyncio.to_thread(self._jobs.cancel, job)
        return web.json_response({})


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with one plain sentence where something is wrong."""
    try:
        return await handler(request)
    except DeepPianoError as error:
        statuses = {NotThereError: 404, QueueFull: 429, uploads.TooLargeError: 413}
        usual = 400 if isinstance(error, InputError) else 500
        status = next((code for kind, code in statuses.items() if isinstance(error, kind)), usual)
        return web.json_response({"error": one_line(error)}, status=status)
    except web.HTTPException as error:
        return web.json_response({"error": f"{error.reason}."}, status=error.status)
    except ConnectionResetError:
        raise
    except Exception as error:
        logger.exception("unexpected")
        told = f"unexpected {type(error).__name__}. The page goes on; the log says more."
        return web.json_response({"error": told}, status=500)


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        asked = json.loads(await request.read())
    except (ValueError, RecursionError):
        asked = None
    return dict(known(asked, dict, "the request"))


def _as_file(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}


def _packaged(name: str) -> bytes:
    return resources.files("deep_piano.serve").joinpath("page", name).read_bytes()


def _example() -> Path:
    """Return the example: with the package, or in the repository."""
    inside = Path(str(resources.files("deep_piano.serve").joinpath("page", "example.mp3")))
    return inside if inside.exists() else Path(__file__).parents[2] / "examples" / "seed.mp3"
