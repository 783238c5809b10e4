"""A checkpoint: one folder with the weights, the codec's specification and the configuration.

``checkpoint.json`` names the other files: ``weights-….safetensors``, with a judge
``judge-….safetensors``, with an index of its corpus ``corpus-….safetensors``, and in a checkpoint
to resume from ``training-….safetensors``, each named after its content. It is written last, so that
the folder, local or in S3, holds either the old checkpoint or the new one. Loading executes
nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from deep_piano.analysis.compact_index import CompactIndex
from deep_piano.analysis.judge import Judge
from deep_piano.codecs.base import SequenceSpec
from deep_piano.config.sections import StorageConfig
from deep_piano.errors import CheckpointError, FileError, InputError, one_line
from deep_piano.infra.storage.folder import Folder
from deep_piano.infra.storage.local import LocalFolder
from deep_piano.infra.storage.open import open_folder
from deep_piano.models.config import ModelConfig, weight_shapes

CARD: Final = "checkpoint.json"
BEST: Final = "best.json"
"""In a folder of runs: names the best run so far."""
BEST_OF_RUN: Final = "checkpoint/best"
"""Within a run."""
SHIPPED = Path(__file__).parents[1] / "checkpoints"

_RATES = range(4_000, 192_001)  # Hz: those of `prepare.sr`
_FILE_NAME = re.compile(r"(weights|judge|corpus|training)-[0-9a-f]{16}\.safetensors")


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
    judge : Judge, optional
        Chooses among candidates while a piece is decoded.
    corpus : CompactIndex, optional
        Of what it was trained on: pieces are compared with it.
    name : str
        What it was loaded by ("" before it is saved).
    """

    spec: SequenceSpec
    config: ModelConfig
    weights: Mapping[str, NDArray[np.float32]]
    digest: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    judge: Judge | None = None
    corpus: CompactIndex | None = None
    name: str = ""


