"""Runs a stage as a job of a cluster: sends the code, shows the log, returns the exit code.

This module knows Ray's job server; it knows nothing of what a stage does. It sends no credentials:
jobs use those of the cluster's machines.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from deep_piano.errors import DeepPianoError, InputError, one_line
from deep_piano.infra import extras

logger = logging.getLogger(__name__)

STAGES: Final = ("prepare", "train", "generate", "pipeline")

# Ray refuses a working folder of more than 100 MiB, and would pack .git, environments and outputs.
_PACKED: Final = ("deep_piano", "jobs")
_SETTINGS: Final = "[!.]*.yaml"
EXCLUDES: Final = (
    *("/[!.]*", "/.?*", f"!/{_SETTINGS}"),
    *(f"!/{name}{below}" for name in _PACKED for below in ("", "/**")),
    "__pycache__",
)
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_PAUSE_S = 2.0
_PATIENCE_S = 60.0


def entrypoint(stage: str, arguments: Sequence[str]) -> str:
    """Return the command line to run on the cluster."""
    return shlex.join(["python", "-m", f"jobs.{stage}", *arguments])


def ray_command(address: str | None, stage: str, arguments: Sequence[str]) -> str:
    """Return the equivalent command of Ray's own command line, from the same folder.

    Without an address, `RAY_ADDRESS` decides when the command runs.
    """
    environment = json.dumps({"excludes": list(EXCLUDES)})
    words = ["ray", "job", "submit", *(("--address", address) if address else ())]
    words += ["--working-dir", "."]
    words += ["--runtime-env-json", environment, "--", *shlex.split(entrypoint(stage, arguments))]
    return shlex.join(words)


def require_checkout(folder: Path) -> None:
    """Raise `InputError` where a folder lacks a package that a job needs."""
    for name in _PACKED:
        if not (folder / name).is_dir():
            raise InputError(
                f"{one_line(folder)} has no folder {name}/, which the job needs. Run this in the "
                "repository."
            )


def is_sent(settings: Path) -> bool:
    """Tell whether a settings file in the working folder is sent with a job."""
    return fnmatchcase(settings.name, _SETTINGS)


def submit(
    address: str,
    stage: str,
    arguments: Sequence[str],
    *,
    folder: Path,
    show: Callable[[str], None],
    client: Callable[[str], Any] | None = None,
) -> int:
    """Run a stage as a job of a cluster, show its log while it runs, and return its exit code.

    Parameters
    ----------
    address : str
        Of the cluster's job server, as ``http://127.0.0.1:8265``.
    stage : str
        One of `STAGES`.
    arguments : sequence of str
        Of the stage's command.
    folder : Path
        The repository; only code and YAML files are sent.
    show : callable
        Called with each part of the log.
    client : callable, optional
        Makes the client of an address; Ray's own by default.

    Returns
    -------
    int
        The job's exit code; 1 where it has none because it was stopped or never ran.

    Raises
    ------
    InputError
        When the folder is not the repository, or Ray is not installed.
    DeepPianoError
        When the job server cannot be reached, or refuses.
    """
    require_checkout(folder)
    extras.require("ray")
    if os.environ.get("RAY_AUTH_TOKEN"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # else Ray does not send it
    from ray.exceptions import AuthenticationError

    if not logger.isEnabledFor(logging.DEBUG):
        logging.getLogger("ray").setLevel(logging.ERROR)  # it lists what it packs
    try:
        server = (client or _connect)(address)
        job = server.submit_job(
            entrypoint=entrypoint(stage, arguments),
            runtime_env={"working_dir": str(folder), "excludes": list(EXCLUDES)},
        )
        show(f"job {job}\n")
        asyncio.run(_follow(server, job, show))
        info = server.get_job_info(job)
    except AuthenticationError as error:
        raise DeepPianoError(
            f"the cluster at {one_line(address)} requires its token, and RAY_AUTH_TOKEN is "
            f"{'another one' if os.environ.get('RAY_AUTH_TOKEN') else 'not set'}. Set it to the "
            "cluster's (cluster/README.md)."
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise DeepPianoError(
            f"the job server at {one_line(address)} could not be used: {error} Is the cluster up, "
            "and its port forwarded (cluster/README.md)?"
        ) from error
    if str(info.status) == "SUCCEEDED":
        return 0
    if info.driver_exit_code is None and info.message:  # it never ran: no log says why
        show(f"{one_line(info.message)}\n")
    return int(info.driver_exit_code or 1)


def _connect(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    if not logger.isEnabledFor(logging.DEBUG):  # these loggers have their own levels
        for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)
    return JobSubmissionClient(address)


async def _follow(server: Any, job: str, show: Callable[[str], None]) -> None:
    """Show a job's log until the job has ended, even if the connection is lost meanwhile."""
    from aiohttp import ClientError  # Ray's client raises it too

    shown, answered = 0, time.monotonic()
    while True:
        passed = 0
        try:
            async for text in server.tail_job_logs(job):  # from the log's beginning
                passed += len(text)
                if passed > shown:
                    show(text[len(text) - (passed - shown) :])
                    shown = passed
        except (OSError, RuntimeError, ClientError):
            pass  # the status tells whether the job server is gone
        try:
            if str(server.get_job_status(job)) in _ENDED:
                return
            answered = time.monotonic()
        except (OSError, RuntimeError) as error:
            if time.monotonic() - answered > _PATIENCE_S:
                raise DeepPianoError(
                    f"the connection to the job server was lost: {one_line(error)}. The job goes "
                    f"on; follow it by `ray job logs --follow {job}`."
                ) from error
        time.sleep(_PAUSE_S)
