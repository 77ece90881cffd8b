"""What backward computes, and what it therefore reads of forward.

Forward saves the results of products and of costly functions that backward uses. Cheap values are computed
again from those: memory traffic costs more than a few multiplications.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from rnnclf.engine.machine.graph import COSTLY, OVER_ROWS, Node
from rnnclf.engine.machine.schedule.gathering import GatheredStep
from rnnclf.engine.machine.schedule.levels import reached


class Result(NamedTuple):
    """The gradient of a piece of the old state, or of the inputs.

    What the last pass stores, plus a `gather` node whose product is added in place; without either, zero.
    """

    stored: Node | None
    product: Node | None


@dataclass
class BackwardNeeds:
    """What one time step of backward has to compute, and from what.

    Attributes:
        results: of each piece of the old state, then of each piece of the inputs.
        sum_operands: what the gradients of the weights sum up.
        available: what backward can load although forward does not save it: inputs, states, weights.
        saved: what forward has to save, in the order in which backward meets it.
    """

    results: list[Result]
    sum_operands: list[Node]
    available: set[Node]
    saved: dict[Node, None]

    @property
    def product_operands(self) -> list[Node]:
        """The operands of the products that are added after the last pass."""
        return [operand for result in self.results if result.product for operand in result.product.args]

    @property
    def stored_results(self) -> list[Node]:
        return [result.stored for result in self.results if result.stored]

    @property
    def roots(self) -> list[Node]:
        return [*self.product_operands, *self.stored_results, *self.sum_operands]


def backward_needs(step: GatheredStep, forward: set[Node]) -> BackwardNeeds:
    """forward: the nodes that forward computes."""
    new = {piece for leaf in step.new for piece in leaf if piece.args}
    available = new | {node for node in forward if not node.args}
    gradients: list[Node | None] = [
        piece
        for old, leaf in zip(step.old, step.d_old, strict=True)
        for piece in (leaf if leaf is not None else [None] * len(old))
    ]
    gradients += step.d_x or []
    operands = step.sum_operands()
    uses = Counter(n for node in reached([*(g for g in gradients if g), *operands]) for n in node.args)
    uses.update(operands)
    results = [_split(gradient, uses) for gradient in gradients]
    needs = BackwardNeeds(results, operands, available, {})
    for left, right in step.sums.values():
        for node in (*left, *right) if left else ():  # outer products read their operands from memory
            if node in forward and node.args and node not in new:
                needs.saved.setdefault(node, None)
    _save(needs, forward, new)
    return needs


def _split(gradient: Node | None, uses: Counter[Node]) -> Result:
    if gradient is None or uses[gradient]:
        return Result(gradient, None)
    if gradient.op == "gather":
        return Result(None, gradient)
    if gradient.op == "add":
        for a, b in (gradient.args, gradient.args[::-1]):
            if a.op == "gather" and uses[a] <= 1 and b.width == gradient.width:
                return Result(b, a)
    return Result(gradient, None)


def _save(needs: BackwardNeeds, forward: set[Node], new: set[Node]) -> None:
    """Walks from what backward computes to the first values of forward that are worth saving."""
    seen: set[Node] = set()

    def visit(node: Node) -> None:
        if node in seen or not node.args or node in new:
            return
        seen.add(node)
        if node in forward:
            again = node.op in ("tanh", "sigmoid") and all(a in needs.available for a in node.args)
            if node.op in ("gather", *OVER_ROWS) or (node.op in COSTLY and not again):
                needs.saved.setdefault(node, None)
                return
        for operand in node.args:
            visit(operand)

    for node in needs.roots:
        visit(node)
