"""The operations of nodes as compiled functions, over all ranges of float32."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special

from rnnclf.engine.machine.cache import compiled
from rnnclf.engine.machine.emit.functions import Elementwise
from rnnclf.engine.machine.emit.instructions import CodeModule, FunctionBuilder

UNARY = {
    "tanh": np.tanh,
    "erf": special.erf,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "sin": np.sin,
    "cos": np.cos,
    "atan": np.arctan,
    "floor": np.floor,
}
ULPS = {
    "tanh": 6,
    "erf": 7.5,
    "exp": 2,
    "log": 1.5,
    "log1p": 3,
    "expm1": 2,
    "rsqrt": 2,
    "sin": 1,
    "cos": 1,
    "atan": 1.5,
}
"""The largest errors allowed in float32, in units in the last place; half a unit where it is not said.

The first six are polynomials. Their limits leave room for processors without fused multiply-add.
"""


@cache
def functions(double: bool) -> dict[str, Any]:
    """A function for each operation, on vectors and on single numbers.

    It takes the addresses of two operands and of the result, and their length.
    """
    module = CodeModule(double)
    names = [*UNARY, "sigmoid", "relu", "sign", "neg", "abs", "maximum", "minimum", "lt", "ne"]
    for op in names:
        for vectors in (True, False):
            f = FunctionBuilder(module, f"{op}_{vectors}", ("a", "b", "c", "count"), False)
            step = f.size * (f.lanes if vectors else 1)
            with f.loop(0, f.mul(f.a["count"], f.size), step) as k:
                write = Elementwise(f, vectors)
                operands = [f.load(f.add(f.a[n], k), write.kind) for n in "ab"]
                two = op in ("maximum", "minimum", "lt", "ne")
                result = write.number(write.apply(op, operands[: 2 if two else 1]))
                f.store(result, f.add(f.a["c"], k))
            f.b.ret_void()
    wanted = tuple(f"{op}_{vectors}" for op in names for vectors in (True, False))
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    return {name: kind(address) for name, address in compiled(str(module.ir), wanted).items()}


def computed(op: str, a: np.ndarray, b: np.ndarray | None = None, vectors: bool = True) -> np.ndarray:
    """The results for a number of numbers that is a multiple of 16."""
    assert len(a) % 16 == 0
    b, c = a if b is None else b, np.empty_like(a)
    functions(a.dtype == np.float64)[f"{op}_{vectors}"](a.ctypes.data, b.ctypes.data, c.ctypes.data, len(a))
    return c


@cache
def hostile() -> np.ndarray:
    """Numbers from all over float32.

    Bit patterns with all exponents of both signs and NaN; the neighbourhoods in which functions change their
    formula; and the ends of all ranges.
    """
    every = np.arange(0, 2**32, 131_071, dtype=np.uint64).astype(np.uint32).view(np.float32)
    inner = np.concatenate([np.linspace(-r, r, 5_001, dtype=np.float32) for r in (0.01, 1, 9.5, 110)])
    tiny, least, largest = np.finfo(np.float32).tiny, np.float32(1e-45), np.finfo(np.float32).max
    ends = [
        0.0,
        tiny,
        np.nextafter(tiny, np.float32(0)),
        least,
        1.0,
        largest,
        np.inf,
        np.nan,
        88.7228,
        103.97,
    ]
    ends = np.array([*ends, *(-e for e in ends)], np.float32)
    numbers = np.concatenate([every, inner, 1 + inner * np.float32(1e-3), ends, np.zeros(16, np.float32)])
    return np.ascontiguousarray(numbers[: len(numbers) // 16 * 16])


def reference(function: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return function(x.astype(np.float64))


def ulps(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The distance in units in the last place of float32; infinite where only one of them is finite."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        unit = np.spacing(np.minimum(np.abs(rounded), np.finfo(np.float32).max)).astype(np.float64)
        distance = np.abs(found - exact) / unit
    same = (found == rounded) | (np.isnan(found) & np.isnan(exact))
    return np.where(
        same,
        np.minimum(np.nan_to_num(distance, nan=0.0, posinf=0.0), 0.5),
        np.nan_to_num(distance, nan=np.inf),
    )


@pytest.mark.parametrize("op", UNARY)
def test_a_function_of_float32_is_exact_to_a_few_units_in_the_last_place(op):
    x = hostile()
    error = ulps(computed(op, x), reference(UNARY[op], x))
    worst = int(error.argmax())
    assert error[worst] <= ULPS.get(op, 0.5), (x[worst], computed(op, x)[worst])


@pytest.mark.parametrize("vectors", [True, False])
def test_the_sigmoid_of_float32_is_exact_to_the_seventh_decimal(vectors):
    x = hostile()
    with np.errstate(all="ignore"):
        error = np.abs(computed("sigmoid", x, vectors=vectors) - 1 / (1 + np.exp(-x.astype(np.float64))))
    assert np.array_equal(np.isnan(error), np.isnan(x))
    assert np.nanmax(error) < 1.8e-7


@pytest.mark.long
@pytest.mark.parametrize("op", ["tanh", "exp", "log", "log1p"])
def test_single_numbers_are_as_exact_as_vectors(op):
    x = hostile()
    error = ulps(computed(op, x, vectors=False), reference(UNARY[op], x))
    assert error.max() <= ULPS[op]


@pytest.mark.long
@pytest.mark.parametrize("op", ["tanh", "exp", "log", "log1p", "expm1", "sin", "cos", "atan"])
def test_a_function_of_float64_is_the_c_librarys(op):
    x = hostile()[~np.isnan(hostile())][::97].astype(np.float64)
    x = np.abs(x[np.isfinite(x) & (np.abs(x) < 700) & (x != 0)])
    x = x[: len(x) // 16 * 16].copy()
    exact = np.array([getattr(math, op)(v) for v in x.tolist()])
    for vectors in (True, False):
        assert np.array_equal(computed(op, x, vectors=vectors), exact)


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.long)])
def test_operations_that_do_not_round_are_torchs(dtype, vectors):
    """At the same places NaN, too."""
    a = torch.from_numpy(hostile()).to(torch.float32 if dtype == np.float32 else torch.float64).numpy().copy()
    a = np.concatenate([a[::4], a[-64:]])[-(len(a) // 64 * 16) :].copy()
    b = np.roll(a, 17)
    b[::5] = a[::5]  # some equal
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    for op in ("relu", "sign", "neg", "abs", "floor"):
        expected = getattr(torch, op)(x).numpy()
        assert np.array_equal(computed(op, a, vectors=vectors), expected, equal_nan=True), op
    for op in ("maximum", "minimum", "lt", "ne"):
        expected = getattr(torch, op)(x, y).to(x.dtype).numpy()
        assert np.array_equal(computed(op, a, b, vectors=vectors), expected, equal_nan=True), op
