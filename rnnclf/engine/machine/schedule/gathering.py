"""Joins the products of a sum into one node, so that one product with stacked weights computes all of it.

`W x + b + U h` comes as add(add(dot(x), vec(b)), dot(h)) and becomes one node `gather(x, h)` whose attribute
names the blocks of weights and the bias: inputs, a one and the state lie side by side in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rnnclf.engine.machine.graph import Node, Nodes, references
from rnnclf.engine.machine.schedule.levels import reached
from rnnclf.engine.machine.trace.tracer import Graph

Pieces = list[Node]


@dataclass
class GatheredStep:
    """A traced step in which every sum of products is a `gather` node. A value is a list of pieces.

    Attributes:
        main: the piece of the old state that most products read; it lies beside the inputs.
        new, old: the pieces of each part of the state.
        out: the outputs, where they are no part of the state.
        d_old, d_x: the gradients; None where there are none.
        sums: of each sum over sequences and steps the operands, (left, right), as in `trace.Sum`.
        d_new: the gradients of the new state, which backward is given.
    """

    nodes: Nodes
    main: Node | None
    x: Pieces
    old: list[Pieces]
    new: list[Pieces]
    out: Pieces | None
    d_x: Pieces | None
    d_old: list[Pieces | None]
    sums: dict[int, tuple[Pieces, Pieces]]
    d_new: list[Pieces]

    def forward_nodes(self) -> set[Node]:
        return set(reached([*(p for leaf in self.new for p in leaf), *(self.out or [])]))

    def sum_operands(self) -> Pieces:
        return [p for left, right in self.sums.values() for p in (*left, *right)]


def gather(graph: Graph) -> GatheredStep:
    nodes = graph.nodes
    needed = sorted(
        {place for name in graph.gradients for place in _sums_behind(graph, graph.gradients[name])}
    )
    sums = {place: graph.sums[place] for place in needed}
    results = [*graph.new, *(d or [] for d in graph.d_old), graph.out or [], graph.d_x or []]
    roots = [piece for pieces in results for piece in pieces]
    roots += [piece for total in sums.values() for piece in (*total.left, *total.right)]
    main = _main_state(nodes)
    gathering = _Gathering(nodes, roots, main)

    def copied(pieces: Pieces, always: bool = False) -> Pieces:
        """A value with a second place must be stored by a pass, not by a product."""
        return [nodes.make("copy", p, width=p.width) if always or p.op == "gather" else p for p in pieces]

    return GatheredStep(
        nodes=nodes,
        main=main,
        x=graph.x,
        old=graph.old,
        new=[copied(gathering.all(leaf)) for leaf in graph.new],
        out=None if graph.out is None else copied(gathering.all(graph.out), always=True),
        d_x=None if graph.d_x is None else gathering.all(graph.d_x),
        d_old=[None if leaf is None else gathering.all(leaf) for leaf in graph.d_old],
        sums={place: (gathering.all(s.left), gathering.all(s.right)) for place, s in sums.items()},
        d_new=[
            [nodes.make("dnew", attr=(k, p.attr[1]), width=p.width) for p in leaf]
            for k, leaf in enumerate(graph.old)
        ],
    )


def _sums_behind(graph: Graph, place: int) -> list[int]:
    """The sums that a value after the last step is made of."""
    if place in graph.sums:
        return [place]
    _, args, kwargs, _ = next(call for call in graph.after if place in call[3])
    used = [number for kind, number in references((args, kwargs)) if kind == "after"]
    return [total for number in used for total in _sums_behind(graph, number)]


def _main_state(nodes: Nodes) -> Node | None:
    read = Counter(n.args[0] for n in nodes.known.values() if n.op == "dot" and n.args[0].op == "old")
    return read.most_common(1)[0][0] if read else None


class _Gathering:
    """Rewrites nodes."""

    def __init__(self, nodes: Nodes, roots: list[Node], main: Node | None) -> None:
        self.nodes, self.main = nodes, main
        self.uses = Counter(roots)
        for node in reached(roots):
            self.uses.update(node.args)
        self.done: dict[Node, Node] = {}

    def all(self, pieces: Iterable[Node]) -> Pieces:
        return [self.rewritten(piece) for piece in pieces]

    def rewritten(self, node: Node) -> Node:
        if node not in self.done:
            if node.op == "dot":
                self.done[node] = self._gathered([node], [])
            elif node.op == "add":
                self.done[node] = self._added(node)
            elif node.args:
                args = map(self.rewritten, node.args)
                self.done[node] = self.nodes.make(node.op, *args, attr=node.attr, width=node.width)
            else:
                self.done[node] = node
        return self.done[node]

    def _gathered(self, products: list[Node], biases: list[Node]) -> Node:
        operands = [self.rewritten(product.args[0]) for product in products]
        attr = (tuple(product.attr for product in products), tuple(bias.attr for bias in biases))
        return self.nodes.make("gather", *operands, attr=attr, width=products[0].width)

    def _added(self, node: Node) -> Node:
        terms = self._terms(node)
        products = [t for t in terms if t.op == "dot" and self.uses[t] == 1 and t.width == node.width]
        if not products:
            return self.nodes.make("add", *map(self.rewritten, node.args), width=node.width)
        biases = [n for n, t in enumerate(terms) if t.op == "vec" and t.width == node.width]
        if not any(p.args[0].op == "x" or p.args[0] is self.main for p in products):
            biases = []  # the one lies beside these: elsewhere a bias would need a product of its own
        del biases[1:]  # only one row of weights can stand there
        gathered = self._gathered(products, [terms[n] for n in biases])
        rest = [self.rewritten(t) for n, t in enumerate(terms) if n not in biases and t not in products]
        if not rest:
            return gathered
        total = rest[0]
        for term in rest[1:]:
            total = self.nodes.make("add", total, term)
        return self.nodes.make("add", total, gathered)

    def _terms(self, node: Node, inner: bool = False) -> list[Node]:
        """The terms of a sum, through sums that are used nowhere else."""
        if node.op == "add" and (not inner or self.uses[node] == 1):
            return [term for operand in node.args for term in self._terms(operand, inner=True)]
        return [node]
