"""The element-wise loops of the transcription network, and its attention, compiled.

Each works on float32 and on one row, or one query, as if it were alone, so that results do not
depend on how rows are shared among threads. This module loads Numba when it is imported, and
compiles on first use.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from deep_piano.infra import tiles
from deep_piano.infra.compiling import compiler
from deep_piano.infra.tiles import PANEL, tile

ROWS: Final = 8  # of a tile

_compiled, _inner = (
    compiler(__file__, tiles.__file__, fastmath={"contract"}, inner=inner)
    for inner in (False, True)
)
_summing = compiler(__file__, fastmath={"contract", "reassoc"})
_add_product = tile(ROWS, 1)

_f = np.float32
_HALF, _ONE, _SQRT_HALF = _f(0.5), _f(1), _f(np.sqrt(0.5))
_SMALLEST, _LOG2_E = _f(-87), _f(1 / np.log(2))
_LN2_HIGH = _f(0.693359375)  # exact in nine bits, so that its multiples are exact too
_LN2_LOW = _f(np.log(2) - 0.693359375)
_E2, _E3, _E4, _E5, _E6, _E7 = (_f(1 / n) for n in (2, 6, 24, 120, 720, 5040))
# Abramowitz and Stegun 1964, 7.1.26: off by at most 1.5e-7.
_P, _A1, _A2 = _f(0.3275911), _f(0.254829592), _f(-0.284496736)
_A3, _A4, _A5 = _f(1.421413741), _f(-1.453152027), _f(1.061405429)


@intrinsic
def _float_of(_: Any, bits: Any) -> Any:
    """Return the float that has these 32 bits."""

    def generate(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@_inner
def _exp(x: Any) -> Any:
    """Return e to a power that is at most 0, without a branch, so that LLVM computes many."""
    x = max(x, _SMALLEST)
    halvings = np.int32(_HALF - x * _LOG2_E)  # what is above 0 is cut to whole numbers downwards
    whole = _f(halvings)
    r = (x + whole * _LN2_HIGH) + whole * _LN2_LOW
    tail = _E2 + r * (_E3 + r * (_E4 + r * (_E5 + r * (_E6 + r * _E7))))
    bits = np.int32((np.int32(127) - halvings) << np.int32(23))
    return (_ONE + (r + r * r * tail)) * _float_of(bits)  # type: ignore[call-arg]


@_compiled
def gelu(x: Any) -> None:
    """Apply the Gaussian error linear unit, x times the normal distribution's integral, in place.

    Parameters
    ----------
    x : ndarray of float32, shape (n, m)
    """
    for row in range(len(x)):
        values = x[row]
        for i in range(len(values)):
            size = abs(values[i]) * _SQRT_HALF
            t = _ONE / (_ONE + _P * size)
            tail = t * (_A1 + t * (_A2 + t * (_A3 + t * (_A4 + t * _A5)))) * _exp(-size * size)
            above = _ONE - _HALF * tail
            values[i] *= above if values[i] > 0 else _HALF * tail


@_summing
def normalised(x: Any) -> Any:
    """Return rows divided by the root of their mean square, shape of `x`: (n, m)."""
    out = np.empty_like(x)
    for row in range(len(x)):
        total = _f(0)
        for column in range(x.shape[1]):
            total += x[row, column] * x[row, column]
        factor = _ONE / np.sqrt(total / _f(x.shape[1]) + _f(1e-6))
        for column in range(x.shape[1]):
            out[row, column] = x[row, column] * factor
    return out


@_compiled
def attend(queries: Any, keys: Any, values: Any, heads: int) -> Any:
    """Return the mean of the values, weighted by the softmax of the inner products.

    The products of a panel of queries lie transposed, a query a lane, so that maximum, exponential
    and sum run down the columns.

    Parameters
    ----------
    queries : ndarray of float32, shape (n, heads * size)
        Scaled.
    keys, values : ndarray of float32, shape (m, heads * size)
    heads : int

    Returns
    -------
    ndarray of float32, shape (n, heads * size)
    """
    count, width = queries.shape
    size, known = width // heads, len(keys)
    blocks, parts = -(-known // ROWS), -(-size // ROWS)
    one = _f(1)
    out = np.empty((count, width), np.float32)
    packed_keys = np.zeros((blocks, ROWS, size), np.float32)
    packed_values = np.zeros((parts, ROWS, known), np.float32)
    panel = np.zeros((size, PANEL), np.float32)
    products = np.empty((blocks * ROWS, PANEL), np.float32)
    found = np.empty((parts * ROWS, PANEL), np.float32)
    for head in range(heads):
        first = head * size
        for key in range(known):
            for i in range(size):
                packed_keys[key // ROWS, key % ROWS, i] = keys[key, first + i]
                packed_values[i // ROWS, i % ROWS, key] = values[key, first + i]
        for query in range(0, count, PANEL):
            taken = min(PANEL, count - query)
            for lane in range(taken):
                for i in range(size):
                    panel[i, lane] = queries[query + lane, first + i]
            products[:] = 0
            for block in range(blocks):
                _add_product(
                    packed_keys[block].reshape(-1), panel.reshape(-1), 0, size,
                    products.reshape(-1), block * ROWS * PANEL, PANEL, one,
                )  # fmt: skip
            total = _softmax(products, known)
            found[:] = 0
            for part in range(parts):
                _add_product(
                    packed_values[part].reshape(-1), products.reshape(-1), 0, known,
                    found.reshape(-1), part * ROWS * PANEL, PANEL, one,
                )  # fmt: skip
            for lane in range(taken):
                for i in range(size):
                    out[query + lane, first + i] = found[i, lane] * total[lane]
    return out


@_inner
def _softmax(products: Any, known: int) -> Any:
    """Take the exponentials of the first rows in place; return what their sums divide by."""
    largest = products[0].copy()
    for key in range(1, known):
        for lane in range(PANEL):
            largest[lane] = max(largest[lane], products[key, lane])
    total = np.zeros(PANEL, np.float32)
    for key in range(known):
        for lane in range(PANEL):
            value = _exp(products[key, lane] - largest[lane])
            products[key, lane] = value
            total[lane] += value
    return _ONE / total
