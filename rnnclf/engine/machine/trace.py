"""Records one step of a cell and its gradient, as torch's autograd makes it, and sorts the calls into a graph.

Every call belongs to one of four places:
  before   depends on weights alone (`U.t()`, `U.chunk(2)`): torch runs it once per sequence;
  inside   has a row for each sequence: becomes machine code and runs at each time step;
  sums     over the sequences of a batch (`x.t() @ dz`, `dz.sum(0)`): accumulated over all time steps;
  after    works on those sums (`.t()`, `cat`): linear in them, so torch runs it once, at the end.

Inside, what only moves numbers (`view`, `chunk`, `permute`, ...) costs nothing: torch applies it to a tensor of
column numbers instead. Values are cut where any use of them begins or ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

from rnnclf.cells.base import Parameters
from rnnclf.cells.state import leaves, map_states
from rnnclf.engine.machine.graph import (
    MOST,
    BatchValue,
    Call,
    Columns,
    Node,
    Nodes,
    Ref,
    Stretch,
    Total,
    UncoveredError,
    Uniform,
    WeightValue,
    stretches,
    tensors_in,
)
from rnnclf.engine.machine.operations import FACTORIES, LINEAR, MOVES, OWN, RULES, move


class Recorder(TorchDispatchMode):
    """Notes the calls of torch: operations with a rule as they are, others as they decompose."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.versions: dict[int, torch.Tensor] = {}
        self.views: dict[int, dict[int, torch.Tensor]] = {}
        self.kept: list[torch.Tensor] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler, for seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if name.rstrip("_") not in RULES and name not in FACTORIES and name not in MOVES:
            with self:
                simpler = OWN.get(name) or decomposition_table.get(function, function.decompose)
                out = simpler(*args, **kwargs)
            if out is not NotImplemented:
                return out
        if torch.Tag.nondeterministic_seeded in function.tags:
            raise UncoveredError(f"it draws random numbers ({name})")
        if name == "_local_scalar_dense":
            raise UncoveredError("it looks at single numbers of a tensor")
        out = function(*args, **kwargs)
        noted = out
        seen = self.latest((args, kwargs))
        if name.endswith("_"):  # in place: from here on the tensor is another value
            name, noted = name[:-1], out.detach()
            if len(self.views.get(_storage(args[0]), ())) > 1:
                raise UncoveredError(f"it changes a value in place of which there are views ({name}_)")
            self.versions[id(args[0])] = noted
            self.kept += [args[0], out]
        for tensor in tensors_in(out):
            self.views.setdefault(_storage(tensor), {})[id(tensor)] = tensor
        self.calls.append(Call(name, function, *seen, noted))
        return out

    def latest(self, what: Any) -> Any:
        """The same, with tensors that were changed in place as what they are by now."""
        if isinstance(what, torch.Tensor):
            return self.versions.get(id(what), what)
        if isinstance(what, list | tuple):
            return type(what)(self.latest(part) for part in what)
        if isinstance(what, dict):
            return {name: self.latest(part) for name, part in what.items()}
        return what


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@dataclass
class Sum:
    """A sum over sequences and steps: of products of all numbers of `left` with all of `right`, or, without
    `left`, of `right`. shape: as torch knows it."""

    left: list[Node]
    right: list[Node]
    shape: tuple[int, ...]


@dataclass
class Graph:
    """A step and its gradient. Pieces: of each part of the state its new numbers; of the output, where it is
    no part of the state (then `out_leaf` says which); of each part of the state, and of the inputs, the
    gradients. gradients: the place among what is done after, of each weight that has one."""

    names: list[str]
    nodes: Nodes
    before: list[tuple[Any, tuple, dict, list[int]]]
    after: list[tuple[Any, tuple, dict, list[int]]]
    sums: dict[int, Sum]
    x: list[Node]
    old: list[list[Node]]
    new: list[list[Node]]
    out: list[Node] | None
    out_leaf: int | None
    d_x: list[Node] | None
    d_old: list[list[Node] | None]
    gradients: dict[str, int]
    ops: tuple[list[str], list[str]]


