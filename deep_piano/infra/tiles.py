"""The loops of a product: a tile of the result stays in registers while the inputs are summed.

Numba's own inner loop keeps a row of the result in the first cache and reads and writes it at every
input; a tile of registers does neither (Goto and van de Geijn 2008, doi:10.1145/1356052.1356053).
So the inner loop is written in LLVM's instructions. This module loads Numba when it is imported,
and compiles on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from deep_piano.infra.compiling import compiler

PANEL: Final = 32  # columns whose weights lie together
GROUP: Final = 4  # panels that one row takes at once
LANES: Final = 16  # floats of a vector; LLVM splits it where the machine's are shorter

_FLOAT, _HALF = ir.FloatType(), ir.HalfType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INDEX = ir.IntType(64)


def tile(rows: int, panels: int) -> Callable[..., None]:
    """Return a function for Numba's code that computes a tile of a product.

    Parameters
    ----------
    rows, panels : int
        The tile has `rows` rows and `panels * PANEL` columns.

    Returns
    -------
    callable
        ``(x, weights, column, inputs, out, at, width, back)``: to the tile of `out` (flat, `width`
        columns, the tile's first element at `at`) is added the product of `x` (flat, of shape
        (rows, inputs)) with the panels of `weights` from `column` on (flat, of shape (panels,
        inputs, PANEL), float32 or the bits of halves as uint16); the sum is multiplied by `back`.
    """
    parts = [(p, v) for p in range(panels) for v in range(PANEL // LANES)]

    @intrinsic
    def add_product(
        _: Any,
        x: Any,
        weights: Any,
        column: Any,
        inputs: Any,
        out: Any,
        at: Any,
        width: Any,
        back: Any,
    ) -> Any:
        given = (x, weights, types.intp, types.intp, out, types.intp, types.intp, types.float32)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = dict(zip(("x", "weights", "out"), (0, 1, 4), strict=True))
            pointers = {
                name: context.make_array(signature.args[i])(context, builder, args[i]).data
                for name, i in arrays.items()
            }
            column, inputs, at, width, back = (args[i] for i in (2, 3, 5, 6, 7))
            number = _FLOAT if weights.dtype == types.float32 else _HALF
            code = _Code(builder, pointers, number)
            first = builder.mul(column, inputs)
            starts = [
                builder.add(first, builder.mul(code.index(p * PANEL), inputs))
                for p in range(panels)
            ]
            places = [
                code.sum(at, builder.mul(code.index(row), width), p * PANEL + v * LANES)
                for row in range(rows)
                for p, v in parts
            ]
            sums = [code.load(code.pointers["out"], place, _VECTOR, 4) for place in places]

            def step(k: Any, sums: list[Any]) -> list[Any]:
                here = builder.mul(k, code.index(PANEL))
                loaded = [code.weights(code.sum(starts[p], here, v * LANES)) for p, v in parts]
                fresh = []
                for row in range(rows):
                    place = code.sum(builder.mul(code.index(row), inputs), k)
                    one = code.spread(builder.load(builder.gep(pointers["x"], [place])))
                    mine = sums[row * len(parts) : (row + 1) * len(parts)]
                    fresh += [
                        code.fma(one, some, total) for some, total in zip(loaded, mine, strict=True)
                    ]
                return fresh

            scale = code.spread(back)
            for place, total in zip(places, code.loop(inputs, sums, step), strict=True):
                code.store(builder.fmul(total, scale), place)
            return context.get_dummy_value()

        return types.void(*given), generate

    return add_product


class _Code:
    """What a tile needs of LLVM's instructions."""

    def __init__(self, builder: Any, pointers: dict[str, Any], number: ir.Type) -> None:
        self._builder, self.pointers, self._number = builder, pointers, number
        fma = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        self._fma = cgutils.get_or_insert_function(builder.module, fma, f"llvm.fma.v{LANES}f32")

    def index(self, number: int) -> Any:
        return ir.Constant(_INDEX, number)

    def sum(self, *terms: Any) -> Any:
        total, *rest = (self.index(t) if isinstance(t, int) else t for t in terms)
        for term in rest:
            total = self._builder.add(total, term)
        return total

    def load(self, pointer: Any, place: Any, of: ir.Type, align: int) -> Any:
        at = self._builder.gep(pointer, [place])
        return self._builder.load(self._builder.bitcast(at, of.as_pointer()), align=align)

    def weights(self, place: Any) -> Any:
        """Load a vector of weights as floats."""
        half = self._number == _HALF
        pointer = self._builder.bitcast(self.pointers["weights"], self._number.as_pointer())
        loaded = self.load(pointer, place, ir.VectorType(self._number, LANES), 2 if half else 4)
        return self._builder.fpext(loaded, _VECTOR) if half else loaded

    def store(self, value: Any, place: Any) -> None:
        at = self._builder.gep(self.pointers["out"], [place])
        self._builder.store(value, self._builder.bitcast(at, _VECTOR.as_pointer()), align=4)

    def spread(self, number: Any) -> Any:
        """Return a vector whose lanes are all `number`."""
        nothing, first = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        one = self._builder.insert_element(nothing, number, first)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self._builder.shuffle_vector(one, nothing, lanes)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self._builder.call(self._fma, [a, b, c])

    def loop(
        self, times: Any, sums: list[Any], step: Callable[[Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """Return the sums after `step` was taken so many times, at least once."""
        builder, before = self._builder, self._builder.block
        body, after = (builder.append_basic_block(name) for name in ("body", "after"))
        builder.branch(body)
        builder.position_at_end(body)
        k = builder.phi(_INDEX)
        k.add_incoming(self.index(0), before)
        carried = [builder.phi(_VECTOR) for _ in sums]
        for phi, begin in zip(carried, sums, strict=True):
            phi.add_incoming(begin, before)
        fresh = step(k, carried)
        following = builder.add(k, self.index(1))
        k.add_incoming(following, body)
        for phi, value in zip(carried, fresh, strict=True):
            phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed("<", following, times), body, after)
        builder.position_at_end(after)
        return fresh


_compiled, _inner = compiler(__file__), compiler(__file__, inner=True)
_eight, _four, _two, _one = tile(8, 1), tile(4, 1), tile(2, 2), tile(1, GROUP)


@_inner
def _taken(left: int) -> int:
    """Return how many rows of those that are left are taken at once."""
    return 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1


@_compiled
def multiply(rows: Any, weights: Any, bias: Any, back: Any, out: Any) -> None:
    """Multiply rows with a matrix.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, inputs)
    weights : ndarray of float32 or uint16, flat
        Of shape (panels, inputs, PANEL), the number of panels a multiple of GROUP; uint16: the bits
        of numbers in half precision.
    bias : ndarray of float32, shape (panels * PANEL,)
        Where each sum begins.
    back : float32
        Each sum is multiplied by it.
    out : ndarray of float32, shape (n, panels * PANEL)
        The result.
    """
    count, inputs = rows.shape
    width, group = len(bias), GROUP * PANEL
    for row in range(count):
        for column in range(width):
            out[row, column] = bias[column]
    if not inputs:
        return
    x, flat = rows.reshape(-1), out.reshape(-1)
    for first in range(0, width, group):
        row = 0
        while row < count:
            some, at, taken = x[row * inputs :], row * width, _taken(count - row)
            if taken == 8:
                for column in range(first, first + group, PANEL):
                    _eight(some, weights, column, inputs, flat, at + column, width, back)
            elif taken == 4:
                for column in range(first, first + group, PANEL):
                    _four(some, weights, column, inputs, flat, at + column, width, back)
            elif taken == 2:
                for column in range(first, first + group, 2 * PANEL):
                    _two(some, weights, column, inputs, flat, at + column, width, back)
            else:
                _one(some, weights, first, inputs, flat, at + first, width, back)
            row += taken
