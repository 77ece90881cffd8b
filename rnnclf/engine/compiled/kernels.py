"""Kernels in machine code, compiled by Numba at first use: matrix products, packing of weights, tanh.

A BLAS packs the weights again for every product; here they are packed once for all steps of a batch. All
functions release the interpreter lock, so the cores compute their parts of a batch independently.

Numba caches compiled code per source file and checks that file's date. But a cached function includes the
code of functions it calls from other files, so `jit` makes every cache entry depend on all files of this
folder.

Shapes: T time, B batch, N sequences still running (the first of B), I inputs, H hidden; S = T + 1 states.
P: H padded to whole vectors, so that each gate and state starts at a vector boundary; the padding is zero
on the forward pass and contributes nothing on the backward pass. G: gates × P. K: the columns of an operand
row, which holds the inputs, a one (its weight is the bias) and a state. R: rows, one per step and sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.caching import NullCache
from numba.extending import intrinsic, overload

from rnnclf.engine.compiled.caching import has_cache_folder, tolerate_faults

F = TypeVar("F", bound=Callable[..., Any])

_STAMP = tuple(
    (file.name, file.stat().st_mtime, file.stat().st_size)
    for file in sorted(Path(__file__).parent.glob("*.py"))
)
"""Names, dates and sizes of the source files in this folder: cached machine code belongs to one such
state."""

# error_model: no check for division by zero, which would prevent vectorisation.
# fastmath: a · b + c may be rounded once (FMA); no other relaxations, since NaN must propagate.
# _nrt: no reference counting, which would cost two locked instructions per view. Python owns all arrays: none
# are allocated here, and no function called from Python returns a view.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}, "_nrt": False}


def jit(function: F) -> F:
    """Compiles a function that is called from Python, and caches its machine code on disk if possible."""
    compiled: Any = numba.njit(**_OPTIONS | {"cache": has_cache_folder()})(function)
    if not isinstance(compiled._cache, NullCache):
        compiled._cache._cache_file._source_stamp = _STAMP
        tolerate_faults(compiled._cache)
    return compiled  # type: ignore[no-any-return]


def inner(function: F, **options: Any) -> F:
    """Compiles a function that is only called from compiled code: without Python wrapper and disk cache."""
    compiled: F = numba.njit(
        **_OPTIONS | {"cache": False}, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options
    )(function)
    return compiled


def inlined(function: F) -> F:
    """Inlines a function into its caller: for functions with a single call site, or that return a view. It is
    then optimised once; functions compiled by `inner` are optimised again in each caller.

    Arrays that an inlined function writes to must be arguments of their own, not fields of a tuple: Numba
    treats the fields as local variables, and removes writes to them as dead code if nothing reads them
    back."""
    return inner(function, inline="always")


# Products


def _vector() -> int:
    """Bytes of a vector register of this processor."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx") else 16


VECTOR = _vector()
BLOCK = 80
"""Rows that are processed at a time when there are many. Measured."""
ROWS, PAIR = (12 if VECTOR == 64 else 6), 2
"""A tile of a product: the number of rows, and of vectors in each row, that are accumulated in registers.
That leaves enough of the 16 registers (32 of 512 bits) for the factors."""
TALLER = 1 if VECTOR == 64 else 0
"""Additional rows for which a tile still has registers."""
GROUP = 4 * ROWS
"""`product_over_rows` computes this many rows of its result at a time, so that their factors stay in the L1
cache, however many rows there are. Measured."""


def lanes(itemsize: int) -> int:
    """Numbers in a vector register."""
    return VECTOR // itemsize


