"""In which stage and pass each node can be computed, and what must be stored so that it can.

A product needs its operands in memory, so a `gather` node begins a stage. A sum over the row must be complete
before its result can be used, so a `rowsum` or `rowmax` begins a pass. Everything else is computed as early
as its operands allow. A later pass loads what is costly and computes again what is cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from rnnclf.engine.machine.graph import COSTLY, OVER_ROWS, Node
from rnnclf.engine.machine.schedule.plan import Pass, Place, Stage

Given = Callable[[Node], bool]
"""Whether a node is in memory before the first stage, or costs nothing to load."""


class Level(NamedTuple):
    stage: int
    number: int  # of the pass


BEFORE, FIRST = Level(-1, 0), Level(0, 0)


def reached(roots: Iterable[Node], stop: Callable[[Node], bool] | None = None) -> dict[Node, None]:
    """All nodes that roots are computed from, and the roots, operands first.

    stop: nodes whose operands are left out.
    """
    seen: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node in seen:
            return
        if stop is None or not stop(node):
            for operand in node.args:
                visit(operand)
        seen[node] = None

    for root in roots:
        visit(root)
    return seen


class Levels(dict[Node, Level]):
    """The level of each node that some roots need.

    copied: whether a product reads a copy of a node, which the first pass makes.
    """

    def __init__(
        self, roots: Iterable[Node], given: Given, copied: Callable[[Node], bool] = lambda node: False
    ) -> None:
        super().__init__()
        self.given, self.copied = given, copied
        for node in reached(roots, stop=given):
            self[node] = self._level(node)

    def _level(self, node: Node) -> Level:
        if self.given(node) or not node.args:
            return BEFORE
        if node.op == "gather":
            latest = max(FIRST if self.copied(operand) else self[operand] for operand in node.args)
            return Level(latest.stage + 1, 0)
        latest = max(FIRST, *(self[operand] for operand in node.args))
        return Level(latest.stage, latest.number + 1) if node.op in OVER_ROWS else latest

    def runs_at(self, node: Node) -> Level:
        """The pass in which a node is stored or summed: the first one where it needs no computing."""
        return max(self[node], FIRST)

    def computed(self) -> list[Node]:
        return [node for node in self if not self.given(node)]

    def gathers(self) -> list[Node]:
        return [node for node in self.computed() if node.op == "gather"]

    def rowsums(self) -> list[Node]:
        return [node for node in self.computed() if node.op in OVER_ROWS]

    def groups(self) -> list[list[Node]]:
        """The `gather` nodes of one stage with the same operands, which one product computes.

        They are in the order of their weights' columns.
        """
        groups: dict[object, list[Node]] = {}
        for node in self.gathers():
            groups.setdefault((self[node].stage, node.args, len(node.attr[1])), []).append(node)
        return [sorted(group, key=lambda node: node.attr[0]) for group in groups.values()]


def store_what_passes_need(stored: dict[Node, None], extra: list[tuple[Node, Level]], levels: Levels) -> None:
    """Adds nodes to `stored` until every pass finds in memory what it does not compute itself.

    Args:
        extra: nodes that are evaluated, in which pass, without being stored.
    """
    while True:
        before = len(stored)
        roots = [(node, levels[node]) for node in stored if not levels.given(node) and node.op != "gather"]
        for node, level in [*roots, *extra]:
            _demand_operands(node, level, stored, levels)
        for node in levels.rowsums():
            stage, number = levels[node]
            _demand(node.args[0], Level(stage, number - 1), stored, levels, set())
        if len(stored) == before:
            return


def _demand_operands(node: Node, at: Level, stored: dict[Node, None], levels: Levels) -> None:
    """A node is evaluated in a pass: stores what that pass has to load."""
    if node.op == "gather":
        _demand(node, at, stored, levels, set())
    elif not levels.given(node):
        seen = {node}
        for operand in node.args:
            _demand(operand, at, stored, levels, seen)


def _demand(node: Node, at: Level, stored: dict[Node, None], levels: Levels, seen: set[Node]) -> None:
    """A pass uses a node: loads it, still has it, or computes it from operands that it demands in turn."""
    if node in seen or not node.args or levels.given(node):
        return
    seen.add(node)
    if node.op == "gather":
        stored[node] = None
        return
    level = levels[node]
    is_earlier, same_stage, of_row = level < at, level.stage == at.stage, node.op in OVER_ROWS
    if is_earlier and node in stored:
        return
    if of_row and same_stage:
        return  # a register holds it until the end of the row
    if is_earlier and (of_row or node.op in COSTLY) and not (node.width == 1 and same_stage):
        stored[node] = None
        return
    for operand in node.args:
        _demand(operand, at, stored, levels, seen)


class Stages(list[Stage]):
    """A list of stages that grows as it is filled."""

    def stage(self, number: int) -> Stage:
        while len(self) <= number:
            self.append(Stage())
        return self[number]

    def at(self, level: Level) -> Pass:
        passes = self.stage(level.stage).passes
        while len(passes) <= level.number:
            passes.append(Pass())
        return passes[level.number]

    def add_rowsums(self, levels: Levels) -> None:
        for node in levels.rowsums():
            stage, number = levels[node]
            self.at(Level(stage, number - 1)).rowsums.append(node)
            self.at(Level(stage, number))

    def add_stores(self, stores: Iterable[tuple[Node, Place]], levels: Levels) -> None:
        for node, place in stores:
            if node.op != "gather":
                self.at(levels.runs_at(node)).stores.append((node, place))
