"""Connects to a Ray cluster and asks for its resources."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from deep_piano.errors import DeepPianoError
from deep_piano.infra.logs import logs_json

logger = logging.getLogger(__name__)

POLL_S = 3.0
"""How long to wait between two looks at a cluster."""


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
    DeepPianoError
        When Ray cannot be reached or started.
    """
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
    options: dict[str, Any] = {"log_to_driver": logger.isEnabledFor(logging.DEBUG)}
    if address == "local":
        options |= {"num_cpus": cpus, "include_dashboard": False}
    try:
        ray.init(address=address, job_config=job, logging_level=logging.ERROR, **options)
    except Exception as error:  # a bare Exception where a local node does not start in time
        where = "here" if address == "local" else f"at RAY_ADDRESS={address}"
        raise DeepPianoError(f"no Ray cluster is available {where}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


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