def _tile(rows: int, vectors: int) -> Any:
    """Compiled code for one tile, C (M, V) = A (M, K) · B (K, V): M is at most `rows`, V is `vectors`
    vectors.

    Its arguments: 1 to add the product to C, otherwise 0; a number of the element type; the address of A and
    its strides between rows and columns; M; the address of B and its row stride; K; the address of C and its
    row stride. All strides are in bytes. Each element of A is broadcast to a vector and multiplied by a row
    of B; the sums stay in registers. If M is less than `rows`, the last row is computed again in place of the
    missing ones, with the same result.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        context: Any, add: Any, zero: Any, a: Any, a_row: Any, a_column: Any, m: Any,
        b: Any, b_row: Any, k: Any, c: Any, c_row: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _multiply(builder, context.get_value_type(signature.args[1]), rows, vectors, arguments)
            return context.get_dummy_value()

        return types.void(types.intp, zero, *[types.intp] * 9), generate

    return tile


def _multiply(builder: Any, number: Any, rows: int, vectors: int, arguments: Any) -> None:
    """Emits the instructions of a tile."""
    add, zero, a, a_row, a_column, m, b, b_row, k, c, c_row = arguments
    index, size = ir.IntType(64), 4 if isinstance(number, ir.FloatType) else 8
    vector, contract = ir.VectorType(number, lanes(size)), ("contract",)

    def pointer(address: Any, kind: Any) -> Any:
        return builder.inttoptr(address, kind.as_pointer())

    def vectors_at(address: Any) -> list[Any]:
        return [pointer(builder.add(address, index(v * VECTOR)), vector) for v in range(vectors)]

    def load(source: Any) -> Any:
        return builder.load(source, align=size)

    def broadcast(value: Any) -> Any:
        none = ir.Constant(vector, ir.Undefined)
        first = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return builder.shuffle_vector(builder.insert_element(none, value, ir.IntType(32)(0)), none, first)

    last = builder.sub(m, index(1))
    row_M = [builder.select(builder.icmp_signed("<", index(i), m), index(i), last) for i in range(rows)]
    a_M = [builder.add(a, builder.mul(row, a_row)) for row in row_M]
    targets = [target for row in row_M for target in vectors_at(builder.add(c, builder.mul(row, c_row)))]
    zeros = broadcast(zero)
    added = builder.icmp_signed("!=", add, index(0))
    starts = [builder.select(added, load(target), zeros) for target in targets]
    before, loop = builder.block, builder.append_basic_block("each_column")
    after = builder.append_basic_block("store")
    builder.cbranch(builder.icmp_signed(">", k, index(0)), loop, after)

    builder.position_at_end(loop)
    column, sums = builder.phi(index), [builder.phi(vector) for _ in targets]
    b_V = [load(source) for source in vectors_at(builder.add(b, builder.mul(column, b_row)))]
    offset = builder.mul(column, a_column)
    factors = [broadcast(load(pointer(builder.add(a_K, offset), number))) for a_K in a_M]
    products = [builder.fmul(factor, b_v, flags=contract) for factor in factors for b_v in b_V]
    nexts = [builder.fadd(*pair, flags=contract) for pair in zip(products, sums, strict=True)]
    next_column = builder.add(column, index(1))
    builder.cbranch(builder.icmp_signed("<", next_column, k), loop, after)

    builder.position_at_end(after)
    for phi, first, later in zip((column, *sums), (index(0), *starts), (next_column, *nexts), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    results = [builder.phi(vector) for _ in targets]
    for result, first, later in zip(results, starts, nexts, strict=True):
        result.add_incoming(first, before)
        result.add_incoming(later, loop)
    for result, target in zip(results, targets, strict=True):
        builder.store(result, target, align=size)


_wide, _narrow, _few = _tile(ROWS, PAIR), _tile(ROWS, 1), _tile(ROWS // 2, PAIR)
_tall = _tile(ROWS + TALLER, PAIR)


@inner
def _column_of_tiles(
    add: int, zero: Any, wide: bool, a: int, a_row: int, a_column: int, m: int, b: int, b_row: int, k: int,
    c: int, c_row: int,
) -> None:  # fmt: skip
    """All rows of a product that is as wide as a tile, or as one vector. Remaining rows are distributed over
    taller tiles, one row each, if there are enough tiles."""
    over, row = m % ROWS, 0
    tall = over if TALLER and wide and over <= m // ROWS else 0
    while row < m:
        n, a_n, c_n = min(m - row, ROWS + (tall > 0)), a + row * a_row, c + row * c_row
        if not wide:
            _narrow(add, zero, a_n, a_row, a_column, n, b, b_row, k, c_n, c_row)
        elif n > ROWS:
            _tall(add, zero, a_n, a_row, a_column, n, b, b_row, k, c_n, c_row)
        elif n > ROWS // 2:
            _wide(add, zero, a_n, a_row, a_column, n, b, b_row, k, c_n, c_row)
        else:
            _few(add, zero, a_n, a_row, a_column, n, b, b_row, k, c_n, c_row)
        row, tall = row + n, tall - 1


@inner
def address_of(array: Any) -> Any:
    return np.intp(
        array.ctypes.data
    )  # unsigned as it comes, and its sum with a signed stride would be float64


@jit
def product(a_NK: Any, weights: Any, rows: int, c_NG: Any, add: int) -> None:
    """C = A · B + `add` (0 or 1) · C. B has `rows` rows, in the layout of `pack`; only the first ones are
    used if A has fewer columns. The rows of C are whole vectors."""
    zero, size, k = c_NG.dtype.type(0), c_NG.itemsize, a_NK.shape[1]
    a, b, c = address_of(a_NK), address_of(weights), address_of(c_NG)
    columns, pair = c_NG.shape[1] * size, PAIR * VECTOR
    for column in range(0, columns, pair):
        width = min(pair, columns - column)
        _column_of_tiles(
            add, zero, width == pair, a, a_NK.strides[0], size, len(a_NK),
            b + column * rows, width, k, c + column, c_NG.strides[0],
        )  # fmt: skip


@jit
def product_of_many(a_RK: Any, weights: Any, c_RG: Any) -> None:
    """C = A · B for many rows, in blocks of rows that stay in the cache for all columns of B."""
    for row in range(0, len(a_RK), BLOCK):
        product(a_RK[row : row + BLOCK], weights, a_RK.shape[1], c_RG[row : row + BLOCK], 0)


@jit
def product_over_rows(a_RG: Any, b_RK: Any, c_GK: Any) -> None:
    """C += Aᵀ · B, in blocks of rows of A and B and of columns of A, so that both stay in the cache. The rows
    of C are whole vectors, and as many columns of B are read: the last ones may hold arbitrary values."""
    zero, size = c_GK.dtype.type(0), c_GK.itemsize
    a, b, c = address_of(a_RG), address_of(b_RK), address_of(c_GK)
    a_row, b_row, c_row = a_RG.strides[0], b_RK.strides[0], c_GK.strides[0]
    columns, pair = c_GK.shape[1] * size, PAIR * VECTOR
    for row in range(0, len(a_RG), BLOCK):
        n = min(BLOCK, len(a_RG) - row)
        for g in range(0, len(c_GK), GROUP):
            a_ng, c_g = a + row * a_row + g * size, c + g * c_row
            for column in range(0, columns, pair):
                _column_of_tiles(
                    1, zero, columns - column >= pair, a_ng, size, a_row, min(GROUP, len(c_GK) - g),
                    b + row * b_row + column, b_row, n, c_g + column, c_row,
                )  # fmt: skip


@intrinsic  # type: ignore[untyped-decorator]
def load_number(context: Any, address: Any, like: Any) -> Any:
    """Loads a number of the type of `like` from an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(signature.return_type)
        return builder.load(builder.inttoptr(arguments[0], kind.as_pointer()))

    return like(types.intp, like), generate


