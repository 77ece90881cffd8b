"""A plan says what the machine code of a cell does at each time step, and where every value lies.

Forward and backward are lists of stages. A stage is some matrix products, then one loop over the rows (a row
is a sequence of the batch). Within a row, one or more passes run over its columns; a later pass can use the
sums over the row that an earlier one took. `print(plan)` lists all of it; for h' = tanh(W x + b + U h) with 5
inputs and 22 units:

    forward
      stage 0
        forward_scratch[0:24] = operands[2:30] · weights[0:672]
        pass
          next operands[8:30] = tanh(forward_scratch[0:22])

Values lie in buffers with a row for each sequence:

    operands          of each step: the inputs, a one and the old state, which one product can cover
    saved             of each step: what backward reads besides the operands
    forward_scratch   forward: values that are gone after the step
    backward_scratch  the same for backward
    state_gradients   the gradients of the state, carried from step to step
    outputs           of each step, the outputs that are no part of the state
    output_gradients  of each step, the gradients of those
    input_gradients   of each step
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from rnnclf.engine.machine.graph import Node
from rnnclf.engine.machine.trace.tracer import Graph

# in the order in which products take their operands from them
BUFFERS = (
    "operands",
    "backward_scratch",
    "forward_scratch",
    "state_gradients",
    "outputs",
    "saved",
    "input_gradients",
    "output_gradients",
)
# values that exist before a stage computes anything
INPUT_OPS = ("x", "old", "dnew", "dout")
ONE = "one"
"""The column of ones beside the inputs: a bias is the row of weights that it is multiplied by."""

Operand = Node | str
"""A node, or ONE."""


@dataclass(frozen=True)
class Place:
    """The first column of a value in a buffer. time: 1 for the row of the next time step."""

    buffer: str
    column: int
    time: int = 0

    def columns(self, width: int) -> str:
        """Such as `operands[8:30]`, for people."""
        return f"{'next ' if self.time else ''}{self.buffer}[{self.column}:{self.column + width}]"


@dataclass(frozen=True)
class Block:
    """A block of a weight, and its position in a matrix.

    Attributes:
        par: the slot of the weight, or of what is computed from weights.
        k, k_count: the rows of the weight: the first, and how many.
        n, n_count: the columns of the weight.
        row, column: where the block begins in the matrix.
    """

    par: int
    k: int
    k_count: int
    n: int
    n_count: int
    row: int
    column: int


@dataclass
class Matrix:
    """The right-hand side of a product: blocks of weights with zeros between them.

    offset: where it begins among the packed weights, in numbers.
    """

    rows: int
    columns: int
    blocks: list[Block]
    offset: int = 0


@dataclass
class Product:
    """C = A · matrix, or C += A · matrix where `add` is true.

    Attributes:
        optional: left out where nobody wants the gradients of the inputs.
        carried: left out at the first time step where nobody wants the gradients of the first state.
        results: the nodes that are complete afterwards.
    """

    a: Place
    matrix: Matrix
    c: Place
    add: bool
    optional: bool = False
    carried: bool = False
    results: list[Node] = field(default_factory=list)


@dataclass
class Pass:
    """One walk over the columns of a row.

    Attributes:
        stores: values to store, and where.
        rowsums: sums and maxima over the row, of which later passes of the stage know the result.
        colsums: values to add up over sequences and time steps, and the offset of the total among the sums.
    """

    stores: list[tuple[Node, Place]] = field(default_factory=list)
    rowsums: list[Node] = field(default_factory=list)
    colsums: list[tuple[Node, int]] = field(default_factory=list)


@dataclass
class Stage:
    """Products, then the passes over each row."""

    products: list[Product] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)


@dataclass
class Outer:
    """sums[offset:] += Aᵀ · B over the rows: `rows` columns from place a on, `columns` from place b on."""

    a: Place
    rows: int
    b: Place
    columns: int
    offset: int


class Constant(NamedTuple):
    """Some numbers of a weight that enter a step number by number, and where they lie among the constants."""

    par: int
    first: int
    width: int
    offset: int


class SumBlock(NamedTuple):
    """A block of a weight's gradient: its position there, and the place of its numbers among the sums."""

    row: int
    column: int
    rows: int
    columns: int
    offset: int
    stride: int
    transposed: bool


