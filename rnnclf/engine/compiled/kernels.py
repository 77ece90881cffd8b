"""Kernels in machine code, compiled by Numba at first use: matrix products, packing of weights, tanh.

A BLAS packs the weights anew for every product; here they are packed once for all steps of a batch. Nothing
here holds the interpreter lock, so each core works through its part of a batch by itself.

Numba stores the compiled code next to each file, under the date of that file. A function that calls one of
another file holds its code, too, so `jit` dates every function by all files of this folder.

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
from numba.extending import intrinsic, overload

F = TypeVar("F", bound=Callable[..., Any])

_STAMP = tuple(
    (file.name, file.stat().st_mtime, file.stat().st_size)
    for file in sorted(Path(__file__).parent.glob("*.py"))
)
"""The state of the source files of this folder, by which stored machine code is known to be current."""

# error_model: no check for a division by zero, which would keep the processor from computing 16 at once.
# fastmath: a · b + c may be rounded once; nothing more of it, since NaN has to stay NaN. _nrt: no reference
# counts, which would cost two locked instructions for each view: Python owns all arrays, none is made here,
# and no function that Python calls returns a view.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}, "_nrt": False}


def jit(function: F) -> F:
    """Compiles a function that Python calls, and stores its machine code where there is a folder for it."""
    try:
        compiled: Any = numba.njit(**_OPTIONS)(function)
    except RuntimeError:  # no folder can be written: compiled anew in each process
        compiled = numba.njit(**_OPTIONS | {"cache": False})(function)
    else:
        compiled._cache._cache_file._source_stamp = _STAMP
    return compiled  # type: ignore[no-any-return]


def inner(function: F, **options: Any) -> F:
    """Compiles a function that only compiled code calls: it gets no Python wrapper and no stored code."""
    compiled: F = numba.njit(
        **_OPTIONS | {"cache": False}, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options
    )(function)
    return compiled


def inlined(function: F) -> F:
    """For a function with a single call site, or one that returns a view: compiled where it is called, once.
    What `inner` compiles is optimised again inside each caller.

    Arrays that such a function writes to must be arguments of their own, not fields of a tuple: Numba takes
    the fields for local variables, and drops writes to them as dead where nothing is read back."""
    return inner(function, inline="always")


# Products


def _vector() -> int:
    """Bytes that this processor computes with at once."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx") else 16


VECTOR = _vector()
BLOCK = 80
"""Rows of what has many that are taken at a time. Measured."""
ROWS, PAIR = (12 if VECTOR == 64 else 6), 2
"""A tile of a product: so many rows and vectors beside each other are summed in registers, which leaves
enough of the 16 (of 512 bits 32) for what is multiplied."""
TALLER = 1 if VECTOR == 64 else 0
"""Rows for which there still is room in a tile."""
GROUP = 4 * ROWS
"""Of sums over rows so many, times all columns, are computed before the next: what they are made of is then
read from the nearest cache, however many there are. Measured."""


def lanes(itemsize: int) -> int:
    """Numbers of a vector."""
    return VECTOR // itemsize