def record(cell: Any, p: dict[str, torch.Tensor], inputs: int) -> Graph:
    """A cell's step with these prepared weights, on so many features. Raises UncoveredError."""
    dtype = next(iter(p.values())).dtype
    names = [name for name, w in p.items() if w.requires_grad]
    p = {name: w.detach().clone().requires_grad_(w.requires_grad) for name, w in p.items()}
    sizes = {inputs, *(side for w in p.values() for side in w.shape)}
    rows = next(n for n in (11, 13, 17, 19, 23, *range(29, 10**6)) if n not in sizes)
    x = torch.randn(rows, inputs, dtype=dtype).requires_grad_()
    start = cell.initial_state(x)
    if any(leaf.shape[0] != rows or leaf.ndim != 2 or leaf.is_complex() for leaf in leaves(start)):
        raise UncoveredError("its state is not real numbers (batch, width)")
    old = [torch.rand_like(leaf).requires_grad_() for leaf in leaves(start)]
    rest = iter(old)
    state = map_states(lambda _: next(rest), start)
    recorder = Recorder()
    with recorder:
        weights = Parameters(**p)
        out, new_state = cell.step(weights, cell.inputs(weights, x), state)
    new = leaves(new_state)
    out_leaf = next((k for k, leaf in enumerate(new) if leaf is out), None)
    results = new if out_leaf is not None else [*new, out]
    forward = len(recorder.calls)
    d_results = [torch.randn(r.shape, dtype=dtype) for r in results]
    pairs = zip(results, d_results, strict=True)
    loss = sum((r * d).sum() for r, d in pairs if r.requires_grad)  # one number: torch then imports no sympy
    with recorder:
        given = torch.autograd.grad(loss, [x, *old, *(p[name] for name in names)], allow_unused=True)
    new, out, given = recorder.latest((new, out, given))
    sorter = Sorter(recorder.calls, rows)
    for name in p:
        sorter.weight(p[name])
    for row in (x, *old, *d_results):
        sorter.row(row)
    for row, like in [*zip(new, old, strict=True), *zip(given[1 : 1 + len(old)], old, strict=True), (given[0], x)]:
        sorter.wanted(row, like)
    if out_leaf is None:
        sorter.wanted(out, d_results[-1])
    sorter.survey()
    sorter.pieces(x, "x", ())
    for k, leaf in enumerate(old):
        sorter.pieces(leaf, "old", (k,))
    for k, d in enumerate(d_results):
        sorter.pieces(d, *(("dnew", (k,)) if k < len(new) else ("dout", ())))
    sorter.lower()
    found = {name: sorter.as_sum(g) for name, g in zip(names, given[1 + len(old) :], strict=True) if g is not None}
    return Graph(
        names=list(p),
        nodes=sorter.nodes,
        before=sorter.before,
        after=sorter.after,
        sums=sorter.sums,
        x=sorter.value(x).base.pieces,
        old=[sorter.value(leaf).base.pieces for leaf in old],
        new=[sorter.as_pieces(leaf, old[k]) for k, leaf in enumerate(new)],
        out=None if out_leaf is not None else sorter.as_pieces(out, d_results[-1]),
        out_leaf=out_leaf,
        d_x=None if given[0] is None else sorter.as_pieces(given[0], x),
        d_old=[None if g is None else sorter.as_pieces(g, old[k]) for k, g in enumerate(given[1 : 1 + len(old)])],
        gradients={name: place for name, place in found.items() if place is not None},
        ops=([c.name for c in recorder.calls[:forward]], [c.name for c in recorder.calls[forward:]]),
    )


