"""Plans of cells, and a check that every read of a plan finds what it expects."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from rnnclf.cells.base import Cell
from rnnclf.engine.machine.graph import OVER_ROWS, Node
from rnnclf.engine.machine.schedule.plan import INPUT_OPS, ONE, Operand, Pass, Place, Plan, Product, Stage
from rnnclf.engine.machine.schedule.planner import plan
from rnnclf.engine.machine.trace.tracer import record
from tests.engine.machine.comparing import named

ZERO = "zero"


def plan_of(cell: Cell, inputs: int = 3, lanes: int = 8) -> Plan:
    module = cell.build(inputs).double()
    with torch.enable_grad():
        return plan(record(module.cell, vars(module.prepared()), inputs), lanes)


@cache
def named_plan(name: str, hidden: int) -> Plan:
    return plan_of(named(name, hidden))


class Memory:
    """One row of each buffer, whose columns know which value they hold, while a plan is carried out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.columns: dict[tuple[str, int, int], Operand] = {}

    def write(self, value: Operand, place: Place, width: int, padded: bool = True) -> None:
        for n in range(width):
            self.columns[place.buffer, place.time, place.column + n] = value
        if padded:
            for n in range(width, -(-width // self.plan.lanes) * self.plan.lanes):
                self.columns[place.buffer, place.time, place.column + n] = ZERO
        end = place.column + (-(-width // self.plan.lanes) * self.plan.lanes if padded else width)
        assert end <= self.plan.widths[place.buffer], f"{value} ends behind {place.buffer}"

    def read(self, place: Place, width: int, value: Operand | None = None) -> None:
        found = {self.columns.get((place.buffer, place.time, place.column + n)) for n in range(width)}
        assert len(found) == 1, f"{place.columns(width)} holds parts of {found}"
        owner = found.pop()
        assert owner not in (None, ZERO), f"{place.columns(width)} was never written"
        assert value is None or owner == value, f"{place.columns(width)} holds {owner}, not {value}"

    def product(self, product: Product) -> None:
        """The blocks of the matrix meet whole values, and between them are zeros."""
        covered: set[int] = set()
        positions = [(block.row, block.column) for block in product.matrix.blocks]
        assert len(set(positions)) == len(positions), "two blocks in one place"
        for block in product.matrix.blocks:
            place = Place(product.a.buffer, product.a.column + block.row, product.a.time)
            self.read(place, block.k_count)
            covered |= set(range(block.row, block.row + block.k_count))
        for row in set(range(product.matrix.rows)) - covered:
            between = (product.a.buffer, product.a.time, product.a.column + row)
            finite = self.columns.get(between) in (ZERO, ONE)
            assert finite, f"{between} is multiplied by zero, but need not be finite"
        column = product.c.column
        for node in product.results:
            self.write(node, Place(product.c.buffer, column, product.c.time), node.width)
            column += -(-node.width // self.plan.lanes) * self.plan.lanes

    def stages(self, stages: list[Stage], places: dict[Operand, Place], in_memory: set[Node]) -> None:
        for stage in stages:
            known: set[Node] = set()
            for product in stage.products:
                self.product(product)
                in_memory.update(product.results)
            for one in stage.passes:
                self.one_pass(one, places, in_memory, known)

    def one_pass(
        self, one: Pass, places: dict[Operand, Place], in_memory: set[Node], known: set[Node]
    ) -> None:
        seen: set[Node] = set()

        def use(node: Node) -> None:
            if node in seen or node in known:
                return
            seen.add(node)
            if node in in_memory or node.op in INPUT_OPS:
                self.read(places[node], node.width, node)
            else:
                assert node.op != "gather", f"{node} is not in memory"
                assert node.op not in OVER_ROWS, f"{node} is not known yet"
                for operand in node.args:
                    use(operand)

        for node in [
            *(n for n, _ in one.stores),
            *(n.args[0] for n in one.rowsums),
            *(n for n, _ in one.colsums),
        ]:
            use(node)
        for node, place in one.stores:
            self.write(node, place, node.width, padded=node.width > 1)
        in_memory.update(node for node, _ in one.stores)
        known.update(one.rowsums)


def carry_out(plan: Plan) -> Memory:
    """Follows a plan through a step and back. Raises AssertionError where a value lies on top of another."""
    memory = Memory(plan)
    inputs = [piece for leaf in (plan.graph.x, *plan.graph.old) for piece in leaf]
    for piece in inputs:
        memory.write(piece, plan.places[piece], piece.width, padded=piece.op == "old")
    memory.write(ONE, plan.places[ONE], 1, padded=False)
    memory.stages(plan.forward, plan.places, set())
    for place, pieces in zip(plan.state_at, plan.graph.old, strict=True):
        for one, piece in zip(place, pieces, strict=True):
            memory.read(Place(one.buffer, one.column, 1), piece.width)
    for column in [key for key in memory.columns if key[0] == "forward_scratch"]:
        del memory.columns[column]
    for node, place in plan.places_back.items():
        if isinstance(node, Node) and node.op in ("dnew", "dout"):
            memory.write(node, place, node.width)
    memory.stages(plan.backward, plan.places_back, plan.in_memory_before_backward())
    for product in plan.last:
        memory.product(product)
    return memory


def gaps(plan: Plan) -> list[Any]:
    """The columns of weights' gradients that no block of sums fills, or two do."""
    wrong = []
    for place, blocks in plan.assembly.items():
        total = plan.graph.sums[place]
        shape = total.shape if total.left else (1, sum(node.width for node in total.right))
        filled = torch.zeros(shape)
        for block in blocks:
            filled[block.row : block.row + block.rows, block.column : block.column + block.columns] += 1
            last = block.rows * block.stride if not block.transposed else block.columns * block.stride
            if block.offset + last - block.stride >= plan.sums:
                wrong.append((place, block))
        if not bool((filled == 1).all()):
            wrong.append((place, filled))
    return wrong