def _tile(rows: int, vectors: int) -> Any:
    """Compiled code for one tile, C (M, V) = A (M, K) · B (K, V): M up to `rows`, V the numbers of `vectors`.

    Its arguments: 1 where the product is added to C, or 0; a number of the type; the address of A, its steps
    from row to row and from column to column; M; the address of B, its step from row to row; K; the address
    of C, its step from row to row. All steps are in bytes. Each number of A is spread over a vector and
    multiplied with a row of B; the sums stay in registers. Where M is less than `rows`, the last row is
    computed again in place of each that is missing, to the same end.
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
    """The instructions of a tile."""
    add, zero, a, a_row, a_column, m, b, b_row, k, c, c_row = arguments
    index, size = ir.IntType(64), 4 if isinstance(number, ir.FloatType) else 8
    vector, contract = ir.VectorType(number, lanes(size)), ("contract",)

    def at(address: Any, kind: Any) -> Any:
        return builder.inttoptr(address, kind.as_pointer())

    def vectors_at(address: Any) -> list[Any]:
        return [at(builder.add(address, index(v * VECTOR)), vector) for v in range(vectors)]

    def load(place: Any) -> Any:
        return builder.load(place, align=size)

    def spread(value: Any) -> Any:
        none = ir.Constant(vector, ir.Undefined)
        first = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return builder.shuffle_vector(builder.insert_element(none, value, ir.IntType(32)(0)), none, first)

    last = builder.sub(m, index(1))
    row_M = [builder.select(builder.icmp_signed("<", index(i), m), index(i), last) for i in range(rows)]
    a_M = [builder.add(a, builder.mul(row, a_row)) for row in row_M]
    places = [place for row in row_M for place in vectors_at(builder.add(c, builder.mul(row, c_row)))]
    zeros = spread(zero)
    added = builder.icmp_signed("!=", add, index(0))
    starts = [builder.select(added, load(place), zeros) for place in places]
    before, loop = builder.block, builder.append_basic_block("each_column")
    after = builder.append_basic_block("store")
    builder.cbranch(builder.icmp_signed(">", k, index(0)), loop, after)

    builder.position_at_end(loop)
    column, sums = builder.phi(index), [builder.phi(vector) for _ in places]
    b_V = [load(place) for place in vectors_at(builder.add(b, builder.mul(column, b_row)))]
    there = builder.mul(column, a_column)
    factors = [spread(load(at(builder.add(a_K, there), number))) for a_K in a_M]
    products = [builder.fmul(factor, b_v, flags=contract) for factor in factors for b_v in b_V]
    nexts = [builder.fadd(*pair, flags=contract) for pair in zip(products, sums, strict=True)]
    next_column = builder.add(column, index(1))
    builder.cbranch(builder.icmp_signed("<", next_column, k), loop, after)

    builder.position_at_end(after)
    for phi, first, later in zip((column, *sums), (index(0), *starts), (next_column, *nexts), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    results = [builder.phi(vector) for _ in places]
    for result, first, later in zip(results, starts, nexts, strict=True):
        result.add_incoming(first, before)
        result.add_incoming(later, loop)
    for result, place in zip(results, places, strict=True):
        builder.store(result, place, align=size)


_wide, _narrow, _few = _tile(ROWS, PAIR), _tile(ROWS, 1), _tile(ROWS // 2, PAIR)
_tall = _tile(ROWS + TALLER, PAIR)


@inner
def _column_of_tiles(
    add: int, zero: Any, wide: bool, a: int, a_row: int, a_column: int, m: int, b: int, b_row: int, k: int,
    c: int, c_row: int,
) -> None:  # fmt: skip
    """All rows of what is as wide as a tile, or as one vector. Rows left over are given to the tiles, one
    to each, if these are enough."""
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
    return np.intp(array.ctypes.data)  # as it comes it has no sign, and sums with steps would be float64


@jit
def product(a_NK: Any, weights: Any, rows: int, c_NG: Any, add: int) -> None:
    """C = A · B + `add` (0 or 1) · C: B as `pack` has it, of so many rows, of which the first are used if
    A has fewer columns; C of whole vectors."""
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
    """C = A · B for many rows, some after the others, so that they stay in the near caches while the columns
    of B pass by."""
    for row in range(0, len(a_RK), BLOCK):
        product(a_RK[row : row + BLOCK], weights, a_RK.shape[1], c_RG[row : row + BLOCK], 0)


@jit
def product_over_rows(a_RG: Any, b_RK: Any, c_GK: Any) -> None:
    """C += Aᵀ · B, some rows after the others, and of these some columns of A, so that both stay in the near
    caches. C is of whole vectors, and so many columns of B are read; what is behind them means nothing."""
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
    """The number at an address, of the type of another one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(signature.return_type)
        return builder.load(builder.inttoptr(arguments[0], kind.as_pointer()))

    return like(types.intp, like), generate


@intrinsic  # type: ignore[untyped-decorator]
def store_number(context: Any, address: Any, number: Any) -> Any:
    """Puts a number at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], arguments[1].type.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp, number), generate


# A row of a layout says where a block of a parameter (G, K) lies in a matrix, transposed: the number of the
# parameter; where in it the block begins, its steps from row to row and from column to column, in bytes;
# G and K; the number of the matrix, and its row and column where the block begins.


@jit
def pack(layout_N9: Any, parameters: Any, matrices_M3: Any, size: int, zero: Any, part: int, of: int) -> None:
    """Lays blocks where `product` looks for them: of a matrix, the rows of each PAIR of vectors together, one
    behind the other, then those of the next. One part of so many of that work.

    parameters: addresses. matrices: of each its address, rows, columns. size: bytes of a number like `zero`.
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
                place = at + (first * rows + (k_first + k) * width + low - first) * size
                there = source + (low - begin) * g_step + k * k_step
                for g in range(high - low):
                    store_number(place + g * size, load_number(there + g * g_step, zero))


