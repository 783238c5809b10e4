"""TensorFlow and Keras, without what their native code writes to standard error on loading.

`TF_CPP_MIN_LOG_LEVEL` alone does not silence them: some are written before logging is set up.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType


def load_tensorflow() -> ModuleType:
    """Import TensorFlow quietly; an error is raised as ever.

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
