"""Rules for matrix products: of rows with weights, and of rows with rows, summed over the sequences.

    z @ w.t()       (sequences, K) · (K, N): `dot` nodes, for each sequence its row times the matrix
    w @ h.t()       (N, K) · (K, sequences): the same, transposed
    x.t() @ dz      (K, sequences) · (sequences, N): a sum over sequences, the gradient of a weight

`bmm` does J of these at once: its operands have a dimension of size J in front.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rnnclf.engine.machine.graph import Node, Sum, UncoveredError
from rnnclf.engine.machine.trace.lowering import Lowering, MakeNodes
from rnnclf.engine.machine.trace.operations.reductions import row_sum
from rnnclf.engine.machine.trace.recording import Call
from rnnclf.engine.machine.trace.values import Batched, Columns, Run, Span, Value, Weight, runs_in


def matrix_product(lowering: Lowering, call: Call) -> MakeNodes:
    """mm and bmm."""
    left, right = call.args
    a, b = lowering.value(left), lowering.value(right)
    first, second = call.out.ndim - 2, call.out.ndim - 1  # the dimensions of a matrix
    if isinstance(a, Batched) and isinstance(b, Weight) and a.batch_dim == first:
        return _rows_times_weight(lowering, call.out, a, b, transposed=False)
    if isinstance(a, Weight) and isinstance(b, Batched) and b.batch_dim == second:  # (bᵀ aᵀ)ᵀ
        return _rows_times_weight(lowering, call.out, b, a, transposed=True)
    if isinstance(a, Batched) and isinstance(b, Batched) and a.batch_dim == second and b.batch_dim == first:
        return _summed_over_batch(lowering, call.out, a, b)
    raise UncoveredError(_reason(a, b))


def _reason(a: Value, b: Value) -> str:
    if isinstance(a, Batched) and isinstance(b, Batched):
        return "its step multiplies two matrices that both depend on the inputs"
    return "its step multiplies a matrix by a tensor that it cannot be multiplied by sequence by sequence"


def _rows_times_weight(
    lowering: Lowering, out: Tensor, rows: Batched, weight: Weight, transposed: bool
) -> MakeNodes:
    """transposed: the product is weight · rowsᵀ, not rows · weight."""
    many = out.ndim == 3
    column_of = rows.column_of if many else rows.column_of.unsqueeze(0)  # (J, K)
    columns = lowering.new_columns(out, out.ndim - 1 if transposed else out.ndim - 2).columns
    size = columns.width // len(column_of)
    columns.cut(*range(0, columns.width, size))
    operands = [runs_in(places, rows.columns) for places in column_of]
    for runs in operands:
        rows.columns.cut_around(runs)
    columns.check_pieces()
    matrices = []
    for number in range(len(column_of)):
        matrix = weight
        if many:
            select = torch.ops.aten.select.int
            matrix = lowering.derived_weight(select, matrix, 0, number, shape=matrix.shape[1:])
        if transposed:
            matrix = lowering.derived_weight(torch.ops.aten.t.default, matrix, shape=matrix.shape[::-1])
        matrices.append(matrix)

    def make() -> None:
        columns.pieces = []
        for number, (runs, matrix) in enumerate(zip(operands, matrices, strict=True)):
            begin = number * size
            spans = [(lo - begin, hi - begin) for lo, hi in columns.spans if begin <= lo < begin + size]
            columns.pieces += _dots(lowering, rows.columns, runs, matrix, spans)

    return make


def _dots(
    lowering: Lowering, columns: Columns, runs: list[Run], matrix: Weight, spans: list[Span]
) -> list[Node]:
    """Columns times a (K, N) matrix; for each span of the result its node."""
    nodes, found = lowering.nodes, []
    for lo, hi in spans:
        terms = []
        for row, piece in columns.pieces_of(runs):
            if matrix.shape[1] == 1:  # a sum over each row is cheaper than a product
                vec = nodes.make("vec", attr=(matrix.slot, row), width=piece.width)
                terms.append(row_sum(nodes, [nodes.make("mul", piece, vec)]))
            elif piece.width == 1:
                vec = nodes.make("vec", attr=(matrix.slot, row * matrix.shape[1] + lo), width=hi - lo)
                terms.append(nodes.make("mul", piece, vec))
            else:
                attr = (matrix.slot, row, piece.width, lo)
                terms.append(nodes.make("dot", piece, attr=attr, width=hi - lo))
        found.append(nodes.chain("add", terms))
    return found


def _summed_over_batch(lowering: Lowering, out: Tensor, a: Batched, b: Batched) -> MakeNodes:
    """Σ over the sequences of aᵀ b, or J of these sums, stacked after the sequence."""
    many = out.ndim == 3
    lefts, rights = (
        [
            runs_in(places.reshape(-1), value.columns)
            for places in (value.column_of if many else [value.column_of])
        ]
        for value in (a, b)
    )
    for runs, value in [*((runs, a) for runs in lefts), *((runs, b) for runs in rights)]:
        value.columns.cut_around(runs)
    sums = [lowering.outside.new_sum(tuple(out.shape[-2:])) for _ in lefts]
    totals = [total for total, _ in sums]
    if many:
        lowering.call_after(torch.ops.aten.stack.default, (totals,), {}, [out])
    else:
        lowering.assign(out, totals[0])

    def make() -> None:
        for (_, found), left, right in zip(sums, lefts, rights, strict=True):
            _fill_sum(lowering, found, a.columns.pieces_of(left), b.columns.pieces_of(right))

    return make


def _fill_sum(
    lowering: Lowering, found: Sum, left: list[tuple[int, Node]], right: list[tuple[int, Node]]
) -> None:
    a, b = ([node for _, node in pieces] for pieces in (left, right))
    multiply = lowering.nodes.make
    if len(a) == 1 and a[0].width == 1:  # by one column: a plain sum is cheaper than a sum of products
        found.right = [multiply("mul", piece, a[0]) for piece in b]
    elif len(b) == 1 and b[0].width == 1:
        found.right = [multiply("mul", piece, b[0]) for piece in a]
    else:
        found.left, found.right = a, b