@inner
def _row(row_9: Any) -> Any:
    return row_9[0], row_9[1], row_9[2], row_9[3], row_9[4], row_9[5], row_9[6], row_9[7], row_9[8]


@jit
def add(sums_GK: Any, others_GK: Any) -> None:
    """Without the warnings of NumPy: what lies beside the sums may be anything."""
    for g in range(sums_GK.shape[0]):
        for k in range(sums_GK.shape[1]):
            sums_GK[g, k] += others_GK[g, k]


@jit
def unpack(layout_N9: Any, parameters: Any, sums_M2: Any, size: int, zero: Any) -> None:
    """Puts what `product_over_rows` has summed where the blocks came from.

    parameters: addresses of their gradients. sums: of each matrix, transposed, its address and its step from
    row to row.
    """
    for n in range(len(layout_N9)):
        parameter, begin_at, g_step, k_step, g_count, k_count, matrix, k_first, begin = _row(layout_N9[n])
        at, step = sums_M2[matrix, 0], sums_M2[matrix, 1]
        for g in range(g_count):
            source = at + (begin + g) * step + k_first * size
            place = parameters[parameter] + begin_at + g * g_step
            for k in range(k_count):
                store_number(place + k * k_step, load_number(source + k * size, zero))


# The numbers of a step

# tanh(x) = x P(x²) / Q(x²) for |x| ≤ 9: least squares, weighted anew until the largest relative error
# was least, 2 · 10⁻⁸. With the rounding of float32 it is off by no more than 4 · 10⁻⁷.
_P = tuple(map(np.float32, (9.99999979e-01, 1.33810390e-01, 3.49560325e-03, 2.06093005e-05, 1.33549081e-08)))
_Q = tuple(map(np.float32, (1.0, 4.67143546e-01, 2.58770417e-02, 3.28565821e-04, 7.77667094e-07)))
_P0, _P1, _P2, _P3, _P4 = _P
_Q0, _Q1, _Q2, _Q3, _Q4 = _Q
_END, _ONE = np.float32(9), np.float32(1)


def overload_for(function: Callable[..., Any], inline: str = "never") -> Callable[[F], F]:
    """For the function that gives the compiled code of `function` from the types of its arguments."""
    decorator: Callable[[F], F] = overload(function, inline=inline)
    return decorator


def tanh(x: Any) -> Any:
    """tanh of one number, inside compiled code: a fraction in float32, the library's in float64."""
    raise NotImplementedError("tanh is for compiled code.")


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) of one number, inside compiled code."""
    raise NotImplementedError("sigmoid is for compiled code.")


@overload_for(tanh)
def _tanh(x: Any) -> Any:
    def exact(x: Any) -> Any:
        return math.tanh(x)

    def fraction(x: Any) -> Any:
        x = _END if x > _END else (-_END if x < -_END else x)  # NaN stays
        u = x * x
        y = x * (_P0 + u * (_P1 + u * (_P2 + u * (_P3 + u * _P4))))
        y /= _Q0 + u * (_Q1 + u * (_Q2 + u * (_Q3 + u * _Q4)))
        return _ONE if y > _ONE else (-_ONE if y < -_ONE else y)

    return exact if x == types.float64 else fraction


@overload_for(sigmoid)
def _sigmoid(x: Any) -> Any:
    half = np.float64(0.5) if x == types.float64 else np.float32(0.5)

    def through_tanh(x: Any) -> Any:
        return half * tanh(half * x) + half

    return through_tanh


@inner
def lanes_of(array: Any) -> Any:
    """Numbers of a vector of such."""
    return VECTOR // array.itemsize


# Arrays whose rows are whole vectors. Loops instead of NumPy's assignments: half the time to make the code.


def whole(numbers: int, itemsize: int) -> int:
    """So many numbers and what is missing to whole vectors."""
    return -(-numbers // lanes(itemsize)) * lanes(itemsize)


def row_of(numbers: int, itemsize: int) -> int:
    """The length of rows that hold so many numbers. Rows that are a multiple of a KiB apart would meet in the
    same few places of the nearest cache."""
    row = whole(numbers, itemsize)
    return row if row * itemsize % 1024 else row + lanes(itemsize)


@inner
def fill_zeros(a_NK: Any) -> None:
    """Fills it with zeros."""
    for n in range(a_NK.shape[0]):
        for k in range(a_NK.shape[1]):
            a_NK[n, k] = 0
