"""The workhorses through all steps in machine code, which Numba makes of these loops when first used.

The mathematics is that of rnnclf/cells/fused.py; what is saved are the calls, of which torch needs two dozen
a step, the memory between them, and in the products of a step the laying out of weights, which a BLAS does
anew each time. No loop holds Python's lock, so that each core walks through its part of a batch by itself.

Numba keeps the machine code beside this file, or in the user's cache, and knows by this file's date whether
it is still right: so all that is compiled stands here.

Shapes: T time, B batch, N sequences still running (the first of B), I inputs, H hidden; S = T + 1 states.
P: H and what is missing to whole vectors, so that each gate and state begins where a vector does; what is
added is zero on the way forward and comes to nothing on the way back. G gates × P. K = P + 1 + I: the columns
of an operand, which are a state, a one, whose weight is the bias, and inputs. R rows, one for each step of
each sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

F = TypeVar("F", bound=Callable[..., Any])

# No check for a division by zero, which would keep the processor from doing 16 at once; a · b + c rounded
# once. Not more of "fast math": NaN has to stay NaN.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def jit(function: F) -> F:
    try:
        compiled: F = numba.njit(**_OPTIONS)(function)
    except RuntimeError:  # no folder to keep machine code in: it is made anew in each process
        compiled = numba.njit(**_OPTIONS | {"cache": False})(function)
    return compiled


# Products


def _vector() -> int:
    """Bytes that this processor computes with at once. Intel's with 512 bits are driven with 256, as LLVM
    does by itself: it would halve wider vectors, for which there are not enough registers then."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f") and llvm.get_host_cpu_name().startswith("znver"):
        return 64
    return 32 if features.get("avx") else 16


VECTOR = _vector()
BLOCK, LARGE_BLOCK, LARGE = 80, 320, 2 * 2**20
"""Rows of what has many that are taken at a time; of sums over rows more, where the result has more bytes
than caches hold, as each time all of it is read and written. Measured."""
ROWS, PAIR = (12 if VECTOR == 64 else 6), 2
"""A tile of a product: so many rows and vectors beside each other are summed in registers, which leaves
enough of the 16 (of 512 bits 32) for what is multiplied."""


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


@jit
def _column_of_tiles(
    add: int, zero: Any, wide: bool, a: int, a_row: int, a_column: int, m: int, b: int, b_row: int, k: int,
    c: int, c_row: int,
) -> None:  # fmt: skip
    """All rows of what is as wide as a tile, or as one vector."""
    for row in range(0, m, ROWS):
        n, a_n, c_n = min(m - row, ROWS), a + row * a_row, c + row * c_row
        if not wide:
            _narrow(add, zero, a_n, a_row, a_column, n, b, b_row, k, c_n, c_row)
        elif n > ROWS // 2:
            _wide(add, zero, a_n, a_row, a_column, n, b, b_row, k, c_n, c_row)
        else:
            _few(add, zero, a_n, a_row, a_column, n, b, b_row, k, c_n, c_row)


@jit
def _address(array: Any) -> Any:
    return np.intp(array.ctypes.data)  # as it comes it has no sign, and sums with steps would be float64


@jit
def product(a_NK: Any, weights: Any, c_NG: Any, add: int, skip: int) -> None:
    """C = A · B + `add` (0 or 1) · C: B as `pack` lays it out, C of whole vectors; so many columns of A
    and rows of B are skipped."""
    zero, size, rows = c_NG.dtype.type(0), c_NG.itemsize, a_NK.shape[1]
    a, b, c = _address(a_NK), _address(weights), _address(c_NG)
    columns, pair = c_NG.shape[1] * size, PAIR * VECTOR
    for column in range(0, columns, pair):
        width = min(pair, columns - column)
        _column_of_tiles(
            add, zero, width == pair, a + skip * size, a_NK.strides[0], size, len(a_NK),
            b + column * rows + skip * width, width, rows - skip, c + column, c_NG.strides[0],
        )  # fmt: skip


