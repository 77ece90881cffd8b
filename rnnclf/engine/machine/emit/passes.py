"""The passes over the columns of a row: from nodes to loads, operations and stores.

For each width, a pass is one loop that takes a vector of every value at a time:

    for k in range(0, width, lanes):
        load the operands of all results, compute them, then store them

No loop is left to LLVM's vectoriser, which would have to prove, or check at run time, that a dozen arrays do
not overlap. Here all loads at k come before the stores at k, and no result depends on other columns: a sum
over the row is finished by an earlier pass. Values that are one number wide are computed before the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llvmlite import ir

from rnnclf.engine.machine.emit.functions import Elementwise
from rnnclf.engine.machine.emit.instructions import I1, I64
from rnnclf.engine.machine.graph import OVER_ROWS, Node
from rnnclf.engine.machine.schedule.plan import INPUT_OPS, Pass, Place

if TYPE_CHECKING:
    from rnnclf.engine.machine.emit.time_loop import TimeLoop


class Task(NamedTuple):
    """Something that a pass does with a value.

    kind: store; rowsum, also for a maximum; or colsum.
    value: the node to compute.
    target: the place of a store, the node of a rowsum, the offset of a colsum among the sums.
    """

    kind: str
    value: Node
    target: Any


def tasks_of(one: Pass) -> list[Task]:
    tasks = [Task("store", node, place) for node, place in one.stores]
    tasks += [Task("rowsum", node.args[0], node) for node in one.rowsums]
    return tasks + [Task("colsum", node, offset) for node, offset in one.colsums]


class RowLoop:
    """Writes the passes of a stage for one row.

    Attributes:
        addresses: of this row of each buffer, at this time step and at the next.
        of_row: values that are one number wide, sums over the row among them.
        splats: those of them that vectors need, as vectors.
    """

    def __init__(self, f: TimeLoop, row: Any) -> None:
        self.f, self.b = f, f.b
        self.addresses = {
            (buffer, time): f.add(base, f.mul(row, f.stride(buffer)))
            for (buffer, time), base in f.bases.items()
        }
        self.of_row: dict[Node, Any] = {}
        self.splats: dict[Node, Any] = {}

    def write_pass(self, one: Pass) -> None:
        """A loop over the columns for each width."""
        by_width: dict[int, list[Task]] = {}
        for task in tasks_of(one):
            by_width.setdefault(task.value.width, []).append(task)
        for tasks in by_width.values():
            for task in tasks:
                self._compute_numbers(task.value, set())
        for task in by_width.pop(1, []):
            self._finish_number(task)
        for width, tasks in by_width.items():
            self._write_columns(width, tasks)
        self.f.in_memory.update(node for node, _ in one.stores)

    def address(self, place: Place) -> Any:
        return self.f.add(self.addresses[place.buffer, place.time], place.column * self.f.size)

    def address_of_sum(self, offset: int) -> Any:
        return self.f.add(self.f.a["sums"], offset * self.f.size)

    def is_in_memory(self, node: Node) -> bool:
        return node in self.f.in_memory or node.op in INPUT_OPS

    # values that are one number wide

    def _compute_numbers(self, node: Node, seen: set[Node]) -> None:
        """Computes the single numbers that a value depends on."""
        if node in seen:
            return
        seen.add(node)
        if node.width == 1 and node.op != "const":
            value = self.number(node)
            if node not in self.splats:
                self.splats[node] = self.f.splat(Elementwise(self.f, False).number(value))
        elif not (node in self.f.in_memory or node.op in OVER_ROWS):
            for operand in node.args:
                self._compute_numbers(operand, seen)

    def number(self, node: Node) -> Any:
        """The value of a node that is one number wide."""
        if node.op == "const":
            return ir.Constant(self.f.number, node.attr)
        if node not in self.of_row:
            self.of_row[node] = self._number(node)
        return self.of_row[node]

    def _number(self, node: Node) -> Any:
        f = self.f
        if node.op == "vec":
            return f.load(f.add(f.a["constants"], f.plan.vector_at[node] * f.size), f.number)
        if self.is_in_memory(node):
            return f.load(self.address(f.places[node]), f.number)
        assert node.op not in OVER_ROWS, f"{node} is used before the pass that computes it"
        return Elementwise(f, False).apply(node.op, [self.number(operand) for operand in node.args])

    def _finish_number(self, task: Task) -> None:
        value, f = self.number(task.value), self.f
        if task.kind == "store":
            f.store(value, self.address(task.target))
        elif task.kind == "rowsum":
            self.of_row[task.target] = value
        else:
            address = self.address_of_sum(task.target)
            f.store(self.b.fadd(f.load(address, f.number), value), address)

    # vectors

    def _write_columns(self, width: int, tasks: list[Task]) -> None:
        f = self.f
        sums = {task.target: f.variable(f.vector) for task in tasks if task.kind == "rowsum"}
        for node, variable in sums.items():
            self.b.store(f.vector_of(_neutral(node)), variable)
        full, over = width // f.lanes, width % f.lanes
        if full:
            with f.loop(0, full * f.vector_size, f.vector_size) as k:
                ColumnStep(self, k, sums).write(tasks)
        if over:
            ColumnStep(self, I64(full * f.vector_size), sums, over).write(tasks)
        for node, variable in sums.items():
            self.of_row[node] = self._reduced(node, self.b.load(variable))

    def _reduced(self, node: Node, total: Any) -> Any:
        """The sum, or the maximum, of the lanes of a vector."""
        f, kind = self.f, f"v{self.f.lanes}{'f64' if self.f.module.double else 'f32'}"
        if node.op == "rowsum":
            reduce = f.module.declare(f"llvm.vector.reduce.fadd.{kind}", f.number, f.number, f.vector)
            return self.b.call(reduce, [ir.Constant(f.number, -0.0), total], fastmath=("reassoc",))
        reduce = f.module.declare(f"llvm.vector.reduce.fmaximum.{kind}", f.number, f.vector)
        return self.b.call(reduce, [total])


class ColumnStep:
    """Writes one vector of every value of a pass.

    Args:
        k: the offset of the vector in a row, in bytes.
        sums: the variables in which sums over the row are added up.
        used: the lanes that belong to the values, where it is not all of them.
    """

    def __init__(self, rows: RowLoop, k: Any, sums: dict[Node, Any], used: int | None = None) -> None:
        self.rows, self.f, self.b, self.k, self.sums, self.used = rows, rows.f, rows.b, k, sums, used
        self.known: dict[Node, Any] = {}

    def write(self, tasks: list[Task]) -> None:
        values = [self._value(task) for task in tasks]
        for task, value in zip(tasks, values, strict=True):
            if task.kind == "rowsum":
                self._add_to_row(task.target, value)
            else:
                self.f.store(value, self._address(task))

    def _value(self, task: Task) -> Any:
        """What is stored or added up. Lanes that are not used stay neutral: zero in memory, too."""
        value = self.vector(task.value)
        if self.used is not None:
            mask = ir.Constant(ir.VectorType(I1, self.f.lanes), [n < self.used for n in range(self.f.lanes)])
            neutral = _neutral(task.target) if task.kind == "rowsum" else 0.0
            value = self.b.select(mask, value, self.f.vector_of(neutral))
        if task.kind == "colsum":
            value = self.b.fadd(self.f.load(self._address(task), self.f.vector), value)
        return value

    def _address(self, task: Task) -> Any:
        f, rows, target = self.f, self.rows, task.target
        if task.kind == "colsum":
            return f.add(f.a["sums"], self.k, target * f.size)
        return f.add(rows.addresses[target.buffer, target.time], self.k, target.column * f.size)

    def _add_to_row(self, node: Node, value: Any) -> None:
        so_far = self.b.load(self.sums[node])
        if node.op == "rowsum":
            total = self.b.fadd(so_far, value)
        else:
            total = Elementwise(self.f, True).op_maximum(so_far, value)
        self.b.store(total, self.sums[node])

    def vector(self, node: Node) -> Any:
        """This vector of the value of a node."""
        if node.op == "const":
            return self.f.vector_of(node.attr)
        if node.width == 1:
            return self.rows.splats[node]
        if node not in self.known:
            self.known[node] = self._vector(node)
        return self.known[node]

    def _vector(self, node: Node) -> Any:
        f = self.f
        if node.op == "vec":
            return f.load(f.add(f.a["constants"], self.k, f.plan.vector_at[node] * f.size), f.vector)
        if self.rows.is_in_memory(node):
            place = f.places[node]
            base = self.rows.addresses[place.buffer, place.time]
            return f.load(f.add(base, self.k, place.column * f.size), f.vector)
        return Elementwise(f, True).apply(node.op, [self.vector(operand) for operand in node.args])


def _neutral(node: Node) -> float:
    """What a sum, or a maximum, over a row begins with."""
    return float("-inf") if node.op == "rowmax" else 0.0
