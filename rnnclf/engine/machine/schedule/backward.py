"""The stages of backward, and the products that follow them."""

from __future__ import annotations

from rnnclf.engine.machine.graph import Node
from rnnclf.engine.machine.schedule.gathering import GatheredStep
from rnnclf.engine.machine.schedule.layout import Layout
from rnnclf.engine.machine.schedule.levels import FIRST, Levels, Stages, store_what_passes_need
from rnnclf.engine.machine.schedule.plan import Place, Product
from rnnclf.engine.machine.schedule.saving import BackwardNeeds
from rnnclf.engine.machine.schedule.weight_gradients import WeightGradients


class Operands:
    """Decides what a product reads: a copy of what it may write to, or of what is the same for all rows."""

    def __init__(self, step: GatheredStep) -> None:
        self.nodes = step.nodes
        self.copies: dict[Node, None] = {}

    def copied(self, node: Node) -> bool:
        return node.op in ("dnew", "dout", "fill", "const", "vec")

    def __call__(self, node: Node) -> Node:
        if not self.copied(node):
            return node
        copy = self.nodes.make("copy", node, width=node.width)
        self.copies[copy] = None
        return copy


class Backward:
    """The stages, `last` products and sums of backward.

    Attributes:
        stages, last: as in `Plan`.
        sums: the outer products, and how the gradients of the weights are made of them.
        input_places: where the gradients of the inputs lie.
    """

    def __init__(self, step: GatheredStep, layout: Layout, needs: BackwardNeeds, forward: set[Node]) -> None:
        self.step, self.layout, self.needs = step, layout, needs
        self.operand = Operands(step)
        self.stages, self.last = Stages(), list[Product]()
        self.levels = Levels(
            needs.roots,
            lambda node: node in needs.saved or node in needs.available or not node.args,
            self.operand.copied,
        )
        self.groups = self.levels.groups()
        self.sums = WeightGradients(step, layout, forward, self.operand)
        self._store()
        self._write_stages()
        self.input_places = [layout.reserve("input_gradients", piece.width) for piece in step.d_x or []]
        self._write_results()
        self.sums.write(self.stages, self.levels)

    def _store(self) -> None:
        """Finds what backward stores, and places it: operands of one product side by side."""
        layout, needs, levels = self.layout, self.needs, self.levels
        products = [*(r.product for r in needs.results if r.product), *levels.gathers()]
        lists = [[self.operand(a) for a in product.args] for product in products]
        lists += self.sums.operand_lists()
        for copy in self.operand.copies:
            levels.setdefault(copy, FIRST)
        self.stored: dict[Node, None] = {}
        for nodes in sorted(lists, key=len, reverse=True):
            for node in nodes:
                if not levels.given(node) and node.op != "gather":
                    self.stored.setdefault(node, None)
        for node in self.stored:
            layout.reserve_for(node, "backward_scratch")
        self.end = max([FIRST, *(levels[node] for node in levels.computed())])
        extra = [(node, self.end) for node in needs.stored_results if node.op != "gather"]
        extra += [(node, levels.runs_at(node)) for node in self.sums.summed_in_passes]
        store_what_passes_need(self.stored, extra, levels)

    def _write_stages(self) -> None:
        layout, levels = self.layout, self.levels
        for group in self.groups:
            for node in group:
                layout.reserve_for(node, "backward_scratch")
        for group in self.groups:
            products = layout.products(group, layout.places[group[0]], self.operand)
            self.stages.stage(levels[group[0]].stage).products += products
        for node in self.stored:
            layout.reserve_for(node, "backward_scratch")
        self.stages.add_rowsums(levels)
        self.stages.add_stores([(node, layout.places[node]) for node in self.stored], levels)

    def _write_results(self) -> None:
        """The gradients of the old state replace those of the new one, which the last pass reads first."""
        step, layout = self.step, self.layout
        targets = [(layout.places[p], p.width) for leaf in step.d_new for p in leaf]
        targets += [(place, p.width) for place, p in zip(self.input_places, step.d_x or [], strict=True)]
        final = self.stages.at(self.end)
        for (stored, product), (place, width) in zip(self.needs.results, targets, strict=True):
            if stored or not product:
                zero = step.nodes.const(0)
                final.stores.append((stored or step.nodes.make("fill", zero, width=width), place))
            if product:
                self.last += self._added(product, place, bool(stored))

    def _added(self, product: Node, place: Place, add: bool) -> list[Product]:
        found = self.layout.products([product], place, self.operand, add)
        for part in found:
            part.optional, part.carried = place.buffer == "input_gradients", place.buffer == "state_gradients"
            part.results = []  # complete only together with what was stored
        return found
