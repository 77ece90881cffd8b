"""Forward and backward through all time steps.

    for t in range(steps):                       # backward: from the last step to the first
        for begin in range(0, running[t], block):
            stages of the plan, for rows begin to begin + block
        forward: sequences that have ended keep their state

`running` has the number of sequences that are not over yet at each time step; sequences are sorted by length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rnnclf.engine.machine.emit.instructions import I64, CodeModule, FunctionBuilder
from rnnclf.engine.machine.emit.passes import RowLoop
from rnnclf.engine.machine.emit.products import Products
from rnnclf.engine.machine.graph import Node
from rnnclf.engine.machine.schedule.plan import Operand, Outer, Place, Plan, Product, Stage

# The arguments of both functions: addresses, counts, and strides in bytes (…_step: between time steps).
FORWARD = (
    "steps",
    "batch",
    "operands",
    "operands_step",
    "saved",
    "saved_step",
    "forward_scratch",
    "outputs",
    "outputs_step",
    "running",
    "weights",
    "constants",
)
BACKWARD = (
    "steps",
    "batch",
    "operands",
    "operands_step",
    "saved",
    "saved_step",
    "backward_scratch",
    "state_gradients",
    "input_gradients",
    "input_gradients_step",
    "output_gradients",
    "output_gradients_step",
    "dy",  # gradients of the outputs, where they are part of the state; 0 where there are none
    "dy_step",
    "dy_row",
    "running",
    "weights",
    "constants",
    "sums",
    "state_wanted",
    "inputs_wanted",
)


class TimeLoop(FunctionBuilder):
    """What forward and backward have in common.

    Attributes:
        places: where nodes lie.
        in_memory: the nodes that have been stored so far.
        bases: the address of the first row of each buffer, at this time step and at the next.
        rows: how many rows there are from there on.
    """

    def __init__(
        self,
        module: CodeModule,
        products: Products,
        plan: Plan,
        name: str,
        arguments: tuple[str, ...],
        places: dict[Operand, Place],
    ) -> None:
        super().__init__(module, name, arguments, True)
        self.products, self.plan, self.places = products, plan, places
        self.in_memory: set[Node] = set()
        self.bases: dict[tuple[str, int], Any] = {}
        self.rows: Any = None

    def stride(self, buffer: str) -> int:
        """From row to row, in bytes."""
        return self.plan.widths[buffer] * self.size

    def row_address(self, buffer: str, t: Any, row: Any) -> Any:
        step = self.b.mul(t, self.a[f"{buffer}_step"])
        return self.add(self.a[buffer], step, self.mul(row, self.stride(buffer)))

    def running(self, t: Any) -> Any:
        return self.load(self.add(self.a["running"], self.mul(t, 8)), I64)

    def address(self, place: Place) -> Any:
        return self.add(self.bases[place.buffer, place.time], place.column * self.size)

    def write_product(self, product: Product) -> None:
        matrix = product.matrix
        a, a_row = self.address(product.a), I64(self.stride(product.a.buffer))
        packed = self.add(self.a["weights"], matrix.offset * self.size)
        c, c_row = self.address(product.c), I64(self.stride(product.c.buffer))
        k, columns = I64(matrix.rows), I64(matrix.columns * self.size)
        self.b.call(
            self.products.product,
            [I64(int(product.add)), a, a_row, self.rows, packed, k, k, c, c_row, columns],
        )

    @contextmanager
    def blocks_of_rows(self, t: Any, running: Any) -> Iterator[Any]:
        """Loops over blocks of the sequences that run at a time step; yields the first sequence of a block.
        `bases` gets the buffers that both directions read."""
        block = self.module.target.block
        with self.loop(0, running, block) as begin:
            self.rows = self.least(self.b.sub(running, begin), block)
            self.bases = {
                ("operands", 0): self.row_address("operands", t, begin),
                ("operands", 1): self.row_address("operands", self.add(t, 1), begin),
                ("saved", 0): self.row_address("saved", t, begin),
            }
            yield begin

    def write_stages(self, stages: list[Stage]) -> None:
        for stage in stages:
            for product in stage.products:
                self.write_product(product)
                self.in_memory.update(product.results)
            if any(one.stores or one.rowsums or one.colsums for one in stage.passes):
                with self.loop(0, self.rows) as row:
                    rows = RowLoop(self, row)
                    for one in stage.passes:
                        rows.write_pass(one)


class ForwardLoop(TimeLoop):
    def __init__(self, module: CodeModule, products: Products, plan: Plan) -> None:
        super().__init__(module, products, plan, "forward", FORWARD, plan.places)

    def write(self) -> None:
        b = self.b
        with self.loop(0, self.a["steps"]) as t:
            running = self.running(t)
            with self.blocks_of_rows(t, running) as begin:
                self.bases |= {
                    ("forward_scratch", 0): self.a["forward_scratch"],
                    ("outputs", 0): self.row_address("outputs", t, begin),
                }
                self.write_stages(self.plan.forward)
            self._keep_ended(t, running)
        b.ret_void()

    def _keep_ended(self, t: Any, running: Any) -> None:
        """Copies state and outputs of the sequences that have ended from one time step to the next."""
        widths = self.plan.widths
        first = min(place.column for leaf in self.plan.state_at for place in leaf)
        with self.loop(running, self.a["batch"]) as row:
            now, then = (
                self.add(self.row_address("operands", step, row), first * self.size)
                for step in (t, self.add(t, 1))
            )
            self._copy(now, then, widths["operands"] - first)
            if widths["outputs"]:
                with self.b.if_then(self.b.icmp_signed(">", t, I64(0))):
                    before = self.row_address("outputs", self.add(t, -1), row)
                    self._copy(before, self.row_address("outputs", t, row), widths["outputs"])

    def _copy(self, source: Any, target: Any, width: int) -> None:
        with self.loop(0, width * self.size, self.size) as k:
            self.store(self.load(self.b.add(source, k), self.number), self.b.add(target, k))


class BackwardLoop(TimeLoop):
    def __init__(self, module: CodeModule, products: Products, plan: Plan) -> None:
        super().__init__(module, products, plan, "backward", BACKWARD, plan.places_back)

    def write(self) -> None:
        a, b = self.a, self.b
        with self.countdown(a["steps"]) as t:
            running = self.running(t)
            # at the first step, the gradients of the state are those of the first state
            carried = b.or_(b.icmp_signed(">", t, I64(0)), self.is_set(a["state_wanted"]))
            self._add_output_gradients(t)
            with self.blocks_of_rows(t, running) as begin:
                self.bases |= {
                    ("backward_scratch", 0): a["backward_scratch"],
                    ("state_gradients", 0): self.state_gradients(begin),
                    ("input_gradients", 0): self.row_address("input_gradients", t, begin),
                    ("output_gradients", 0): self.row_address("output_gradients", t, begin),
                }
                self.in_memory = self.plan.in_memory_before_backward()
                self.write_stages(self.plan.backward)
                self._write_last(carried)
                for outer in self.plan.outers:
                    self._write_outer(outer)
        b.ret_void()

    def _write_last(self, carried: Any) -> None:
        for product in self.plan.last:
            if product.optional:
                with self.b.if_then(self.is_set(self.a["inputs_wanted"])):
                    self.write_product(product)
            elif product.carried:
                with self.b.if_then(carried):
                    self.write_product(product)
            else:
                self.write_product(product)

    def _write_outer(self, outer: Outer) -> None:
        a, a_row = self.address(outer.a), I64(self.stride(outer.a.buffer))
        b, b_row = self.address(outer.b), I64(self.stride(outer.b.buffer))
        columns = I64(outer.columns * self.size)
        sums = self.add(self.a["sums"], outer.offset * self.size)
        rows = I64(outer.rows)
        self.b.call(self.products.outer, [a, a_row, rows, b, b_row, columns, self.rows, sums, columns])

    def _add_output_gradients(self, t: Any) -> None:
        """Adds the gradients of the outputs to those of the state that they are part of."""
        a, b, graph = self.a, self.b, self.plan.graph
        if graph.out_leaf is None:
            return
        pieces = zip(graph.old[graph.out_leaf], self.plan.carry_at[graph.out_leaf], strict=True)
        with b.if_then(self.is_set(a["dy"])), self.loop(0, a["batch"]) as row:
            source = self.add(a["dy"], b.mul(t, a["dy_step"]), b.mul(row, a["dy_row"]))
            target = self.state_gradients(row)
            first = 0
            for piece, place in pieces:
                begin, end = self.add(source, first * self.size), self.add(target, place.column * self.size)
                full = piece.width // self.lanes * self.vector_size
                with self.loop(0, full, self.vector_size) as k:
                    self._add_to(end, begin, k, self.vector)
                with self.loop(full, piece.width * self.size, self.size) as k:
                    self._add_to(end, begin, k, self.number)
                first += piece.width

    def _add_to(self, target: Any, source: Any, offset: Any, kind: Any) -> None:
        address = self.b.add(target, offset)
        total = self.b.fadd(self.load(address, kind), self.load(self.b.add(source, offset), kind))
        self.store(total, address)

    def state_gradients(self, row: Any) -> Any:
        return self.add(self.a["state_gradients"], self.mul(row, self.stride("state_gradients")))
