"""The line that says what was measured on, and TensorFlow made ready to be measured."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from deep_piano.infra.backend import load_tensorflow

PACKAGES = ("numpy", "scipy", "tensorflow", "tensorflow-cpu", "keras")


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
