"""The layers of the transcription network, their weights, and the threads that share their work.

A row's result does not depend on the rows beside it, and no sum is shared among threads. This
module knows arrays and the checkpoint's names; it does not know what the network hears.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deep_piano.errors import AssetError
from deep_piano.infra.kernels import Kernel

Floats = NDArray[np.float32]

AROUND: Final = ((1, 1), (1, 1))
"""Zeros before and after the two axes of a convolution's input."""

_HEADS = 8
_GROUPS = 4
_TURNS = 8  # of each thread, so that none waits long for another at the end


class Team:
    """Calls a function for each of several parts, on as many threads."""

    def __init__(self, threads: int) -> None:
        self._pool, self._tasks = ThreadPoolExecutor(threads), threads * _TURNS

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def __call__(self, function: Callable[..., Any], parts: Any, *rest: Any) -> list[Any]:
        """Return what the function returns for each part."""
        size = max(1, -(-len(parts) // self._tasks))  # a task a part would wait more than it works

        def several(first: int) -> list[Any]:
            return [function(part, *rest) for part in parts[first : first + size]]

        found = self._pool.map(several, range(0, len(parts), size))
        return [one for some in found for one in some]


def parts_of(count: int, size: int) -> list[slice]:
    """Return slices of at most `size` that cover so many."""
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


class Weights:
    """The checkpoint's arrays by name, each checked for the shape that the network needs."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def __call__(self, name: str, *shape: int | None) -> Floats:
        """Return an array; a size of None may be any.

        Raises
        ------
        AssetError
            When it is missing.
        ValueError
            When it has another shape.
        """
        try:
            array = self._arrays[name]
        except KeyError:
            raise AssetError(
                f"the transcription weights have no array {name!r}: fetch the asset again."
            ) from None
        fits = len(array.shape) == len(shape) and all(
            wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=False)
        )
        if not fits:
            raise ValueError(f"{name} has shape {array.shape}, not {shape}")
        return np.asarray(array, np.float32)

    def dense(
        self, name: str, inputs: int, outputs: int | None = None, *, scale: Floats | None = None
    ) -> Kernel:
        """Return the product of a linear layer, its outputs multiplied by `scale`."""
        kernel = self(f"{name}.weight", outputs, inputs).T
        bias = self(f"{name}.bias", kernel.shape[1])
        return Kernel(kernel, bias) if scale is None else Kernel(kernel * scale, bias * scale)


class Convolution:
    """A convolution of 3 x 3."""

    def __init__(self, w: Weights, name: str, strides: tuple[int, int]) -> None:
        kernel = w(f"{name}.weight", None, None, 3, 3)
        columns = kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))  # (time, band, in) x out
        self._product = Kernel(columns, w(f"{name}.bias", len(kernel)))
        self._strides, self._outputs = strides, len(kernel)

    def __call__(
        self, x: Floats, team: Team, around: tuple[tuple[int, int], tuple[int, int]] = AROUND
    ) -> Floats:
        """Take shape (T, F, in), padded with zeros, to (T', F', out)."""
        padded = np.pad(x, (*around, (0, 0)))
        views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
        views = views[:: self._strides[0], :: self._strides[1]].transpose(0, 1, 3, 4, 2)
        out = np.empty((*views.shape[:2], self._outputs), np.float32)

        def row(index: int) -> None:
            out[index] = self._product(views[index].reshape(views.shape[1], -1))

        team(row, range(len(out)))
        return out


def norm_of(w: Weights, index: int) -> tuple[Floats, Floats]:
    """Return weight and bias of a group normalisation."""
    weight = w(f"backbone.downConv.{index}.weight", None)
    return weight, w(f"backbone.downConv.{index}.bias", len(weight))


def group_norm(x: Floats, weight: Floats, bias: Floats, team: Team, *, active: bool) -> None:
    """Normalise, in place, four groups of channels over time, band and channel; x: (T, F, C)."""
    from deep_piano.music.transkun_kernels import gelu

    def mean(rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        channels = np.mean(rows, axis=0)
        return np.repeat(channels.reshape(_GROUPS, -1).mean(axis=1), len(channels) // _GROUPS)

    centre = mean(team(lambda row: row.mean(axis=0, dtype="f8"), x))
    spread = mean(team(lambda row: np.square(row - centre).mean(axis=0), x))
    factor = weight / np.sqrt(spread + 1e-5)
    factor, offset = factor.astype("f4"), (bias - centre * factor).astype("f4")

    def normalise(row: Floats) -> None:
        row *= factor
        row += offset
        if active:
            gelu(row)

    team(normalise, x)


class Mlp:
    """Two linear layers with a GELU between them, the outputs multiplied by `scale`."""

    def __init__(
        self, w: Weights, name: str, inputs: int, outputs: int, *, scale: Floats | None = None
    ) -> None:
        from deep_piano.music.transkun_kernels import gelu

        self._gelu = gelu
        hidden = len(w(f"{name}.0.weight", None, inputs))
        self._first = w.dense(f"{name}.0", inputs)
        self._second = w.dense(f"{name}.3", hidden, outputs, scale=scale)

    def __call__(self, x: Floats) -> Floats:
        """Take shape (n, inputs) to (n, outputs)."""
        hidden = self._first(x)
        self._gelu(hidden)
        return self._second(hidden)


class Position:
    """Embeds coordinates (..., 1 or 2) by learned Fourier features and an MLP: (..., D)."""

    def __init__(self, w: Weights, name: str, axes: int) -> None:
        self._kernel = w(f"{name}.proj.weight", None, axes)
        self._bias = w(f"{name}.proj.bias", len(self._kernel))
        size = len(self._kernel)
        self._mlp = Mlp(w, f"{name}.mlp", size, size)

    def __call__(self, coordinates: NDArray[Any]) -> Floats:
        """Take shape (..., axes) to (..., D)."""
        flat = coordinates.reshape(-1, coordinates.shape[-1]).astype(np.float32)
        phase = flat @ self._kernel.T + self._bias
        features = np.cos(phase) / np.float32(math.sqrt(phase.shape[-1] / 2))
        return self._mlp(features).reshape(*coordinates.shape[:-1], -1)


class Block:
    """An attention and a feed-forward network, each added to its input."""

    def __init__(self, w: Weights, name: str, axis: str, size: int) -> None:
        from deep_piano.music.transkun_kernels import attend, normalised

        self._attend, self._normalised = attend, normalised
        attention, forward = f"{name}.mhaBlock{axis}", f"{name}.fnnBlock{axis}"
        q, k, v = (w(f"{attention}.module.{kind}_proj_weight", size, size) for kind in "qkv")
        self._queries = Kernel(q / np.float32(math.sqrt(size / _HEADS)))
        self._keys, self._values = Kernel(k), Kernel(v)
        scale = w(f"{attention}.scale", size)
        self._out = w.dense(f"{attention}.module.out_proj", size, size, scale=scale)
        scale = w(f"{forward}.scale", size)
        self._forward = Mlp(w, f"{forward}.module", size, size, scale=scale)

    def __call__(self, x: Floats, known: Floats) -> Floats:
        """Take x of shape (n, a, D) and what it attends to (n, b, D) to shape (n, a, D)."""
        size = x.shape[-1]
        h, memory = (np.ascontiguousarray(y).reshape(-1, size) for y in (x, known))
        queries = self._queries(self._normalised(h)).reshape(x.shape)
        keys, values = (
            product(memory).reshape(known.shape) for product in (self._keys, self._values)
        )
        found = [self._attend(*one, _HEADS) for one in zip(queries, keys, values, strict=True)]
        h = h + self._out(np.concatenate(found))
        h += self._forward(self._normalised(h))
        return h.reshape(x.shape)
