"""The state of a lowering: from recorded calls of torch to the nodes of a graph.

Columns are cut where any use of them begins or ends: after `i, f = a.chunk(2, 1)`, `a` has two pieces, and
so have all values that `a` is computed from element by element. As a cut that a later call needs affects
the nodes of earlier ones, there are two phases:

 1. For each call, in order, its rule (operations/) states what the result means, which cuts it needs, and how
    its nodes are to be made. Then cuts spread from results to operands and back.
 2. With all cuts known, the nodes of each call are made, a piece at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnclf.engine.machine.graph import Node, Nodes, OutsideCall, Ref, Sum, UncoveredError
from rnnclf.engine.machine.trace.recording import Call, tensors_in
from rnnclf.engine.machine.trace.values import (
    MIXED,
    Batched,
    Columns,
    Run,
    Total,
    Uniform,
    Value,
    Weight,
    operand_runs,
    piece_of,
)

MakeNodes = Callable[[], None]


class Link(NamedTuple):
    """So many columns of a result, from `column` on, are computed from those of an operand, one by one: a cut
    in one of them is a cut in the other."""

    result: Columns
    column: int
    operand: Columns
    operand_column: int
    length: int


class Lowering:
    """rows: sequences in the recorded batch, by which batch dimensions are recognised."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.nodes = Nodes()
        self.outside = OutsideCalls()
        self._values: dict[int, Value] = {}
        self._kept: list[Tensor] = []  # ids stay unique as long as their tensors live
        self._links: list[Link] = []
        self._makers: list[MakeNodes] = []

    # what tensors mean

    def assign(self, tensor: Tensor, value: Value) -> None:
        self._values[id(tensor)] = value
        self._kept.append(tensor)

    def new_weight(self, tensor: Tensor) -> None:
        """The next weight, in the order of the slots."""
        self.assign(tensor, Weight(self.outside.new_slot("before"), tuple(tensor.shape)))

    def new_columns(self, tensor: Tensor, batch_dim: int = 0) -> Batched:
        """The result of an operation: columns of its own, numbered in the order of its elements."""
        inner = [size for dim, size in enumerate(tensor.shape) if dim != batch_dim]
        if tensor.ndim == 0 or tensor.shape[batch_dim] != self.rows:
            raise UncoveredError(MIXED)
        column_of = torch.arange(tensor.numel() // self.rows).reshape(inner)
        value = Batched(Columns(column_of.numel()), batch_dim, column_of, self.rows)
        self.assign(tensor, value)
        return value

    def new_constant(self, tensor: Tensor, numbers: Tensor) -> None:
        """A tensor whose numbers are the same at each step and for all weights."""
        number = _uniform_number(numbers)
        if number is not None:
            self.assign(tensor, Uniform(number))
        else:
            (slot,) = self.outside.add("before", torch.ops.aten.alias.default, (numbers,), {}, 1)
            self.assign(tensor, Weight(slot, tuple(tensor.shape)))

    def compute_constant(self, call: Call) -> None:
        """The result of a call all of whose operands are `Uniform`."""

        def full(what: Any) -> Any:
            if isinstance(what, Tensor):
                value = self.value(what)
                assert isinstance(value, Uniform)
                return torch.full_like(what, value.value)
            return type(what)(map(full, what)) if isinstance(what, list | tuple) else what

        with torch.no_grad():
            results = tensors_in(call.function(*full(call.args), **call.kwargs))
        for out, result in zip(tensors_in(call.out), results, strict=True):
            self.new_constant(out, result)

    def value(self, operand: Any) -> Value:
        """The meaning of an operand: a number, or a tensor that the step starts with or has made. Raises
        UncoveredError for other tensors."""
        if not isinstance(operand, Tensor):
            return Uniform(float(operand))
        if id(operand) not in self._values:
            raise UncoveredError("its step uses a tensor that is not one of its parameters")
        return self._values[id(operand)]

    def batched(self, operand: Any) -> Batched:
        value = self.value(operand)
        if not isinstance(value, Batched):
            raise UncoveredError(MIXED)
        return value

    def values_in(self, call: Call) -> list[Value]:
        return [self.value(tensor) for tensor in tensors_in((call.args, call.kwargs))]

    # first phase: cuts

    def computed_from(self, result: Columns, runs: list[Run]) -> None:
        """Cuts a result at the borders of an operand's runs, and keeps both cut at the same places."""
        for run in runs:
            result.cut(run.start, run.start + run.length)
            if isinstance(run.source, Columns):
                run.source.cut(run.first, run.end)
                if run.step:
                    self._links.append(Link(result, run.start, run.source, run.first, run.length))
        result.check_pieces()

    def computed(self, result: Batched, operands: list[list[Run]], build: Callable[..., Node]) -> MakeNodes:
        """Cuts a result that is computed element by element. Returns what makes its pieces later: each is
        `build` of the pieces of the operands."""
        columns = result.columns
        for runs in operands:
            self.computed_from(columns, runs)

        def make() -> None:
            columns.pieces = []
            for lo, hi in columns.spans:
                node = build(*(piece_of(self.nodes, runs, lo, hi) for runs in operands))
                columns.pieces.append(self.nodes.fill(node, hi - lo))

        return make

    def runs(self, tensor: Tensor, like: Tensor) -> list[Run]:
        """Where the elements of a tensor are, in the order of those of a tensor with columns of its own."""
        return operand_runs(self.value(tensor), self.batched(like))

    def cut_like(self, tensor: Tensor, like: Tensor) -> None:
        """Cuts a tensor as another one of the same shape."""
        self.computed_from(self.batched(like).columns, self.runs(tensor, like))

    def spread_cuts(self) -> None:
        """Along all links, in both directions, until nothing changes."""
        changed = True
        while changed:
            changed = False
            for a, a_at, b, b_at, length in self._links:
                for one, at, other, other_at in ((a, a_at, b, b_at), (b, b_at, a, a_at)):
                    new = {cut - at + other_at for cut in one.cuts if at < cut < at + length} - other.cuts
                    other.cuts |= new
                    changed = changed or bool(new)

    # second phase: nodes

    def later(self, make: MakeNodes | None) -> None:
        """Registers what makes the nodes of a call, if it has any."""
        if make is not None:
            self._makers.append(make)

    def leaf(self, tensor: Tensor, op: str, *attr: int, first: int = 0) -> None:
        """Makes the pieces of a tensor that the step starts with. first: the number of its first column."""
        columns = self.batched(tensor).columns
        columns.pieces = [
            self.nodes.make(op, attr=(*attr, first + lo), width=hi - lo) for lo, hi in columns.spans
        ]

    def make_nodes(self) -> None:
        for make in self._makers:
            make()

    def pieces(self, tensor: Tensor, like: Tensor) -> list[Node]:
        """The pieces of a tensor, cut as another one of the same shape."""
        runs = self.runs(tensor, like)
        spans = self.batched(like).columns.spans
        return [self.nodes.fill(piece_of(self.nodes, runs, lo, hi), hi - lo) for lo, hi in spans]

    # what torch does outside the machine code

    def call_before(self, call: Call) -> None:
        """A call that depends on weights alone."""
        self._call_outside("before", call.function, call.args, call.kwargs, tensors_in(call.out))

    def call_after(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outs: list[Tensor]
    ) -> None:
        """A call that works on sums. In the arguments a sum may be given as a `Total`."""
        self._call_outside("after", function, args, kwargs, outs)

    def _call_outside(
        self, kind: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outs: list[Tensor]
    ) -> None:
        args, kwargs = self._references((args, kwargs))
        slots = self.outside.add(kind, function, args, kwargs, len(outs))
        for out, slot in zip(outs, slots, strict=True):
            self.assign(out, Total(slot) if kind == "after" else Weight(slot, tuple(out.shape)))

    def derived_weight(self, function: Any, weight: Weight, *args: Any, shape: tuple[int, ...]) -> Weight:
        """One more call before the sequence that the recorded step does not contain."""
        (slot,) = self.outside.add("before", function, (Ref(("before", weight.slot)), *args), {}, 1)
        return Weight(slot, shape)

    def _references(self, arguments: Any) -> Any:
        """Arguments with references in place of tensors."""
        if isinstance(arguments, Total):
            return Ref(("after", arguments.slot))
        if isinstance(arguments, Tensor):
            value = self.value(arguments)
            if isinstance(value, Uniform):
                return torch.full(arguments.shape, value.value, dtype=arguments.dtype)
            assert isinstance(value, Weight | Total)
            return Ref(("after" if isinstance(value, Total) else "before", value.slot))
        if isinstance(arguments, list | tuple):
            return type(arguments)(self._references(part) for part in arguments)
        if isinstance(arguments, dict):
            return {name: self._references(part) for name, part in arguments.items()}
        return arguments


class OutsideCalls:
    """The calls before and after the sequence, and the sums between the machine code and the latter."""

    def __init__(self) -> None:
        self.calls: dict[str, list[OutsideCall]] = {"before": [], "after": []}
        self.sums: dict[int, Sum] = {}
        self._slots = {"before": 0, "after": 0}

    def new_slot(self, kind: str) -> int:
        self._slots[kind] += 1
        return self._slots[kind] - 1

    def add(
        self, kind: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], results: int
    ) -> list[int]:
        """One more call; the slots of its results."""
        slots = [self.new_slot(kind) for _ in range(results)]
        self.calls[kind].append(OutsideCall(function, args, kwargs, slots))
        return slots

    def new_sum(self, shape: tuple[int, ...]) -> tuple[Total, Sum]:
        """A sum over sequences, whose pieces are set in the second phase."""
        slot = self.new_slot("after")
        self.sums[slot] = Sum([], [], shape)
        return Total(slot), self.sums[slot]


def _uniform_number(tensor: Tensor) -> float | None:
    """The number that all elements of a tensor are, or None if they differ."""
    if tensor.numel() == 0:
        return 0.0
    first = tensor.flatten()[0]
    return float(first) if tensor.numel() == 1 or bool((tensor == first).all()) else None
