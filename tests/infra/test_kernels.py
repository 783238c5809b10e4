from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_piano.infra.kernels import Kernel


@pytest.mark.parametrize("inputs", [1, 7, 8, 209, 1024])
@pytest.mark.parametrize("outputs", [1, 88, 1024, 1500, 2048])
def test_it_is_the_product_with_the_bias(rng, inputs, outputs):
    kernel = rng.normal(size=(inputs, outputs)).astype(np.float32)
    bias = rng.normal(size=outputs).astype(np.float32)
    rows = rng.normal(size=(3, inputs)).astype(np.float32)
    np.testing.assert_allclose(
        Kernel(kernel, bias)(rows), rows @ kernel.astype(np.float64) + bias, atol=1e-3
    )
    np.testing.assert_allclose(Kernel(kernel)(rows), rows @ kernel.astype(np.float64), atol=1e-3)


def test_without_inputs_it_is_the_bias(rng):
    bias = rng.normal(size=5).astype(np.float32)
    product = Kernel(np.empty((0, 5), np.float32), bias)(np.empty((3, 0), np.float32))
    np.testing.assert_array_equal(product, np.tile(bias, (3, 1)))


@pytest.mark.parametrize("scale", [1e-6, 0.5, 300.0])
def test_halves_give_the_same_bits_as_floats(rng, scale):
    kernel = (rng.normal(size=(300, 200)) * scale).astype(np.float16).astype(np.float32)
    bias = (scale * rng.normal(size=200)).astype(np.float32)
    beside = np.full((300, 1), np.float32(scale * np.pi))  # no half: all are kept as floats
    rows = rng.normal(size=(15, 300)).astype(np.float32)
    as_floats = Kernel(np.hstack([kernel, beside]), np.append(bias, np.float32(0)))
    as_halves = Kernel(kernel, bias)
    assert as_halves.nbytes < 0.6 * as_floats.nbytes
    np.testing.assert_array_equal(as_halves(rows), as_floats(rows)[:, :200])


@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 300), st.integers(1, 2100))
@settings(max_examples=30)
def test_a_row_of_a_product_does_not_depend_on_the_rows_beside_it(seed, count, inputs, outputs):
    rng = np.random.default_rng(seed)
    kernel = Kernel(rng.normal(size=(inputs, outputs)).astype(np.float32))
    rows = rng.normal(size=(count, inputs)).astype(np.float32)
    together = kernel(rows)
    for row in rng.integers(count, size=3):
        np.testing.assert_array_equal(kernel(rows[row : row + 1])[0], together[row])


def test_there_may_be_no_rows():
    assert Kernel(np.ones((3, 5), np.float32))(np.empty((0, 3), np.float32)).shape == (0, 5)
