"""Gradients of weights: sums over all sequences and time steps, of outer products and of single values.

The gradient of U in `U h` is the sum of hᵀ dz. Operands that are neighbours in memory share an outer product,
so inputs, one and state with the gradients of all gates often need only one. The gradient of a bias is the
sum of dz alone: it is the row of the one in that outer product, or the pass that computes dz adds it up.
"""

from __future__ import annotations

from collections.abc import Callable

from rnnclf.engine.machine.graph import Node
from rnnclf.engine.machine.schedule.gathering import GatheredStep
from rnnclf.engine.machine.schedule.layout import Layout
from rnnclf.engine.machine.schedule.levels import Levels, Stages
from rnnclf.engine.machine.schedule.plan import ONE, Operand, Outer, Place, SumBlock

Pair = tuple[Node, Node]


class WeightGradients:
    """Finds the outer products and sums of a step.

    Attributes:
        outers, assembly, size: as in `Plan`, where the size is called `sums`.
        summed_in_passes: what passes add up.
    """

    def __init__(
        self, step: GatheredStep, layout: Layout, forward: set[Node], operand: Callable[[Node], Node]
    ) -> None:
        self.step, self.layout, self.forward, self.operand = step, layout, forward, operand
        self.pairs: dict[int, list[Pair]] = {}
        column_sums: list[Node] = []
        for place, (left, right) in step.sums.items():
            if left:
                self.pairs[place] = [self._pair(a, b) for a in left for b in right]
            else:
                column_sums += [operand(node) for node in right]
        self.summed_in_passes = {node for node in column_sums if not self._meets_the_one(node)}
        self.summed_with_the_one = [node for node in column_sums if node not in self.summed_in_passes]
        self.outers: list[Outer] = []
        self.assembly: dict[int, list[SumBlock]] = {}
        self.size = 0
        self._found: dict[
            tuple[Operand, Node], tuple[int, int]
        ] = {}  # where a block of sums begins, its row stride

    def operand_lists(self) -> list[list[Node]]:
        """Of each sum the operands that are to be neighbours."""
        pairs = list(self.pairs.values())
        return [[second for _, second in some] for some in pairs] + [
            [first for first, _ in some] for some in pairs
        ]

    def write(self, stages: Stages, levels: Levels) -> None:
        self._write_outers()
        for place, (left, right) in self.step.sums.items():
            self.assembly[place] = self._products(place) if left else self._column_sums(right, stages, levels)

    def _pair(self, a: Node, b: Node) -> Pair:
        """The operands of an outer product: first what forward knows, then what backward computes."""
        first, second = (a, b) if a in self.forward and b not in self.forward else (b, a)
        if first not in self.forward:
            first, second = a, b
        if first not in self.forward or first.op in ("fill", "const", "vec"):
            first = self.operand(first)
        if second not in self.forward or not second.args:
            second = self.operand(second)
        return first, second

    def _meets_the_one(self, node: Node) -> bool:
        """Whether a node has an outer product with a neighbour of the one, which then costs one row more."""
        one = self.layout.places[ONE]
        inputs = sum(piece.width for piece in self.step.x)
        beside = {Place("operands", one.column + 1), Place("operands", one.column - inputs)}
        return any(
            second is node and self.layout.places.get(first) in beside
            for pairs in self.pairs.values()
            for first, second in pairs
        )

    def _write_outers(self) -> None:
        layout = self.layout
        partners: dict[Node, dict[Operand, None]] = {}
        for pairs in self.pairs.values():
            for first, second in pairs:
                partners.setdefault(second, {})[first] = None
        for node in self.summed_with_the_one:
            partners[node][ONE] = None
        # neighbours that meet the same operands share an outer product
        shared: list[tuple[list[Node], list[Operand]]] = []
        for node in sorted(partners, key=layout.position):
            firsts = sorted(partners[node], key=layout.position)
            if shared and shared[-1][1] == firsts and layout.are_neighbours(shared[-1][0][-1], node):
                shared[-1][0].append(node)
            else:
                shared.append(([node], firsts))
        for seconds, firsts in shared:
            for run in layout.runs(firsts, lambda operand: operand):
                self._outer(run, seconds)

    def _outer(self, firsts: list[Operand], seconds: list[Node]) -> None:
        layout, places = self.layout, self.layout.places
        a, rows = layout.extent(firsts)
        b = places[seconds[0]]
        columns = places[seconds[-1]].column + layout.padded(seconds[-1].width) - b.column
        self.outers.append(Outer(a, rows, b, columns, self.size))
        for first in firsts:
            for second in seconds:
                row, column = places[first].column - a.column, places[second].column - b.column
                self._found[first, second] = (self.size + row * columns + column, columns)
        self.size += rows * columns

    def _products(self, place: int) -> list[SumBlock]:
        """The blocks of a sum of outer products."""
        left, right = self.step.sums[place]
        blocks: list[SumBlock] = []
        pairs = iter(self.pairs[place])
        row = 0
        for a in left:
            column = 0
            for b in right:
                first, second = next(pairs)
                transposed = first is not a and first is not self.operand(a)
                at = self._found[first, second]
                blocks.append(SumBlock(row, column, a.width, b.width, *at, transposed))
                column += b.width
            row += a.width
        return blocks

    def _column_sums(self, pieces: list[Node], stages: Stages, levels: Levels) -> list[SumBlock]:
        """The blocks of a sum of single values."""
        blocks: list[SumBlock] = []
        column = 0
        for piece in pieces:
            node = self.operand(piece)
            if node in self.summed_in_passes:
                at = (self.size, piece.width)
                stages.at(levels.runs_at(node)).colsums.append((node, self.size))
                self.size += self.layout.padded(piece.width)
            else:
                at = self._found[ONE, node]
            blocks.append(SumBlock(0, column, 1, piece.width, *at, False))
            column += piece.width
        return blocks
