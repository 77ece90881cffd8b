"""Compiled products and time loops: right numbers, nothing outside their buffers, other processors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch

from rnnclf.engine.machine.cache import compiled
from rnnclf.engine.machine.code import CellCode
from rnnclf.engine.machine.emit.module import Module, Target
from rnnclf.engine.machine.emit.products import OUTER, PACK, PRODUCT
from rnnclf.engine.machine.schedule.planner import plan
from rnnclf.engine.machine.trace.tracer import record
from tests.engine.machine.buffers import Buffers, run
from tests.engine.machine.comparing import NAMES, VARIANTS, drawn, named
from tests.engine.machine.users_cells import COVERED

DTYPES = [np.float32, np.float64]
SIZES = [(1, 1, 1), (5, 3, 2), (6, 8, 9), (7, 17, 16), (13, 30, 33), (25, 2, 40)]


@cache
def products(dtype: Any) -> dict[str, Any]:
    names = {"product": PRODUCT, "outer": OUTER, "pack": PACK}
    at = compiled(str(Module(None, dtype == np.float64).ir), tuple(names))
    return {n: ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(names[n]))(at[n]) for n in names}


def padded(width: int, dtype: Any) -> int:
    lanes = Module(None, dtype == np.float64).lanes
    return -(-width // lanes) * lanes


def limit(dtype: Any) -> float:
    return 2e-5 if dtype == np.float32 else 1e-13


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_a_product_of_packed_weights_is_numpys(m, k, n, dtype):
    draw, buffers, size = np.random.default_rng(0), Buffers(dtype), np.dtype(dtype).itemsize
    columns = padded(n, dtype)
    a = buffers.new("a", [m, k + 3], 0)
    a[:] = draw.normal(size=a.shape)
    weight = draw.normal(size=(n, k)).astype(dtype)  # multiplied transposed: steps say so
    packed = buffers.new("packed", [k * columns], 0)
    c = buffers.new("c", [m, columns + 5], 1)
    pack, product = products(dtype)["pack"], products(dtype)["product"]
    half = k // 2
    for first, last in ((0, half), (half, k)):  # two blocks of rows
        source = weight.ctypes.data + first * size
        pack(source, size, k * size, last - first, n, packed.ctypes.data, k, columns, first, 0)
    expected = a[:, :k].astype(np.float64) @ weight.T
    for add in (0, 1):
        place = (a.ctypes.data, a.strides[0], m, packed.ctypes.data, k, k)
        product(add, *place, c.ctypes.data, c.strides[0], columns * size)
        np.testing.assert_allclose(c[:, :n], (1 + add) * expected, rtol=limit(dtype), atol=limit(dtype))
        assert not c[:, n:columns].any()
        assert (c[:, columns:] == 1).all()
    assert not buffers.damaged()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "m", "n"), [*SIZES, (3, 60, 20)])
def test_an_outer_product_is_numpys(rows, m, n, dtype):
    draw, buffers, size = np.random.default_rng(0), Buffers(dtype), np.dtype(dtype).itemsize
    columns = padded(n, dtype)
    a, b = buffers.new("a", [rows, m + 1], 0), buffers.new("b", [rows, columns], 0)
    a[:], b[:] = draw.normal(size=a.shape), draw.normal(size=b.shape)
    c = buffers.new("c", [m, columns], 1)
    places = (a.ctypes.data, a.strides[0], m, b.ctypes.data, b.strides[0], columns * size, rows)
    products(dtype)["outer"](*places, c.ctypes.data, c.strides[0])
    np.testing.assert_allclose(c, 1 + a[:, :m].T.astype(np.float64) @ b, rtol=limit(dtype), atol=limit(dtype))
    assert not buffers.damaged()


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rows_add_nothing(dtype):
    a, c = np.ones((4, 8), dtype), np.ones((8, 16), dtype)
    products(dtype)["outer"](
        a.ctypes.data, a.strides[0], 8, c.ctypes.data, c.strides[0], 64, 0, c.ctypes.data, 64
    )
    assert (c == 1).all()


def marked(names: Iterable[str], default: set[str], long: set[str]) -> list[Any]:
    """Some of all names in each run, some in the longer one, the rest before a release."""
    marks = {
        name: [] if name in default else [pytest.mark.long if name in long else pytest.mark.slow]
        for name in names
    }
    return [pytest.param(name, marks=marks[name]) for name in marks]


def check_buffers(cell: Any, dtype: torch.dtype) -> None:
    """More sequences than go through a step together; they end one after the other."""
    module = drawn(cell, 3, dtype)
    with torch.no_grad():
        x_TBI = torch.randn(3, 81, 3, dtype=dtype)
        with torch.enable_grad():
            code = CellCode(module.cell, vars(module.prepared()), 3)
        (clean, expected), (dirty, found) = (
            run(code, module, x_TBI, [81, 79, 1], fill) for fill in (0.0, np.nan)
        )
    assert not clean.damaged()
    assert not dirty.damaged()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
        assert not value.isnan().any(), name


@pytest.mark.parametrize("name", marked([*NAMES, *VARIANTS], {"basic"}, {"lem", "lnlstm"}))
def test_machine_code_stays_within_its_buffers_and_reads_nothing_that_it_has_not_written(name):
    check_buffers(named(name, 6), torch.float32)


@pytest.mark.parametrize("name", marked(COVERED, set(), {"output_beside_the_state"}))
def test_a_users_step_stays_within_its_buffers(name):
    check_buffers(COVERED[name](hidden_size=6), torch.float64)


TARGETS = [
    "aarch64-unknown-linux-gnu",
    "arm64-apple-darwin",
    "x86_64-pc-windows-msvc",
    "x86_64-unknown-linux-gnu",
]


@pytest.mark.parametrize("triple", marked(TARGETS, set(), {"arm64-apple-darwin"}))
@pytest.mark.parametrize("name", marked(["slstm", "softmax", "lnlstm"], {"slstm"}, {"softmax"}))
def test_the_text_compiles_for_other_processors(name, triple):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        machine = llvm.Target.from_triple(triple).create_target_machine(opt=2)
    except RuntimeError:
        pytest.skip(f"this llvmlite was built without {triple}")
    cell = COVERED[name](hidden_size=6) if name in COVERED else named(name, 6)
    module = cell.build(3)
    for dtype in (torch.float32, torch.float64):
        graph = record(module.cell, vars(module.to(dtype).prepared()), 3)
        double = dtype == torch.float64
        text = Module(plan(graph, 16 // (8 if double else 4)), double, Target(triple, 16)).ir
        parsed = llvm.parse_assembly(str(text))
        parsed.verify()
        assert "x86" not in str(text).replace(triple, "")
        assert len(machine.emit_object(parsed)) > 1000