@dataclass
class Plan:
    """All that the emitter and the engine have to know about a cell of a given size.

    Attributes:
        graph: the traced step.
        lanes: numbers in a vector register; buffers and matrices are padded to multiples of it.
        widths: the row stride of each buffer, in numbers.
        forward, backward: the stages of a time step.
        last: products that complete the gradients of state and inputs after the stages of backward.
        outers: outer products that add to the sums, after those.
        matrices: of all products; `weights` is the size of all of them, packed.
        vectors: what is read number by number from weights; `constants` is the size of all of it.
        vector_at: the offset of each `vec` node among the constants.
        places, places_back: where forward, and backward, find and store nodes.
        assembly: the blocks of each sum that `graph.after` reads; `sums` is the size of all sums.
        x_at: the first column of the inputs among the operands. A one stands behind them.
        state_at: places of the pieces of each part of the state.
        carry_at, dx_at: places of the gradients of those, and of the pieces of the inputs.
        kept: what forward saves for backward.
    """

    graph: Graph
    lanes: int
    widths: dict[str, int]
    forward: list[Stage]
    backward: list[Stage]
    last: list[Product]
    outers: list[Outer]
    matrices: list[Matrix]
    vectors: list[Constant]
    vector_at: dict[Node, int]
    places: dict[Operand, Place]
    places_back: dict[Operand, Place]
    assembly: dict[int, list[SumBlock]]
    sums: int
    weights: int
    constants: int
    x_at: int
    state_at: list[list[Place]]
    carry_at: list[list[Place]]
    dx_at: list[Place]
    kept: list[Node]

    def in_memory_before_backward(self) -> set[Node]:
        """What backward reads without computing it: saved values and the new state."""
        new = {node for node, place in self.places_back.items() if isinstance(node, Node) and place.time}
        return {*self.kept, *new}

    def __str__(self) -> str:
        lines = ["numbers in a row"]
        lines += [f"  {name:17}{self.widths[name]:6}" for name in BUFFERS if self.widths[name]]
        lines += ["forward", *_Listing(self, self.places, set()).stages(self.forward)]
        lines += [
            "backward",
            *_Listing(self, self.places_back, self.in_memory_before_backward()).stages(self.backward),
        ]
        lines += ["  then", *(f"    {_product(product)}" for product in self.last)]
        for outer in self.outers:
            end = outer.offset + outer.rows * outer.columns
            a, b = outer.a.columns(outer.rows), outer.b.columns(outer.columns)
            lines.append(f"    sums[{outer.offset}:{end}] += {a}ᵀ · {b}")
        return "\n".join(lines)


def _product(product: Product) -> str:
    matrix = product.matrix
    said = (
        f"{product.c.columns(matrix.columns)} {'+=' if product.add else '='} {product.a.columns(matrix.rows)}"
    )
    said += f" · weights[{matrix.offset}:{matrix.offset + matrix.rows * matrix.columns}]"
    if product.optional:
        said += "   where the inputs' gradients are wanted"
    return said


class _Listing:
    """Stages as text. Values that a pass uses more than once have a line of their own, `%7 = ...`."""

    def __init__(self, plan: Plan, places: dict[Operand, Place], in_memory: set[Node]) -> None:
        self.plan, self.places, self.in_memory = plan, places, in_memory

    def stages(self, stages: list[Stage]) -> list[str]:
        lines = []
        for number, stage in enumerate(stages):
            lines.append(f"  stage {number}")
            for product in stage.products:
                lines.append(f"    {_product(product)}")
                self.in_memory.update(product.results)
            for one in stage.passes:
                if one.stores or one.rowsums or one.colsums:
                    lines += ["    pass", *(f"      {line}" for line in self.listed(one))]
                self.in_memory.update(node for node, _ in one.stores)
        return lines

    def listed(self, one: Pass) -> list[str]:
        sums = [node.args[0] for node in one.rowsums]
        roots = [*(n for n, _ in one.stores), *sums, *(n for n, _ in one.colsums)]
        uses = Counter(roots)
        order: dict[Node, None] = {}
        for root in roots:
            self._count(root, uses, order)
        named = [n for n in order if uses[n] > 1 and not self.known(n)]
        lines = [f"%{n.number} = {self.expression(n, named)}" for n in named]
        lines += [f"{place.columns(n.width)} = {self.value(n, named)}" for n, place in one.stores]
        lines += [f"%{n.number} = {n.op}({self.value(n.args[0], named)})" for n in one.rowsums]
        for node, offset in one.colsums:
            lines.append(f"sums[{offset}:{offset + node.width}] += {self.value(node, named)}")
        return lines

    def known(self, node: Node) -> bool:
        return not node.args or node in self.in_memory or node.op in ("rowsum", "rowmax")

    def _count(self, node: Node, uses: Counter[Node], order: dict[Node, None]) -> None:
        if node not in order:
            if not self.known(node):
                uses.update(node.args)
                for operand in node.args:
                    self._count(operand, uses, order)
            order[node] = None

    def value(self, node: Node, named: Iterable[Node]) -> str:
        if node in self.in_memory or node.op in INPUT_OPS:
            return self.places[node].columns(node.width)
        if node in named or node.op in ("rowsum", "rowmax"):
            return f"%{node.number}"
        return self.expression(node, named)

    def expression(self, node: Node, named: Iterable[Node]) -> str:
        if node.op == "const":
            return f"{node.attr:g}"
        if node.op == "vec":
            at = self.plan.vector_at[node]
            return f"constants[{at}:{at + node.width}]"
        operands = [self.value(operand, named) for operand in node.args]
        sign = {"add": "+", "sub": "-", "mul": "*", "div": "/"}.get(node.op)
        if sign:
            return f"({operands[0]} {sign} {operands[1]})"
        return operands[0] if node.op in ("copy", "fill") else f"{node.op}({', '.join(operands)})"
