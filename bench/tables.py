"""Markdown tables, and the line under them that says what was measured on.

Knows nothing of what is measured.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

PACKAGES = ("numpy", "scipy", "tensorflow", "tensorflow-cpu", "keras")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Return a Markdown table.

    Parameters
    ----------
    head : sequence of str
    rows : sequence of sequence of str
    words : int
        How many of the first columns are words, and stand to the left; the others are numbers.

    Examples
    --------
    >>> print(markdown(["what", "s"], [["all", "1.0"]]))
    | what | s |
    | --- | ---: |
    | all | 1.0 |
    """
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rows])


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


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
