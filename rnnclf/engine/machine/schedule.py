"""From a graph to loops: which products run when, what is stored where, what backward reads.

A step is a list of stages. A stage is products of what is in memory, then one walk over the rows; within a row,
passes over its columns, of which a later one may use the sums over the row (`rowsum`) of an earlier one. What is
needed in a later stage or by backward is stored; what is cheap is computed again instead.

Buffers, each with rows for the sequences of a batch:
  operands          of each step the inputs, a one and the old state, side by side, so that products over them are one
  saved             of each step what backward needs
  forward_scratch, backward_scratch
  state_gradients   the gradients of the state, which are carried from step to step
  outputs           those that are no part of the state
  output_gradients  their gradients
  input_gradients   the gradients of the inputs
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rnnclf.engine.machine.graph import COSTLY, OVER_ROWS, Node, references
from rnnclf.engine.machine.trace import Graph

Level = tuple[int, int]
"""Stage and pass."""


@dataclass(frozen=True)
class Place:
    buffer: str
    column: int
    time: int = 0
    """1: of the step after."""


@dataclass(frozen=True)
class Block:
    """So many rows and columns of a weight, from there on, and where in a matrix they lie."""

    par: int
    k: int
    k_count: int
    n: int
    n_count: int
    row: int
    column: int


@dataclass
class Matrix:
    """What rows are multiplied with: blocks with zeros between. offset: where it is, in numbers."""

    rows: int
    columns: int
    blocks: list[Block]
    offset: int = 0


@dataclass
class Product:
    """C = A · matrix, or C += … where `add`."""

    a: Place
    matrix: Matrix
    c: Place
    add: bool
    optional: bool = False
    """Left out where nobody wants the gradients of the inputs."""
    carried: bool = False
    """Left out at the first step where nobody wants the gradients of the first state."""


@dataclass
class Stage:
    products: list[Product] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)


@dataclass
class Pass:
    """stores: what is stored where; rowsums: what is summed over the row; colsums: what is added to sums over
    sequences and steps, at which offset."""

    stores: list[tuple[Node, Place]] = field(default_factory=list)
    rowsums: list[Node] = field(default_factory=list)
    colsums: list[tuple[Node, int]] = field(default_factory=list)


@dataclass
class Outer:
    """sums (rows, columns) += Aᵀ · B."""

    a: Place
    rows: int
    b: Place
    columns: int
    offset: int


@dataclass
class Plan:
    """All of it. widths: of the rows of each buffer. vectors: which part of which weight lies where among the
    vectors (place, from, numbers, offset). assembly: of each sum its blocks, (first row,
    first column, rows, columns, offset, step from row to row, whether transposed)."""

    graph: Graph
    lanes: int
    widths: dict[str, int]
    forward: list[Stage]
    backward: list[Stage]
    last: list[Product]
    outers: list[Outer]
    matrices: list[Matrix]
    vectors: list[tuple[int, int, int, int]]
    vector_at: dict[Any, int]
    places: dict[Node, Place]
    places_back: dict[Node, Place]
    assembly: dict[int, list[tuple[int, int, int, int, int, int, bool]]]
    sums: int
    weights: int
    constants: int
    x_at: int
    state_at: list[list[Place]]
    carry_at: list[list[Place]]
    dx_at: list[Place]
    kept: list[Node]


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
ONE = "one"


def plan(graph: Graph, lanes: int) -> Plan:
    return _Planner(graph, lanes).plan()


class _Planner:
    def __init__(self, graph: Graph, lanes: int) -> None:
        self.graph, self.lanes, self.m = graph, lanes, graph.nodes
        self.places: dict[Any, Place] = {}
        self.widths = dict.fromkeys(BUFFERS, 0)
        self.matrices: list[Matrix] = []

    def whole(self, width: int) -> int:
        return -(-width // self.lanes) * self.lanes

    def plan(self) -> Plan:
        g = self.graph
        self._gather()
        self.is_forward = _reached([p for leaf in self.new for p in leaf] + (self.out or []))
        self._lay_out_operands()
        self._analyse()  # backward says what forward has to keep
        forward = self._forward()
        places = self.places
        self.places = {node: place for node, place in places.items() if place.buffer != "forward_scratch"}
        back = self._backward()
        offset = 0
        for matrix in self.matrices:
            matrix.offset = offset
            offset += matrix.rows * matrix.columns
        vectors, at, constants = self._constants([*forward, *back["stages"]])
        for name, width in self.widths.items():
            width = self.whole(width)
            self.widths[name] = width + self.lanes if width * 4 % 1024 == 0 and width else width
        return Plan(
            g, self.lanes, self.widths, forward, back["stages"], back["last"], back["outers"], self.matrices,
            vectors, at, places, self.places, back["assembly"], back["sums"], offset, constants,
            self.x_at, [[self.places[p] for p in leaf] for leaf in self.old],
            [[self.places[p] for p in leaf] for leaf in self.dnew], back["dx"], list(self.kept),
        )  # fmt: skip

    # products: sums of them, and of biases, become one node each

    def _gather(self) -> None:
        g = self.graph
        roots = [p for leaf in (*g.new, *[d or [] for d in g.d_old], g.out or [], g.d_x or []) for p in leaf]
        live = {place for name in g.gradients for place in self._needed_sums(g.gradients[name])}
        self.sums = {place: g.sums[place] for place in sorted(live)}
        roots += [p for s in self.sums.values() for p in (*s.left, *s.right)]
        uses = Counter(id(p) for p in roots)
        for node in _reached(roots):
            uses.update(id(a) for a in node.args)
        first = self._first_state()
        done: dict[Node, Node] = {}

        def terms(node: Node, top: bool) -> list[Node]:
            if node.op == "add" and (top or uses[id(node)] == 1):
                return [t for a in node.args for t in terms(a, False)]
            return [node]

        def gathered(dots: list[Node], vecs: list[Node]) -> Node:
            operands = tuple(rewrite(d.args[0]) for d in dots)
            attr = (tuple(d.attr for d in dots), tuple(v.attr for v in vecs))
            return self.m.make("gather", *operands, attr=attr, width=dots[0].width)

        def rewrite(node: Node) -> Node:
            if node in done:
                return done[node]
            if node.op == "dot":
                new = gathered([node], [])
            elif node.op == "add":
                parts = terms(node, True)
                dots = [t for t in parts if t.op == "dot" and uses[id(t)] == 1 and t.width == node.width]
                vecs = [t for t in parts if t.op == "vec" and t.width == node.width]
                if not any(d.args[0].op == "x" or d.args[0] is first for d in dots):
                    vecs = []
                vecs = vecs[:1]  # one bias stands beside the inputs
                if dots:
                    rest = [rewrite(t) for t in parts if t not in dots and t not in vecs]
                    new = gathered(dots, vecs)
                    if rest:
                        total = rest[0]
                        for part in rest[1:]:
                            total = self.m.make("add", total, part)
                        new = self.m.make("add", total, new)
                else:
                    new = self.m.make("add", *map(rewrite, node.args), width=node.width)
            elif node.args:
                new = self.m.make(node.op, *map(rewrite, node.args), attr=node.attr, width=node.width)
            else:
                new = node
            done[node] = new
            return new

        def each(pieces: Iterable[Node] | None) -> list[Node] | None:
            return None if pieces is None else [rewrite(p) for p in pieces]

        def settled(pieces: list[Node] | None) -> Any:  # products are not summed up where they are read later
            copied = [self.m.make("copy", p, width=p.width) if p.op == "gather" else p for p in pieces or []]
            return None if pieces is None else copied

        self.new = [settled(each(leaf)) for leaf in g.new]
        self.old, self.x = g.old, g.x
        out = each(g.out)
        self.out = None if out is None else [self.m.make("copy", p, width=p.width) for p in out]
        self.d_x = each(g.d_x)
        self.d_old = [each(leaf) for leaf in g.d_old]
        self.sum_pieces = {place: (each(s.left), each(s.right)) for place, s in self.sums.items()}
        self.dnew = [
            [self.m.make("dnew", attr=(k, p.attr[1]), width=p.width) for p in leaf]
            for k, leaf in enumerate(self.old)
        ]

    def _needed_sums(self, place: int) -> list[int]:
        g = self.graph
        if place in g.sums:
            return [place]
        _, args, kwargs, _ = next(call for call in g.after if place in call[3])
        return [
            s for kind, ref in references((args, kwargs)) if kind == "after" for s in self._needed_sums(ref)
        ]

    def _first_state(self) -> Node | None:
        """The piece of the old state that most products use, to stand beside the inputs."""
        counts = Counter(n.args[0] for n in self.m.known.values() if n.op == "dot" and n.args[0].op == "old")
        return counts.most_common(1)[0][0] if counts else None

    def _lay_out_operands(self) -> None:
        first = self._first_state()
        inputs = sum(p.width for p in self.x)
        begin = self.whole(inputs + 1)
        self.x_at, at = begin - 1 - inputs, begin - 1 - inputs
        for piece in self.x:
            self.places[piece] = Place("operands", at)
            at += piece.width
        self.places[ONE] = Place("operands", begin - 1)
        at = begin
        pieces = [p for leaf in self.old for p in leaf]
        new = [p for leaf in self.new for p in leaf]
        self.new_at: list[tuple[Node, Place]] = []
        for piece in sorted(pieces, key=lambda p: p is not first):
            self.places[piece] = Place("operands", at)
            self.new_at.append((new[pieces.index(piece)], Place("operands", at, 1)))
            at += self.whole(piece.width)
        for node, place in self.new_at:
            if node.op not in ("x", "old", "const", "fill"):
                self.places.setdefault(node, place)
        self.widths["operands"] = at
        at = 0
        for leaf in self.dnew:
            for piece in leaf:
                self.places[piece] = Place("state_gradients", at)
                at += self.whole(piece.width)
        self.widths["state_gradients"] = at
        for k, piece in enumerate(self.out or []):
            self.places.setdefault(piece, Place("outputs", self.widths["outputs"]))
            lo = sum(p.width for p in self.out[:k])
            self.places[self.m.make("dout", attr=(lo,), width=piece.width)] = Place(
                "output_gradients", self.widths["outputs"]
            )
            self.widths["outputs"] += self.whole(piece.width)
            self.widths["output_gradients"] = self.widths["outputs"]

    # levels

    def _levels(self, roots: Iterable[Node], given: Any) -> dict[Node, Level]:
        """given: whether a node is there before the first stage."""
        found: dict[Node, Level] = {}

        def level(node: Node) -> Level:
            if node not in found:
                if given(node) or not node.args:
                    found[node] = (-1, 0)
                else:
                    most = max(level(a) for a in node.args)
                    if node.op == "gather":
                        most = (most[0] + 1, 0)
                    else:
                        most = max(most, (0, 0))
                        if node.op in OVER_ROWS:
                            most = (most[0], most[1] + 1)
                    found[node] = most
            return found[node]

        for root in roots:
            level(root)
        return found

    def _demand(
        self, stored: dict[Node, None], extra: list[tuple[Node, Level]], levels: dict[Node, Level], given: Any
    ) -> None:
        """Adds to `stored` what has to be, so that each pass finds what it needs. extra: what is evaluated in
        which pass beside what is stored."""
        changed = True
        while changed:
            changed = False
            work = [(n, levels[n], True) for n in stored if not given(n) and n.op != "gather"]
            work += [(n, at, True) for n, at in extra]
            work += [(n.args[0], (levels[n][0], levels[n][1] - 1), False)
                     for n in levels if n.op in OVER_ROWS and not given(n)]  # fmt: skip
            for root, at, top in work:
                seen: set[Node] = set()

                def walk(node: Node, top: bool, at: Level = at, seen: set[Node] = seen) -> None:
                    nonlocal changed
                    if node in seen:
                        return
                    seen.add(node)
                    if not node.args or given(node):
                        return
                    if node.op == "gather":
                        if node not in stored:
                            stored[node] = None
                            changed = True
                        return
                    if not top and node in stored and levels[node] < at:
                        return
                    if node.op in OVER_ROWS and levels[node][0] == at[0] and not top:
                        return  # still known in this walk over the row
                    if not top and levels[node] < at and (node.op in COSTLY or node.op in OVER_ROWS):
                        if not (node.width == 1 and levels[node][0] == at[0]):
                            stored[node] = None
                            changed = True
                            return
                    for a in node.args:
                        walk(a, False)

                walk(root, top)

    def _passes(
        self, stages: list[Stage], stored: list[tuple[Node, Place]], levels: dict[Node, Level],
        at: dict[Node, Level] | None = None,
    ) -> None:  # fmt: skip
        for node, place in stored:
            if node.op != "gather" or (at and node in at):
                stage, number = (at or {}).get(node, max(levels[node], (0, 0)))
                _pass(stages, stage, number).stores.append((node, place))

    def _rowsums(self, stages: list[Stage], levels: dict[Node, Level], given: Any) -> None:
        for node, (stage, number) in levels.items():
            if node.op in OVER_ROWS and not given(node):
                _pass(stages, stage, number - 1).rowsums.append(node)
                _pass(stages, stage, number)

    # forward

    def _forward(self) -> list[Stage]:
        def given(node: Node) -> bool:
            return not node.args

        roots = [n for n, _ in self.new_at] + (self.out or [])
        levels = self._levels([*roots, *self.kept], given)
        stored: dict[Node, None] = {n: None for n in roots if n.args}
        stored |= dict.fromkeys(self.kept)
        stored |= {a: None for n in levels if n.op == "gather" for a in n.args if a.args}
        self._demand(stored, [], levels, given)
        stages: list[Stage] = []
        groups = _groups([n for n in levels if n.op == "gather"], levels)
        for group in groups:
            in_s = any(n in self.kept for n in group)
            for n in group:
                self.places[n] = self._new_place("saved" if in_s else "forward_scratch", n.width)
        for node in stored:
            if node not in self.places:
                self.places[node] = self._new_place(
                    "saved" if node in self.kept else "forward_scratch", node.width
                )
        for group in groups:
            _stage(stages, levels[group[0]][0]).products += self._products(group, self.places[group[0]])
        self._rowsums(stages, levels, given)
        stores = [(n, self.places[n]) for n in stored]
        for node, place in self.new_at:  # a part of the state that is another one, or stays
            if self.places.get(node) != place:
                stores.append((node, place))
                levels.setdefault(node, (0, 0))
        self._passes(stages, stores, levels, {n: max(levels[n], (0, 0)) for n, _ in self.new_at})
        return stages

    def _new_place(self, buffer: str, width: int) -> Place:
        place = Place(buffer, self.widths[buffer])
        self.widths[buffer] += self.whole(width)
        return place

    # backward

    def _analyse(self) -> None:
        """What backward is to find, and what of forward it reads."""
        new = {n for n, _ in self.new_at if n.args}
        self.free = new | {n for n in self.is_forward if not n.args}
        carries = [d for leaf, k in zip(self.d_old, self.old, strict=True) for d in (leaf or [None] * len(k))]
        # the gradients of the old state: what is stored, and products that are added to it after all passes
        self.pieces = [p for left, right in self.sum_pieces.values() for p in (*left, *right)]
        roots = [r for r in [*carries, *(self.d_x or [])] if r]
        uses = Counter(n for node in _reached([*roots, *self.pieces]) for n in node.args)
        uses.update(self.pieces)
        self.finals = [self._split(root, uses) for root in [*carries, *(self.d_x or [])]]
        self.operands = [a for _, g in self.finals if g is not None for a in g.args]
        self.parts = [part for part, _ in self.finals if part is not None]
        self.kept: dict[Node, None] = {}
        seen: set[Node] = set()

        def keep(node: Node) -> None:
            if node in seen or not node.args or node in new:
                return
            seen.add(node)
            if node in self.is_forward:
                again = node.op in ("tanh", "sigmoid") and all(a in self.free for a in node.args)
                if node.op in ("gather", *OVER_ROWS) or (node.op in COSTLY and not again):
                    self.kept.setdefault(node, None)
                    return
            for a in node.args:
                keep(a)

        for left, right in self.sum_pieces.values():
            for a in (*left, *right):  # operands of products are kept as they are
                if left and a in self.is_forward and a.args and a not in new:
                    self.kept.setdefault(a, None)
        for node in [*self.operands, *self.parts, *self.pieces]:
            keep(node)

    def _backward(self) -> dict[str, Any]:
        roots = [*self.operands, *self.parts, *self.pieces]

        def given(node: Node) -> bool:
            return node in self.kept or node in self.free or not node.args

        levels = self._levels(roots, given)
        gathers = [n for n in levels if n.op == "gather" and not given(n)]
        copies: dict[Node, Node] = {}

        def operand(node: Node) -> Node:
            """What a product reads must not be what it writes to, or what is no number in memory."""
            if node.op in ("dnew", "dout", "fill", "const", "vec"):
                copies[node] = self.m.make("copy", node, width=node.width)
                levels.setdefault(copies[node], (0, 0))
                return copies[node]
            return node

        stored: dict[Node, None] = {}
        lists = [[operand(a) for a in g.args] for _, g in self.finals if g is not None]
        lists += [[operand(a) for a in g.args] for g in gathers]
        pairs, colsums = self._outer_pairs(operand)
        lists += [[v for _, v in some] for some in pairs.values()]
        lists += [[u for u, _ in some] for some in pairs.values()]
        for nodes in sorted(lists, key=len, reverse=True):
            for node in nodes:
                if not given(node) and node.op != "gather":
                    stored.setdefault(node, None)
        for node in stored:
            self.places[node] = self._new_place("backward_scratch", node.width)
        last = max([(0, 0), *(levels[n] for n in levels if not given(n))])
        extra = [(part, last) for part in self.parts if part.op != "gather"]
        in_loop = {node for node, _ in colsums if not self._beside_one(node, pairs)}
        extra += [(node, max(levels[node], (0, 0))) for node in in_loop]
        self._demand(stored, extra, levels, given)
        stages: list[Stage] = []
        for group in _groups(gathers, levels):
            for n in group:
                self.places[n] = self._new_place("backward_scratch", n.width)
        for group in _groups(gathers, levels):
            products = self._products(group, self.places[group[0]], operand)
            _stage(stages, levels[group[0]][0]).products += products
        for node in stored:
            if node not in self.places:
                self.places[node] = self._new_place("backward_scratch", node.width)
        self._rowsums(stages, levels, given)
        self._passes(stages, [(n, self.places[n]) for n in stored if n.op != "gather"], levels)
        final = _pass(stages, *last)
        # the gradients of the state and of the inputs
        final_products = []
        targets = [self.places[p] for leaf in self.dnew for p in leaf]
        dx = [self._new_place("input_gradients", piece.width) for piece in self.d_x or []]
        for (part, gather), place in zip(self.finals, [*targets, *dx], strict=True):
            if gather is None or part is not None:
                width = next(p.width for p in [part, *(q for leaf in self.dnew for q in leaf)]
                             if p is not None and (p is part or self.places[p] == place))  # fmt: skip
                final.stores.append((part or self.m.make("fill", self.m.const(0), width=width), place))
            if gather is not None:
                for product in self._products([gather], place, operand, part is not None):
                    product.optional, product.carried = (
                        place.buffer == "input_gradients",
                        place.buffer == "state_gradients",
                    )
                    final_products.append(product)
        outers, assembly, sums = self._outers(pairs, colsums, in_loop, operand, stages, levels)
        return {"stages": stages, "last": final_products, "outers": outers, "assembly": assembly, "sums": sums,
                "dx": dx}  # fmt: skip

    def _split(self, root: Node | None, uses: Counter) -> tuple[Node | None, Node | None]:
        if root is None or (root.op == "gather" and uses[root]):
            return root, None
        if root.op == "gather":
            return None, root
        if root.op == "add" and not uses[root]:
            for a, b in (root.args, root.args[::-1]):
                if a.op == "gather" and uses[a] <= 1 and b.width == root.width:
                    return b, a
        return root, None

    def _beside_one(self, node: Node, pairs: dict[int, list[tuple[Node, Node]]]) -> bool:
        """Whether the sum over the rows of a node comes with its products with what stands beside the one."""
        beside = {self.places[ONE].column + 1, self.places[ONE].column - sum(p.width for p in self.x)}
        return any(
            v is node and self.places.get(u, Place("", -1)) in {Place("operands", c) for c in beside}
            for some in pairs.values()
            for u, v in some
        )

    def _outer_pairs(self, operand: Any) -> tuple[dict[int, list[tuple[Node, Node]]], list[tuple[Node, int]]]:
        """Of each sum of products its pairs of pieces, what forward knows first; and all other sums."""
        pairs: dict[int, list[tuple[Node, Node]]] = {}
        colsums = []
        for place, (left, right) in self.sum_pieces.items():
            if not left:
                colsums += [(operand(node), place) for node in right]
                continue
            pairs[place] = []
            for a in left:
                for b in right:
                    u, v = (a, b) if a in self.is_forward and b not in self.is_forward else (b, a)
                    if u not in self.is_forward:
                        u, v = a, b
                    u = u if u in self.is_forward and u.op not in ("fill", "const", "vec") else operand(u)
                    pairs[place].append((u, v if v in self.is_forward and v.args else operand(v)))
        return pairs, colsums

    def _outers(
        self, pairs: dict[int, list[tuple[Node, Node]]], colsums: list, in_loop: set[Node], operand: Any,
        stages: list[Stage], levels: dict[Node, Level],
    ) -> tuple[list[Outer], dict, int]:  # fmt: skip
        of_v: dict[Node, dict[Any, None]] = {}
        for some in pairs.values():
            for u, v in some:
                of_v.setdefault(v, {})[u] = None
        for node, _ in colsums:
            if node not in in_loop:
                of_v[node][ONE] = None
        # pieces of backward that lie beside each other and meet the same operands
        at = self.places
        runs: list[tuple[list[Node], list[Any]]] = []
        for v in sorted(of_v, key=self._order):
            us = sorted(of_v[v], key=self._order)
            if runs and runs[-1][1] == us and self._adjacent(runs[-1][0][-1], v):
                runs[-1][0].append(v)
            else:
                runs.append(([v], us))
        outers, offset, where = [], 0, {}
        for vs, us in runs:
            columns = at[vs[-1]].column + self.whole(vs[-1].width) - at[vs[0]].column
            row = 0
            while row < len(us):
                end = row + 1
                while end < len(us) and self._adjacent(us[end - 1], us[end]):
                    end += 1
                some = us[row:end]
                rows = at[some[-1]].column + self._wide(some[-1]) - at[some[0]].column
                outers.append(Outer(at[some[0]], rows, at[vs[0]], columns, offset))
                for u in some:
                    for v in vs:
                        begin = (
                            (at[u].column - at[some[0]].column) * columns + at[v].column - at[vs[0]].column
                        )
                        where[u, v] = (offset + begin, columns)
                offset += rows * columns
                row = end
        assembly: dict[int, list] = {}
        for place, (left, right) in self.sum_pieces.items():
            blocks, i = assembly.setdefault(place, []), 0
            if not left:
                begin = 0
                for node in right:
                    known = operand(node)
                    if known in in_loop:
                        blocks.append((0, begin, 1, node.width, offset, node.width, False))
                        level = max(levels[known], (0, 0))
                        _pass(stages, *level).colsums.append((known, offset))
                        offset += self.whole(node.width)
                    else:
                        blocks.append((0, begin, 1, node.width, *where[ONE, known], False))
                    begin += node.width
                continue
            l_at = 0
            for a in left:
                r_at = 0
                for b in right:
                    u, v = pairs[place][i]
                    turned = u is not a and u is not operand(a)
                    blocks.append((l_at, r_at, a.width, b.width, *where[u, v], turned))
                    r_at += b.width
                    i += 1
                l_at += a.width
        return outers, assembly, offset

    def _wide(self, operand: Any) -> int:
        return 1 if operand == ONE else operand.width

    def _adjacent(self, a: Any, b: Any) -> bool:
        """Whether b follows a, with nothing between but what is zero."""
        one, other = self.places[a], self.places[b]
        gap = other.column - one.column - self._wide(a)
        same = (one.buffer, one.time) == (other.buffer, other.time)
        clean = self._wide(a) > 1 and one.buffer in (
            "operands",
            "backward_scratch",
            "saved",
        )  # what is one number wide has nothing known behind it
        return same and 0 <= gap < self.lanes and (gap == 0 or clean)

    # products

    def _products(
        self, group: list[Node], c: Place, operand: Any = lambda n: n, add: bool = False
    ) -> list[Product]:
        """Gathers of the same operands, whose results lie beside each other."""
        dots, vecs = group[0].attr
        terms: list[tuple[Any, int]] = [(operand(a), n) for n, a in enumerate(group[0].args)]
        if vecs:
            terms.append((ONE, -1))
        terms.sort(key=lambda term: self._order(term[0]))
        columns = sum(self.whole(n.width) for n in group)
        found: list[Product] = []
        while terms:
            run = [terms.pop(0)]
            while (
                terms
                and self._order(terms[0][0])[:2] == self._order(run[-1][0])[:2]
                and self._adjacent(run[-1][0], terms[0][0])
            ):
                run.append(terms.pop(0))
            begin = self.places[run[0][0]].column
            rows = self.places[run[-1][0]].column + self._wide(run[-1][0]) - begin
            matrix = Matrix(rows, columns, [])
            at = 0
            for n in group:
                for u, number in run:
                    row = self.places[u].column - begin
                    if number >= 0:
                        par, k, k_count, first = n.attr[0][number]
                        matrix.blocks.append(Block(par, k, k_count, first, n.width, row, at))
                    else:
                        for par, lo in n.attr[1]:
                            matrix.blocks.append(Block(par, 0, 1, lo, n.width, row, at))
                at += self.whole(n.width)
            if len({(b.row, b.column) for b in matrix.blocks}) < len(matrix.blocks):
                raise NotImplementedError("two biases of one sum")
            self.matrices.append(matrix)
            found.append(Product(self.places[run[0][0]], matrix, c, add or bool(found)))
        return found

    def _order(self, operand: Any) -> tuple:
        place = self.places[operand]
        return BUFFERS.index(place.buffer), place.time, place.column

    # what is the same at all steps

    def _constants(self, stages: list[Stage]) -> tuple[list, dict, int]:
        passes = [p for stage in stages for p in stage.passes]
        used = _reached(
            [n for p in passes for n in (*(n for n, _ in p.stores), *(n for n, _ in p.colsums), *p.rowsums)],
            stop=lambda n: n.op == "gather",
        )
        vectors, at, offset = [], {}, 0
        for node in sorted((n for n in used if n.op == "vec"), key=lambda n: (n.width == 1, n.number)):
            vectors.append((*node.attr, node.width, offset))
            at[node] = offset
            offset += self.whole(node.width) if node.width > 1 else 1
        return vectors, at, offset


def _reached(roots: Iterable[Node], stop: Any = None) -> dict[Node, None]:
    """All that roots are made of, operands first."""
    seen: dict[Node, None] = {}

    def walk(node: Node) -> None:
        if node in seen:
            return
        if stop is None or not stop(node):
            for a in node.args:
                walk(a)
        seen[node] = None

    for root in roots:
        walk(root)
    return seen


def _groups(gathers: list[Node], levels: dict[Node, Level]) -> list[list[Node]]:
    """Those of the same operands in one stage, in the order of the columns of their weights."""
    groups: dict[Any, list[Node]] = {}
    for g in gathers:
        key = (levels[g][0], g.args, len(g.attr[1]))
        groups.setdefault(key, []).append(g)
    return [sorted(group, key=lambda g: g.attr[0]) for group in groups.values()]


def _stage(stages: list[Stage], number: int) -> Stage:
    while len(stages) <= number:
        stages.append(Stage())
    return stages[number]


def _pass(stages: list[Stage], stage: int, number: int) -> Pass:
    passes = _stage(stages, stage).passes
    while len(passes) <= number:
        passes.append(Pass())
    return passes[number]
