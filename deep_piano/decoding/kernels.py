"""Products of rows with a matrix of weights, each row's the same whatever rows are beside it.

A BLAS sums in another order for one row than for sixteen, so that a stream decoded in a batch would
drift from the same stream decoded alone. Here every element of a result is summed over the
inputs in turn, eight at a time, by the same instructions in every row. On one thread it is
about as quick as OpenBLAS (`bench/decode.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_BLOCK: Final = 1024  # columns of a result that are in work at once: they stay in the first cache
_STEP: Final = 8


class Kernel:
    """A matrix of weights, laid out for multiplying rows with it.

    Parameters
    ----------
    kernel : ndarray of float32, shape (inputs, outputs)
    bias : ndarray of float32, shape (outputs,), optional
    """

    def __init__(self, kernel: Array, bias: Array | None = None) -> None:
        inputs, outputs = kernel.shape
        self._inputs = -(-inputs // _STEP) * _STEP
        padded = np.zeros((self._inputs, outputs), np.float32)
        padded[:inputs] = kernel
        blocks = [padded[:, start : start + _BLOCK] for start in range(0, outputs, _BLOCK)]
        self._weights = np.concatenate([block.ravel() for block in blocks])
        self._bias = np.zeros(outputs, np.float32) if bias is None else bias.astype(np.float32)

    def __call__(self, rows: Array) -> Array:
        """Return the product and the bias: (n, inputs) to (n, outputs)."""
        if rows.shape[1] != self._inputs:
            padded = np.zeros((len(rows), self._inputs), np.float32)
            padded[:, : rows.shape[1]] = rows
            rows = padded
        out = np.empty((len(rows), len(self._bias)), np.float32)
        _multiply()(np.ascontiguousarray(rows), self._weights, self._bias, out)
        return out


@cache
def _multiply() -> Callable[[Array, Array, Array, Array], None]:
    """Compile the product, which takes half a second: (rows, weights, bias, result) -> None."""
    from numba import njit

    # A multiplication and an addition may become one instruction; nothing else may change.
    compiled = njit(fastmath={"contract"}, error_model="numpy")

    @compiled
    def add_eight(out: Any, weights: Any, x: Any) -> None:
        n = len(out)
        w0, w1, w2 = weights[:n], weights[n : 2 * n], weights[2 * n : 3 * n]
        w3, w4, w5 = weights[3 * n : 4 * n], weights[4 * n : 5 * n], weights[5 * n : 6 * n]
        w6, w7 = weights[6 * n : 7 * n], weights[7 * n : 8 * n]
        x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
        for i in range(n):
            some = out[i] + x0 * w0[i] + x1 * w1[i] + x2 * w2[i] + x3 * w3[i]
            out[i] = some + x4 * w4[i] + x5 * w5[i] + x6 * w6[i] + x7 * w7[i]

    @compiled
    def multiply(rows: Any, weights: Any, bias: Any, out: Any) -> None:
        inputs, outputs = rows.shape[1], out.shape[1]
        for start in range(0, outputs, _BLOCK):
            end = min(start + _BLOCK, outputs)
            width = end - start
            block = weights[start * inputs : end * inputs]
            for row in range(len(rows)):
                out[row, start:end] = bias[start:end]
            for k in range(0, inputs, _STEP):
                some = block[k * width : (k + _STEP) * width]
                for row in range(len(rows)):
                    add_eight(out[row, start:end], some, rows[row, k : k + _STEP])

    return cast(Callable[[Array, Array, Array, Array], None], multiply)
