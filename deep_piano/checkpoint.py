"""A checkpoint: one folder with the weights, the codec's specification and the configuration.

``weights.safetensors`` holds float16 or float32 arrays named ``layer/variable``;
``checkpoint.json`` the rest. Loading executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.codecs.base import SequenceSpec
from deep_piano.errors import CheckpointError
from deep_piano.model import ModelConfig, weight_shapes

WEIGHTS, CARD, OPTIMIZER = "weights.safetensors", "checkpoint.json", "optimizer.safetensors"
SHIPPED = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """Weights and what is needed to use them.

    Attributes
    ----------
    spec : SequenceSpec
    config : ModelConfig
    weights : mapping of str to ndarray of float32
    digest : str
        SHA-256 of the weights' file ("" before it is saved).
    facts : mapping
        Where it comes from: step, figures; JSON-ready.
    """

    spec: SequenceSpec
    config: ModelConfig
    weights: Mapping[str, NDArray[np.float32]]
    digest: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def save(
    folder: Path,
    checkpoint: Checkpoint,
    *,
    half: bool = False,
    optimizer: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write a checkpoint, whole or not at all; one that is there is replaced.

    Parameters
    ----------
    folder : Path
    checkpoint : Checkpoint
    half : bool
        Store float16: half the size, for shipping.
    optimizer : mapping of str to ndarray, optional
        The optimizer's variables, to resume from.
    """
    from safetensors.numpy import save as to_bytes

    dtype = np.float16 if half else np.float32
    weights = {name: array.astype(dtype) for name, array in checkpoint.weights.items()}
    card = {
        "spec": checkpoint.spec.to_json(),
        "config": checkpoint.config.to_json(),
        "facts": dict(checkpoint.facts),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        (temporary / WEIGHTS).write_bytes(to_bytes(weights))
        if optimizer is not None:
            (temporary / OPTIMIZER).write_bytes(to_bytes(dict(optimizer)))
        (temporary / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        old = temporary.with_name(temporary.name + ".old")
        if folder.exists():
            folder.replace(old)
        try:
            temporary.replace(folder)
        except OSError:
            if old.exists():
                old.replace(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def find(name_or_path: str) -> Path:
    """Return the folder of a checkpoint: one that ships with the package, or a path.

    Raises
    ------
    CheckpointError
        When there is none.
    """
    for folder in (Path(name_or_path), SHIPPED / name_or_path):
        if (folder / CARD).is_file():
            return folder
    shipped = ", ".join(sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD}"))) or "none"
    raise CheckpointError(
        f"no checkpoint {name_or_path!r}: not a folder with {CARD}, and not one of those that "
        f"are shipped ({shipped}). Give one of these, or the folder of a checkpoint."
    )


def load(name_or_path: str, *, codec: str) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    name_or_path : str
        As for `find`.
    codec : str
        The codec that it must belong to.

    Raises
    ------
    CheckpointError
        When there is none, it is damaged, or it belongs to another codec.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_weights

    folder = find(name_or_path)
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        spec = SequenceSpec.from_json(card["spec"])
        config = ModelConfig.from_json(card["config"])
        data = (folder / WEIGHTS).read_bytes()
        weights = {name: a.astype(np.float32) for name, a in load_weights(data).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint {folder} is damaged: {error}. Give another copy of it."
        ) from error
    if spec.codec != codec:
        raise CheckpointError(
            f"the checkpoint {folder} belongs to the codec {spec.codec!r}, not {codec!r}. "
            "Give one that was trained on it."
        )
    for name, shape in weight_shapes(spec, config).items():
        found = weights[name].shape if name in weights else "missing"
        if found != shape:
            raise CheckpointError(
                f"the checkpoint {folder} is damaged: {name} is {found}, and should be "
                f"{shape}. Give another copy of it."
            )
    digest = hashlib.sha256(data).hexdigest()
    return Checkpoint(spec, config, weights, digest, card.get("facts", {}))


def load_optimizer(folder: Path) -> dict[str, NDArray[Any]]:
    """Read the optimizer's variables that `save` stored.

    Raises
    ------
    CheckpointError
        When the checkpoint has none, or they are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(folder / OPTIMIZER)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be resumed from: {error}") from error


def weights_of(model: Any) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a Keras model from `build_model`, named ``layer/variable``."""
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable.numpy(), np.float32)
        for layer in model.layers
        for variable in layer.trainable_variables
    }


def assign_weights(model: Any, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Put named weights into a Keras model from `build_model` of the same configuration."""
    for layer in model.layers:
        for variable in layer.trainable_variables:
            variable.assign(weights[f"{layer.name}/{variable.name}"])
