"""The workhorses through all steps in machine code, which Numba makes of these loops when first used.

The mathematics is that of rnnclf/cells/fused.py; what is saved are the calls, of which torch needs two dozen
a step, the memory between them, and in the products of a step the laying out of weights, which a BLAS does
anew each time. No loop holds Python's lock, so that each core walks through its part of a batch by itself.

Numba keeps the machine code beside this file, or in the user's cache, and knows by this file's date whether
it is still right: so all that is compiled stands here.

Shapes: T time, B batch, N sequences still running (the first of B), I inputs, H hidden; S = T + 1 states.
P: H and what is missing to whole vectors, so that each gate and state begins where a vector does; what is
added is zero on the way forward and comes to nothing on the way back. G gates × P. K: the columns of
operands, which are inputs, a one, whose weight is the bias, and a state. R rows, one for each step of each
sequence.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

F = TypeVar("F", bound=Callable[..., Any])

# No check for a division by zero, which would keep the processor from doing 16 at once; a · b + c rounded
# once. Not more of "fast math": NaN has to stay NaN. Nobody counts who holds an array ("_nrt"), which would
# take two locked instructions for each view: Python holds all of them, none is made here, and what is called
# returns no views.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}, "_nrt": False}


def jit(function: F) -> F:
    try:
        compiled: F = numba.njit(**_OPTIONS)(function)
    except RuntimeError:  # no folder to keep machine code in: it is made anew in each process
        compiled = numba.njit(**_OPTIONS | {"cache": False})(function)
    return compiled


def inner(function: F, **options: Any) -> F:
    """For what only compiled code calls: nothing is made for Python to call it, or kept of it by itself."""
    compiled: F = numba.njit(
        **_OPTIONS | {"cache": False}, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options
    )(function)
    return compiled


def part_of_its_caller(function: F) -> F:
    """For what is called from one place, or returns a view: compiled as it stands there, once. What `inner`
    compiles is optimised again within each caller, and that one within its own.

    Arrays that it writes to are arguments of its own, not fields of one: Numba takes these for its variables,
    and leaves writes to them out as useless, where nothing is read from them."""
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
def _address(array: Any) -> Any:
    return np.intp(array.ctypes.data)  # as it comes it has no sign, and sums with steps would be float64


@jit
def product(a_NK: Any, weights: Any, rows: int, c_NG: Any, add: int) -> None:
    """C = A · B + `add` (0 or 1) · C: B as `lay_out` has it, of so many rows, of which the first are used if
    A has fewer columns; C of whole vectors."""
    zero, size, k = c_NG.dtype.type(0), c_NG.itemsize, a_NK.shape[1]
    a, b, c = _address(a_NK), _address(weights), _address(c_NG)
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
    a, b, c = _address(a_RG), _address(b_RK), _address(c_GK)
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
def _load(context: Any, address: Any, like: Any) -> Any:
    """The number at an address, of the type of another one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(signature.return_type)
        return builder.load(builder.inttoptr(arguments[0], kind.as_pointer()))

    return like(types.intp, like), generate


