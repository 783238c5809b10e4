"""Reading checkpoints: what the format allows, and nothing that a pickle could do beside it."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deep_piano.errors import AssetError
from deep_piano.infra.assets.torch_archive import read_torch_archive, torch_archive_to_safetensors

FLOATS = np.arange(6, dtype=np.float32)


class Storage:
    """A stand-in for a tensor's storage: `Writer` turns it into a reference to a member."""

    def __init__(self, key: str, values: np.ndarray, kind: str = "FloatStorage") -> None:
        self.key, self.values, self.kind = key, values, kind


class Tensor:
    """A stand-in that pickles as PyTorch's tensors do, without PyTorch."""

    def __init__(
        self, storage: Storage, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
    ) -> None:
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class Writer(pickle.Pickler):
    def persistent_id(self, item: Any) -> Any:
        if isinstance(item, Storage):
            kind = getattr(sys.modules["torch"], item.kind)
            return ("storage", kind, item.key, "cpu", item.values.size)
        return None


@pytest.fixture(autouse=True)
def _names_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide the names that a checkpoint's pickle refers to, so that one can be written."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in ("FloatStorage", "LongStorage", "DoubleStorage", "QuantumStorage"):
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_: Any) -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def write_archive(path: Path, content: Any, *storages: Storage, byteorder: str = "little") -> Path:
    stream = io.BytesIO()
    Writer(stream, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", stream.getvalue())
        archive.writestr("model/byteorder", byteorder)
        for storage in storages:
            archive.writestr(f"model/data/{storage.key}", storage.values.tobytes())
    return path


def test_tensors_of_nested_dictionaries_are_read(tmp_path: Path) -> None:
    storage = Storage("0", FLOATS)
    content = {
        "epoch": 7,
        "state_dict": OrderedDict(
            weight=Tensor(storage, (2, 3), (3, 1)),
            transposed=Tensor(storage, (3, 2), (1, 3)),
            tail=Tensor(storage, (2,), (1,), offset=4),
            scalar=Tensor(storage, (), (), offset=5),
            empty=Tensor(storage, (0, 4), (4, 1)),
        ),
    }
    tensors = read_torch_archive(write_archive(tmp_path / "model.pt", content, storage))
    assert list(tensors) == [
        f"state_dict.{name}" for name in ("weight", "transposed", "tail", "scalar", "empty")
    ]
    np.testing.assert_array_equal(tensors["state_dict.weight"], FLOATS.reshape(2, 3))
    np.testing.assert_array_equal(tensors["state_dict.transposed"], FLOATS.reshape(2, 3).T)
    np.testing.assert_array_equal(tensors["state_dict.tail"], [4, 5])
    assert tensors["state_dict.scalar"] == 5
    assert tensors["state_dict.empty"].shape == (0, 4)


@pytest.mark.parametrize("kind", ["LongStorage", "DoubleStorage"])
def test_number_types_are_kept(tmp_path: Path, kind: str) -> None:
    values = np.array([1, -2], {"LongStorage": "i8", "DoubleStorage": "f8"}[kind])
    storage = Storage("0", values, kind)
    path = write_archive(tmp_path / "m.pt", {"x": Tensor(storage, (2,), (1,))}, storage)
    np.testing.assert_array_equal(read_torch_archive(path)["x"], values, strict=True)


class Malicious:
    """Runs a command where it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, r"(posix|nt)\.system"), (eval, r"builtins\.eval|__builtin__\.eval")],
)
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, function: Any, name: str
) -> None:
    victim = tmp_path / "victim"
    argument = f"open({str(victim)!r}, 'w')" if function is eval else f"echo > '{victim}'"
    path = write_archive(tmp_path / "evil.pt", {"x": Malicious(function, argument)})
    with pytest.raises(AssetError, match=f"evil.pt: asks to run ({name}).*refused"):
        read_torch_archive(path)
    assert not victim.exists()


def test_a_global_beside_the_allowed_ones_is_refused(tmp_path: Path) -> None:
    storage = Storage("0", FLOATS, "QuantumStorage")
    path = write_archive(tmp_path / "m.pt", {"x": Tensor(storage, (6,), (1,))}, storage)
    with pytest.raises(AssetError, match=r"torch\.QuantumStorage.*refused"):
        read_torch_archive(path)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((2,), (1,), 5),
        ((2, 3), (300, 1), 0),
        ((2,), (1,), -1),
        ((3,), (-1,), 3),
        ((1000, 1000), (0, 0), 0),
        ((6,), (1, 1), 0),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    storage = Storage("0", FLOATS)
    content = {"x": Tensor(storage, shape, strides, offset)}
    path = write_archive(tmp_path / "m.pt", content, storage)
    with pytest.raises(AssetError, match="a tensor"):
        read_torch_archive(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    storage = Storage("0", np.zeros(5000, np.float32))
    path = write_archive(tmp_path / "m.pt", {"x": Tensor(storage, (5000,), (1,))}, storage)
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        with pytest.raises(AssetError, match=r"m\.pt is not a readable PyTorch checkpoint"):
            read_torch_archive(path)


def test_a_short_member_is_refused(tmp_path: Path) -> None:
    content = {"x": Tensor(Storage("0", FLOATS), (6,), (1,))}
    path = write_archive(tmp_path / "m.pt", content, Storage("0", FLOATS[:4]))
    with pytest.raises(AssetError, match="holds 4 numbers, not 6"):
        read_torch_archive(path)


def test_a_missing_member_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "m.pt", {"x": Tensor(Storage("0", FLOATS), (6,), (1,))})
    with pytest.raises(AssetError, match="not a readable PyTorch checkpoint"):
        read_torch_archive(path)


def test_big_endian_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "m.pt", {}, byteorder="big")
    with pytest.raises(AssetError, match="byte order"):
        read_torch_archive(path)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(AssetError, match=r"holds 0 data\.pkl members"):
        read_torch_archive(tmp_path / "m.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"nowhere\.pt"):
        read_torch_archive(tmp_path / "nowhere.pt")


def test_conversion_keeps_the_best_weights_as_float32(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    best, last = Storage("0", FLOATS), Storage("1", -FLOATS)
    steps = Storage("2", np.array([3]), "LongStorage")
    content = {
        "state_dict": OrderedDict(w=Tensor(last, (6,), (1,))),
        "best_state_dict": OrderedDict(
            w=Tensor(best, (3, 2), (1, 3)), steps=Tensor(steps, (1,), (1,))
        ),
        "optimizer": {"momentum": Tensor(last, (6,), (1,))},
    }
    source = write_archive(tmp_path / "model.pt", content, best, last, steps)
    torch_archive_to_safetensors(source, tmp_path / "new" / "weights.safetensors")
    weights = load_file(tmp_path / "new" / "weights.safetensors")
    assert list(weights) == ["w"]
    np.testing.assert_array_equal(weights["w"], FLOATS.reshape(2, 3).T, strict=True)


def test_conversion_without_weights_leaves_no_file(tmp_path: Path) -> None:
    source = write_archive(tmp_path / "model.pt", {"epoch": 1})
    with pytest.raises(AssetError, match="holds no weights"):
        torch_archive_to_safetensors(source, tmp_path / "weights.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]
