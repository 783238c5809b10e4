"""A server of the page in a thread, and a worker without networks that are not there."""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import os
import socket
import threading
import time

from aiohttp import web

from deep_piano.config.sections import Config, GenerateConfig
from deep_piano.serve.app import Server
from deep_piano.serve.safety import HEADER, Guard
from deep_piano.serve.store import Store

LONGEST_S = 120


def small_work(home, pipe, config):
    """Run a worker whose transcription is by rule: its weights are not there."""
    os.environ["DEEP_PIANO_HOME"] = home
    from deep_piano.infra.assets import cache
    from deep_piano.music import transcription
    from deep_piano.serve import worker
    from tests.support.fakes import fake_transcriber

    heard = fake_transcriber()
    transcription.transcribe = lambda samples, sr, progress=None: heard(samples, sr)[0]
    cache.ensure = lambda name, progress=None: None
    worker.work(pipe, config)


def small_config(weights, piano, **more):
    """Return settings with which a piece takes a second."""
    small = {"seconds": 20.0, "candidates": 1, "checkpoint": str(weights), "sound": str(piano)}
    return Config(generate=GenerateConfig(**small | more))


class Serving:
    """A server in a thread, and the page's part of talking to it."""

    def __init__(self, folder, config, work, *, token=None, most_bytes=10**9, port=0):
        self.folder = folder
        self.store = Store(folder, most_bytes)
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self.guard = Guard(self.port, token=token)
        self.url = f"http://127.0.0.1:{self.port}/"
        self._server = Server(self.store, config, self.guard, work)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(LONGEST_S)

    async def _run(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(self._server.app(), shutdown_timeout=1)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LONGEST_S)
        self._socket.close()
        self.store.close()

    @property
    def cookie(self):
        return f"{self.guard.cookie}={self.guard.secret}"

    def request(self, method, path, body=None, **headers):
        """Return status, headers and body; headers are exactly those given, but for Host."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST_S)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    def ask(self, method, path, body=None, **headers):
        """Ask as the page does; return status and what is answered."""
        own = {HEADER: "1", "Cookie": self.cookie} | headers
        status, found, content = self.request(method, path, body, **own)
        kind = found.get("Content-Type", "")
        return status, json.loads(content) if kind.startswith("application/json") else content

    def tell(self, method, path, facts):
        return self.ask(method, path, json.dumps(facts))

    def send(self, path, name=None):
        """Send a recording; return its job."""
        status, facts = self.ask(
            "POST", "/api/seeds", path.read_bytes(), **{"X-Name": name or path.name}
        )
        assert status == 202, facts
        return facts["job"]

    def job(self, name):
        _, state = self.ask("GET", "/api/state")
        return next(job for job in state["jobs"] if job["job"] == name)

    def wait(self, name, states=("done", "failed", "cancelled")):
        """Wait until a job has a state; return its facts."""
        until = time.monotonic() + LONGEST_S
        while time.monotonic() < until:
            job = self.job(name)
            if job["state"] in states:
                return job
            time.sleep(0.02)
        raise AssertionError(f"{job} has waited too long")

    def seed(self, path, name=None):
        """Send a recording and wait for it; return its id."""
        job = self.wait(self.send(path, name))
        assert job["state"] == "done", job
        return job["result"]["seed"]

    def compose(self, seed, *, begin=0, end=10, **given):
        """Ask for a piece; return its job."""
        facts = {"seed": seed, "begin": begin, "end": end, "controls": given}
        status, answer = self.tell("POST", "/api/pieces", facts)
        assert status == 202, answer
        return answer["job"]

    def piece(self, job):
        """Wait for a piece; return what is known of it."""
        done = self.wait(job)
        assert done["state"] == "done", done
        return self.store.piece(done["result"]["piece"])


def small_server(folder, weights, piano, **options):
    """Return a server whose pieces take a second."""
    home = str(piano.with_name("home"))
    more = {name: options.pop(name) for name in ("token", "most_bytes", "port") if name in options}
    config = small_config(weights, piano, **options)
    return Serving(folder, config, functools.partial(small_work, home), **more)
