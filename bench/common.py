"""What benchmarks share: the machine in a line, TensorFlow made ready, memory watched, options."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import click

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

SAMPLED_EVERY_S = 0.2


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


@dataclass(frozen=True)
class Memory:
    """The most that was held at once, in bytes: by all, by the driver, by the largest worker."""

    whole: int
    driver: int
    largest_worker: int


@contextmanager
def memory_watched() -> Iterator[list[Memory]]:
    """Watch this process and Ray's workers below it; the list holds the peaks after the block.

    Counted is what belongs to a process alone (RssAnon): no file that several have mapped, and no
    shared memory, so the object store is left out, and so are Ray's own services and FFmpeg.
    """
    peaks: list[Memory] = []
    samples: list[tuple[int, list[int]]] = []
    done = threading.Event()

    def look() -> None:
        workers = [anonymous_bytes(pid) for pid in ray_workers(os.getpid())]
        samples.append((anonymous_bytes(os.getpid()), workers))

    def watch() -> None:
        while not done.wait(SAMPLED_EVERY_S):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    if Path("/proc/self/status").is_file():
        thread.start()
    try:
        yield peaks
    finally:
        done.set()
    if thread.ident is not None:
        look()  # however short the block was
        thread.join()
    if samples:
        peaks.append(
            Memory(
                whole=max(driver + sum(workers) for driver, workers in samples),
                driver=max(driver for driver, _ in samples),
                largest_worker=max(max(workers, default=0) for _, workers in samples),
            )
        )


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


def anonymous_bytes(pid: int) -> int:
    """Return the resident memory that is a process's own; 0 where it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


def processor_s(pids: Sequence[int]) -> dict[int, float]:
    """Return the processor seconds of processes and of the children they have waited for."""
    used = {}
    for pid in pids:
        with suppress(OSError, ValueError):  # it has just ended
            ticks = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[11:15]
            used[pid] = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return used