@intrinsic  # type: ignore[untyped-decorator]
def _store(context: Any, address: Any, number: Any) -> Any:
    """Puts a number at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], arguments[1].type.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp, number), generate


# A row of a layout says where a block of a parameter (G, K) lies in a matrix, transposed: the number of the
# parameter; where in it the block begins, its steps from row to row and from column to column, in bytes;
# G and K; the number of the matrix, and its row and column where the block begins.


@jit
def lay_out(
    layout_N9: Any, parameters: Any, matrices_M3: Any, size: int, zero: Any, part: int, of: int
) -> None:
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
                    _store(place + g * size, _load(there + g * g_step, zero))


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
def take_back(layout_N9: Any, parameters: Any, sums_M2: Any, size: int, zero: Any) -> None:
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
                _store(place + k * k_step, _load(source + k * size, zero))


# The numbers of a step

# tanh(x) = x P(x²) / Q(x²) for |x| ≤ 9: least squares, weighted anew until the largest relative error
# was least, 2 · 10⁻⁸. With the rounding of float32 it is off by no more than 4 · 10⁻⁷.
_P = tuple(map(np.float32, (9.99999979e-01, 1.33810390e-01, 3.49560325e-03, 2.06093005e-05, 1.33549081e-08)))
_Q = tuple(map(np.float32, (1.0, 4.67143546e-01, 2.58770417e-02, 3.28565821e-04, 7.77667094e-07)))
_P0, _P1, _P2, _P3, _P4 = _P
_Q0, _Q1, _Q2, _Q3, _Q4 = _Q
_END, _ONE = np.float32(9), np.float32(1)


def _compiled_as(function: Callable[..., Any], inline: str = "never") -> Callable[[F], F]:
    """For the function that gives the compiled code of `function` from the types of its arguments."""
    decorator: Callable[[F], F] = overload(function, inline=inline)
    return decorator


def tanh(x: Any) -> Any:
    """tanh of one number, inside compiled code: a fraction in float32, the library's in float64."""
    raise NotImplementedError("tanh is for compiled code.")


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) of one number, inside compiled code."""
    raise NotImplementedError("sigmoid is for compiled code.")


@_compiled_as(tanh)
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


@_compiled_as(sigmoid)
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


class Row(NamedTuple):
    """What lies where in a row of operands: inputs, a one, and from `first` on, where a vector begins, the
    state, hidden numbers and what is missing to whole vectors. What is before the inputs means nothing."""

    inputs: int
    first: int
    hidden: int
    wide: int


@inner
def _start(states_BP: Any, start_BH: Any) -> None:
    """The first states, with zeros behind."""
    hidden = start_BH.shape[1]
    for row in range(len(start_BH)):
        for k in range(hidden):
            states_BP[row, k] = start_BH[row, k]
        for k in range(hidden, states_BP.shape[1]):
            states_BP[row, k] = 0


@inner
def _begin(a_SBK: Any, at: Any, start_BH: Any, x: int, x_steps: Any) -> None:
    """Fills in the first states, and of all steps the ones and the inputs: x is the address of these, the
    steps are those from time to time, sequence to sequence and feature to feature, in bytes."""
    zero, one = a_SBK.dtype.type(0), a_SBK.dtype.type(1)
    _start(a_SBK[0, :, at.first : at.first + at.wide], start_BH)
    for t in range(len(a_SBK) - 1):
        for row in range(a_SBK.shape[1]):
            a_K, there = a_SBK[t, row, at.first - at.inputs - 1 :], x + t * x_steps[0] + row * x_steps[1]
            a_K[at.inputs] = one
            for i in range(at.inputs):
                a_K[i] = _load(there + i * x_steps[2], zero)


@part_of_its_caller
def _operands(a_SBK: Any, t: int, n: int, at: Any, stateful: bool) -> Any:
    """Inputs, a one and, if it is not but zeros, the state."""
    return a_SBK[t, :n, at.first - at.inputs - 1 : at.first + (at.hidden if stateful else 0)]


@inner
def _add_sums(
    z_TBG: Any, begin: int, at: Any, gates: int, a_SBK: Any, first: int, t: int, n: int, stateful: bool,
    sums_GK: Any,
) -> None:  # fmt: skip
    """Adds the sums over n sequences at step t: of the gradients of some gates, the first of which begins
    there, times operands from `first` on, where a vector begins, up to the state or to its end."""
    z_NG, a_NK = z_TBG[t % len(z_TBG), :n], a_SBK[t, :n]
    columns = sums_GK.shape[1] if stateful else at.first - first
    for gate in range(0, gates * at.wide, at.wide):
        product_over_rows(
            z_NG[:, begin + gate : begin + gate + at.hidden],
            a_NK[:, first:],
            sums_GK[gate : gate + at.hidden, :columns],
        )


@inner
def _hold(states_SBP: Any, t: int, n: int, first: int, wide: int) -> None:
    """After step t, the states of the sequences that have ended are those before it."""
    for row in range(n, states_SBP.shape[1]):
        for k in range(first, first + wide):
            states_SBP[t + 1, row, k] = states_SBP[t, row, k]


@inner
def _clear(z_TBG: Any, t: int, n: int) -> None:
    """Sums of sequences that have ended have no gradients."""
    for row in range(n, z_TBG.shape[1]):
        for k in range(z_TBG.shape[2]):
            z_TBG[t, row, k] = 0


@inner
def _add(dy_TBH: Any, t: int, dh_BP: Any) -> None:
    """Adds the gradients of the outputs of step t, where there are any."""
    if len(dy_TBH):
        for row in range(dy_TBH.shape[1]):
            for k in range(dy_TBH.shape[2]):
                dh_BP[row, k] += dy_TBH[t, row, k]


# basic


@jit
def basic(
    a_SBK: Any,
    at: Any,
    x: int,
    x_steps: Any,
    start_BH: Any,
    sums_BP: Any,
    weights: Any,
    running_T: Any,
    started: bool,
    relu: bool,
) -> None:
    """Fills in the operands, which hold the states."""
    _begin(a_SBK, at, start_BH, x, x_steps)
    _basic_on(a_SBK, at, sums_BP, weights, running_T, started, relu)


@inner
def _basic_on(
    a_SBK: Any, at: Any, sums_BP: Any, weights: Any, running_T: Any, started: bool, relu: bool
) -> None:
    """All steps, from operands that hold all but the states."""
    zero, rows = a_SBK.dtype.type(0), at.inputs + 1 + at.hidden
    for t in range(len(running_T)):
        n = running_T[t]
        product(_operands(a_SBK, t, n, at, t > 0 or started), weights, rows, sums_BP[:n], 0)
        for row in range(n):
            h_P, sums_P = a_SBK[t + 1, row, at.first :], sums_BP[row]
            for k in range(at.wide):
                if relu:
                    h_P[k] = zero if sums_P[k] <= 0 else sums_P[k]
                else:
                    h_P[k] = tanh(sums_P[k])
        _hold(a_SBK, t, n, at.first, at.wide)


@jit
def basic_back(
    a_SBK: Any,
    at: Any,
    da_TBP: Any,
    weights: Any,
    running_T: Any,
    started: bool,
    relu: bool,
    dy_TBH: Any,
    dh_BP: Any,
    sums_GK: Any,
) -> None:
    """Fills in the gradients of the sums, for which there are as many places as steps, or one for all; adds
    those of the weights; those of the last state become those of the first."""
    zero = dh_BP.dtype.type(0)
    for t in range(len(running_T) - 1, -1, -1):
        n = running_T[t]
        _add(dy_TBH, t, dh_BP)
        for row in range(n):
            h_P, dh_P, da_P = a_SBK[t + 1, row, at.first :], dh_BP[row], da_TBP[t % len(da_TBP), row]
            for k in range(at.wide):
                if relu:
                    da_P[k] = zero if h_P[k] <= 0 else dh_P[k]
                else:
                    da_P[k] = dh_P[k] - dh_P[k] * h_P[k] * h_P[k]
        _clear(da_TBP, t % len(da_TBP), n)
        if t > 0 or started:
            product(da_TBP[t % len(da_TBP), :n, : at.hidden], weights, at.hidden, dh_BP[:n], 0)
        _add_sums(da_TBP, 0, at, 1, a_SBK, 0, t, n, t > 0 or started, sums_GK)


# lstm: gates i, f, g, o


@jit
def lstm(
    a_SBK: Any,
    at: Any,
    x: int,
    x_steps: Any,
    start_BH: Any,
    start_c_BH: Any,
    c_SBP: Any,
    gates_TBG: Any,
    weights: Any,
    running_T: Any,
    started: bool,
) -> None:
    """Fills in the operands, which hold the states h, the states c, and the gates: for these there are as
    many places as steps, or one for all."""
    _begin(a_SBK, at, start_BH, x, x_steps)
    _start(c_SBP[0], start_c_BH)
    _lstm_on(a_SBK, at, c_SBP, gates_TBG, weights, running_T, started)


@inner
def _lstm_on(
    a_SBK: Any, at: Any, c_SBP: Any, gates_TBG: Any, weights: Any, running_T: Any, started: bool
) -> None:
    """All steps, from operands that hold all but the states."""
    wide, rows = at.wide, at.inputs + 1 + at.hidden
    for t in range(len(running_T)):
        n = running_T[t]
        operands_NK = _operands(a_SBK, t, n, at, t > 0 or started)
        gates_NG = gates_TBG[t % len(gates_TBG), :n]
        product(operands_NK, weights, rows, gates_NG[:, : 4 * wide], 0)
        for row in range(n):
            gates_G, c_P = gates_NG[row], c_SBP[t + 1, row]
            _to_sigmoid(gates_G[: 2 * wide])
            _to_tanh(gates_G[2 * wide : 3 * wide])
            _to_sigmoid(gates_G[3 * wide : 4 * wide])
            _new_cell(gates_G, c_SBP[t, row], c_P)
            _new_output(gates_G[3 * wide :], c_P, a_SBK[t + 1, row, at.first :])
        _hold(a_SBK, t, n, at.first, wide)
        _hold(c_SBP, t, n, 0, wide)


@inner
def _to_sigmoid(a_K: Any) -> None:
    for k in range(len(a_K)):
        a_K[k] = sigmoid(a_K[k])


@inner
def _to_tanh(a_K: Any) -> None:
    for k in range(len(a_K)):
        a_K[k] = tanh(a_K[k])


@inner
def _new_cell(gates_G: Any, before_P: Any, c_P: Any) -> None:
    wide = len(c_P)
    for k in range(wide):
        c_P[k] = gates_G[wide + k] * before_P[k] + gates_G[k] * gates_G[2 * wide + k]


@inner
def _new_output(o_P: Any, c_P: Any, h_P: Any) -> None:
    for k in range(len(c_P)):
        h_P[k] = o_P[k] * tanh(c_P[k])


@jit
def lstm_back(
    a_SBK: Any,
    at: Any,
    c_SBP: Any,
    gates_TBG: Any,
    weights: Any,
    running_T: Any,
    started: bool,
    dy_TBH: Any,
    dh_BP: Any,
    dc_BP: Any,
    sums_GK: Any,
) -> None:
    """The gates become the gradients of their sums, and those of the weights are added; those of the last
    states become those of the first."""
    wide, rows = at.wide, 3 * at.wide + at.hidden
    for t in range(len(running_T) - 1, -1, -1):
        n = running_T[t]
        _add(dy_TBH, t, dh_BP)
        for row in range(n):
            gates_G, dc_P = gates_TBG[t, row], dc_BP[row]
            _through_output(gates_G[3 * wide :], c_SBP[t + 1, row], dh_BP[row], dc_P)
            _through_cell(gates_G, c_SBP[t, row], dc_P)
        _clear(gates_TBG, t, n)
        if t > 0 or started:
            product(gates_TBG[t, :n, :rows], weights, rows, dh_BP[:n], 0)
        _add_sums(gates_TBG, 0, at, 4, a_SBK, 0, t, n, t > 0 or started, sums_GK)


@inner
def _through_output(o_P: Any, c_P: Any, dh_P: Any, dc_P: Any) -> None:
    for k in range(len(c_P)):
        o, squashed = o_P[k], tanh(c_P[k])
        squashed_dh = dh_P[k] * o
        dc_P[k] += squashed_dh - squashed_dh * squashed * squashed
        o_P[k] = dh_P[k] * squashed * (o - o * o)


@inner
def _through_cell(gates_G: Any, before_P: Any, dc_P: Any) -> None:
    wide = len(dc_P)
    for k in range(wide):
        i, f, g, dc = gates_G[k], gates_G[wide + k], gates_G[2 * wide + k], dc_P[k]
        gates_G[k] = dc * g * (i - i * i)
        gates_G[wide + k] = dc * before_P[k] * (f - f * f)
        gates_G[2 * wide + k] = dc * (i - i * g * g)
        dc_P[k] = dc * f


# gru: columns W_n x + b, which becomes the candidate n; gates r, u; U_n h + c


@jit
def gru(
    a_SBK: Any,
    at: Any,
    x: int,
    x_steps: Any,
    start_BH: Any,
    z_TBG: Any,
    gate_weights: Any,
    input_weights: Any,
    state_weights: Any,
    running_T: Any,
    started: bool,
) -> None:
    """Fills in the operands, which hold the states, and the columns above, for which there are as many places
    as steps, or one for all.

    gate_weights (I + 1 + H, 2 P) are those of r and u; input_weights (I + 1, P) and state_weights (1 + H, P)
    those of the candidate, each with its bias.
    """
    weights = gate_weights, input_weights, state_weights
    _begin(a_SBK, at, start_BH, x, x_steps)
    _gru_on(a_SBK, at, z_TBG, weights, running_T, started)


@inner
def _gru_on(a_SBK: Any, at: Any, z_TBG: Any, weights: Any, running_T: Any, started: bool) -> None:
    """All steps, from operands that hold all but the states."""
    gate_weights, input_weights, state_weights = weights
    wide, before = at.wide, at.inputs + 1
    for t in range(len(running_T)):
        n = running_T[t]
        a_NK, z_NG = _operands(a_SBK, t, n, at, t > 0 or started), z_TBG[t % len(z_TBG), :n]
        product(a_NK[:, :before], input_weights, before, z_NG[:, :wide], 0)
        product(a_NK, gate_weights, before + at.hidden, z_NG[:, wide : 3 * wide], 0)
        product(a_NK[:, at.inputs :], state_weights, 1 + at.hidden, z_NG[:, 3 * wide : 4 * wide], 0)
        for row in range(n):
            z_G = z_NG[row]
            _to_sigmoid(z_G[wide : 3 * wide])
            _candidate(z_G, wide)
            _mixed(z_G, wide, a_SBK[t, row, at.first :], a_SBK[t + 1, row, at.first :])
        _hold(a_SBK, t, n, at.first, wide)


@inner
def _candidate(z_G: Any, wide: int) -> None:
    for k in range(wide):
        z_G[k] = tanh(z_G[k] + z_G[wide + k] * z_G[3 * wide + k])


@inner
def _mixed(z_G: Any, wide: int, before_P: Any, h_P: Any) -> None:
    for k in range(wide):
        h_P[k] = z_G[k] + z_G[2 * wide + k] * (before_P[k] - z_G[k])


@jit
def gru_back(
    a_SBK: Any,
    at: Any,
    z_TBG: Any,
    weights: Any,
    running_T: Any,
    started: bool,
    dy_TBH: Any,
    dh_BP: Any,
    of_gates_GK: Any,
    of_input_GK: Any,
    of_state_GK: Any,
) -> None:
    """The columns become their gradients, and those of the weights of the way forward are added; those of the
    last state become those of the first.

    weights (2 P + H, P) are those between state and state, of r, u and n.
    """
    wide, rows = at.wide, 2 * at.wide + at.hidden
    for t in range(len(running_T) - 1, -1, -1):
        n = running_T[t]
        _add(dy_TBH, t, dh_BP)
        for row in range(n):
            _through_mixture(z_TBG[t, row], a_SBK[t, row, at.first :], dh_BP[row])
        _clear(z_TBG, t, n)
        if t > 0 or started:
            product(z_TBG[t, :n, wide : wide + rows], weights, rows, dh_BP[:n], 1)
        stateful, one = t > 0 or started, at.first - lanes_of(dh_BP)
        _add_sums(z_TBG, wide, at, 2, a_SBK, 0, t, n, stateful, of_gates_GK)
        _add_sums(z_TBG, 0, at, 1, a_SBK, 0, t, n, False, of_input_GK)
        _add_sums(z_TBG, 3 * wide, at, 1, a_SBK, one, t, n, stateful, of_state_GK)


@inner
def _through_mixture(z_G: Any, before_P: Any, dh_P: Any) -> None:
    """Leaves in `dh_P` what u lets through."""
    wide = len(dh_P)
    for k in range(wide):
        candidate, r, u, own = z_G[k], z_G[wide + k], z_G[2 * wide + k], z_G[3 * wide + k]
        kept = dh_P[k] * u
        through = dh_P[k] - kept
        dn = through - through * candidate * candidate  # not 1 - …: a whole number would make it float64
        z_G[2 * wide + k] = dh_P[k] * (before_P[k] - candidate) * (u - u * u)
        z_G[k] = dn
        z_G[wide + k] = dn * own * (r - r * r)
        z_G[3 * wide + k] = dn * r
        dh_P[k] = kept


# A training step of a whole classifier: layers of one cell, the last output of the top one, a linear head,
# cross-entropy. Each core takes its part of a batch from the sequences to the gradients of the weights.
# N: sequences of a part, Q: parts, C: classes.


class BasicPlace(NamedTuple):
    """Where a part of a batch is computed. dz_TBG: where the gradients of the sums come to be."""

    a_SBK: Any
    sums_BP: Any
    dz_TBG: Any
    dh_BP: Any
    running_T: Any
    at: Any
    relu: bool


class LSTMPlace(NamedTuple):
    a_SBK: Any
    c_SBP: Any
    dz_TBG: Any
    dh_BP: Any
    dc_BP: Any
    running_T: Any
    at: Any


class GRUPlace(NamedTuple):
    a_SBK: Any
    dz_TBG: Any
    dh_BP: Any
    running_T: Any
    at: Any


def _ahead(place: Any, weights: Any) -> None:
    """All steps in time forward, inside compiled code."""
    raise NotImplementedError("_ahead is for compiled code.")


def _back(place: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    """All steps in time backward, inside compiled code, from the gradients of the last state and of all
    outputs, where there are any; adds those of the weights."""
    raise NotImplementedError("_back is for compiled code.")


def _basic_ahead(place: Any, weights: Any) -> None:
    _basic_on(place.a_SBK, place.at, place.sums_BP, weights[0], place.running_T, False, place.relu)


def _basic_back(place: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    basic_back(
        place.a_SBK, place.at, place.dz_TBG, weights[1], place.running_T, False, place.relu, dy_TBH,
        place.dh_BP, sums[0],
    )  # fmt: skip


def _lstm_ahead(place: Any, weights: Any) -> None:
    _lstm_on(place.a_SBK, place.at, place.c_SBP, place.dz_TBG, weights[0], place.running_T, False)


def _lstm_back(place: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    _empty(place.dc_BP)
    lstm_back(
        place.a_SBK, place.at, place.c_SBP, place.dz_TBG, weights[1], place.running_T, False, dy_TBH,
        place.dh_BP, place.dc_BP, sums[0],
    )  # fmt: skip


def _gru_ahead(place: Any, weights: Any) -> None:
    _gru_on(place.a_SBK, place.at, place.dz_TBG, weights[:3], place.running_T, False)


def _gru_back(place: Any, weights: Any, dy_TBH: Any, sums: Any) -> None:
    gru_back(
        place.a_SBK, place.at, place.dz_TBG, weights[3], place.running_T, False, dy_TBH, place.dh_BP,
        sums[0], sums[1], sums[2],
    )  # fmt: skip


@inner
def _empty(a_NK: Any) -> None:
    """Fills it with zeros."""
    for n in range(a_NK.shape[0]):
        for k in range(a_NK.shape[1]):
            a_NK[n, k] = 0


_WAYS = {
    BasicPlace: (_basic_ahead, _basic_back),
    LSTMPlace: (_lstm_ahead, _lstm_back),
    GRUPlace: (_gru_ahead, _gru_back),
}


@_compiled_as(_ahead, "always")
def _ahead_of(place: Any, weights: Any) -> Any:
    return _WAYS[place.instance_class][0]


@_compiled_as(_back, "always")
def _back_of(place: Any, weights: Any, dy_TBH: Any, sums: Any) -> Any:
    return _WAYS[place.instance_class][1]


class Sequences(NamedTuple):
    """Whole sequences as they were read, bytes or float32, and what makes a model's inputs of them:
    (x - shift) / scale. Sequence n is bytes_RTI[row_N[n]] or, where there are no bytes, floats_RTI[row_N[n]]:
    the code is made once for both. chosen_B: those of the batch."""

    bytes_RTI: Any
    floats_RTI: Any
    row_N: Any
    y_N: Any
    shift_I: Any
    scale_I: Any
    chosen_B: Any


class Laid(NamedTuple):
    """What `lay_out` needs of all parameters, and `take_back` of their gradients."""

    there_N9: Any
    parameters: Any
    matrices_M3: Any
    back_N9: Any
    gradients: Any
    sums_M2: Any


class Head(NamedTuple):
    """The linear head and the loss: matrices for products, the weight of each class, label smoothing."""

    ahead: Any
    back: Any
    weight_C: Any
    smoothing: float


class Crew(NamedTuple):
    """What those who work on the parts of a batch share. board: see `_wait`; size: how many they are;
    learns: whether gradients are wanted; weights: of each layer its matrices, the last of which leads from
    the gradients of its sums to those of its inputs."""

    board: Any
    size: int
    learns: bool
    data: Any
    laid: Any
    weights: Any
    head: Any


class Result(NamedTuple):
    """What all parts come to, of which the first becomes that of all: the gradients of all matrices, one
    behind the other, losses and right answers; and the gradients of all parameters, in the same way; a place
    for sums of their squares."""

    sums_QM: Any
    found_Q2: Any
    gradients_W: Any
    squares_8: Any


class Layer(NamedTuple):
    """A layer's share of a part: where it is computed; how many of the columns of its sums there lead to its
    inputs; what the gradients of its weights come to; the gradients of its outputs, with no places for them
    in the top layer."""

    place: Any
    columns: int
    sums: Any
    dy_TBH: Any


class Part(NamedTuple):
    """A part of a batch: its number, the first of its sequences, its layers, logits, which become their
    gradients; what it comes to: the gradients of the head, and those of all matrices, one behind the other;
    the class that each sequence is taken for; the sum of its losses, and of its right answers."""

    number: int
    first: int
    layers: Any
    z_NC: Any
    head_sums: Any
    sums_M: Any
    predicted_N: Any
    found: Any


@part_of_its_caller
def _gather(data: Any, first: int, at: Any, a_SBK: Any) -> None:
    """Lays the inputs into the operands of the lowest layer."""
    begin = at.first - at.inputs - 1
    for n in range(a_SBK.shape[1]):
        row = data.row_N[data.chosen_B[first + n]]
        if len(data.bytes_RTI):
            _prepare(data.bytes_RTI, row, data.shift_I, data.scale_I, a_SBK, n, begin)
        else:
            _prepare(data.floats_RTI, row, data.shift_I, data.scale_I, a_SBK, n, begin)


@part_of_its_caller
def _rows(a_TBG: Any) -> Any:
    return a_TBG.reshape(-1, a_TBG.shape[2])


@inner
def _hand_up(below_SBK: Any, first: int, a_SBK: Any, at: Any) -> None:
    """Lays the states of the layer below, which begin at `first`, into the operands of this one."""
    begin = at.first - at.inputs - 1
    for t in range(len(a_SBK) - 1):
        for n in range(a_SBK.shape[1]):
            for i in range(at.inputs):
                a_SBK[t, n, begin + i] = below_SBK[t + 1, n, first + i]


@inner
def _prepare(x_RTI: Any, row: int, shift_I: Any, scale_I: Any, a_SBK: Any, n: int, begin: int) -> None:
    """Lays a sequence there: within whole arrays, since a view of each row takes as long as the row."""
    for t in range(x_RTI.shape[1]):
        for i in range(x_RTI.shape[2]):
            a_SBK[t, n, begin + i] = (a_SBK.dtype.type(x_RTI[row, t, i]) - shift_I[i]) / scale_I[i]


@part_of_its_caller
def _judge(data: Any, first: int, head: Any, z_NC: Any, predicted_N: Any, found: Any) -> None:
    """Classes and cross-entropy of logits; these become their gradients. A loss too large for their type is
    infinite."""
    classes, total = len(head.weight_C), 0.0
    for b in range(len(data.chosen_B)):
        total += head.weight_C[data.y_N[data.chosen_B[b]]]
    loss, right = 0.0, 0
    for n in range(len(z_NC)):
        z_C, y = z_NC[n], data.y_N[data.chosen_B[first + n]]
        best = 0
        for c in range(1, classes):
            if z_C[c] > z_C[best]:
                best = c
        predicted_N[n] = best
        right += best == y
        top, whole, all_wanted = np.float64(z_C[best]), 0.0, 0.0
        for c in range(classes):
            whole += math.exp(z_C[c] - top)
            all_wanted += _wanted(head, c, y)
        for c in range(classes):
            wanted, z = _wanted(head, c, y), z_C[c] - top
            loss += wanted * (math.log(whole) - z)
            z_C[c] = (all_wanted * math.exp(z) / whole - wanted) / total
    found[0], found[1] = z_NC.dtype.type(loss) / total, right


@inner
def _wanted(head: Any, c: int, y: int) -> float:
    """The weight of a class in the loss of a sequence of class y."""
    share = head.smoothing / len(head.weight_C) + (1.0 - head.smoothing if c == y else 0.0)
    return np.float64(head.weight_C[c if head.smoothing > 0 else y] * share)


# Those who work on a batch see each other's progress on a board of numbers that only grow. They wait for each
# other busily, since it is a matter of microseconds, but not for long: then something else needs the core.

POSTED, ARRIVED = 0, 16  # places on the board, in different lines of the caches: jobs; how many came by
BOARD = 32
_LAST, _ALL = 2**40, 2**60  # more jobs than there are, and more arrivals than even that many would bring
_PATIENCE, _REST = 20_000, 100  # looks with a mere pause; microseconds between the first of those after them


@intrinsic  # type: ignore[untyped-decorator]
def _seen(context: Any, address: Any) -> Any:
    """The number at an address, and all that was written before it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def _raise(context: Any, address: Any, by: Any) -> Any:
    """Adds to the number at an address, after all that was written before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "acq_rel")

    return types.int64(types.intp, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _pause(context: Any) -> Any:
    """Some 50 ns, in which another thread has the core to itself if they share one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if builder.module.triple.startswith("x86_64"):
            nothing = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=nothing), [])
        return context.get_dummy_value()

    return types.void(), generate


