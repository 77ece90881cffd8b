"""Rules for operations on each element by itself, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rnnclf.engine.machine.graph import BINARY, UNARY, Node, Nodes, UncoveredError
from rnnclf.engine.machine.trace.lowering import Lowering, MakeNodes
from rnnclf.engine.machine.trace.recording import Call
from rnnclf.engine.machine.trace.values import MIXED, Batched, Weight, operand_runs

Build = Callable[..., Node]
"""(nodes, call, *operands) → the node of one piece."""


def _rule(build: Build, keyword: str = "") -> Callable[[Lowering, Call], MakeNodes]:
    """The rule of an operation. keyword: an argument that `build` takes into account."""

    def rule(lowering: Lowering, call: Call) -> MakeNodes:
        for name, value in call.kwargs.items():
            if name != keyword and value is not None:
                raise UncoveredError(f"its step uses {name}={value}, which machine code does not have")
        values = [lowering.value(a) for a in call.args if isinstance(a, torch.Tensor | int | float)]
        first = next(value for value in values if isinstance(value, Batched))
        result = lowering.new_columns(call.out, first.broadcast_to(tuple(call.out.shape)).batch_dim)
        operands = [operand_runs(value, result) for value in values]
        return lowering.computed(result, operands, lambda *pieces: build(lowering.nodes, call, *pieces))

    return rule


def expanded_weight(lowering: Lowering, call: Call) -> MakeNodes:
    """The rule of `expand` for a weight that is repeated for each sequence, as `b.expand(len(z), -1)`."""
    weight, shape = lowering.value(call.args[0]), tuple(call.out.shape)
    assert isinstance(weight, Weight)
    before = (*[1] * (len(shape) - len(weight.shape)), *weight.shape)
    repeated = [dim for dim, size in enumerate(shape) if size == lowering.rows and before[dim] == 1]
    if not repeated:
        raise UncoveredError(MIXED)
    result = lowering.new_columns(call.out, repeated[0])
    return lowering.computed(result, [operand_runs(weight, result)], lambda piece: piece)


def _same(op: str) -> Build:
    """The operation is that of a node."""
    return lambda nodes, call, *operands: nodes.make(op, *operands)


def _scaled(op: str) -> Build:
    """add and sub: a ± alpha · b."""

    def build(nodes: Nodes, call: Call, a: Node, b: Node) -> Node:
        alpha = call.kwargs.get("alpha", 1)
        return nodes.make(op, a, b if alpha == 1 else nodes.make("mul", b, nodes.const(alpha)))

    return build


def _div(nodes: Nodes, call: Call, a: Node, b: Node) -> Node:
    quotient, rounding = nodes.make("div", a, b), call.kwargs.get("rounding_mode")
    if rounding == "floor":
        return nodes.make("floor", quotient)
    if rounding == "trunc":
        return nodes.make(
            "mul", nodes.make("sign", quotient), nodes.make("floor", nodes.make("abs", quotient))
        )
    return quotient


def _pow(nodes: Nodes, call: Call, base: Node, exponent: Node) -> Node:
    number = call.args[1]
    if isinstance(number, torch.Tensor):
        return nodes.make("pow", base, exponent)
    if number in (0.5, -1, -0.5):
        return nodes.make({0.5: "sqrt", -1: "reciprocal", -0.5: "rsqrt"}[number], base)
    if number in (1, 2, 3, 4):
        return nodes.chain("mul", [base] * int(number))
    return nodes.make("pow", base, exponent)


def _lerp(nodes: Nodes, call: Call, a: Node, b: Node, weight: Node) -> Node:
    return nodes.make("add", a, nodes.make("mul", weight, nodes.make("sub", b, a)))


ELEMENTWISE = {op: _rule(_same(op)) for op in UNARY | BINARY} | {
    "add": _rule(_scaled("add"), "alpha"),
    "sub": _rule(_scaled("sub"), "alpha"),
    "div": _rule(_div, "rounding_mode"),
    "pow": _rule(_pow),
    "lerp": _rule(_lerp),
    "where": _rule(_same("where")),
    "sgn": _rule(_same("sign")),
    "logical_and": _rule(_same("and")),
    "bitwise_and": _rule(_same("and")),
    "logical_or": _rule(_same("or")),
    "bitwise_or": _rule(_same("or")),
    "logical_not": _rule(_same("not")),
    "bitwise_not": _rule(_same("not")),
    "copy": _rule(lambda nodes, call, target, source: source),
    "fill": _rule(lambda nodes, call, target, number: number),
    "zero": _rule(lambda nodes, call, target: nodes.const(0)),
}
