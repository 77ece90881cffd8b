"""Rules for sums and maxima: within the row of a sequence, or, for sums, over the sequences of a batch."""

from __future__ import annotations

import math

from torch import Tensor

from rnnclf.engine.machine.graph import Node, Nodes, UncoveredError
from rnnclf.engine.machine.trace.lowering import Lowering, MakeNodes
from rnnclf.engine.machine.trace.recording import Call
from rnnclf.engine.machine.trace.values import MAX_PIECES, MIXED, Batched, Columns, Run, runs_in


def summed(lowering: Lowering, call: Call) -> MakeNodes:
    value, dims = lowering.batched(call.args[0]), _dims(call)
    if value.batch_dim in dims:
        return _summed_over_batch(lowering, call, value, dims)
    return _reduced(lowering, call, value, dims, "add", "rowsum")


def largest(lowering: Lowering, call: Call) -> MakeNodes:
    value, dims = lowering.batched(call.args[0]), _dims(call)
    if value.batch_dim in dims:
        raise UncoveredError(MIXED)
    return _reduced(lowering, call, value, dims, "maximum", "rowmax")


def row_sum(nodes: Nodes, pieces: list[Node]) -> Node:
    """The sum over the columns of all pieces: one column."""
    return _over_row(nodes, pieces, "add", "rowsum")


def _over_row(nodes: Nodes, pieces: list[Node], combine: str, over_row: str) -> Node:
    return nodes.chain(combine, [p if p.width == 1 else nodes.make(over_row, p, width=1) for p in pieces])


def _dims(call: Call) -> list[int]:
    """The dimensions that are reduced: those given, or all."""
    ndim = call.args[0].ndim
    given = call.args[1] if len(call.args) > 1 and isinstance(call.args[1], list) else None
    return sorted(dim % ndim for dim in (given or range(ndim)))


def _reduced(
    lowering: Lowering, call: Call, value: Batched, dims: list[int], combine: str, over_row: str
) -> MakeNodes:
    """A reduction within each row: each result by itself, along its operands, or all results at once, one
    operand of each after the other. What cuts the row into fewer pieces is faster."""
    keeps_dims = call.out.ndim == value.column_of.ndim + 1
    batch_dim = value.batch_dim - (0 if keeps_dims else sum(dim < value.batch_dim for dim in dims))
    operands = _operands_of(value, [dim - (dim > value.batch_dim) for dim in dims])
    results, terms = operands.shape
    if results > MAX_PIECES and terms > MAX_PIECES:
        raise UncoveredError(f"its step has a sum of {terms} terms in each of {results} columns")
    along, across = _runs_of(operands, value), _runs_of(operands.t(), value)
    result = lowering.new_columns(call.out, batch_dim)
    if (_pieces(along), -terms) <= (_pieces(across), -results):
        return _reduced_along(lowering, value, along, result.columns, combine, over_row)
    return lowering.computed(result, across, lambda *pieces: lowering.nodes.chain(combine, list(pieces)))


def _runs_of(lists: Tensor, value: Batched) -> list[list[Run]]:
    """Where some lists of columns are, (lists, columns); empty if there are too many of them."""
    return [] if len(lists) > MAX_PIECES else [runs_in(places, value.columns) for places in lists]


def _pieces(lists: list[list[Run]]) -> float:
    return sum(map(len, lists)) or math.inf


def _reduced_along(
    lowering: Lowering, value: Batched, rows: list[list[Run]], columns: Columns, combine: str, over_row: str
) -> MakeNodes:
    columns.cut(*range(len(rows)))
    for runs in rows:
        value.columns.cut_around(runs)

    def make() -> None:
        pieces = [[node for _, node in value.columns.pieces_of(runs)] for runs in rows]
        columns.pieces = [_over_row(lowering.nodes, some, combine, over_row) for some in pieces]

    return make


def _operands_of(value: Batched, inner: list[int]) -> Tensor:
    """(results, terms): the columns that each result of a reduction over inner dimensions is made of."""
    shape = value.column_of.shape
    kept = [dim for dim in range(len(shape)) if dim not in inner]
    results = math.prod(shape[dim] for dim in kept)
    return value.column_of.permute(*kept, *inner).reshape(results, -1)


def _summed_over_batch(lowering: Lowering, call: Call, value: Batched, dims: list[int]) -> MakeNodes:
    """A sum over the sequences; over further dimensions, torch sums the result after the sequence."""
    runs = runs_in(value.column_of, value.columns)
    value.columns.cut_around(runs)
    only_batch = dims == [value.batch_dim]
    shape = tuple(call.out.shape if only_batch else value.column_of.unsqueeze(value.batch_dim).shape)
    total, parts = lowering.outside.new_sum(shape)
    if only_batch:
        lowering.assign(call.out, total)
    else:
        lowering.call_after(call.function, (total, *call.args[1:]), call.kwargs, [call.out])

    def make() -> None:
        parts.right = [node for _, node in value.columns.pieces_of(runs)]

    return make
