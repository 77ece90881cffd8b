"""The products of the compiled engine: equal to NumPy's at every size, and nothing written beside them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.engine.compiled import kernels

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}
SIZES = st.integers(1, 40)
GUARD = 7.0


def of_width(width: int, folder: Path, changed: pytest.MonkeyPatch):
    """The module as it is on a processor with vectors of so many bytes, its machine code kept apart."""
    features = {"avx": width >= 32, "avx512f": width >= 64}
    changed.setattr(kernels.llvm, "get_host_cpu_features", lambda: features)
    changed.setattr(numba.config, "CACHE_DIR", str(folder))
    spec = importlib.util.spec_from_file_location(f"vectors_of_{width}", kernels.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert width == module.VECTOR
    return module


@pytest.fixture(
    scope="module", params=[None, *(pytest.param(width, marks=pytest.mark.long) for width in (16, 64))]
)
def code(request, tmp_path_factory):
    if request.param is None:
        yield kernels
        return
    with pytest.MonkeyPatch.context() as changed:
        yield of_width(request.param, tmp_path_factory.mktemp("widths"), changed)


def packed(code, b_KG, parts=1):
    (rows, columns), size = b_KG.shape, b_KG.itemsize
    wide = code.whole(columns, size)
    weights = np.zeros(rows * wide, b_KG.dtype)
    block = np.array([[0, 0, size, columns * size, columns, rows, 0, 0, 0]])
    place = np.array([[weights.ctypes.data, rows, wide]])
    for part in range(parts):
        code.pack(block, np.array([b_KG.ctypes.data]), place, size, b_KG.dtype.type(0), part, parts)
    return weights


@pytest.mark.long
@pytest.mark.parametrize("dtype", TOLERANCE)
@settings(max_examples=20, deadline=None)
@given(n=SIZES, k=SIZES, g=SIZES, add=st.sampled_from([0, 1]), data=st.data())
def test_a_product_equals_that_of_numpy_and_writes_nothing_else(code, dtype, n, k, g, add, data):
    rng = np.random.default_rng(n * 10_000 + k * 100 + g)
    used = data.draw(st.integers(0, k))
    a_NK, b_KG = rng.normal(size=(n, k)).astype(dtype), rng.normal(size=(k, g)).astype(dtype)
    wide = code.whole(g, b_KG.itemsize)
    place = np.full((n + 2, wide + 3), GUARD, dtype)
    c_NG = place[1:-1, 1 : wide + 1]
    c_NG[:] = start = rng.normal(size=c_NG.shape).astype(dtype)
    code.product(a_NK[:, :used], packed(code, b_KG), k, c_NG, add)
    expected = a_NK[:, :used].astype(np.float64) @ b_KG[:used] + (start[:, :g] if add else 0)
    np.testing.assert_allclose(c_NG[:, :g], expected, rtol=0, atol=TOLERANCE[dtype] * (1 + np.sqrt(k)))
    assert (c_NG[:, g:] == (start[:, g:] if add else 0)).all()
    c_NG[:] = GUARD
    assert (place == GUARD).all()


@pytest.mark.long
@pytest.mark.parametrize("dtype", TOLERANCE)
@settings(max_examples=20, deadline=None)
@given(r=st.integers(1, 200), k=SIZES, g=SIZES)
def test_a_product_over_rows_equals_that_of_numpy_and_writes_nothing_else(code, dtype, r, k, g):
    rng = np.random.default_rng(r * 10_000 + k * 100 + g)
    wide = code.whole(g, np.dtype(dtype).itemsize)
    a_RK, b_RG = rng.normal(size=(r, k + 5)).astype(dtype), rng.normal(size=(r, wide + 1)).astype(dtype)
    place = np.full((k + 2, wide + 3), GUARD, dtype)
    c_KG = place[1:-1, 1 : wide + 1]
    c_KG[:] = start = rng.normal(size=c_KG.shape).astype(dtype)
    code.product_over_rows(a_RK[:, 5:], b_RG[:, :wide], c_KG)
    expected = start + a_RK[:, 5:].T.astype(np.float64) @ b_RG[:, :wide]
    np.testing.assert_allclose(c_KG, expected, rtol=0, atol=TOLERANCE[dtype] * (1 + np.sqrt(r)))
    c_KG[:] = GUARD
    assert (place == GUARD).all()


@pytest.mark.parametrize("columns", [1, 31, 32, 33, 100])
def test_matrices_laid_out_by_parts_are_those_laid_out_at_once(code, columns):
    b_KG = np.random.default_rng(columns).normal(size=(7, columns)).astype(np.float32)
    np.testing.assert_array_equal(packed(code, b_KG, parts=3), packed(code, b_KG))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("r", [1, 79, 80, 81, 160, 201])
def test_a_product_of_many_rows_is_that_of_all_of_them(code, dtype, r):
    rng = np.random.default_rng(r)
    a_RK, b_KG = rng.normal(size=(r, 9)).astype(dtype), rng.normal(size=(7, 21)).astype(dtype)
    whole, many = (np.full((r, code.whole(21, b_KG.itemsize)), GUARD, dtype) for _ in range(2))
    code.product(a_RK[:, 1:8], packed(code, b_KG), 7, whole, 0)
    code.product_of_many(a_RK[:, 1:8], packed(code, b_KG), many)
    np.testing.assert_array_equal(many, whole)


def test_a_product_keeps_what_is_not_a_number(code):
    a_NK, b_KG = np.full((3, 2), np.nan, np.float32), np.ones((2, 4), np.float32)
    c_NG = np.zeros((3, code.whole(4, 4)), np.float32)
    code.product(a_NK, packed(code, b_KG), 2, c_NG, 0)
    assert np.isnan(c_NG).all()


@pytest.mark.parametrize("numbers", [1, 150, 255, 256, 257, 4096])
def test_rows_are_whole_vectors_and_never_a_kib_apart(code, numbers):
    row = code.row_of(numbers, 4)
    assert row >= numbers
    assert row * 4 % code.VECTOR == 0
    assert row * 4 % 1024
