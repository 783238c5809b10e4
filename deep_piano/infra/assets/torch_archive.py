"""Reads weights from a PyTorch checkpoint without PyTorch, and without trusting the file.

A checkpoint is a zip: `NAME/data.pkl` describes tensors, `NAME/data/KEY` holds their bytes. A
pickle is a program, so it runs in an unpickler with four harmless functions that refuses all
others. This module knows the file format; it knows nothing of any model.

Format: https://pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from deep_piano.errors import AssetError
from deep_piano.infra.storage.atomic import atomic_path

_STORAGE_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
}


def read_torch_archive(path: Path) -> dict[str, NDArray[Any]]:
    """Read every tensor of a checkpoint.

    Parameters
    ----------
    path : Path
        A zip-format checkpoint (what `torch.save` has written since PyTorch 1.6).

    Returns
    -------
    dict of str to ndarray
        Nested dictionaries are flattened, with dots between their keys. Other values than tensors
        (epochs, settings) are left out. The arrays are read-only.

    Raises
    ------
    AssetError
        When the file is missing, cut short, not a checkpoint, or asks for any function other than
        those that rebuild a tensor.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(_flatten(_unpickle(archive)))
    except AssetError as error:
        raise AssetError(f"{path}: {error} Fetch it again from its publisher.") from error
    except Exception as error:  # a hostile or broken file can raise anything
        raise AssetError(
            f"{path} is not a readable PyTorch checkpoint ({type(error).__name__}: {error}). "
            "Fetch it again from its publisher."
        ) from error


def torch_archive_to_safetensors(source: Path, target: Path) -> None:
    """Write the inference weights of a checkpoint as float32 safetensors.

    Where a checkpoint holds several states (the optimizer's, the last and the best), the best model
    state is kept. The arrays keep the checkpoint's names.

    Parameters
    ----------
    source : Path
        A zip-format PyTorch checkpoint.
    target : Path
        Appears whole or not at all; its folder is created.

    Raises
    ------
    AssetError
        When `source` cannot be read or holds no weights.
    """
    from safetensors.numpy import save

    tensors = read_torch_archive(source)
    for state in ("best_state_dict.", "state_dict."):
        chosen = {
            name.removeprefix(state): value
            for name, value in tensors.items()
            if name.startswith(state)
        }
        if chosen:
            break
    weights = {
        name: np.ascontiguousarray(value, dtype=np.float32)
        for name, value in (chosen or tensors).items()
        if value.dtype.kind == "f"
    }
    if not weights:
        raise AssetError(f"{source} holds no weights. Fetch it again from its publisher.")
    with atomic_path(target) as temporary:
        temporary.write_bytes(save(weights))


def _unpickle(archive: zipfile.ZipFile) -> Any:
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise AssetError(f"holds {len(pickles)} data.pkl members; a checkpoint has one.")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist():
        order = archive.read(f"{root}byteorder")
        if order != b"little":
            raise AssetError(f"has byte order {order!r}; only b'little' is read.")
    with archive.open(pickles[0]) as stream:
        return _TensorUnpickler(stream, lambda key: archive.read(f"{root}data/{key}")).load()


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that can build dictionaries and arrays, and nothing else."""

    def __init__(self, stream: IO[bytes], read_member: Callable[[str], bytes]) -> None:
        super().__init__(stream)
        self._read_member = read_member
        self._storages: dict[str, NDArray[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        raise AssetError(f"asks to run {module}.{name}, which rebuilds no tensor: refused.")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        kind, dtype, key, _device, size = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise AssetError(f"refers to {kind!r}; only tensor storage is read.")
        if key not in self._storages:
            flat = np.frombuffer(self._read_member(key), dtype)
            if flat.size != size:
                raise AssetError(f"member data/{key} holds {flat.size} numbers, not {size}.")
            self._storages[key] = flat
        return self._storages[key]


def _rebuild_tensor(
    storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    """Return a view of `storage`; its strides count elements, as PyTorch's do."""
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
        raise AssetError(f"a tensor has shape {shape} and strides {strides}.")
    size = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if size > storage.size or (size and last >= storage.size):
        raise AssetError(f"a tensor of shape {shape} reaches past its storage.")
    steps = tuple(stride * storage.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def _rebuild_parameter(data: NDArray[Any], *_: Any) -> NDArray[Any]:
    return data


def _flatten(tree: Any, prefix: str = "") -> list[tuple[str, NDArray[Any]]]:
    """List the arrays of nested mappings as (dotted name, array)."""
    if isinstance(tree, np.ndarray):
        return [(prefix.removesuffix("."), tree)]
    if isinstance(tree, Mapping):
        return [pair for key, value in tree.items() for pair in _flatten(value, f"{prefix}{key}.")]
    return []
