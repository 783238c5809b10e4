"""A small cluster to break: Ray nodes on a network of their own, and S3 behind a door.

Every node stands in a network namespace, linked by a cable (a veth pair) to the switch (a bridge)
of the namespace that the tests run in, which is the head's. `make chaos` gives the tests namespaces
of network, processes and mounts that end with them, so that nothing else on the machine is touched.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.bucket import ENVIRONMENT, serve
from tests.support.clusters import below

ROOT = Path(__file__).parents[2]
NETWORK = "10.77.0"
HEAD = f"{NETWORK}.1"
GCS = f"{HEAD}:6379"
JOB_SERVER = "http://127.0.0.1:8265"
S3_PORT = 9000
START_S = 240

# A dead node is noticed in about 3 s and a silent one in about 12, instead of 15 and 65.
IMPATIENT = (
    '{"health_check_period_ms": 1000, "health_check_timeout_ms": 3000,'
    ' "health_check_failure_threshold": 3}'
)


def command(*words):
    """Run a command, and say what it said where it failed."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def network_of(number):
    """Return which network namespace a process is in; None where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{number}/ns/net").readlink()
    return None


class Node:
    """A machine with a Ray node on it."""

    def __init__(self, number, environment, home, folder):
        self.address, self._cable = f"{NETWORK}.{number}", f"cable{number}"
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        while network_of(self._holder.pid) in (network_of("self"), None):
            time.sleep(0.01)
        self._network = network_of(self._holder.pid)
        plug = ("peer", "name", "eth0", "netns", self._holder.pid)
        command("ip", "link", "add", self._cable, "type", "veth", *plug)
        command("ip", "link", "set", self._cable, "master", "switch", "up")
        for words in (
            "ip link set lo up",
            f"ip address add {self.address}/24 dev eth0",
            "ip link set eth0 up",
        ):
            command(*self._inside, *words.split())
        words = [
            *(*self._inside, "ray", "start", "--address", GCS, "--block", "--num-cpus", "1"),
            *("--node-ip-address", self.address, "--object-store-memory", "100000000"),
            *("--temp-dir", f"{home}/{number}"),
        ]
        with (folder / f"node-{number}.log").open("wb") as said:
            self._ray = subprocess.Popen(words, env=environment, stdout=said, stderr=said)

    @property
    def _inside(self):
        return ("nsenter", "--net", "--target", str(self._holder.pid))

    @property
    def ended(self):
        """Ray has ended on this machine."""
        return self._ray.poll() is not None

    def signal(self, number):
        """Send a signal to all processes of the machine."""
        for folder in Path("/proc").glob("[0-9]*"):
            process = int(folder.name)
            if process != self._holder.pid and network_of(process) == self._network:
                with suppress(ProcessLookupError):
                    os.kill(process, number)

    def kill(self):
        """End all processes of the machine at once, as when its power goes."""
        self.signal(signal.SIGKILL)
        self._ray.wait()

    def link(self, state):
        """Plug the cable in ("up") or out ("down")."""
        command("ip", "link", "set", self._cable, state)

    def throttle(self):
        """Let little through the cable: what comes too fast waits up to 0.3 s, or is lost."""
        slow = ["root", "tbf", "rate", "4mbit", "burst", "16kb", "latency", "300ms"]
        command("tc", "qdisc", "replace", "dev", self._cable, *slow)
        command(*self._inside, "tc", "qdisc", "replace", "dev", "eth0", *slow)

    def unthrottle(self):
        """Let all through the cable again."""
        command("tc", "qdisc", "delete", "dev", self._cable, "root")
        command(*self._inside, "tc", "qdisc", "delete", "dev", "eth0", "root")

    def has(self, number):
        """Tell whether a process is one of this machine's."""
        return network_of(number) == self._network

    def remove(self):
        """End the machine."""
        self.kill()
        self._holder.kill()
        self._holder.wait()


