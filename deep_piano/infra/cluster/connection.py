"""Connects to a Ray cluster and asks for its resources."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from deep_piano.errors import DeepPianoError, InputError
from deep_piano.infra import extras
from deep_piano.infra.caches import home_is_writable
from deep_piano.infra.logs import logs_json

logger = logging.getLogger(__name__)

POLL_S = 3.0
"""How long to wait between two looks at a cluster."""
_ANSWER_S = 3.0


@contextmanager
def connected(*, cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray within the block.

    Uses an existing connection; else the cluster that ``RAY_ADDRESS`` names (it is set in a
    submitted job); else a new one on this machine that ends with the block. It never uses another
    cluster that happens to run here.

    Parameters
    ----------
    cpus : int, optional
        CPUs of a new cluster; all by default.

    Raises
    ------
    InputError
        When Ray is not installed, nothing answers at ``RAY_ADDRESS``, or the path of temporary
        files is too long.
    DeepPianoError
        When Ray cannot be reached or started.
    """
    extras.require("ray")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # and no warning about it
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if logs_json():
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # it would append text to JSON lines
    import ray
    from ray.job_config import JobConfig

    if ray.is_initialized():
        yield
        return
    job = JobConfig()  # of the workers only: this process has set up its log
    job.set_py_logging_config(
        ray.LoggingConfig("JSON" if logs_json() else "TEXT", "INFO", ["name"])
    )
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address not in ("auto", "local"):
        _require_answer(address)
    options: dict[str, Any] = {"log_to_driver": logger.isEnabledFor(logging.DEBUG)}
    if address == "local":
        options |= {"num_cpus": cpus, "include_dashboard": False}
        if not home_is_writable():  # where Ray would keep a token for its clusters
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        ray.init(address=address, job_config=job, logging_level=logging.ERROR, **options)
    except OSError as error:
        if "AF_UNIX path length" in str(error):
            raise InputError(
                "the path of the folder for temporary files is too long for the sockets of Ray "
                f"({_ray_folder()}). Set RAY_TMPDIR to a folder with a short path, such as "
                "RAY_TMPDIR=/tmp."
            ) from error
        raise _no_cluster(address, error) from error
    except Exception as error:  # a bare Exception where a local node does not start in time
        raise _no_cluster(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _ray_folder() -> str:
    return os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()


def _no_cluster(address: str, error: Exception) -> DeepPianoError:
    if address == "local":
        return DeepPianoError(f"no Ray cluster is available here: {error}")
    return DeepPianoError(
        f"no Ray cluster is available at RAY_ADDRESS={address}: {error} Unset RAY_ADDRESS to work "
        "on this machine."
    )


def _require_answer(address: str) -> None:
    """Raise `InputError` where nothing listens at an address: Ray would retry for 15 minutes."""
    scheme, _, place = address.rpartition("://")
    if scheme in ("http", "https"):
        raise InputError(
            f"RAY_ADDRESS={address} is a job server's address, where commands run as jobs: put "
            "`submit` before this command, or unset RAY_ADDRESS to work on this machine."
        )
    host, _, port = place.rpartition(":")
    end = time.monotonic() + _ANSWER_S
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S):
                return
        except (OSError, ValueError, OverflowError) as error:
            if isinstance(error, ConnectionRefusedError) and time.monotonic() < end:
                time.sleep(0.5)  # a head may be about to start
                continue
            raise InputError(
                f"no Ray cluster answers at RAY_ADDRESS={address} ({error}). Unset RAY_ADDRESS to "
                "work on this machine, or start the cluster."
            ) from error


def ask_for(bundles: Sequence[Mapping[str, float]], *, within_s: float) -> None:
    """Ask the autoscaler for nodes with these bundles of resources, and wait for them.

    Returns when the cluster has as much, or after `within_s` seconds. A cluster without an
    autoscaler ignores the request.
    """
    from ray.autoscaler.sdk import request_resources

    asked = {name: sum(bundle[name] for bundle in bundles) for name in bundles[0]}
    end = time.monotonic() + within_s
    whole = [{name: math.ceil(n) for name, n in bundle.items() if n} for bundle in bundles]
    request_resources(bundles=whole)
    try:
        while any(total(name) < n for name, n in asked.items()) and time.monotonic() < end:
            time.sleep(min(POLL_S, max(0.0, end - time.monotonic())))
    finally:
        request_resources(bundles=[])  # new nodes stay until they have been idle for a while


def gpus_each(asked: float | None, workers: int) -> float:
    """Return the GPUs of each worker: as asked, or 1 where the cluster has enough, else 0."""
    return asked if asked is not None else float(total("GPU") >= workers)


def total(resource: str) -> float:
    """Return the cluster's amount of a resource: "CPU", "GPU"."""
    import ray

    return float(ray.cluster_resources().get(resource, 0.0))
