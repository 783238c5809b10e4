"""Shared by the benchmarks: facts of the machine, timers, options."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import click
import numpy as np

from deep_piano.generate.files import OUTPUT_SUFFIXES
from deep_piano.infra.backend import load_tensorflow

PACKAGES = ("numpy", "scipy", "tensorflow", "tensorflow-cpu", "keras")

output_format = click.option(
    "--format",
    "suffix",
    default="mp3",
    show_default=True,
    type=click.Choice([suffix.removeprefix(".") for suffix in OUTPUT_SUFFIXES]),
    help="Of the piece; mid: no sound, quick.",
)

Round = Callable[[], list[float]]
"""Runs some steps; returns the seconds of each."""


def machine() -> str:
    """Return one line: the processor, how busy it is, and the versions that decide over speed."""
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{_processor()}, {cores} cores{load}; {', '.join(versions)}"


def ready_tensorflow() -> str:
    """Have TensorFlow use one thread, and the GPU that it sees; return the GPU's name, or ""."""
    tf = load_tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return ""
    from deep_piano.decoding.xla import prepare_gpu

    prepare_gpu()
    return str(tf.config.experimental.get_device_details(gpus[0])["device_name"])


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def ray_workers(root: int) -> list[int]:
    """Return the processes below `root` that do Ray's work, by their command line."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text("utf-8").rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue  # it has just ended
            children.setdefault(parent, []).append(int(folder.name))
    below, found = list(children.get(root, [])), []
    while below:
        pid = below.pop()
        below += children.get(pid, [])
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::") and b"Agent" not in name:
            found.append(pid)
    return found


def processor_s(pids: Sequence[int]) -> dict[int, float]:
    """Return the processor seconds of processes and of the children they have waited for."""
    used = {}
    for pid in pids:
        with suppress(OSError, ValueError):  # it has just ended
            ticks = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[11:15]
            used[pid] = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return used


def in_turn(ways: dict[str, Round], *, rounds: int) -> dict[str, float]:
    """Return each way's median seconds a step over all its rounds, all ways taken in turn."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            took[name] += way()
    return {name: float(np.median(seconds)) for name, seconds in took.items()}


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def tell(message: str) -> None:
    """Print what is being measured, to standard error."""
    click.echo(message, err=True)