class Cluster:
    """A head, which computes nothing, and nodes of one CPU."""

    def __init__(self, environment, folder):
        self._folder = folder
        self._environment, self._numbers = environment, iter(range(2, 250))
        self.nodes = []
        self._home = Path(tempfile.mkdtemp(prefix="dp"))  # short: sockets lie in it
        self._head = None

        def there():
            if self._head is None or self._head.poll() is not None:  # it was too slow to start
                self._start_head()
            return self._alive() == {HEAD}

        until(there, START_S, "the head is there")

    def _start_head(self):
        words = [
            *("ray", "start", "--head", "--block", "--num-cpus", "0", "--port", "6379"),
            *("--node-ip-address", HEAD, "--dashboard-host", "127.0.0.1"),
            *("--temp-dir", f"{self._home}/1", "--object-store-memory", "200000000"),
            *("--system-config", IMPATIENT),
        ]
        with (self._folder / "head.log").open("wb") as said:
            self._head = subprocess.Popen(words, env=self._environment, stdout=said, stderr=said)

    def repair(self, count=3):
        """Have so many nodes at work: replace those that were lost."""

        def complete():
            for node in [node for node in self.nodes if node.ended]:  # it was too slow to start
                self.lose(node)
            alive = self._alive()
            all_there = alive == {HEAD, *(node.address for node in self.nodes)}
            if all_there and len(self.nodes) < count:  # one at a time
                places = (self._environment, self._home, self._folder)
                self.nodes.append(Node(next(self._numbers), *places))
                return False
            return all_there

        until(complete, START_S, "the nodes are there, and no others")

    def lose(self, node):
        """Take a node out for good."""
        node.remove()
        self.nodes.remove(node)

    def _alive(self):
        """Ask the dashboard for the addresses of the nodes that are alive."""
        token = {"Authorization": f"Bearer {self._environment['RAY_AUTH_TOKEN']}"}
        asked = urllib.request.Request(f"{JOB_SERVER}/api/v0/nodes", headers=token)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(asked, timeout=5) as answer:
                nodes = json.load(answer)["data"]["result"]["result"]
        except (OSError, ValueError):
            return set()
        return {node["node_ip"] for node in nodes if node["state"] == "ALIVE"}

    def close(self):
        for node in list(self.nodes):
            self.lose(node)
        started = [self._head.pid, *below(self._head.pid)]
        self._head.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._head.wait(20)
        for number in started:  # those that it did not end
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self._head.wait()
        shutil.rmtree(self._home, ignore_errors=True)


class Door:
    """A TCP proxy before a server; it may be shut, held, or be a bad one.

    Attributes
    ----------
    delay_s : float
        How long everything that passes is held up.
    cut : float
        The share of all passages at which a connection is cut off.
    """

    def __init__(self, host, port, target_port):
        self._at, self._target_port = (host, port), target_port
        self.delay_s, self.cut = 0.0, 0.0
        self._random = random.Random(0)
        self._ways = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.open()

    def open(self):
        self._do(self._open())

    def shut(self):
        """Refuse whoever comes, and cut off who is within."""
        self._do(self._shut())

    def _do(self, task):
        asyncio.run_coroutine_threadsafe(task, self._loop).result(10)

    async def _open(self):
        self._server = await asyncio.start_server(self._pass, *self._at)

    async def _shut(self):
        self._server.close()
        for writer in self._ways:
            writer.transport.abort()

    async def _pass(self, reader, writer):
        try:
            behind, to_behind = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, to_behind}
        self._ways |= both
        try:
            await asyncio.gather(
                self._carry(reader, to_behind, both), self._carry(behind, writer, both)
            )
        except OSError:
            pass
        finally:
            self._ways -= both
            for way in both:
                way.transport.abort()

    async def _carry(self, reader, writer, both):
        while data := await reader.read(1 << 16):
            await asyncio.sleep(self.delay_s)
            if self._random.random() < self.cut:
                for way in both:
                    way.transport.abort()
                return
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


def until(true, limit_s, what):
    """Wait until something is true."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        time.sleep(0.1)


class Bed:
    """Everything there is to break: the cluster, S3 and the way to it."""

    def __init__(self, server, folder, home):
        self.server, self.folder = server, folder
        self.door = Door(HEAD, S3_PORT, int(server.endpoint.rpartition(":")[2]))
        self.token = secrets.token_hex(16)
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "DEEP_PIANO_HOME": str(home),
            **ENVIRONMENT,
            "NO_PROXY": "*",
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # or whatever else the machine does comes first
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.cluster = Cluster(self.environment, folder)


@contextmanager
def bed_to_break(folder, home):
    """Have a cluster and an S3 server for the length of the block; `home` holds fetched assets."""
    command("ip", "link", "add", "switch", "type", "bridge")
    command("ip", "address", "add", f"{HEAD}/24", "dev", "switch")
    command("ip", "link", "set", "switch", "up")
    with serve(folder / "s3.log") as server:
        bed = Bed(server, folder, home)
        try:
            bed.cluster.repair()
            yield bed
        finally:
            bed.cluster.close()
            command("ip", "link", "delete", "switch")
