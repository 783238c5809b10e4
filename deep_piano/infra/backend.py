"""TensorFlow, Keras and librosa: loaded with our own settings, and without their messages.

`TF_CPP_MIN_LOG_LEVEL` alone does not silence them: some are written before logging
is set up. ~/.keras/keras.json, which other programs may have written, is not read.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from deep_piano.infra import extras
from deep_piano.infra.caches import NO_FOLDER

logger = logging.getLogger(__name__)

_BACKENDS: Final = ("tensorflow", "torch", "jax")


def load_tensorflow() -> ModuleType:
    """Import TensorFlow quietly; errors are still raised.

    `TF_CPP_MIN_LOG_LEVEL`, where the user has set it, decides: below 2 nothing is hidden.

    Raises
    ------
    InputError
        When it is not installed.
    """
    extras.require("tensorflow")
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules or level in ("0", "1"):
        import tensorflow

        return tensorflow
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
    return tensorflow


def load_librosa() -> ModuleType:
    """Import librosa once Numba's cache, which its functions share, is safe (`infra.compiling`)."""
    import librosa

    import deep_piano.infra.compiling  # noqa: F401

    return librosa


def keras_backend() -> str:
    """Return the backend of Keras: `KERAS_BACKEND` if it is installed, else TensorFlow."""
    return _usable_backend(os.environ.get("KERAS_BACKEND") or "tensorflow")


@functools.cache
def _usable_backend(asked: str) -> str:
    if asked not in _BACKENDS:
        reason = f"not one of {', '.join(_BACKENDS)}"
    elif importlib.util.find_spec(asked) is None:
        reason = "not installed"
    else:
        return asked
    logger.warning("KERAS_BACKEND is %r, which is %s: TensorFlow is used.", asked, reason)
    return "tensorflow"


def require_keras() -> None:
    """Raise `InputError` unless Keras and its backend are installed; nothing is loaded."""
    extras.require("keras")
    if keras_backend() == "tensorflow":
        extras.require("tensorflow")


def load_keras() -> ModuleType:
    """Import Keras with the backend of `keras_backend`, quietly.

    If Keras is already loaded, its backend does not change.

    Raises
    ------
    InputError
        When it is not installed.
    """
    require_keras()
    if "keras" not in sys.modules:
        ours = {"KERAS_BACKEND": keras_backend(), "KERAS_HOME": NO_FOLDER}
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            if ours["KERAS_BACKEND"] == "tensorflow":
                load_tensorflow()
            import keras
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
    import keras

    return keras


def gpus() -> int:
    """Return the number of GPUs of the backend; this loads it."""
    backend = load_keras().backend.backend()
    if backend == "tensorflow":
        return len(load_tensorflow().config.list_physical_devices("GPU"))
    if backend == "torch":
        import torch

        return int(torch.cuda.device_count())
    import jax

    return sum(device.platform == "gpu" for device in jax.devices())


def mixed_precision() -> str:
    """Return the fastest dtype policy of this machine: bfloat16 where it is native."""
    if gpus():
        return "mixed_bfloat16"
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "float32"
    # Against float32, TensorFlow multiplies in bfloat16 at several times the rate with AMX, at
    # twice the rate with the avx512_bf16 of an AMD (Zen 5), and at 0.6 of it with that of an Intel.
    quick = "amx_bf16" in about or ("avx512_bf16" in about and "AuthenticAMD" in about)
    return "mixed_bfloat16" if quick else "float32"
