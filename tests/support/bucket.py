"""A real S3 server on loopback: moto's, as a process of its own."""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

START_S = 240
SECRET = "moto-takes-any-secret"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "moto-takes-any-key",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "NO_PROXY": "127.0.0.1",
}
UNWANTED = (
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE", "AWS_MAX_ATTEMPTS"),
)


@dataclass(frozen=True)
class Server:
    """A running server; `env` is what another process needs to find it."""

    endpoint: str

    @property
    def env(self) -> dict[str, str]:
        return ENVIRONMENT | {"AWS_ENDPOINT_URL": self.endpoint}

    @cached_property
    def client(self) -> Any:
        import boto3

        return boto3.session.Session(
            aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        ).client("s3", endpoint_url=self.endpoint)

    def bucket(self) -> str:
        """Make a bucket that nothing else uses, and return its name."""
        name = f"bucket-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return name


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serve(log: Path) -> Iterator[Server]:
    """Run a server as long as the block lasts; what it says goes to a file."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Server(_where_it_answers(process, log))
    finally:
        process.kill()
        process.wait()


def _where_it_answers(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the server has said on which port it is, one that was free, and answers there."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        said = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text(errors="replace"))
        if said:
            with suppress(OSError):
                direct.open(f"{said[1]}/moto-api/", timeout=5).close()
                return said[1]
        time.sleep(0.05)
    raise RuntimeError(f"moto's server did not start: {log.read_text(errors='replace')[-2000:]}")
