"""TensorFlow and Keras, without what their native code writes to standard error on loading.

`TF_CPP_MIN_LOG_LEVEL` alone does not silence them: some are written before logging is set up.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType


def load_tensorflow() -> ModuleType:
    """Import TensorFlow quietly; errors are still raised.

    `TF_CPP_MIN_LOG_LEVEL`, where the user has set it, decides: below 2 nothing is hidden.
    """
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


def load_keras() -> ModuleType:
    """Import Keras with its backend, quietly; `KERAS_BACKEND` chooses (default: TensorFlow)."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        load_tensorflow()
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
