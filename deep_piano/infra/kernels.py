"""Products of rows with a matrix of weights, each row's the same whatever rows are beside it.

A BLAS sums in another order for one row than for sixteen, so that a stream decoded in a batch would
drift from the same stream decoded alone. Here every element of a result is one chain of fused
multiply-adds over the inputs in turn, however many rows and columns are in work at once. Weights
that half precision holds exactly, as those of a shipped checkpoint, are read as halves: half the
bytes, and the same results to the last bit.

The product itself is `tiles.multiply`; `bench/decode.py` compares it with OpenBLAS.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_LARGEST_HALF: Final = 2.0**15


class Kernel:
    """A matrix of weights, laid out for multiplying rows with it.

    Parameters
    ----------
    kernel : ndarray of float32, shape (inputs, outputs)
    bias : ndarray of float32, shape (outputs,), optional
    """

    def __init__(self, kernel: Array, bias: Array | None = None) -> None:
        from deep_piano.infra.tiles import GROUP, PANEL, multiply

        self._multiply = multiply
        inputs, self._outputs = kernel.shape
        panels = GROUP * -(-self._outputs // (GROUP * PANEL))
        padded = np.zeros((inputs, panels * PANEL), np.float32)
        padded[:, : self._outputs] = kernel
        halves, factor = _as_halves(padded)
        numbers = padded if halves is None else halves
        # (panels, inputs, PANEL)
        self._weights = numbers.reshape(inputs, panels, PANEL).swapaxes(0, 1).ravel()
        # The chain of sums begins at the bias and is as large as the weights are stored.
        self._bias = np.zeros(panels * PANEL, np.float32)
        if bias is not None:
            self._bias[: self._outputs] = bias * np.float32(factor)
        self._back = np.float32(1 / factor)

    @property
    def nbytes(self) -> int:
        """How many bytes of weights a product reads."""
        return self._weights.nbytes

    def __call__(self, rows: Array) -> Array:
        """Return the product and the bias: (n, inputs) to (n, outputs)."""
        out = np.empty((len(rows), len(self._bias)), np.float32)
        self._multiply(np.ascontiguousarray(rows), self._weights, self._bias, self._back, out)
        return out[:, : self._outputs]


def _as_halves(numbers: Array) -> tuple[NDArray[np.uint16] | None, float]:
    """Return the bits of numbers in half precision and the factor they were scaled by.

    The factor is a power of two, which brings the numbers to where halves are densest; it changes
    no digit of a product. None and 1 where a half cannot hold one of them.
    """
    largest = float(np.abs(numbers).max(initial=0))
    if not 0 < largest < np.inf:
        return None, 1.0
    factor = float(2 ** np.floor(np.log2(_LARGEST_HALF / largest)))
    for some in (numbers[:1], numbers):  # one row tells most matrices that do not fit
        scaled = some * np.float32(factor)
        halves = scaled.astype(np.float16)
        if not np.array_equal(halves.astype(np.float32), scaled):
            return None, 1.0
    return halves.view(np.uint16), factor
