"""From a plan to machine code: LLVM instructions by llvmlite, vectors written down as such.

No loop is left to LLVM's vectoriser: it would have to prove, or check at run time, that a dozen arrays do not
overlap. Here all loads of a pass come before its stores, by construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from rnnclf.engine.machine.functions import CONTRACT, I1, I32, Numbers
from rnnclf.engine.machine.graph import OVER_ROWS, Node
from rnnclf.engine.machine.plan import Pass, Plan, Product, Stage

I64 = ir.IntType(64)


def vector_bytes() -> int:
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx") else 16


VECTOR = vector_bytes()
ROWS, PAIR = (12 if VECTOR == 64 else 6), 2  # a tile: rows, and vectors beside each other
GROUP, BLOCK = 4 * ROWS, (72 if VECTOR == 64 else 78)  # rows of sums, and of a batch, at a time: whole tiles

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
BACKWARD = ("steps", "batch", "operands", "operands_step", "saved", "saved_step", "backward_scratch", "state_gradients", "input_gradients", "input_gradients_step", "output_gradients", "output_gradients_step", "dy", "dy_step", "dy_row",
            "running", "weights", "constants", "sums", "state_wanted", "inputs_wanted")  # fmt: skip
PACK = ("src", "k_step", "n_step", "k_count", "n_count", "dst", "rows", "columns", "row", "column")


class FunctionBuilder:
    """A function under construction, with the loops and memory accesses that all of them need."""

    def __init__(self, module: Module, name: str, arguments: tuple[str, ...], in_array: bool) -> None:
        self.module, self.size = module, module.size
        kinds = [I64.as_pointer()] if in_array else [I64] * len(arguments)
        self.function = ir.Function(module.ir, ir.FunctionType(ir.VoidType(), kinds), name)
        self.entry = self.function.append_basic_block("entry")
        self.b = ir.IRBuilder(self.entry)
        self.a: dict[str, Any] = {}
        for n, argument in enumerate(arguments):
            if in_array:
                self.a[argument] = self.b.load(self.b.gep(self.function.args[0], [I64(n)]))
            else:
                self.a[argument] = self.function.args[n]

    # whole numbers

    def add(self, *terms: Any) -> Any:
        total = None
        constant = sum(t for t in terms if isinstance(t, int))
        for t in terms:
            if not isinstance(t, int):
                total = t if total is None else self.b.add(total, t)
        if total is None:
            return I64(constant)
        return self.b.add(total, I64(constant)) if constant else total

    def mul(self, a: Any, by: Any) -> Any:
        return self.b.mul(a, I64(by) if isinstance(by, int) else by)

    def least(self, a: Any, b: Any) -> Any:
        a, b = (I64(v) if isinstance(v, int) else v for v in (a, b))
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    @contextmanager
    def loop(self, start: Any, stop: Any, step: int = 1) -> Iterator[Any]:
        start, stop = (I64(v) if isinstance(v, int) else v for v in (start, stop))
        before = self.b.block
        head, body, after = (self.function.append_basic_block(name) for name in ("head", "body", "after"))
        self.b.branch(head)
        self.b.position_at_end(head)
        index = self.b.phi(I64)
        index.add_incoming(start, before)
        self.b.cbranch(self.b.icmp_signed("<", index, stop), body, after)
        self.b.position_at_end(body)
        yield index
        index.add_incoming(self.b.add(index, I64(step)), self.b.block)
        self.b.branch(head)
        self.b.position_at_end(after)

    @contextmanager
    def countdown(self, stop: Any) -> Iterator[Any]:
        with self.loop(0, stop) as n:
            yield self.b.sub(self.b.sub(stop, I64(1)), n)

    # memory

    def pointer(self, address: Any, kind: Any) -> Any:
        return self.b.inttoptr(address, kind.as_pointer())

    def load(self, address: Any, kind: Any) -> Any:
        return self.b.load(self.pointer(address, kind), align=self.size)

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self.pointer(address, value.type), align=self.size)

    def variable(self, kind: Any) -> Any:
        with self.b.goto_block(self.entry):
            return self.b.alloca(kind)


class Module:
    """Machine code for one plan; without a plan, the products alone."""

    def __init__(self, plan: Plan | None, double: bool) -> None:
        self.plan, self.double = plan, double
        self.size = 8 if double else 4
        self.number = ir.DoubleType() if double else ir.FloatType()
        self.lanes = VECTOR // self.size
        self.vector = ir.VectorType(self.number, self.lanes)
        self.ir = ir.Module()
        self.ir.triple = llvm.get_process_triple()
        self.products()
        self.packer = self.pack()
        if plan is not None:
            assert self.lanes == plan.lanes
            TimeLoop(self, "forward", FORWARD).write_forward()
            TimeLoop(self, "backward", BACKWARD).write_backward()

    def declare(self, name: str, result: Any, *kinds: Any) -> Any:
        if name in self.ir.globals:
            return self.ir.globals[name]
        return ir.Function(self.ir, ir.FunctionType(result, kinds), name)

    # products

    def products(self) -> None:
        self.columns = [self._column(f"column{n}", n) for n in (1, PAIR)]
        c = FunctionBuilder(
            self, "product", ("add", "a", "a_row", "m", "b", "b_rows", "k", "c", "c_row", "columns"), False
        )
        a, size, pair = c.a, self.size, PAIR * VECTOR
        with c.loop(0, a["columns"], pair) as column:
            b = c.add(a["b"], c.b.mul(column, a["b_rows"]))
            whole = c.b.icmp_signed(">=", c.b.sub(a["columns"], column), I64(pair))
            for vectors, tiles in zip((1, PAIR), self.columns, strict=True):
                with c.b.if_then(whole if vectors == PAIR else c.b.not_(whole)):
                    c.b.call(tiles, [a["add"], a["a"], a["a_row"], I64(size), a["m"], b, I64(vectors * VECTOR),
                                     a["k"], c.add(a["c"], column), a["c_row"]])  # fmt: skip
        c.b.ret_void()
        self.product = c.function
        # sums (m, columns) += aᵀ b, of so many rows of both
        c = FunctionBuilder(
            self, "outer", ("a", "a_row", "m", "b", "b_row", "columns", "rows", "c", "c_row"), False
        )
        a = c.a
        with c.loop(0, a["m"], GROUP) as g, c.loop(0, a["columns"], pair) as column:
            m = c.least(c.b.sub(a["m"], g), GROUP)
            whole = c.b.icmp_signed(">=", c.b.sub(a["columns"], column), I64(pair))
            for vectors, tiles in zip((1, PAIR), self.columns, strict=True):
                with c.b.if_then(whole if vectors == PAIR else c.b.not_(whole)):
                    c.b.call(tiles, [I64(1), c.add(a["a"], c.mul(g, size)), I64(size), a["a_row"], m,
                                     c.add(a["b"], column), a["b_row"], a["rows"],
                                     c.add(a["c"], c.b.mul(g, a["c_row"]), column), a["c_row"]])  # fmt: skip
        c.b.ret_void()
        self.outer = c.function

    def _column(self, name: str, vectors: int) -> Any:
        """All rows of a product that is so many vectors wide."""
        names = ("add", "a", "a_row", "a_column", "m", "b", "b_row", "k", "c", "c_row")
        c = FunctionBuilder(self, name, names, False)
        c.function.attributes.add("noinline")
        a = c.a

        def tile(rows: int, row: Any, m: Any) -> None:
            multiply(c.b, self.number, rows, vectors, (
                a["add"], self.number(0.0), c.add(a["a"], c.b.mul(row, a["a_row"])), a["a_row"], a["a_column"], m,
                a["b"], a["b_row"], a["k"], c.add(a["c"], c.b.mul(row, a["c_row"])), a["c_row"],
            ))  # fmt: skip

        whole = c.b.mul(c.b.sdiv(a["m"], I64(ROWS)), I64(ROWS))
        with c.loop(0, whole, ROWS) as row:
            tile(ROWS, row, I64(ROWS))
        over = c.b.sub(a["m"], whole)
        with c.b.if_then(c.b.icmp_signed(">", over, I64(ROWS // 2))):
            tile(ROWS, whole, over)
        some = c.b.and_(c.b.icmp_signed(">", over, I64(0)), c.b.icmp_signed("<=", over, I64(ROWS // 2)))
        with c.b.if_then(some):
            tile(ROWS // 2, whole, over)
        c.b.ret_void()
        return c.function

    def pack(self) -> Any:
        """Copies a block of a weight into the layout that `product` reads: all rows of one pair of vectors, then the next."""
        c = FunctionBuilder(self, "pack", PACK, False)
        a, b, pair = c.a, c.b, PAIR * self.lanes
        end = b.add(a["column"], a["n_count"])
        begin = b.mul(b.sdiv(a["column"], I64(pair)), I64(pair))
        with c.loop(begin, end, pair) as first:
            width = c.least(pair, b.sub(a["columns"], first))
            low = b.select(b.icmp_signed(">", first, a["column"]), first, a["column"])
            high = c.least(b.add(first, width), end)
            with c.loop(0, a["k_count"]) as k:
                at = c.add(b.mul(first, a["rows"]), b.mul(b.add(a["row"], k), width), b.sub(low, first))
                place = b.add(a["dst"], c.mul(at, self.size))
                there = c.add(a["src"], b.mul(b.sub(low, a["column"]), a["n_step"]), b.mul(k, a["k_step"]))
                with c.loop(0, b.sub(high, low)) as g:
                    value = c.load(b.add(there, b.mul(g, a["n_step"])), self.number)
                    c.store(value, b.add(place, c.mul(g, self.size)))
        b.ret_void()
        return c.function


def multiply(builder: Any, number: Any, rows: int, vectors: int, arguments: Any) -> None:
    """One tile: C (M, V) = A (M, K) · B (K, V), or +=. The same instructions as in rnnclf/cells/machine_code.py."""
    add, zero, a, a_row, a_column, m, b, b_row, k, c, c_row = arguments
    index, size = I64, 4 if isinstance(number, ir.FloatType) else 8
    vector = ir.VectorType(number, VECTOR // size)

    def at(address: Any, kind: Any) -> Any:
        return builder.inttoptr(address, kind.as_pointer())

    def vectors_at(address: Any) -> list[Any]:
        return [at(builder.add(address, index(v * VECTOR)), vector) for v in range(vectors)]

    def load(place: Any) -> Any:
        return builder.load(place, align=size)

    last = builder.sub(m, index(1))
    row_m = [builder.select(builder.icmp_signed("<", index(i), m), index(i), last) for i in range(rows)]
    a_m = [builder.add(a, builder.mul(row, a_row)) for row in row_m]
    places = [place for row in row_m for place in vectors_at(builder.add(c, builder.mul(row, c_row)))]
    zeros = splat(builder, zero, vector)
    added = builder.icmp_signed("!=", add, index(0))
    starts = [builder.select(added, load(place), zeros) for place in places]
    before, loop = builder.block, builder.append_basic_block("each_column")
    after = builder.append_basic_block("store")
    builder.cbranch(builder.icmp_signed(">", k, index(0)), loop, after)

    builder.position_at_end(loop)
    column, sums = builder.phi(index), [builder.phi(vector) for _ in places]
    b_v = [load(place) for place in vectors_at(builder.add(b, builder.mul(column, b_row)))]
    there = builder.mul(column, a_column)
    factors = [splat(builder, load(at(builder.add(a_k, there), number)), vector) for a_k in a_m]
    products = [builder.fmul(factor, v, flags=CONTRACT) for factor in factors for v in b_v]
    nexts = [builder.fadd(*pair, flags=CONTRACT) for pair in zip(products, sums, strict=True)]
    next_column = builder.add(column, index(1))
    builder.cbranch(builder.icmp_signed("<", next_column, k), loop, after)

    builder.position_at_end(after)
    for phi, first, later in zip((column, *sums), (index(0), *starts), (next_column, *nexts), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    results = [builder.phi(vector) for _ in places]
    for result, first, later in zip(results, starts, nexts, strict=True):
        result.add_incoming(first, before)
        result.add_incoming(later, loop)
    for result, place in zip(results, places, strict=True):
        builder.store(result, place, align=size)


def splat(builder: Any, value: Any, vector: Any) -> Any:
    none = ir.Constant(vector, ir.Undefined)
    first = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(none, value, I32(0)), none, first)


class TimeLoop(FunctionBuilder):
    """Forward, or backward, through all time steps."""

    def __init__(self, module: Module, name: str, arguments: tuple[str, ...]) -> None:
        super().__init__(module, name, arguments, True)
        self.plan, self.m = module.plan, module
        self.number, self.vector, self.lanes = module.number, module.vector, module.lanes
        self.ready: set[Node] = set()
        self.splats: dict[Any, Any] = {}
        self.places = module.plan.places

    # forward

    def write_forward(self) -> None:
        a, b = self.a, self.b
        with self.loop(0, a["steps"]) as t:
            running = self.load(self.add(a["running"], self.mul(t, 8)), I64)
            with self.loop(0, running, BLOCK) as begin:
                self.rows = self.least(b.sub(running, begin), BLOCK)
                self.bases = {
                    ("operands", 0): self._at("operands", t, begin),
                    ("operands", 1): self._at("operands", self.add(t, 1), begin),
                    ("saved", 0): self._at("saved", t, begin),
                    ("forward_scratch", 0): a["forward_scratch"],
                    ("outputs", 0): self._at("outputs", t, begin),
                }
                self.write_stages(self.plan.forward)
            # sequences that have ended keep their state
            width = self.plan.widths["operands"] - self.plan.state_at[0][0].column
            first = min(p.column for leaf in self.plan.state_at for p in leaf)
            width = self.plan.widths["operands"] - first
            with self.loop(running, a["batch"]) as row:
                now, then = (
                    self.add(self._at("operands", step, row), first * self.size)
                    for step in (t, self.add(t, 1))
                )
                self._copy(now, then, width)
                if self.plan.widths["outputs"]:
                    with self.b.if_then(b.icmp_signed(">", t, I64(0))):
                        now, then = self._at("outputs", self.add(t, -1), row), self._at("outputs", t, row)
                        self._copy(now, then, self.plan.widths["outputs"])
        b.ret_void()

    def _copy(self, source: Any, target: Any, width: int) -> None:
        with self.loop(0, width * self.size, self.size) as k:
            self.store(self.load(self.b.add(source, k), self.number), self.b.add(target, k))

    def _at(self, buffer: str, t: Any, row: Any) -> Any:
        return self.add(
            self.a[buffer], self.b.mul(t, self.a[f"{buffer}_step"]), self.mul(row, self.row_of(buffer))
        )

    def row_of(self, buffer: str) -> int:
        return self.plan.widths[buffer] * self.size

    # backward

    def write_backward(self) -> None:
        a, b, plan = self.a, self.b, self.plan
        self.places = plan.places_back
        self.ready = {*plan.kept, *(n for n, p in self.places.items() if isinstance(n, Node) and p.time == 1)}
        given = set(self.ready)
        with self.countdown(a["steps"]) as t:
            running = self.load(self.add(a["running"], self.mul(t, 8)), I64)
            wanted = b.or_(b.icmp_signed(">", t, I64(0)), b.icmp_signed("!=", a["state_wanted"], I64(0)))
            self._add_outputs(t)
            with self.loop(0, running, BLOCK) as begin:
                self.rows = self.least(b.sub(running, begin), BLOCK)
                self.bases = {
                    ("operands", 0): self._at("operands", t, begin),
                    ("operands", 1): self._at("operands", self.add(t, 1), begin),
                    ("saved", 0): self._at("saved", t, begin),
                    ("backward_scratch", 0): a["backward_scratch"],
                    ("state_gradients", 0): self.add(
                        a["state_gradients"], self.mul(begin, self.row_of("state_gradients"))
                    ),
                    ("input_gradients", 0): self._at("input_gradients", t, begin),
                    ("output_gradients", 0): self._at("output_gradients", t, begin),
                }
                self.ready = set(given)
                self.write_stages(plan.backward)
                for product in plan.last:
                    if product.optional:
                        with b.if_then(b.icmp_signed("!=", a["inputs_wanted"], I64(0))):
                            self.write_product(product)
                    elif product.carried:
                        with b.if_then(wanted):
                            self.write_product(product)
                    else:
                        self.write_product(product)
                for outer in plan.outers:
                    b.call(self.m.outer, [
                        self._place(outer.a), I64(self.row_of(outer.a.buffer)), I64(outer.rows), self._place(outer.b),
                        I64(self.row_of(outer.b.buffer)), I64(outer.columns * self.size), self.rows,
                        self.add(a["sums"], outer.offset * self.size), I64(outer.columns * self.size),
                    ])  # fmt: skip
        b.ret_void()

    def _add_outputs(self, t: Any) -> None:
        """Adds the gradients of the outputs of a step, where they are part of the state, and there are any."""
        a, b, graph = self.a, self.b, self.plan.graph
        if graph.out_leaf is None:
            return
        with b.if_then(b.icmp_signed("!=", a["dy"], I64(0))), self.loop(0, a["batch"]) as row:
            source = self.add(a["dy"], b.mul(t, a["dy_step"]), b.mul(row, a["dy_row"]))
            target = self.add(a["state_gradients"], self.mul(row, self.row_of("state_gradients")))
            lo = 0
            for piece, place in zip(
                graph.old[graph.out_leaf], self.plan.carry_at[graph.out_leaf], strict=True
            ):
                begin, end = self.add(source, lo * self.size), self.add(target, place.column * self.size)
                full = piece.width // self.lanes * VECTOR
                with self.loop(0, full, VECTOR) as k:
                    there = b.add(end, k)
                    self.store(
                        b.fadd(self.load(there, self.vector), self.load(b.add(begin, k), self.vector)), there
                    )
                with self.loop(full, piece.width * self.size, self.size) as k:
                    there = b.add(end, k)
                    self.store(
                        b.fadd(self.load(there, self.number), self.load(b.add(begin, k), self.number)), there
                    )
                lo += piece.width

    # stages

    def _place(self, place: Any) -> Any:
        return self.add(self.bases[place.buffer, place.time], place.column * self.size)

    def write_product(self, product: Product) -> None:
        matrix, b = product.matrix, self.b
        b.call(self.m.product, [
            I64(int(product.add)), self._place(product.a), I64(self.row_of(product.a.buffer)), self.rows,
            self.add(self.a["weights"], matrix.offset * self.size), I64(matrix.rows), I64(matrix.rows), self._place(product.c),
            I64(self.row_of(product.c.buffer)), I64(matrix.columns * self.size),
        ])  # fmt: skip

    def write_stages(self, stages: list[Stage]) -> None:
        for stage in stages:
            for product in stage.products:
                self.write_product(product)
                self.ready |= {n for n, p in self.places.items()
                               if isinstance(n, Node) and n.op == "gather" and p.buffer == product.c.buffer
                               and product.c.column <= p.column < product.c.column + product.matrix.columns}  # fmt: skip
            if any(p.stores or p.rowsums or p.colsums for p in stage.passes):
                with self.loop(0, self.rows) as row:
                    self.addresses = {
                        key: self.add(base, self.mul(row, self.row_of(key[0])))
                        for key, base in self.bases.items()
                    }
                    self.of_row: dict[Node, Any] = {}
                    self.splats = {}
                    for one in stage.passes:
                        self.write_pass(one)

    def write_pass(self, one: Pass) -> None:
        """One walk over the columns of a row for each width."""
        wide: dict[int, list[tuple[str, Node, Any]]] = {}
        for node, place in one.stores:
            wide.setdefault(node.width, []).append(("store", node, place))
        for node in one.rowsums:
            wide.setdefault(node.args[0].width, []).append(("rowsum", node, None))
        for node, offset in one.colsums:
            wide.setdefault(node.width, []).append(("colsum", node, offset))
        for _, node, _ in [w for works in wide.values() for w in works]:
            self._scalars(node.args[0] if any(node is r for r in one.rowsums) else node)
        for kind, node, where in wide.pop(1, []):
            value = self.of_one(node.args[0] if kind == "rowsum" else node)
            if kind == "store":
                self.store(
                    value, self.add(self.addresses[where.buffer, where.time], where.column * self.size)
                )
            elif kind == "rowsum":
                self.of_row[node] = value
            else:
                place = self.add(self.a["sums"], where * self.size)
                self.store(self.b.fadd(self.load(place, self.number), value), place)
        for width, works in wide.items():
            self._columns(width, works)
        self.ready |= {node for node, _ in one.stores}

    def _columns(self, width: int, works: list[tuple[str, Node, Any]]) -> None:
        sums = {node: self.variable(self.vector) for kind, node, _ in works if kind == "rowsum"}
        for node, place in sums.items():
            self.b.store(ir.Constant(self.vector, [_begin(node)] * self.lanes), place)
        full, over = width // self.lanes, width % self.lanes
        if full:
            with self.loop(0, full * VECTOR, VECTOR) as k:
                self._vector(works, k, sums, self.lanes)
        if over:
            self._vector(works, I64(full * VECTOR), sums, over)
        for node, place in sums.items():
            kind, total = f"v{self.lanes}{'f64' if self.m.double else 'f32'}", self.b.load(place)
            if node.op == "rowsum":
                reduce = self.m.declare(
                    f"llvm.vector.reduce.fadd.{kind}", self.number, self.number, self.vector
                )
                zero = ir.Constant(self.number, -0.0)
                self.of_row[node] = self.b.call(reduce, [zero, total], fastmath=("reassoc",))
            else:
                reduce = self.m.declare(f"llvm.vector.reduce.fmaximum.{kind}", self.number, self.vector)
                self.of_row[node] = self.b.call(reduce, [total])

    def _vector(self, works: list, k: Any, sums: dict[Node, Any], lanes: int) -> None:
        """One vector of each; of the last one, of which less is used, the rest is kept zero in memory."""
        self.k, self.known = k, {}
        found = []
        for kind, node, where in works:
            value = self.of_many(node.args[0] if kind == "rowsum" else node)
            if lanes < self.lanes:
                mask = ir.Constant(ir.VectorType(I1, self.lanes), [n < lanes for n in range(self.lanes)])
                value = self.b.select(
                    mask, value, ir.Constant(self.vector, [_begin(node, kind)] * self.lanes)
                )
            if kind == "colsum":
                place = self.add(self.a["sums"], self.k, where * self.size)
                value = self.b.fadd(self.load(place, self.vector), value)
            found.append((kind, node, where, value))
        for kind, node, where, value in found:
            if kind == "store":
                there = self.add(self.addresses[where.buffer, where.time], self.k, where.column * self.size)
                self.store(value, there)
            elif kind == "rowsum":
                so_far = self.b.load(sums[node])
                total = (
                    self.b.fadd(so_far, value)
                    if node.op == "rowsum"
                    else Numbers(self, True).op_maximum(so_far, value)
                )
                self.b.store(total, sums[node])
            else:
                self.store(value, self.add(self.a["sums"], self.k, where * self.size))

    # numbers

    def _scalars(self, node: Node, seen: set[Node] | None = None) -> None:
        """Computes what is one number of a row, before the walk over its columns."""
        seen = set() if seen is None else seen
        if node in seen:
            return
        seen.add(node)
        if node.width == 1 and node.op != "const":
            self.of_one(node)
            if node not in self.splats:
                value = self.of_row[node]
                self.splats[node] = splat(self.b, Numbers(self, False).number(value), self.vector)
            return
        if node in self.ready or not node.args or node.op in OVER_ROWS:
            return
        for a in node.args:
            self._scalars(a, seen)

    def _in_memory(self, node: Node) -> bool:
        return node in self.ready or node.op in ("x", "old", "dnew", "dout")

    def of_one(self, node: Node) -> Any:
        if node in self.of_row:
            return self.of_row[node]
        if node.op == "const":
            return ir.Constant(self.number, node.attr)
        if node.op == "vec":
            value = self.load(
                self.add(self.a["constants"], self.plan.vector_at[node] * self.size), self.number
            )
        elif self._in_memory(node):
            place = self.places[node]
            value = self.load(
                self.add(self.addresses[place.buffer, place.time], place.column * self.size), self.number
            )
        else:
            assert node.op not in OVER_ROWS, node
            value = Numbers(self, False).apply(node.op, [self.of_one(a) for a in node.args], node.attr)
        self.of_row[node] = value
        return value

    def of_many(self, node: Node) -> Any:
        if node in self.known:
            return self.known[node]
        if node.op == "const":
            return ir.Constant(self.vector, [node.attr] * self.lanes)
        if node.width == 1:
            return self.splats[node]
        if node.op == "vec":
            value = self.load(
                self.add(self.a["constants"], self.k, self.plan.vector_at[node] * self.size), self.vector
            )
        elif self._in_memory(node):
            place = self.places[node]
            address = self.add(self.addresses[place.buffer, place.time], self.k, place.column * self.size)
            value = self.load(address, self.vector)
        else:
            value = Numbers(self, True).apply(node.op, [self.of_many(a) for a in node.args], node.attr)
        self.known[node] = value
        return value


def _begin(node: Node, kind: str = "rowsum") -> float:
    """What a sum, or a maximum, over a row begins with."""
    return float("-inf") if kind == "rowsum" and node.op == "rowmax" else 0.0
