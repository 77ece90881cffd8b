"""What each torch operation inside a step is, in nodes: the rules.

A rule is called twice: without nodes, to say where values have to be cut, then with `Nodes`, to make the pieces.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from rnnclf.engine.machine.graph import (
    MOST,
    BatchValue,
    Call,
    Columns,
    Node,
    Nodes,
    Ref,
    Span,
    Stretch,
    Total,
    UncoveredError,
    Uniform,
    WeightValue,
    stretches,
    tensors_in,
)

if TYPE_CHECKING:
    from rnnclf.engine.machine.trace import Sorter

UNARY = ["tanh", "sigmoid", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "neg", "abs", "relu", "sign", "sin", "cos", "atan", "erf", "floor"]
BINARY = ["add", "sub", "mul", "div", "maximum", "minimum", "gt", "lt", "ge", "le", "eq", "ne"]

FACTORIES = set(
    ["empty", "empty_like", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like", "new_zeros", "new_ones", "new_full", "new_empty", "scalar_tensor", "new_empty_strided", "empty_strided", "empty_permuted"]
)
MOVES = set(
    ["t", "transpose", "permute", "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "expand", "slice", "select", "split", "split_with_sizes", "unbind", "detach", "alias", "clone", "_to_copy", "repeat", "flip", "roll"]
)
"""What only moves numbers."""
LINEAR = MOVES | set(["add", "sub", "neg", "cat", "stack", "slice_backward", "select_backward", "sum", "mul", "div"])


def move(s: Sorter, call: Call, m: Nodes | None) -> None:
    """Torch does it to the places of the numbers."""
    value = s.value(call.args[0])
    if m is not None:
        return
    code = s.code(value)
    if call.name not in ("detach", "alias", "clone", "_to_copy"):
        code = call.function(code.contiguous(), *call.args[1:], **call.kwargs)
    for out, place in zip(tensors_in(call.out), tensors_in(code), strict=True):
        s.set(out, s.decoded(value.base, place))


def _numberwise(build: Any) -> Any:
    """A rule for an operation on numbers: build(m, call, *operands) → a node."""

    def rule(s: Sorter, call: Call, m: Nodes | None) -> None:
        out, *extra = tensors_in(call.out)
        values = [s.value(a) for a in call.args if isinstance(a, torch.Tensor | int | float | bool)]
        if m is None:
            first = next(v for v in values if isinstance(v, BatchValue))
            batch = s.decoded(first.base, s.code(first).broadcast_to(out.shape)).batch
            row = s.row(out, batch)
            for value in values:
                s.meet(row.base, s.runs(value, out.shape, batch))
            for other in extra:
                s.set(other, Uniform(0.0))
            return
        row = s.value(out)
        runs = [s.runs(value, out.shape, row.batch) for value in values]
        row.base.pieces = [
            s._filled(build(m, call, *(s.piece(r, lo, hi) for r in runs)), hi - lo) for lo, hi in row.base.spans
        ]

    return rule


def _unary(op: str) -> Any:
    return _numberwise(lambda m, call, a: m.make(op, a))


def _binary(op: str, turned: bool = False) -> Any:
    def build(m: Nodes, call: Call, a: Node, b: Node, *more: Node) -> Node:
        alpha = call.kwargs.get("alpha", 1)
        if turned:
            a, b = b, a
        return m.make(op, a, b if alpha == 1 else m.make("mul", b, m.const(alpha)))

    return _numberwise(build)


def _lerp(m: Nodes, call: Call, a: Node, b: Node, w: Node) -> Node:  # torch's decomposition imports sympy: a second
    return m.make("add", a, m.make("mul", w, m.make("sub", b, a)))


def _pow(m: Nodes, call: Call, x: Node, *exponent: Node) -> Node:
    n = call.args[1]
    if n in (0.5, -1, -0.5):
        return m.make({0.5: "sqrt", -1: "reciprocal", -0.5: "rsqrt"}[n], x)
    if n in (2, 3, 4):
        total = x
        for _ in range(int(n) - 1):
            total = m.make("mul", total, x)
        return total
    return m.make("pow", x, m.const(n))


def _copied(s: Sorter, call: Call, m: Nodes | None, sources: list[Any], which: torch.Tensor, at: torch.Tensor) -> None:
    """A value whose numbers are those of several others: of each which one, and its place there."""
    values = [s.value(v) for v in sources]
    batch = next(v.batch for v in values if isinstance(v, BatchValue))
    runs, flat, places = [], which.reshape(-1).tolist(), at.reshape(-1)
    lo = 0
    for hi in range(1, len(flat) + 1):
        if hi == len(flat) or flat[hi] != flat[lo]:
            value = values[flat[lo]]
            source = value.base if isinstance(value, BatchValue) else value
            if isinstance(value, Uniform):
                runs.append(Stretch(lo, hi - lo, value, 0, 0))
            else:
                runs += [
                    Stretch(lo + r.lo, r.length, source, r.column, r.step) for r in stretches(places[lo:hi], source)
                ]
            lo = hi
    if m is None:
        s.meet(s.row(call.out, batch).base, runs)
    else:
        base = s.value(call.out).base
        base.pieces = [s._filled(s.piece(runs, lo, hi), hi - lo) for lo, hi in base.spans]


def _places(s: Sorter, tensor: torch.Tensor, batch: int) -> torch.Tensor:
    """Of each number behind the sequences its place in what it is made of."""
    value = s.value(tensor)
    if isinstance(value, BatchValue):
        if value.batch != batch:
            raise UncoveredError("its sequences of a batch meet each other")
        return value.at
    shape = [n for d, n in enumerate(tensor.shape) if d != batch]
    return torch.arange(math.prod(shape)).reshape(shape)


def _cat(s: Sorter, call: Call, m: Nodes | None) -> None:
    parts = list(call.args[0])
    dim = (call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0)) % call.out.ndim
    batch = next(s.value(t).batch for t in parts if isinstance(s.value(t), BatchValue))
    if dim == batch:
        raise UncoveredError("cat of sequences of a batch")
    inner = dim - (batch < dim)
    at = [_places(s, t, batch) for t in parts]
    which = torch.cat([torch.full_like(a, n) for n, a in enumerate(at)], inner)
    _copied(s, call, m, parts, which, torch.cat(at, inner))
    if m is None:
        row = s.value(call.out)
        row.at = torch.arange(row.base.width).reshape([n for d, n in enumerate(call.out.shape) if d != batch])


def _part_backward(s: Sorter, call: Call, m: Nodes | None) -> None:
    """The gradient of a part: zeros around it."""
    g, sizes, dim = call.args[:3]
    value = s.value(g)
    dim = dim % len(sizes)
    batch = value.batch + (call.name == "select_backward" and dim <= value.batch)
    if dim == batch:
        if tuple(g.shape) != tuple(sizes):
            raise UncoveredError("a part of the sequences of a batch")
        return move(s, Call("alias", None, (g,), {}, call.out), m)
    inner, shape = dim - (dim > batch), [n for d, n in enumerate(sizes) if d != batch]
    which, at = torch.ones(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    if call.name == "select_backward":
        target = [x.select(inner, call.args[3]) for x in (which, at)]
    else:
        length = sizes[dim]
        start, end, step = call.args[3:6]
        target = [x[(slice(None),) * inner + (slice(start, min(end, length), step),)] for x in (which, at)]
    target[0].zero_()
    target[1].copy_(value.at)
    return _copied(s, call, m, [g, 0.0], which, at)


def _total(m: Nodes, nodes: list[Node]) -> Node:
    total = nodes[0]
    for node in nodes[1:]:
        total = m.make("add", total, node)
    return total


def _sum_of(m: Nodes, pieces: list[Node]) -> Node:
    return _total(m, [p if p.width == 1 else m.make("rowsum", p, width=1) for p in pieces])


def _dims(call: Call) -> list[int]:
    ndim = call.args[0].ndim
    dims = call.args[1] if len(call.args) > 1 and isinstance(call.args[1], list) else None
    return sorted(d % ndim for d in (dims or range(ndim)))


def _sum(s: Sorter, call: Call, m: Nodes | None) -> None:
    value, out, dims = s.value(call.args[0]), call.out, _dims(call)
    if value.batch in dims:
        if m is None:
            s.cut_at(value.at, value.base)
            s.set(out, Total(-1))
            return
        nodes = [node for _, node in s.within(value.at, value.base)]
        if dims == [value.batch]:
            s.set(out, s.add_sum([], nodes, tuple(out.shape)))
            return
        whole = s.add_sum([], nodes, tuple(value.at.unsqueeze(value.batch).shape))
        s.later(call.function, (Ref(("after", whole.place)), *call.args[1:]), call.kwargs, [out])
        return
    inner = [d - (d > value.batch) for d in dims]
    kept = [d for d in range(value.at.ndim) if d not in inner]
    at = value.at.permute(*kept, *inner).reshape(math.prod(value.at.shape[d] for d in kept), -1)
    rows = len(at) <= MOST and at.shape[1] >= len(at)
    if m is None:
        batch = next(d for d in range(out.ndim) if out.shape[d] == s.rows)
        base = s.row(out, batch).base
        if rows:
            base.cut(*range(base.width))
            for some in at:
                s.cut_at(some, value.base)
        else:
            if at.shape[1] > MOST:
                raise UncoveredError("a sum in too many pieces")
            for some in at.t():
                s.meet(base, stretches(some, value.base))
    elif rows:
        s.value(out).base.pieces = [_sum_of(m, [node for _, node in s.within(some, value.base)]) for some in at]
    else:
        base, runs = s.value(out).base, [stretches(some, value.base) for some in at.t()]
        base.pieces = [_total(m, [s.piece(r, lo, hi) for r in runs]) for lo, hi in base.spans]


def _amax(s: Sorter, call: Call, m: Nodes | None) -> None:
    """The largest number of each row."""
    value, out = s.value(call.args[0]), call.out
    if _dims(call) != [call.args[0].ndim - 1] or value.batch == call.args[0].ndim - 1:
        raise UncoveredError("a maximum over more than the last dimension")
    rows = value.at.reshape(-1, value.at.shape[-1])
    if m is None:
        batch = next(d for d in range(out.ndim) if out.shape[d] == s.rows)
        base = s.row(out, batch).base
        base.cut(*range(base.width))
        for some in rows:
            s.cut_at(some, value.base)
        return
    s.value(out).base.pieces = []
    for some in rows:
        found = [m.make("rowmax", n, width=1) if n.width > 1 else n for _, n in s.within(some, value.base)]
        total = found[0]
        for node in found[1:]:
            total = m.make("maximum", total, node)
        s.value(out).base.pieces.append(total)


def _dots(s: Sorter, m: Nodes, at: torch.Tensor, base: Columns, par: WeightValue, spans: list[Span]) -> list[Node]:
    """What stands at these columns, times a matrix (or a vector, one column)."""
    parts = s.within(at, base)
    found = []
    for lo, hi in spans:
        terms = []
        for k, piece in parts:
            if par.shape[1:] in ((), (1,)):  # a sum over each row
                terms.append(_sum_of(m, [m.make("mul", piece, m.make("vec", attr=(par.place, k), width=piece.width))]))
            elif piece.width == 1:
                vec = m.make("vec", attr=(par.place, k * par.shape[1] + lo), width=hi - lo)
                terms.append(m.make("mul", piece, vec))
            else:
                terms.append(m.make("dot", piece, attr=(par.place, k, piece.width, lo), width=hi - lo))
        found.append(_total(m, terms))
    return found


def _product(s: Sorter, call: Call, m: Nodes | None) -> None:
    """mm, mv, bmm: rows times weights, or a sum over sequences of products."""
    left, right = call.args[:2]
    _product_of(s, left, right, call.out, m)


def _product_of(s: Sorter, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, m: Nodes | None) -> None:
    a, b = s.value(left), s.value(right)
    many = left.ndim == 3
    if (
        isinstance(a, WeightValue) and isinstance(b, BatchValue) and right.ndim >= 2 and b.batch == right.ndim - 1
    ):  # (bᵀ aᵀ)ᵀ
        a, b = b, a
        turned, a_at = True, a.at
    elif isinstance(a, BatchValue) and isinstance(b, WeightValue) and a.batch == left.ndim - 2:
        turned, a_at = False, a.at
    elif (
        isinstance(a, BatchValue)
        and isinstance(b, BatchValue)
        and a.batch == left.ndim - 1
        and b.batch == max(right.ndim - 2, 0)
    ):
        return _outer(s, a, b, out, many, m)
    else:
        raise UncoveredError("a product of two values that both depend on the inputs")
    a_at = a_at if many else a_at.unsqueeze(0)  # (J, K)
    if m is None:
        row = s.row(out, out.ndim - 1 if turned else out.ndim - 2 if right.ndim > 1 else 0)
        size = row.base.width // len(a_at)
        row.base.cut(*range(0, row.base.width, size))
        for at in a_at:
            s.cut_at(at, a.base)
        if len(row.base.cuts) >= MOST:
            raise UncoveredError("a product in too many pieces")
        return None
    base = s.value(out).base
    size = base.width // len(a_at)
    base.pieces = []
    for j, at in enumerate(a_at):
        par = b
        if many:
            par = s.earlier(torch.ops.aten.select.int, par, 0, j, shape=par.shape[1:])
        if turned:
            par = s.earlier(torch.ops.aten.t.default, par, shape=par.shape[::-1])
        spans = [(lo - j * size, hi - j * size) for lo, hi in base.spans if j * size <= lo < (j + 1) * size]
        base.pieces += _dots(s, m, at, a.base, par, spans)
    return None


def _outer(s: Sorter, a: BatchValue, b: BatchValue, out: torch.Tensor, many: bool, m: Nodes | None) -> None:
    a_at, b_at = (v.at if many else v.at.unsqueeze(0) for v in (a, b))
    if m is None:
        for at, v in ((a_at, a), (b_at, b)):
            for some in at:
                s.cut_at(some.reshape(-1), v.base)
        s.set(out, Total(-1))
        return
    found = []
    for one, other in zip(a_at, b_at, strict=True):
        left, right = ([n for _, n in s.within(at, v.base)] for at, v in ((one.reshape(-1), a), (other.reshape(-1), b)))
        shape = tuple(out.shape[1:] if many else out.shape)
        if len(left) == 1 == left[0].width or len(right) == 1 == right[0].width:
            wide, narrow = (right, left[0]) if len(left) == 1 == left[0].width else (left, right[0])
            found.append(s.add_sum([], [m.make("mul", piece, narrow) for piece in wide], shape))
        else:
            found.append(s.add_sum(left, right, shape))
    if many:
        s.later(torch.ops.aten.stack.default, ([Ref(("after", acc.place)) for acc in found],), {}, [out])
    else:
        s.set(out, found[0])


def _mean(x: torch.Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> torch.Tensor:
    return x.sum(dim, keepdim=keepdim) * (1 / math.prod(x.shape[d] for d in dim or range(x.ndim)))


def _var_mean(x: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    mean, numbers = x.mean(dim, keepdim=True), math.prod(x.shape[d] for d in dim or range(x.ndim))
    squares = (x - mean).square().sum(dim, keepdim=keepdim)
    return squares / (numbers - (1 if correction is None else correction)), x.mean(dim, keepdim=keepdim)


def _layer_norm(x: torch.Tensor, shape: Any, gain: Any, bias: Any, eps: float) -> Any:
    dims = list(range(x.ndim - len(shape), x.ndim))
    mean = x.mean(dims, keepdim=True)
    rstd = ((x - mean).square().mean(dims, keepdim=True) + eps).rsqrt()
    y = (x - mean) * rstd
    y = y if gain is None else y * gain
    return y if bias is None else y + bias, mean, rstd


OWN: dict[str, Any] = {
    "addmm": lambda c, a, b, beta=1, alpha=1: _times(c, beta) + _times(a.mm(b), alpha),
    "addmv": lambda c, a, b, beta=1, alpha=1: _times(c, beta) + _times((a * b).sum(1), alpha),
    "mv": lambda a, b: (a * b).sum(1),
    "addcmul": lambda a, b, c, value=1: a + _times(b * c, value),
    "rsub": lambda a, b, alpha=1: _times(a, alpha).neg() + b,
    "tanh_backward": lambda g, y: g - g * y * y,
    "sigmoid_backward": lambda g, y: g * (y - y * y),
    "threshold_backward": lambda g, x, threshold: torch.where(x <= threshold, 0.0, g),
    "masked_fill": lambda a, chosen, value: torch.where(chosen, value, a),
    "log_sigmoid_forward": lambda x: (x.minimum(x.new_zeros(())) - x.abs().neg().exp().log1p(), x.new_zeros(0)),
    "log_sigmoid_backward": lambda g, x, _: g * x.neg().sigmoid(),
    "var": lambda *args, **kwargs: _var_mean(*args, **kwargs)[0],
    "var_mean": _var_mean,
    "mean": _mean,
    "native_layer_norm": _layer_norm,
}
"""Operations in simpler ones. For most others torch has decompositions, but the first of them imports sympy: 0.4 s."""


def _times(a: Any, factor: float) -> Any:
    return a if factor == 1 else a * factor


RULES: dict[str, Any] = {name: _unary(name) for name in UNARY} | {name: _binary(name) for name in BINARY}
RULES |= {
    "sgn": _unary("sign"),
    "logical_and": _binary("and"),
    "bitwise_and": _binary("and"),
    "logical_or": _binary("or"),
    "bitwise_or": _binary("or"),
    "bitwise_not": _unary("not"),
    "logical_not": _unary("not"),
    "fill": _numberwise(lambda m, call, a, value: value),
    "zero": _numberwise(lambda m, call, a: m.const(0)),
    "copy": _numberwise(lambda m, call, a, b: b),
    "where": _numberwise(lambda m, call, c, a, b: m.make("where", c, a, b)),
    "lerp": _numberwise(_lerp),
    "pow": _numberwise(_pow),
    "sum": _sum,
    "amax": _amax,
    "mm": _product,
    "bmm": _product,
    "cat": _cat,
    "slice_backward": _part_backward,
    "select_backward": _part_backward,
}
