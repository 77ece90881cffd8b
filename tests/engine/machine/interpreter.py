"""Runs the graph of a step over a sequence with NumPy: what machine code has to do, without a compiler."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnclf.engine.machine.graph import Graph, Node, OutsideCall, Ref

UNARY: dict[str, Any] = {
    "tanh": np.tanh, "exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "sqrt": np.sqrt,
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "sin": np.sin, "cos": np.cos, "atan": np.arctan,
    "floor": np.floor, "not": np.logical_not, "erf": np.vectorize(math.erf, otypes=[float]),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)), "rsqrt": lambda a: 1 / np.sqrt(a),
    "reciprocal": lambda a: 1 / a, "relu": lambda a: np.maximum(a, 0),
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power,
    "maximum": np.maximum, "minimum": np.minimum, "gt": np.greater, "lt": np.less, "ge": np.greater_equal,
    "le": np.less_equal, "eq": np.equal, "ne": np.not_equal, "and": np.logical_and, "or": np.logical_or,
    "where": lambda chosen, a, b: np.where(chosen != 0, a, b),
    "rowsum": lambda a: a.sum(1, keepdims=True), "rowmax": lambda a: a.max(1, keepdims=True),
}  # fmt: skip


def replay(calls: list[OutsideCall], known: dict[Ref, Tensor], kind: str) -> dict[Ref, Tensor]:
    def real(what: Any) -> Any:
        if isinstance(what, Ref):
            return known[what]
        return type(what)(map(real, what)) if isinstance(what, list | tuple) else what

    for function, args, kwargs, slots in calls:
        out = function(*real(args), **{name: real(value) for name, value in kwargs.items()})
        for slot, tensor in zip(slots, out if isinstance(out, list | tuple) else [out], strict=True):
            known[Ref((kind, slot))] = tensor
    return known


class Interpreter:
    """graph: of a step. weights: the prepared weights by name."""

    def __init__(self, graph: Graph, weights: dict[str, Tensor]) -> None:
        self.graph = graph
        given = {Ref(("before", slot)): weights[name].detach() for slot, name in enumerate(graph.names)}
        self.weights = replay(graph.before, given, "before")

    def forward(self, x: Any, old: list[Any]) -> tuple[Any, list[Any]]:
        """x (batch, inputs), previous state → output, new state."""
        values = self._values(x, old)
        new = [values.tensor(pieces) for pieces in self.graph.new]
        if self.graph.out is None:
            assert self.graph.out_leaf is not None
            return new[self.graph.out_leaf], new
        return values.tensor(self.graph.out), new

    def backward(
        self, x: Any, old: list[Any], d_out: Any, d_new: list[Any]
    ) -> tuple[Any, list[Any], dict[int, Any]]:
        """Gradients with respect to x and the previous state, and the sums over the batch by their slots."""
        if self.graph.out_leaf is not None:
            d_new = [d + d_out if k == self.graph.out_leaf else d for k, d in enumerate(d_new)]
        values = self._values(x, old, d_out, d_new)
        zeros = [np.zeros_like(leaf) for leaf in old]
        d_old = [
            zero if d is None else values.tensor(d) for d, zero in zip(self.graph.d_old, zeros, strict=True)
        ]
        d_x = np.zeros_like(x) if self.graph.d_x is None else values.tensor(self.graph.d_x)
        sums = {}
        for slot, total in self.graph.sums.items():
            right = values.tensor(total.right)
            found = values.tensor(total.left).T @ right if total.left else right.sum(0)
            sums[slot] = found.reshape(total.shape)
        return d_x, d_old, sums

    def gradients(self, sums: dict[int, Any]) -> dict[str, Tensor]:
        """From the sums over all steps to the gradients of the weights."""
        known = self.weights | {Ref(("after", slot)): torch.as_tensor(total) for slot, total in sums.items()}
        after = replay(self.graph.after, known, "after")
        return {name: after[Ref(("after", slot))] for name, slot in self.graph.gradients.items()}

    def _values(self, x: Any, old: list[Any], d_out: Any = None, d_new: Any = None) -> Values:
        return Values(self.weights, {"x": [x], "old": old, "dnew": d_new, "dout": [d_out]}, len(x))


class Values:
    """The values of nodes at one step."""

    def __init__(self, weights: dict[Ref, Tensor], given: dict[str, Any], batch: int) -> None:
        self.weights, self.given, self.batch = weights, given, batch
        self.known: dict[Node, Any] = {}

    def tensor(self, pieces: list[Node]) -> Any:
        return np.concatenate([self.of(piece) for piece in pieces], 1)

    def of(self, node: Node) -> Any:
        if node not in self.known:
            value = np.broadcast_to(self._computed(node), (self.batch, node.width)) * 1.0
            self.known[node] = value
        return self.known[node]

    def _computed(self, node: Node) -> Any:
        if node.op == "const":
            return node.attr
        if node.op in self.given:
            number, column = (0, *node.attr) if len(node.attr) == 1 else node.attr
            part = self.given[node.op][number][:, column : column + node.width]
            assert part.shape[1] == node.width, node
            return part
        if node.op == "vec":
            slot, first = node.attr
            return self.weights[Ref(("before", slot))].numpy().reshape(-1)[first : first + node.width]
        args = [self.of(a) for a in node.args]
        if node.op == "dot":
            slot, row, rows, column = node.attr
            matrix = self.weights[Ref(("before", slot))].numpy()
            return args[0] @ matrix[row : row + rows, column : column + node.width]
        if node.op == "fill":
            assert node.args[0].width == 1
            return args[0]
        if node.op not in ("rowsum", "rowmax"):
            assert {a.width for a in node.args} <= {1, node.width}, node
        return (UNARY | OTHERS)[node.op](*args)