def save(
    place: Folder | Path,
    checkpoint: Checkpoint,
    *,
    half: bool = False,
    training: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write a checkpoint, whole or not at all; it replaces an existing one.

    Parameters
    ----------
    place : Folder or Path
    checkpoint : Checkpoint
    half : bool
        Store float16: half the size, for shipping.
    training : mapping of str to ndarray, optional
        What training needs to resume from here.

    Raises
    ------
    InputError
        When the folder cannot be written to.
    """
    folder = place if isinstance(place, Folder) else open_folder(place)
    dtype = np.float16 if half else np.float32
    arrays: dict[str, dict[str, NDArray[Any]]]
    arrays = {"weights": {name: a.astype(dtype) for name, a in checkpoint.weights.items()}}
    if checkpoint.judge is not None:
        arrays["judge"] = checkpoint.judge.arrays()
    if checkpoint.corpus is not None:
        arrays["corpus"] = checkpoint.corpus.arrays()
    if training is not None:
        arrays["training"] = dict(training)
    card = {
        "spec": checkpoint.spec.to_json(),
        "config": checkpoint.config.to_json(),
        "facts": dict(checkpoint.facts),
        "files": {kind: _write(folder, kind, named) for kind, named in arrays.items()},
    }
    _write_card(folder, card)


def require_without(
    kind: Literal["judge", "corpus"], checkpoint: Checkpoint, folder: Folder, *, force: bool
) -> None:
    """Raise an InputError where the checkpoint of a folder has a judge, or an index, to lose."""
    if not force and getattr(checkpoint, kind) is not None:
        one = {"judge": "a judge", "corpus": "an index of its corpus"}[kind]
        raise InputError(
            f"{one_line(folder.uri)} has {one} already, which would be replaced. Give a copy of "
            "the checkpoint, or --force."
        )


def save_judge(folder: Folder, judge: Judge, *, digest: str) -> None:
    """Give a checkpoint a judge; one that it has is replaced: see `_save_beside`."""
    _save_beside(folder, "judge", judge.arrays(), digest)


def save_corpus(folder: Folder, corpus: CompactIndex, *, digest: str) -> None:
    """Give a checkpoint the index of its corpus, as `save_judge` gives it a judge."""
    _save_beside(folder, "corpus", corpus.arrays(), digest)


def _save_beside(
    folder: Folder, kind: str, arrays: Mapping[str, NDArray[Any]], digest: str
) -> None:
    """Add a file to the checkpoint of the weights with this digest.

    Raises
    ------
    CheckpointError
        When there is no checkpoint, it is damaged, or it has other weights by now.
    InputError
        When the folder cannot be written to.
    """
    card = _read_card(folder)
    try:
        now = str(card["files"]["weights"]["sha256"])
        if now != digest:
            raise CheckpointError(
                f"{one_line(folder.uri)} has other weights than its {kind} was made for "
                f"({digest[:12]} then, {now[:12]} now). Run this again once its training has ended."
            )
        card["files"][kind] = _write(folder, kind, arrays)
    except (KeyError, TypeError) as error:
        raise _damaged(folder, error) from error
    _write_card(folder, card)


def _write_card(folder: Folder, card: Mapping[str, Any]) -> None:
    """Make a checkpoint of the files that a card names; others of its kind go."""
    with folder.write(CARD) as path:
        path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    named = {file["name"] for file in card["files"].values()}
    for entry in folder.entries():
        if _FILE_NAME.fullmatch(entry.name) and entry.name not in named:
            folder.remove(entry.name)


def _write(folder: Folder, kind: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    from safetensors.numpy import save as to_bytes

    data = to_bytes(dict(arrays))
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{kind}-{sha256[:16]}.safetensors"
    with folder.write(name) as path:
        path.write_bytes(data)
    return {"name": name, "sha256": sha256}


def licence_of(checkpoint: Checkpoint) -> str | None:
    """Return the licence of weights that ship with the package, from their model card.

    They are known by their digest, wherever they lie; of others nothing is known.
    """
    for card in SHIPPED.glob(f"*/{CARD}"):
        weights = json.loads(card.read_text("utf-8"))["files"]["weights"]
        if weights["sha256"] == checkpoint.digest:
            text = card.with_name("README.md").read_text("utf-8")
            found = re.search(r"^\| licen[cs]e[^|]*\|\s*([^|]+?)\s*\|", text, re.M | re.I)
            return found[1] if found else None
    return None


def find(where: str, storage: StorageConfig | None = None) -> Folder:
    """Return the folder of a checkpoint.

    Parameters
    ----------
    where : str
        A folder or ``s3://`` prefix with a checkpoint, a run (its best one), a folder of runs that
        `deep-piano runs` has compared (the best one of the best run), or the name of one that ships
        with the package.
    storage : StorageConfig, optional
        How to reach ``s3://``.

    Raises
    ------
    CheckpointError
        When there is none.
    """
    given = open_folder(where, **(storage or StorageConfig()).model_dump())
    places = [given, given.inner(BEST_OF_RUN)]
    if isinstance(given, LocalFolder):
        places.append(open_folder(SHIPPED / where))
    for folder in places:
        if folder.exists(CARD):
            return folder
    if given.exists(BEST):
        try:
            best = given.inner(f"{json.loads(given.read_bytes(BEST))['run']}/{BEST_OF_RUN}")
        except (InputError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{given.place(BEST)} cannot be read: {error}. Run `deep-piano runs "
                f"{one_line(given.uri)}` again."
            ) from error
        if best.exists(CARD):
            return best
    shipped = ", ".join(sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD}"))) or "none"
    raise CheckpointError(
        f"no checkpoint {one_line(given.uri)!r}: it is neither a folder with {CARD}, nor a run, "
        f"nor a shipped checkpoint ({shipped}). Give one of these."
    )


def load(
    where: str | Folder,
    *,
    codec: str | Sequence[str] | None = None,
    storage: StorageConfig | None = None,
) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    where : str or Folder
        As for `find`, or an open folder.
    codec : str or sequence of str, optional
        The codec, or the codecs, that it may belong to.
    storage : StorageConfig, optional
        How to reach ``s3://``.

    Raises
    ------
    CheckpointError
        When there is none, it is damaged, or it belongs to another codec.
    """
    folder = where if isinstance(where, Folder) else find(where, storage)
    card = _read_card(folder)
    try:
        spec = SequenceSpec.from_json(card["spec"])
        config = ModelConfig.from_json(card["config"])
        weights = {name: a.astype(np.float32) for name, a in _read(folder, card, "weights").items()}
        digest, facts = str(card["files"]["weights"]["sha256"]), dict(card["facts"])
        shapes = weight_shapes(spec, config)
        judge = Judge.of(_read(folder, card, "judge")) if "judge" in card["files"] else None
        known = "corpus" in card["files"]
        corpus = CompactIndex.of(_read(folder, card, "corpus")) if known else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _damaged(folder, error) from error
    wanted = [codec] if isinstance(codec, str) else codec
    if wanted is not None and spec.codec not in wanted:
        raise CheckpointError(
            f"the checkpoint {one_line(folder.uri)} belongs to the codec {spec.codec!r}, not "
            f"{' or '.join(map(repr, wanted))}. Give one that was trained on it."
        )
    for name, shape in shapes.items():
        found = weights[name].shape if name in weights else "missing"
        if found != shape:
            raise _damaged(folder, f"{name} is {found}, not {shape}")
    for name in not_finite(weights):
        raise _damaged(folder, f"{name} holds NaN or infinity")
    if "sr" in facts and facts["sr"] not in _RATES:
        raise _damaged(folder, f"its sampling rate is {facts['sr']!r}")
    name = folder.uri if isinstance(where, Folder) else where
    return Checkpoint(spec, config, weights, digest, facts, judge, corpus, name)


def require_same_codec(checkpoint: Checkpoint, spec: SequenceSpec) -> None:
    """Raise `CheckpointError` where a checkpoint is of another codec than a dataset."""
    if checkpoint.spec != spec:
        raise CheckpointError(
            f"the checkpoint is of the codec {checkpoint.spec.codec!r} and the dataset of "
            f"{spec.codec!r}. Give a checkpoint and a dataset of one codec."
        )


def not_finite(weights: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Return the names of the weights that hold NaN or infinity."""
    return [name for name, array in weights.items() if not np.isfinite(array).all()]


def load_training(folder: Folder) -> dict[str, NDArray[Any]]:
    """Read what `save` stored for training to resume from.

    Raises
    ------
    CheckpointError
        When the checkpoint has no such data, or it is damaged.
    """
    card = _read_card(folder)
    try:
        return _read(folder, card, "training")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{one_line(folder.uri)} cannot be resumed from: {one_line(error)}. Give the run's own "
            "folder."
        ) from error


def _read_card(folder: Folder) -> dict[str, Any]:
    try:
        return dict(json.loads(folder.read_bytes(CARD)))
    except FileError as error:
        raise CheckpointError(
            f"no checkpoint: {one_line(folder.uri)} has no readable {CARD}."
        ) from error
    except (ValueError, TypeError) as error:
        raise _damaged(folder, error) from error


def _read(folder: Folder, card: Mapping[str, Any], kind: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of one file of a checkpoint; raise ValueError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    file = card["files"][kind]
    try:
        data = folder.read_bytes(str(file["name"]))
        if hashlib.sha256(data).hexdigest() != file["sha256"]:
            raise ValueError(f"the SHA-256 of {file['name']} does not match")
        arrays: dict[str, NDArray[Any]] = from_bytes(data)
    except (SafetensorError, FileError) as error:
        raise ValueError(str(error)) from error
    return arrays


def _damaged(folder: Folder, problem: object) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {one_line(folder.uri)} is damaged: {one_line(problem)}. Give another copy."
    )


def digest_of(weights: Mapping[str, NDArray[np.float32]]) -> NDArray[np.int32]:
    """Return the SHA-256 of weights as 8 integers, which workers can exchange as a tensor."""
    digest = hashlib.sha256()
    for name, array in sorted(weights.items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return np.frombuffer(digest.digest(), np.int32)


def weights_of(model: Any) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a Keras model from `build_model`, named ``layer/variable``."""
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable.numpy(), np.float32)
        for layer in model.layers
        for variable in layer.trainable_variables
    }


def assign_weights(model: Any, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Assign named weights to a Keras model from `build_model` with the same configuration."""
    for layer in model.layers:
        for variable in layer.trainable_variables:
            variable.assign(weights[f"{layer.name}/{variable.name}"])