_sleep = types.ExternalFunction("Sleep" if os.name == "nt" else "usleep", types.int32(types.uint32))
_NAP = 1 if os.name == "nt" else _REST


@inner
def _wait(board: Any, place: int, least: int) -> Any:
    """Until a number on the board is at least so large."""
    there, looks = _address(board) + 8 * place, 0
    while True:
        number = _seen(there)
        if number >= least:
            return number
        looks += 1
        _pause()
        if looks > _PATIENCE:  # longer and longer
            _sleep(np.uint32(_NAP * min(1 + (looks - _PATIENCE) // 10, 20)))


@inner
def announce(board: Any, place: int, by: int) -> None:
    """Raises a number on the board."""
    _raise(_address(board) + 8 * place, by)


@part_of_its_caller
def _work(crew: Any, part: Any, job: int) -> None:
    """One part from its sequences to the gradients of the weights, or to the loss."""
    data, head, layers, z_NC = crew.data, crew.head, part.layers, part.z_NC
    top, at, zero = layers[-1].place, layers[-1].place.at, z_NC.dtype.type(0)
    laid = crew.laid
    lay_out(laid.there_N9, laid.parameters, laid.matrices_M3, z_NC.itemsize, zero, part.number, crew.size)
    _gather(data, part.first, layers[0].place.at, layers[0].place.a_SBK)
    announce(crew.board, ARRIVED, 1)
    _wait(crew.board, ARRIVED, (2 * job - 1) * crew.size)  # all weights are laid out
    below = layers[0].place
    for n in range(len(layers)):
        place = layers[n].place
        if n > 0:
            _hand_up(below.a_SBK, below.at.first, place.a_SBK, place.at)
        _ahead(place, crew.weights[n])
        below = place
    last_BK = top.a_SBK[-1]
    product(last_BK[:, at.first - 1 : at.first + at.hidden], head.ahead, 1 + at.hidden, z_NC, 0)
    _judge(data, part.first, head, z_NC, part.predicted_N, part.found)
    if crew.learns:
        _empty(part.sums_M.reshape(1, -1))
        product(z_NC[:, : len(head.weight_C)], head.back, len(head.weight_C), top.dh_BP, 0)
        layer = layers[-1]
        for n in range(len(layers) - 1, -1, -1):
            weights = crew.weights[n]
            _back(layer.place, weights, layer.dy_TBH, layer.sums)
            if n > 0:
                above, layer = layer, layers[n - 1]
                dz_RG = _rows(above.place.dz_TBG)[:, : above.columns]
                product_of_many(dz_RG, weights[-1], _rows(layer.dy_TBH))
                _empty(layer.place.dh_BP)
        a_NK = last_BK[:, at.first - lanes_of(z_NC) :]
        sums_CK = part.head_sums[:, :]  # of the type of those of the layers: the code is made once for both
        product_over_rows(z_NC[:, : len(head.weight_C)], a_NK, sums_CK)
    announce(crew.board, ARRIVED, 1)


@jit
def dismiss(board: Any) -> None:
    """Has those who serve go home, and nobody wait any more."""
    announce(board, POSTED, _LAST)
    announce(board, ARRIVED, _ALL)


@jit
def take_part(crew: Any, part: Any, result: Any, longest: float, leads: bool) -> float:
    """Works on a part of each batch until there are no more, or, who leads, on one batch: posts it, and when
    all have come by brings the gradients to where they belong.

    Both are one function, since making its machine code takes seconds. Returns, to who leads, the norm of the
    gradients, which are shortened if it is larger than `longest`; NaN if there is nothing to learn from.
    """
    if leads:
        job = _seen(_address(crew.board) + 8 * POSTED) + 1
        announce(crew.board, POSTED, 1)
    else:
        job = 1
    while leads or _wait(crew.board, POSTED, job) < _LAST:
        _work(crew, part, job)
        if leads:
            _wait(crew.board, ARRIVED, 2 * job * crew.size)
            return _conclude(crew, result, longest)
        job += 1
    return 0.0


@part_of_its_caller
def _conclude(crew: Any, result: Any, longest: float) -> float:
    """From the sums of all parts to the gradients; returns their norm."""
    found_Q2 = result.found_Q2
    for q in range(1, len(found_Q2)):
        for k in range(found_Q2.shape[1]):
            found_Q2[0, k] += found_Q2[q, k]
    if not (crew.learns and math.isfinite(found_Q2[0, 0])):  # the gradients before tell more of a lost loss
        return math.nan
    sums_QM, gradients_W, laid = result.sums_QM, result.gradients_W, crew.laid
    for q in range(1, len(sums_QM)):
        add(sums_QM[:1], sums_QM[q : q + 1])
    zero = sums_QM.dtype.type(0)
    take_back(laid.back_N9, laid.gradients, laid.sums_M2, sums_QM.itemsize, zero)
    norm = math.sqrt(_squares(gradients_W, result.squares_8))
    if math.inf > norm > longest:
        factor = gradients_W.dtype.type(longest / (norm + 1e-6))
        _multiply_by(gradients_W, factor)
    return norm


@inner
def _multiply_by(a_W: Any, factor: Any) -> None:
    for w in range(len(a_W)):
        a_W[w] *= factor


@inner
def _squares(a_W: Any, sums_8: Any) -> float:
    """The sum of the squares: of eight sums, which need not wait for each other."""
    for k in range(8):
        sums_8[k] = 0
    for w in range(0, len(a_W) - 7, 8):
        for k in range(8):
            sums_8[k] += np.float64(a_W[w + k]) * np.float64(a_W[w + k])
    total = 0.0
    for k in range(8):
        total += sums_8[k]
    for w in range(len(a_W) // 8 * 8, len(a_W)):
        total += np.float64(a_W[w]) * np.float64(a_W[w])
    return total