@intrinsic  # type: ignore[untyped-decorator]
def store_number(context: Any, address: Any, number: Any) -> Any:
    """Stores a number at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], arguments[1].type.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp, number), generate


# A row of a layout (N, 9) describes where a block (G, K) of a parameter is stored, transposed, in a matrix:
# the index of the parameter; the block's offset in it and its strides between rows and columns, in bytes; G
# and K; the index of the matrix; the row and column of the matrix at which the block begins.


@jit
def pack(layout_N9: Any, parameters: Any, matrices_M3: Any, size: int, zero: Any, part: int, of: int) -> None:
    """Packs parameters into matrices for `product`: all rows of the first PAIR of vectors, then all rows of
    the next pair, and so on. Does part `part` of `of` equal parts of the work.

    parameters: addresses. matrices_M3: address, rows and columns of each matrix. size: bytes of a number like
    `zero`.
    """
    pair = PAIR * VECTOR // size
    for n in range(len(layout_N9)):
        parameter, begin_at, g_step, k_step, g_count, k_count, matrix, k_first, begin = _row(layout_N9[n])
        at, rows, columns = matrices_M3[matrix, 0], matrices_M3[matrix, 1], matrices_M3[matrix, 2]
        source, end = parameters[parameter] + begin_at, begin + g_count
        for first in range(begin // pair * pair, end, pair):
            if first // pair % of != part:
                continue
            width = min(pair, columns - first)
            low, high = max(first, begin), min(first + width, end)
            for k in range(k_count):
                target = at + (first * rows + (k_first + k) * width + low - first) * size
                origin = source + (low - begin) * g_step + k * k_step
                for g in range(high - low):
                    store_number(target + g * size, load_number(origin + g * g_step, zero))


@inner
def _row(row_9: Any) -> Any:
    return row_9[0], row_9[1], row_9[2], row_9[3], row_9[4], row_9[5], row_9[6], row_9[7], row_9[8]


@jit
def add(sums_GK: Any, others_GK: Any) -> None:
    """Adds in place. Unlike NumPy it does not warn about NaN: the padding may hold arbitrary values."""
    for g in range(sums_GK.shape[0]):
        for k in range(sums_GK.shape[1]):
            sums_GK[g, k] += others_GK[g, k]


@jit
def unpack(layout_N9: Any, parameters: Any, sums_M2: Any, size: int, zero: Any) -> None:
    """Copies the results of `product_over_rows` to the parameters from which their blocks came.

    parameters: addresses of the parameters' gradients. sums_M2: address and row stride, in bytes, of each
    transposed matrix.
    """
    for n in range(len(layout_N9)):
        parameter, begin_at, g_step, k_step, g_count, k_count, matrix, k_first, begin = _row(layout_N9[n])
        at, step = sums_M2[matrix, 0], sums_M2[matrix, 1]
        for g in range(g_count):
            source = at + (begin + g) * step + k_first * size
            target = parameters[parameter] + begin_at + g * g_step
            for k in range(k_count):
                store_number(target + k * k_step, load_number(source + k * size, zero))


# Elementwise functions

# tanh(x) = x P(x²) / Q(x²) for |x| ≤ 9: least squares, reweighted until the largest relative error was
# minimal, 2 · 10⁻⁸. With float32 rounding the error is at most 4 · 10⁻⁷.
_P = tuple(map(np.float32, (9.99999979e-01, 1.33810390e-01, 3.49560325e-03, 2.06093005e-05, 1.33549081e-08)))
_Q = tuple(map(np.float32, (1.0, 4.67143546e-01, 2.58770417e-02, 3.28565821e-04, 7.77667094e-07)))
_P0, _P1, _P2, _P3, _P4 = _P
_Q0, _Q1, _Q2, _Q3, _Q4 = _Q
_END, _ONE = np.float32(9), np.float32(1)


def overload_for(function: Callable[..., Any], inline: str = "never") -> Callable[[F], F]:
    """Decorates a function that returns the implementation of `function` for given argument types."""
    decorator: Callable[[F], F] = overload(function, inline=inline)
    return decorator


def tanh(x: Any) -> Any:
    """tanh of one number, in compiled code: a rational function in float32, the C library's in float64."""
    raise NotImplementedError("tanh is for compiled code.")


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) of one number, in compiled code."""
    raise NotImplementedError("sigmoid is for compiled code.")


@overload_for(tanh)
def _tanh(x: Any) -> Any:
    def exact(x: Any) -> Any:
        return math.tanh(x)

    def rational(x: Any) -> Any:
        x = _END if x > _END else (-_END if x < -_END else x)  # NaN stays NaN
        u = x * x
        y = x * (_P0 + u * (_P1 + u * (_P2 + u * (_P3 + u * _P4))))
        y /= _Q0 + u * (_Q1 + u * (_Q2 + u * (_Q3 + u * _Q4)))
        return _ONE if y > _ONE else (-_ONE if y < -_ONE else y)

    return exact if x == types.float64 else rational


@overload_for(sigmoid)
def _sigmoid(x: Any) -> Any:
    half = np.float64(0.5) if x == types.float64 else np.float32(0.5)

    def through_tanh(x: Any) -> Any:
        return half * tanh(half * x) + half

    return through_tanh


@inner
def lanes_of(array: Any) -> Any:
    """Numbers of the array's type in a vector register."""
    return VECTOR // array.itemsize


# Arrays whose rows are whole vectors. Loops compile in half the time of NumPy's assignments.


def whole(numbers: int, itemsize: int) -> int:
    """`numbers` rounded up to whole vectors."""
    return -(-numbers // lanes(itemsize)) * lanes(itemsize)


def row_of(numbers: int, itemsize: int) -> int:
    """The length of padded rows for `numbers` numbers. It avoids multiples of a KiB: rows at such distances
    would compete for the same few sets of the L1 cache."""
    row = whole(numbers, itemsize)
    return row if row * itemsize % 1024 else row + lanes(itemsize)


@inner
def fill_zeros(a_NK: Any) -> None:
    """Fills the array with zeros."""
    for n in range(a_NK.shape[0]):
        for k in range(a_NK.shape[1]):
            a_NK[n, k] = 0