class Sorter:
    """Sorts calls to where they belong."""

    def __init__(self, calls: list[Call], rows: int) -> None:
        self.calls, self.nodes, self.rows = calls, Nodes(), rows
        self.values: dict[int, Any] = {}
        self.keep: list[Any] = []
        self.before: list = []
        self.after: list = []
        self.places = self.places_after = 0
        self.sums: dict[int, Sum] = {}
        self.links: list[tuple[Columns, int, Columns, int, int]] = []
        self.results: list[tuple[torch.Tensor, torch.Tensor]] = []

    # what tensors are

    def weight(self, tensor: torch.Tensor) -> None:
        self.set(tensor, WeightValue(self.places, tuple(tensor.shape)))
        self.places += 1

    def row(self, tensor: torch.Tensor, batch: int = 0) -> BatchValue:
        """A new value."""
        inner = [n for d, n in enumerate(tensor.shape) if d != batch]
        if tensor.shape[batch : batch + 1] != (self.rows,):
            raise UncoveredError(f"a value of shape {tuple(tensor.shape)}")
        width = math.prod(inner)
        self.set(tensor, BatchValue(Columns(width), batch, torch.arange(width).reshape(inner)))
        return self.values[id(tensor)]

    def set(self, tensor: torch.Tensor, value: Any) -> None:
        self.values[id(tensor)] = value
        self.keep.append(tensor)

    def value(self, tensor: Any) -> Any:
        if not isinstance(tensor, torch.Tensor):
            return Uniform(float(tensor))
        if id(tensor) in self.values:
            return self.values[id(tensor)]
        if tensor.ndim == 0 and not tensor.requires_grad:  # a Python number that torch made a tensor of
            return Uniform(float(tensor))
        raise UncoveredError("it uses a tensor that is neither a weight nor made from one")

    def pieces(self, tensor: torch.Tensor, op: str, attr: tuple) -> None:
        base = self.value(tensor).base
        base.pieces = [self.nodes.make(op, attr=(*attr, lo), width=hi - lo) for lo, hi in base.spans]

    def wanted(self, tensor: torch.Tensor | None, like: torch.Tensor) -> None:
        """A result: cut as what it is a new version, or the gradient, of."""
        if tensor is not None:
            self.results.append((tensor, like))

    def as_pieces(self, tensor: torch.Tensor, like: torch.Tensor) -> list[Node]:
        runs = self.runs(self.value(tensor), like.shape, 0)
        return [self._filled(self.piece(runs, lo, hi), hi - lo) for lo, hi in self.value(like).base.spans]

    def _filled(self, node: Node, width: int) -> Node:
        return node if node.width == width else self.nodes.make("fill", node, width=width)

    def as_sum(self, tensor: torch.Tensor) -> int | None:
        value = self.value(tensor)
        if isinstance(value, Total):
            return value.place
        if isinstance(value, Uniform) and value.value == 0:
            return None
        raise UncoveredError("a gradient of a weight that is no sum over the sequences")

    # first: what is where, and where it is cut

    def survey(self) -> None:
        for call in self.calls:
            self._survey(call)
        for tensor, like in self.results:
            self.meet(self.value(like).base, self.runs(self.value(tensor), like.shape, 0))
        changed = True
        while changed:
            changed = False
            for a, a_at, b, b_at, length in self.links:
                for one, at, other, other_at in ((a, a_at, b, b_at), (b, b_at, a, a_at)):
                    new = {c - at + other_at for c in one.cuts if at < c < at + length} - other.cuts
                    other.cuts |= new
                    changed = changed or bool(new)

    def _kinds(self, call: Call) -> tuple[list[Any], bool]:
        kinds = [self.value(t) for t in tensors_in((call.args, call.kwargs))]
        return kinds, any(isinstance(k, BatchValue) for k in kinds)

    def _survey(self, call: Call) -> None:
        outs = tensors_in(call.out)
        if call.name in FACTORIES:
            for t in outs:
                self.set(t, Uniform(0.0))
            return
        kinds, inside = self._kinds(call)
        if inside and any(isinstance(k, Total) for k in kinds):
            raise UncoveredError("its sequences of a batch meet within a step")
        if inside:
            self._rule(call)(self, call, None)
        elif any(isinstance(k, Total) for k in kinds):
            if call.name not in LINEAR:
                raise UncoveredError(f"a gradient that is not linear in sums over sequences ({call.name})")
            for t in outs:
                self.set(t, Total(-1))
        else:
            same = kinds and all(isinstance(k, Uniform) for k in kinds)
            for t in outs:
                self.set(t, Uniform(0.0) if same else WeightValue(-1, tuple(t.shape)))

    def _rule(self, call: Call) -> Any:
        if call.name in MOVES:
            return move
        if call.name not in RULES:
            raise UncoveredError(f"there is no rule for {call.name}")
        return RULES[call.name]

    # places of numbers

    def code(self, row: BatchValue) -> torch.Tensor:
        """A tensor of the shape of a value whose numbers say where they come from."""
        sequences = torch.arange(self.rows).reshape([-1 if d == row.batch else 1 for d in range(row.at.ndim + 1)])
        return row.at.unsqueeze(row.batch) * self.rows + sequences

    def decoded(self, base: Columns, code: torch.Tensor) -> BatchValue:
        sequences = code % self.rows
        for d in range(code.ndim):
            if code.shape[d] == self.rows:
                expected = torch.arange(self.rows).reshape([-1 if k == d else 1 for k in range(code.ndim)])
                if bool((sequences == expected).all()):
                    return BatchValue(base, d, (code // self.rows).select(d, 0))
        raise UncoveredError(f"its sequences of a batch are mixed in a value of shape {tuple(code.shape)}")

    def runs(self, value: Any, shape: Any, batch: int) -> list[Stretch]:
        """Where the numbers behind the sequences of an operand that is spread to a shape come from."""
        width = math.prod(n for d, n in enumerate(shape) if d != batch)
        if isinstance(value, Uniform):
            return [Stretch(0, width, value, 0, 0)]
        if isinstance(value, WeightValue):
            at = torch.arange(math.prod(value.shape)).reshape(value.shape)
            if self.rows in value.shape:
                raise UncoveredError("a constant with a row for each sequence")
            at, source = at.broadcast_to(shape).select(batch, 0), value
        else:
            row = value if tuple(shape) == self._shape(value) else self.decoded(
                value.base, self.code(value).broadcast_to(shape))  # fmt: skip
            if row.batch != batch:
                raise UncoveredError("its sequences of a batch meet each other")
            at, source = row.at, value.base
        return stretches(at, source)

    def _shape(self, row: BatchValue) -> tuple[int, ...]:
        shape = list(row.at.shape)
        shape.insert(row.batch, self.rows)
        return tuple(shape)

    def meet(self, base: Columns, runs: list[Stretch]) -> None:
        """Cuts a value as it has to be cut to be computed from operands."""
        for run in runs:
            base.cut(run.lo, run.lo + run.length)
            if isinstance(run.source, Columns):
                if run.step:
                    run.source.cut(run.column, run.column + run.length)
                    self.links.append((base, run.lo, run.source, run.column, run.length))
                else:
                    run.source.cut(run.column, run.column + 1)
        if len(base.cuts) >= MOST:
            raise UncoveredError("a value in too many pieces")

    def piece(self, runs: list[Stretch], lo: int, hi: int) -> Node:
        """What an operand is from lo to hi."""
        run = next(r for r in runs if r.lo <= lo < r.lo + r.length)
        if isinstance(run.source, Uniform):
            return self.nodes.const(run.source.value)
        begin = run.column + (lo - run.lo) * run.step
        width = hi - lo if run.step else 1
        if isinstance(run.source, WeightValue):
            return self.nodes.make("vec", attr=(run.source.place, begin), width=width)
        return run.source.pieces[run.source.spans.index((begin, begin + width))]

    def within(self, at: torch.Tensor, base: Columns) -> list[tuple[int, Node]]:
        """All pieces of what stands at these columns, each with where it begins."""
        found = []
        for run in stretches(at, base):
            inner = [
                (a, b) for a, b in base.spans if run.column <= a and b <= run.column + max(run.length * run.step, 1)
            ]
            for _ in range(1 if run.step else run.length):
                found += [(run.lo + a - run.column, base.pieces[base.spans.index((a, b))]) for a, b in inner]
        return found

    def cut_at(self, at: torch.Tensor, base: Columns) -> None:
        for run in stretches(at, base):
            base.cut(run.column, run.column + max(run.length * run.step, 1))
        if len(base.cuts) >= MOST:
            raise UncoveredError("a value in too many pieces")

    # second: pieces

    def lower(self) -> None:
        for call in self.calls:
            outs = tensors_in(call.out)
            if call.name in FACTORIES:
                for t in outs:
                    self.set(t, Uniform(float(t.flatten()[0]) if t.numel() and "empty" not in call.name else 0.0))
                continue
            kinds, inside = self._kinds(call)
            if inside:
                self._rule(call)(self, call, self.nodes)
            elif any(isinstance(k, Total) for k in kinds):
                args, kwargs = self._references((call.args, call.kwargs))
                self.later(call.function, args, kwargs, outs)
            elif kinds and all(isinstance(k, Uniform) for k in kinds):
                self._uniform(call, outs)
            else:
                args, kwargs = self._references((call.args, call.kwargs))
                for t in outs:
                    self.set(t, WeightValue(self.places, tuple(t.shape)))
                    self.places += 1
                self.before.append((call.function, args, kwargs, [self.value(t).place for t in outs]))

    def _references(self, what: Any) -> Any:
        if isinstance(what, torch.Tensor):
            value = self.value(what)
            if isinstance(value, Uniform):
                return value.value if what.ndim == 0 else torch.full(what.shape, value.value, dtype=what.dtype)
            return Ref(("after" if isinstance(value, Total) else "before", value.place))
        if isinstance(what, list | tuple):
            return type(what)(self._references(part) for part in what)
        if isinstance(what, dict):
            return {name: self._references(part) for name, part in what.items()}
        return what

    def _uniform(self, call: Call, outs: list[torch.Tensor]) -> None:
        """Of numbers that are the same everywhere comes one: torch computes it."""

        def small(what: Any) -> Any:
            if isinstance(what, torch.Tensor):
                return torch.full_like(what, self.value(what).value)
            return type(what)(map(small, what)) if isinstance(what, list | tuple) else what

        with torch.no_grad():
            found = tensors_in(call.function(*small(call.args), **call.kwargs))
        for t, f in zip(outs, found, strict=True):
            self.set(t, Uniform(float(f.flatten()[0]) if f.numel() else 0.0))

    def earlier(self, function: Any, par: WeightValue, *args: Any, shape: tuple[int, ...]) -> WeightValue:
        """One more thing to do before."""
        made = WeightValue(self.places, shape)
        self.places += 1
        self.before.append((function, (Ref(("before", par.place)), *args), {}, [made.place]))
        return made

    def later(self, function: Any, args: tuple, kwargs: dict, outs: list[torch.Tensor]) -> None:
        for t in outs:
            self.set(t, Total(self.places_after))
            self.places_after += 1
        self.after.append((function, args, kwargs, [self.value(t).place for t in outs]))

    def add_sum(self, left: list[Node], right: list[Node], shape: tuple[int, ...]) -> Total:
        acc = Total(self.places_after)
        self.sums[acc.place] = Sum(left, right, shape)
        self.places_after += 1
        return acc