@jit
def product_of_many(a_RK: Any, weights: Any, c_RG: Any) -> None:
    """C = A · B for many rows, some after the others, so that they stay in the near caches while the columns
    of B pass by."""
    for row in range(0, len(a_RK), BLOCK):
        product(a_RK[row : row + BLOCK], weights, c_RG[row : row + BLOCK], 0, 0)


@jit
def product_over_rows(a_RK: Any, b_RG: Any, c_KG: Any) -> None:
    """C = Aᵀ · B, some rows after the others, so that both stay in the near caches."""
    zero, size = c_KG.dtype.type(0), c_KG.itemsize
    a, b, c = _address(a_RK), _address(b_RG), _address(c_KG)
    a_row, b_row, c_row = a_RK.strides[0], b_RG.strides[0], c_KG.strides[0]
    columns, pair = c_KG.shape[1] * size, PAIR * VECTOR
    block = BLOCK if len(c_KG) * columns < LARGE else LARGE_BLOCK
    for row in range(0, len(a_RK), block):
        n = min(block, len(a_RK) - row)
        for column in range(0, columns, pair):
            _column_of_tiles(
                row > 0, zero, columns - column >= pair, a + row * a_row, size, a_row, len(c_KG),
                b + row * b_row + column, b_row, n, c + column, c_row,
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
def lay_out(layout_N9: Any, parameters: Any, matrices_M3: Any, size: int, zero: Any) -> None:
    """Lays blocks where `product` looks for them: of a matrix, the rows of each PAIR of vectors together, one
    behind the other, then those of the next.

    parameters: addresses. matrices: of each its address, rows, columns. size: bytes of a number like `zero`.
    """
    pair = PAIR * VECTOR // size
    for block in layout_N9:
        rows, columns = matrices_M3[block[6], 1], matrices_M3[block[6], 2]
        source = parameters[block[0]] + block[1]
        begin, end = block[8], block[8] + block[4]
        for first in range(begin // pair * pair, end, pair):
            width = min(pair, columns - first)
            there = matrices_M3[block[6], 0] + first * rows * size
            for k in range(block[5]):
                place = there + (block[7] + k) * width * size
                for g in range(max(first, begin), min(first + width, end)):
                    number = _load(source + (g - begin) * block[2] + k * block[3], zero)
                    _store(place + (g - first) * size, number)


@jit
def take_back(layout_N9: Any, parameters: Any, sums_M2: Any, size: int, zero: Any) -> None:
    """Puts what `product_over_rows` has summed where the blocks came from.

    parameters: addresses of their gradients. sums: of each matrix its address and its step from row to row.
    """
    few = 64 // size  # columns whose numbers lie in one line of a cache
    for block in layout_N9:
        step = sums_M2[block[6], 1]
        source = sums_M2[block[6], 0] + block[7] * step + block[8] * size
        place = parameters[block[0]] + block[1]
        for first in range(0, block[4], few):
            for k in range(block[5]):
                for g in range(first, min(first + few, block[4])):
                    number = _load(source + k * step + g * size, zero)
                    _store(place + k * block[3] + g * block[2], number)


# The numbers of a step

# tanh(x) = x P(x²) / Q(x²) for |x| ≤ 9: least squares, weighted anew until the largest relative error
# was least, 2 · 10⁻⁸. With the rounding of float32 it is off by no more than 4 · 10⁻⁷.
_P = tuple(map(np.float32, (9.99999979e-01, 1.33810390e-01, 3.49560325e-03, 2.06093005e-05, 1.33549081e-08)))
_Q = tuple(map(np.float32, (1.0, 4.67143546e-01, 2.58770417e-02, 3.28565821e-04, 7.77667094e-07)))
_P0, _P1, _P2, _P3, _P4 = _P
_Q0, _Q1, _Q2, _Q3, _Q4 = _Q
_END, _ONE = np.float32(9), np.float32(1)


def _compiled_as(function: Callable[..., Any]) -> Callable[[F], F]:
    """For the function that gives the compiled code of `function` from the types of its arguments."""
    decorator: Callable[[F], F] = overload(function)
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


# Arrays whose rows are whole vectors. Loops instead of NumPy's assignments: half the time to make the code.


def whole(numbers: int, itemsize: int) -> int:
    """So many numbers and what is missing to whole vectors."""
    return -(-numbers // lanes(itemsize)) * lanes(itemsize)


def row_of(numbers: int, itemsize: int) -> int:
    """The length of rows that hold so many numbers. Rows that are a multiple of a KiB apart would meet in the
    same few places of the nearest cache."""
    row = whole(numbers, itemsize)
    return row if row * itemsize % 1024 else row + lanes(itemsize)


@jit
def _start(states_SBP: Any, wide: int, start_BH: Any) -> None:
    """The first states, with zeros behind."""
    hidden = start_BH.shape[1]
    for row in range(len(start_BH)):
        for k in range(hidden):
            states_SBP[0, row, k] = start_BH[row, k]
        for k in range(hidden, wide):
            states_SBP[0, row, k] = 0


@jit
def _begin(a_SBK: Any, wide: int, start_BH: Any, x: int, x_steps: Any) -> None:
    """Fills in the first states, and of all steps the ones and the inputs: x is the address of these, the
    steps are those from time to time, sequence to sequence and feature to feature, in bytes."""
    zero, one = a_SBK.dtype.type(0), a_SBK.dtype.type(1)
    _start(a_SBK, wide, start_BH)
    for t in range(len(a_SBK) - 1):
        for row in range(a_SBK.shape[1]):
            a_K, there = a_SBK[t, row], x + t * x_steps[0] + row * x_steps[1]
            a_K[wide] = one
            for i in range(x_steps[3]):
                a_K[wide + 1 + i] = _load(there + i * x_steps[2], zero)


@jit
def _over_rows(a_SBK: Any, first: int, last: int, z_TBG: Any, begin: int, end: int, sums_KG: Any) -> None:
    """The sums over all steps of all sequences: of these operands and these gradients."""
    a_RK = a_SBK[:-1].reshape(-1, a_SBK.shape[2])
    z_RG = z_TBG.reshape(-1, z_TBG.shape[2])
    product_over_rows(a_RK[:, first:last], z_RG[:, begin:end], sums_KG)


@jit
def _hold(states_SBP: Any, t: int, n: int, wide: int) -> None:
    """After step t, the states of the sequences that have ended are those before it."""
    for row in range(n, states_SBP.shape[1]):
        for k in range(wide):
            states_SBP[t + 1, row, k] = states_SBP[t, row, k]


@jit
def _clear(z_TBG: Any, t: int, n: int) -> None:
    """Sums of sequences that have ended have no gradients."""
    for row in range(n, z_TBG.shape[1]):
        for k in range(z_TBG.shape[2]):
            z_TBG[t, row, k] = 0


@jit
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
    wide, zero = sums_BP.shape[1], a_SBK.dtype.type(0)
    operands = wide + 1 + x_steps[3]
    _begin(a_SBK, wide, start_BH, x, x_steps)
    for t in range(len(running_T)):
        n = running_T[t]
        skip = 0 if t > 0 or started else wide
        product(a_SBK[t, :n, :operands], weights, sums_BP[:n, :wide], 0, skip)
        for row in range(n):
            h_P, sums_P = a_SBK[t + 1, row], sums_BP[row]
            for k in range(wide):
                if relu:
                    h_P[k] = zero if sums_P[k] <= 0 else sums_P[k]
                else:
                    h_P[k] = tanh(sums_P[k])
        _hold(a_SBK, t, n, wide)


@jit
def basic_back(
    a_SBK: Any,
    da_TBP: Any,
    weights: Any,
    running_T: Any,
    started: bool,
    relu: bool,
    dy_TBH: Any,
    dh_BP: Any,
    sums_KG: Any,
) -> None:
    """Fills in the gradients of the sums, and those of the weights; those of the last state become those of
    the first."""
    wide, zero = dh_BP.shape[1], dh_BP.dtype.type(0)
    for t in range(len(running_T) - 1, -1, -1):
        n = running_T[t]
        _add(dy_TBH, t, dh_BP)
        for row in range(n):
            h_P, dh_P, da_P = a_SBK[t + 1, row], dh_BP[row], da_TBP[t, row]
            for k in range(wide):
                if relu:
                    da_P[k] = zero if h_P[k] <= 0 else dh_P[k]
                else:
                    da_P[k] = dh_P[k] - dh_P[k] * h_P[k] * h_P[k]
        _clear(da_TBP, t, n)
        if t > 0 or started:
            product(da_TBP[t, :n, :wide], weights, dh_BP[:n, :wide], 0, 0)
    _over_rows(a_SBK, 0, len(sums_KG), da_TBP, 0, wide, sums_KG)


# lstm: gates i, f, g, o


@jit
def lstm(
    a_SBK: Any,
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
    """Fills in the operands, which hold the states h, the states c, and the gates."""
    wide = c_SBP.shape[2]
    operands = wide + 1 + x_steps[3]
    _begin(a_SBK, wide, start_BH, x, x_steps)
    _start(c_SBP, wide, start_c_BH)
    for t in range(len(running_T)):
        n = running_T[t]
        skip = 0 if t > 0 or started else wide
        product(a_SBK[t, :n, :operands], weights, gates_TBG[t, :n, : 4 * wide], 0, skip)
        for row in range(n):
            gates_G, c_P = gates_TBG[t, row], c_SBP[t + 1, row]
            _to_sigmoid(gates_G[: 2 * wide])
            _to_tanh(gates_G[2 * wide : 3 * wide])
            _to_sigmoid(gates_G[3 * wide : 4 * wide])
            _new_cell(gates_G, c_SBP[t, row], c_P)
            _new_output(gates_G[3 * wide :], c_P, a_SBK[t + 1, row])
        _hold(a_SBK, t, n, wide)
        _hold(c_SBP, t, n, wide)


@jit
def _to_sigmoid(a_K: Any) -> None:
    for k in range(len(a_K)):
        a_K[k] = sigmoid(a_K[k])


@jit
def _to_tanh(a_K: Any) -> None:
    for k in range(len(a_K)):
        a_K[k] = tanh(a_K[k])


@jit
def _new_cell(gates_G: Any, before_P: Any, c_P: Any) -> None:
    wide = len(c_P)
    for k in range(wide):
        c_P[k] = gates_G[wide + k] * before_P[k] + gates_G[k] * gates_G[2 * wide + k]


@jit
def _new_output(o_P: Any, c_P: Any, h_P: Any) -> None:
    for k in range(len(c_P)):
        h_P[k] = o_P[k] * tanh(c_P[k])


@jit
def lstm_back(
    a_SBK: Any,
    c_SBP: Any,
    gates_TBG: Any,
    weights: Any,
    running_T: Any,
    started: bool,
    dy_TBH: Any,
    dh_BP: Any,
    dc_BP: Any,
    sums_KG: Any,
) -> None:
    """The gates become the gradients of their sums, and those of the weights are filled in; those of the last
    states become those of the first."""
    wide = dh_BP.shape[1]
    for t in range(len(running_T) - 1, -1, -1):
        n = running_T[t]
        _add(dy_TBH, t, dh_BP)
        for row in range(n):
            gates_G, dc_P = gates_TBG[t, row], dc_BP[row]
            _through_output(gates_G[3 * wide :], c_SBP[t + 1, row], dh_BP[row], dc_P)
            _through_cell(gates_G, c_SBP[t, row], dc_P)
        _clear(gates_TBG, t, n)
        if t > 0 or started:
            product(gates_TBG[t, :n, : 4 * wide], weights, dh_BP[:n, :wide], 0, 0)
    _over_rows(a_SBK, 0, len(sums_KG), gates_TBG, 0, 4 * wide, sums_KG)


@jit
def _through_output(o_P: Any, c_P: Any, dh_P: Any, dc_P: Any) -> None:
    for k in range(len(c_P)):
        o, squashed = o_P[k], tanh(c_P[k])
        squashed_dh = dh_P[k] * o
        dc_P[k] += squashed_dh - squashed_dh * squashed * squashed
        o_P[k] = dh_P[k] * squashed * (o - o * o)


@jit
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
    x: int,
    x_steps: Any,
    start_BH: Any,
    wide: int,
    z_TBG: Any,
    gate_weights: Any,
    input_weights: Any,
    state_weights: Any,
    running_T: Any,
    started: bool,
) -> None:
    """Fills in the operands, which hold the states, and the columns above.

    gate_weights (K, 2 P) are those of r and u; input_weights (1 + I, P) and state_weights (P + 1, P) those of
    the candidate, each with its bias.
    """
    operands = wide + 1 + x_steps[3]
    _begin(a_SBK, wide, start_BH, x, x_steps)
    for t in range(len(running_T)):
        n = running_T[t]
        skip = 0 if t > 0 or started else wide
        a_NK, z_NG = a_SBK[t, :n], z_TBG[t, :n]
        product(a_NK[:, wide:operands], input_weights, z_NG[:, :wide], 0, 0)
        product(a_NK[:, :operands], gate_weights, z_NG[:, wide : 3 * wide], 0, skip)
        product(a_NK[:, : wide + 1], state_weights, z_NG[:, 3 * wide : 4 * wide], 0, skip)
        for row in range(n):
            z_G = z_TBG[t, row]
            _to_sigmoid(z_G[wide : 3 * wide])
            _candidate(z_G, wide)
            _mixed(z_G, wide, a_SBK[t, row], a_SBK[t + 1, row])
        _hold(a_SBK, t, n, wide)


@jit
def _candidate(z_G: Any, wide: int) -> None:
    for k in range(wide):
        z_G[k] = tanh(z_G[k] + z_G[wide + k] * z_G[3 * wide + k])


@jit
def _mixed(z_G: Any, wide: int, before_P: Any, h_P: Any) -> None:
    for k in range(wide):
        h_P[k] = z_G[k] + z_G[2 * wide + k] * (before_P[k] - z_G[k])


@jit
def gru_back(
    a_SBK: Any,
    z_TBG: Any,
    weights: Any,
    running_T: Any,
    started: bool,
    dy_TBH: Any,
    dh_BP: Any,
    of_gates_KG: Any,
    of_input_KG: Any,
    of_state_KG: Any,
) -> None:
    """The columns become their gradients, and those of the weights of the way forward are filled in; those of
    the last state become those of the first.

    weights (3 P, P) are those between state and state, of r, u and n.
    """
    wide = dh_BP.shape[1]
    for t in range(len(running_T) - 1, -1, -1):
        n = running_T[t]
        _add(dy_TBH, t, dh_BP)
        for row in range(n):
            _through_mixture(z_TBG[t, row], a_SBK[t, row], dh_BP[row])
        _clear(z_TBG, t, n)
        if t > 0 or started:
            product(z_TBG[t, :n, wide : 4 * wide], weights, dh_BP[:n, :wide], 1, 0)
    _over_rows(a_SBK, 0, len(of_gates_KG), z_TBG, wide, 3 * wide, of_gates_KG)
    _over_rows(a_SBK, wide, len(of_gates_KG), z_TBG, 0, wide, of_input_KG)
    _over_rows(a_SBK, 0, wide + 1, z_TBG, 3 * wide, 4 * wide, of_state_KG)


@jit
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
