"""A whole training step of a plain classifier in machine code, for any cell the generator takes: layers of one cell,
the last output of the top one, a linear head, cross-entropy. What rnnclf/compiled_step.py does for three cells.

The driver below knows no cell: it calls the layers by their addresses, so it is compiled once for all cells, sizes
and numbers of layers. Each core takes its part of a batch from the sequences to the gradients of the weights.
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from rnnclf.cells.base import Cell

from rnnclf.engine.machine import emit
from rnnclf.engine.machine.cache import functions
from rnnclf.engine.machine.emit import BACKWARD, FORWARD, I64, PACK, VECTOR, FunctionBuilder, Module, vector_bytes
from rnnclf.engine.machine.engine import FOLDER, NUMBERS, Sequences, aligned_zeros, gradients, replay
from rnnclf.engine.machine.engine import CellCode
from rnnclf.engine.machine.functions import I32
from rnnclf.engine.machine.graph import Ref, references

POSTED, ARRIVED, LAST, ALL = 0, 128, 2**40, 2**60  # places on the board in bytes; see rnnclf/cells/machine_code.py
DRIVER = (
    "board size number leads learns packs pack_count x x_bytes x_step rows chosen labels first n batch T I shift scale"
    " A A_t A_row layers layer_count h h_row hidden head bias head_back z z_row columns classes weight smoothing found"
    " taken dh dh_row dh_columns sums sums_length head_sums bias_sums"
).split()  # fmt: skip
LAYER = "forward forward_args backward backward_args source source_t source_row width x x_t x_row G G_length".split()
MOVE = ("source", "s_row", "s_column", "n", "m", "target", "t_row", "t_column")
F64 = ir.DoubleType()


class Driver(Module):
    def __init__(self, double: bool) -> None:
        super().__init__(None, double)
        self._wait()
        self._judge()
        self._take_part()
        self._move()

    def _atomic(self, c: Any, place: Any) -> Any:
        return c.b.load_atomic(c.pointer(place, I64), "acquire", 8)

    def _wait(self) -> None:
        """Until the number at a place is at least so large: busily first, then with naps."""
        c = FunctionBuilder(self, "wait", ("place", "least"), False)
        b = c.b
        pause = self.declare("llvm.x86.sse2.pause", ir.VoidType()) if self.ir.triple.startswith("x86_64") else None
        sleep = self.declare("usleep", I32, I32)
        head, again, nap, after = (c.function.append_basic_block(n) for n in ("look", "again", "nap", "after"))
        before = b.block
        b.branch(head)
        b.position_at_end(head)
        looks = b.phi(I64)
        looks.add_incoming(I64(0), before)
        b.cbranch(b.icmp_signed(">=", self._atomic(c, c.a["place"]), c.a["least"]), after, again)
        b.position_at_end(again)
        if pause is not None:
            b.call(pause, [])
        more = b.add(looks, I64(1))
        looks.add_incoming(more, b.block)
        b.cbranch(b.icmp_signed(">", more, I64(20000)), nap, head)
        b.position_at_end(nap)
        b.call(sleep, [I32(200)])
        looks.add_incoming(more, b.block)
        b.branch(head)
        b.position_at_end(after)
        b.ret_void()
        self.wait = c.function

    def _number(self, c: Any, value: Any) -> Any:
        return value if self.double else c.b.fptrunc(value, self.number)

    def _wide(self, c: Any, value: Any) -> Any:
        return value if self.double else c.b.fpext(value, F64)

    def _judge(self) -> None:
        """Classes and cross-entropy of logits, which become their gradients."""
        c = FunctionBuilder(self, "judge", tuple(DRIVER), True)
        a, b, size = c.a, c.b, self.size
        exp, log = self.declare("exp", F64, F64), self.declare("log", F64, F64)
        smoothing, classes = c.load(a["smoothing"], F64), a["classes"]
        share, counted = b.fdiv(smoothing, b.sitofp(classes, F64)), b.fsub(F64(1.0), smoothing)
        smooth = b.fcmp_ordered(">", smoothing, F64(0.0))
        total, loss, right = (c.variable(F64), c.variable(F64), c.variable(I64))
        for place in (total, loss):
            b.store(F64(0.0), place)
        b.store(I64(0), right)

        def label(place: Any) -> Any:
            row = c.load(b.add(a["chosen"], c.mul(place, 8)), I64)
            return c.load(b.add(a["labels"], c.mul(row, 8)), I64)

        def weight(k: Any) -> Any:
            return c.load(b.add(a["weight"], c.mul(k, 8)), F64)

        def wanted(k: Any, y: Any) -> Any:
            full = b.fadd(share, b.select(b.icmp_signed("==", k, y), counted, F64(0.0)))
            return b.fmul(weight(b.select(smooth, k, y)), full)

        with c.loop(0, a["batch"]) as place:
            b.store(b.fadd(b.load(total), weight(label(place))), total)
        best, whole, all_wanted = c.variable(I64), c.variable(F64), c.variable(F64)
        with c.loop(0, a["n"]) as n:
            z, y = b.add(a["z"], b.mul(n, a["z_row"])), label(b.add(a["first"], n))

            def logit(k: Any, z: Any = z) -> Any:
                return self._wide(c, c.load(b.add(z, c.mul(k, size)), self.number))

            b.store(I64(0), best)
            with c.loop(1, classes) as k:
                better = b.fcmp_ordered(">", logit(k), logit(b.load(best)))
                b.store(b.select(better, k, b.load(best)), best)
            found = b.load(best)
            c.store(found, b.add(a["taken"], c.mul(n, 8)))
            b.store(b.add(b.load(right), b.zext(b.icmp_signed("==", found, y), I64)), right)
            top = logit(found)
            b.store(F64(0.0), whole)
            b.store(F64(0.0), all_wanted)
            with c.loop(0, classes) as k:
                b.store(b.fadd(b.load(whole), b.call(exp, [b.fsub(logit(k), top)])), whole)
                b.store(b.fadd(b.load(all_wanted), wanted(k, y)), all_wanted)
            with c.loop(0, classes) as k:
                want, rest = wanted(k, y), b.fsub(logit(k), top)
                b.store(b.fadd(b.load(loss), b.fmul(want, b.fsub(b.call(log, [b.load(whole)]), rest))), loss)
                part = b.fdiv(b.fmul(b.load(all_wanted), b.call(exp, [rest])), b.load(whole))
                value = self._number(c, b.fdiv(b.fsub(part, want), b.load(total)))
                c.store(value, b.add(z, c.mul(k, size)))
                there = b.add(a["bias_sums"], c.mul(k, size))
                with b.if_then(b.icmp_signed("!=", a["learns"], I64(0))):
                    c.store(b.fadd(c.load(there, self.number), value), there)
        c.store(b.fdiv(b.load(loss), b.load(total)), a["found"])
        c.store(b.sitofp(b.load(right), F64), b.add(a["found"], I64(8)))
        b.ret_void()
        self.judge = c.function

    def _zero(self, c: Any, begin: Any, length: Any) -> None:
        with c.loop(0, length, self.size) as k:
            c.store(ir.Constant(self.number, 0.0), c.b.add(begin, k))

    def _take_part(self) -> None:
        c = FunctionBuilder(self, "work", (*DRIVER, "job"), True)
        a, b = c.a, c.b
        with c.loop(0, a["pack_count"]) as n:
            mine = b.icmp_signed("==", b.srem(n, a["size"]), a["number"])
            with b.if_then(mine):
                row = b.add(a["packs"], c.mul(n, 8 * len(PACK)))
                b.call(self.packer, [c.load(c.add(row, 8 * k), I64) for k in range(len(PACK))])
        self._gather(c)
        self._announce(c, 1)
        least = b.mul(b.sub(c.mul(a["job"], 2), I64(1)), a["size"])
        b.call(self.wait, [c.add(a["board"], ARRIVED), least])
        table = ir.FunctionType(ir.VoidType(), [I64.as_pointer()])

        def layer(n: Any) -> dict[str, Any]:
            row = b.add(a["layers"], c.mul(n, 8 * len(LAYER)))
            return {name: c.load(c.add(row, 8 * k), I64) for k, name in enumerate(LAYER)}

        def call(function: Any, arguments: Any) -> None:
            b.call(b.inttoptr(function, table.as_pointer()), [b.inttoptr(arguments, I64.as_pointer())])

        with c.loop(0, a["layer_count"]) as n:
            it = layer(n)
            with b.if_then(b.icmp_signed(">", n, I64(0))), c.loop(0, a["T"]) as t, c.loop(0, a["n"]) as r:
                there = c.add(it["source"], b.mul(t, it["source_t"]), b.mul(r, it["source_row"]))
                here = c.add(it["x"], b.mul(t, it["x_t"]), b.mul(r, it["x_row"]))
                with c.loop(0, it["width"], self.size) as k:
                    c.store(c.load(b.add(there, k), self.number), b.add(here, k))
            call(it["forward"], it["forward_args"])
        with c.loop(0, a["n"]) as r, c.loop(0, a["classes"]) as k:
            value = c.load(b.add(a["bias"], c.mul(k, self.size)), self.number)
            c.store(value, c.add(a["z"], b.mul(r, a["z_row"]), c.mul(k, self.size)))
        one, zero = I64(1), I64(0)
        b.call(self.product, [one, a["h"], a["h_row"], a["n"], a["head"], a["hidden"], a["hidden"], a["z"],
                              a["z_row"], a["columns"]])  # fmt: skip
        with b.if_then(b.icmp_signed("!=", a["learns"], zero)):
            self._zero(c, a["sums"], a["sums_length"])
        b.call(self.judge, [c.function.args[0]])
        with b.if_then(b.icmp_signed("!=", a["learns"], zero)):
            with c.loop(0, a["layer_count"]) as n:
                it = layer(n)
                self._zero(c, it["G"], it["G_length"])
            b.call(self.product, [zero, a["z"], a["z_row"], a["n"], a["head_back"], a["classes"], a["classes"],
                                  a["dh"], a["dh_row"], a["dh_columns"]])  # fmt: skip
            with c.countdown(a["layer_count"]) as n:
                it = layer(n)
                call(it["backward"], it["backward_args"])
            b.call(self.outer, [a["h"], a["h_row"], a["hidden"], a["z"], a["z_row"], a["columns"], a["n"],
                                a["head_sums"], a["columns"]])  # fmt: skip
        self._announce(c, 1)
        b.ret_void()
        work = c.function
        c = FunctionBuilder(self, "take_part", (*DRIVER, "job"), True)
        a, b = c.a, c.b
        job_at = b.gep(c.function.args[0], [I64(len(DRIVER))])
        posted = c.add(a["board"], POSTED)
        leads = b.icmp_signed("!=", a["leads"], I64(0))
        head, go, end = (c.function.append_basic_block(n) for n in ("head", "go", "end"))
        with b.if_then(leads):
            b.atomic_rmw("add", c.pointer(posted, I64), I64(1), "acq_rel")
        b.store(b.select(leads, self._atomic(c, posted), I64(1)), job_at)
        b.branch(head)
        b.position_at_end(head)
        with b.if_then(b.not_(leads)):
            b.call(self.wait, [posted, b.load(job_at)])
        over = b.icmp_signed(">=", self._atomic(c, posted), I64(LAST))
        b.cbranch(over, end, go)
        b.position_at_end(go)
        b.call(work, [c.function.args[0]])
        with b.if_then(leads):
            least = b.mul(c.mul(b.load(job_at), 2), a["size"])
            b.call(self.wait, [c.add(a["board"], ARRIVED), least])
            b.ret_void()
        b.store(b.add(b.load(job_at), I64(1)), job_at)
        b.branch(head)
        b.position_at_end(end)
        b.ret_void()

    def _announce(self, c: Any, by: int) -> None:
        c.b.atomic_rmw("add", c.pointer(c.add(c.a["board"], ARRIVED), I64), I64(by), "acq_rel")

    def _gather(self, c: Any) -> None:
        """Lays the inputs, bytes or float32, into the operands of the lowest layer: (x - shift) / scale."""
        a, b, size = c.a, c.b, self.size
        of_bytes = b.icmp_signed("!=", a["x_bytes"], I64(0))
        for kind, width in ((ir.IntType(8), 1), (ir.FloatType(), 4)):
            with b.if_then(of_bytes if width == 1 else b.not_(of_bytes)), c.loop(0, a["n"]) as n:
                row = c.load(c.add(a["chosen"], c.mul(b.add(a["first"], n), 8)), I64)
                row = c.load(c.add(a["rows"], c.mul(row, 8)), I64)
                x = b.add(a["x"], b.mul(row, a["x_step"]))
                with c.loop(0, a["T"]) as t:
                    here = c.add(a["A"], b.mul(t, a["A_t"]), b.mul(n, a["A_row"]))
                    with c.loop(0, a["I"]) as i:
                        at = b.add(x, c.mul(b.add(b.mul(t, a["I"]), i), width))
                        raw = b.load(c.pointer(at, kind), align=width)
                        value = b.uitofp(raw, self.number) if width == 1 else raw
                        if width == 4 and self.double:
                            value = b.fpext(raw, F64)
                        there = c.mul(i, size)
                        shift = c.load(b.add(a["shift"], there), self.number)
                        scale = c.load(b.add(a["scale"], there), self.number)
                        c.store(b.fdiv(b.fsub(value, shift), scale), b.add(here, there))

    def _move(self) -> None:
        """Copies blocks of numbers: a table of them."""
        c = FunctionBuilder(self, "move", ("table", "count"), True)
        with c.loop(0, c.a["count"]) as n:
            row = c.b.add(c.a["table"], c.mul(n, 8 * len(MOVE)))
            m = {name: c.load(c.add(row, 8 * k), I64) for k, name in enumerate(MOVE)}
            with c.loop(0, m["n"]) as i:
                there = c.b.add(m["source"], c.b.mul(i, m["s_row"]))
                here = c.b.add(m["target"], c.b.mul(i, m["t_row"]))
                with c.loop(0, m["m"]) as j:
                    value = c.load(c.b.add(there, c.b.mul(j, m["s_column"])), self.number)
                    c.store(value, c.b.add(here, c.b.mul(j, m["t_column"])))
        c.b.ret_void()


_Walk = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def driver(double: bool, folder: Path | None = FOLDER) -> dict[str, Any]:
    at = functions(str(Driver(double).ir), ("take_part", "move"), folder)
    return {name: _Walk(address) for name, address in at.items()}


def blocks(index: Any) -> list[tuple[int, int, int, int, int, int]] | None:
    """An array of places (N, M) as blocks in which places grow evenly: (row, rows, columns, first place, its step
    from row to row, from column to column)."""
    index = index if index.ndim == 2 else index.reshape(-1, 1)
    found, begin = [], 0
    while begin < len(index):
        columns = int(index[begin, 1] - index[begin, 0]) if index.shape[1] > 1 else 1
        even = index[begin:, 0][:, None] + columns * np.arange(index.shape[1]) == index[begin:]
        end, step = begin + 1, int(index[begin + 1, 0] - index[begin, 0]) if begin + 1 < len(index) else 0
        while end < len(index) and index[end, 0] - index[end - 1, 0] == step and even[end - begin].all():
            end += 1
        if not even[0].all():
            return None
        found.append((begin, end - begin, index.shape[1], int(index[begin, 0]), step, columns))
        begin = end
    return found


class Layer:
    """A layer: its machine code, what comes before and after it, in torch where it is more than moving numbers."""

    def __init__(self, module: Any, wants_inputs: bool, folder: Path | None) -> None:
        self.module = module
        self.prepares = type(module.cell).prepare is not Cell.prepare
        p = vars(module.prepared())
        self.code = CellCode(module.cell, {k: v.detach().requires_grad_(v.requires_grad) for k, v in p.items()},
                             module.input_size, folder)  # fmt: skip
        self.names = self.code.graph.names
        self.prepared = [p[n].detach().clone() if self.prepares else p[n].detach() for n in self.names]
        self.known: dict[int, Any] = dict(enumerate(self.prepared))
        replay(self.code.needs, self.known, "before")
        storages = {t.untyped_storage().data_ptr() for t in self.prepared}
        flat = {place for place, *_ in self.code.plan.vectors if not self.known[place].is_contiguous()}
        self.computed = {k: t.contiguous().clone() for k, t in self.known.items()
                         if k in flat or t.untyped_storage().data_ptr() not in storages}  # fmt: skip
        self.known |= self.computed
        self.wants_inputs = wants_inputs
        graph, plan = self.code.graph, self.code.plan
        self.moves: list | None = None
        index = np.arange(plan.sums + plan.lanes, dtype=np.float64)
        try:
            if any(call[0].overloadpacket.__name__ not in MOVES for call in self._after()):
                raise ValueError
            places = gradients(_Float64(self.code), index, self.known)
            self.moves = [None if g is None else blocks(g.numpy().astype(np.int64)) for g in places]
            if None in [m for m, g in zip(self.moves, places, strict=True) if g is not None]:
                self.moves = None
        except ValueError:
            pass
        self.gradients = [torch.zeros_like(t) if n in graph.gradients else None
                          for n, t in zip(self.names, self.prepared, strict=True)]  # fmt: skip

    def _after(self) -> list:
        graph = self.code.graph
        need = {Ref(("after", place)) for place in graph.gradients.values()}
        calls = []
        for call in reversed(graph.after):
            if need & {Ref(("after", place)) for place in call[3]}:
                need |= set(references(call[1:3]))
                calls.append(call)
        return calls

    def prepare(self) -> Any:
        """Before a step: what is computed of the weights, where anything is."""
        graph = None
        if self.prepares:
            graph = [vars(self.module.prepared())[n] for n in self.names]
            with torch.no_grad():
                for mine, now in zip(self.prepared, graph, strict=True):
                    mine.copy_(now)
        if self.computed:
            known: dict[int, Any] = dict(enumerate(self.prepared))
            replay(self.code.needs, known, "before")
            for k, mine in self.computed.items():
                mine.copy_(known[k])
        return graph

    def packs(self) -> list[list[int]]:
        code, size = self.code, self.code.size
        rows = []
        for matrix in code.plan.matrices:
            for b in matrix.blocks:
                par = self.known[b.par]
                steps = [s * size for s in par.stride()] if par.ndim == 2 else [0, par.stride(-1) * size]
                source = par.data_ptr() + b.k * steps[0] + b.n * steps[1]
                rows.append([source, *steps, b.k_count, b.n_count, code.weights.ctypes.data + matrix.offset * size,
                             matrix.rows, matrix.columns, b.row, b.column])  # fmt: skip
        for place, lo, width, offset in code.plan.vectors:
            par = self.known[place]
            step = (par.stride(-1) if par.ndim else 1) * size
            rows.append([par.data_ptr() + lo * step, 0, step, 1, width, code.constants.ctypes.data + offset * size, 1,
                         width, 0, 0])  # fmt: skip
        return rows


MOVES = {"t", "transpose", "permute", "view", "_unsafe_view", "cat", "split", "slice", "detach", "alias", "clone",
         "squeeze", "unsqueeze"}  # fmt: skip


class _Float64:
    """A cell's code, to do with places what is done with sums."""

    def __init__(self, code: Any) -> None:
        self.graph, self.plan = code.graph, code.plan


class Steps:
    """The steps of a classifier on batches of one size. modules: the layers' cells; head: a linear layer; x_NTI:
    whole sequences, bytes or float32."""

    def __init__(self, modules: list, head: Any, x_NTI: torch.Tensor, y_N: torch.Tensor, batch: int, threads: int = 1,
                 shift: Any = 0.0, scale: Any = 1.0, learns: bool = True, folder: Path | None = FOLDER):  # fmt: skip
        dtype = NUMBERS[head.weight.dtype]
        self.dtype, self.head, self.size = dtype, head, dtype.itemsize
        self.layers = [Layer(m, k > 0, folder) for k, m in enumerate(modules)]
        self.functions = driver(dtype.itemsize == 8, folder)
        lanes, (classes, hidden) = vector_bytes() // dtype.itemsize, head.weight.shape
        columns, wide = -(-classes // lanes) * lanes, -(-hidden // lanes) * lanes
        self.classes, self.hidden, self.columns = classes, hidden, columns
        w = head.weight.detach()
        self.head_w, self.head_back = aligned_zeros([hidden * columns], dtype), aligned_zeros([classes * wide], dtype)
        size = dtype.itemsize
        packs = [row for layer in self.layers for row in layer.packs()]
        packs.append(
            [w.data_ptr(), size, hidden * size, hidden, classes, self.head_w.ctypes.data, hidden, columns, 0, 0]
        )
        packs.append(
            [w.data_ptr(), hidden * size, size, classes, hidden, self.head_back.ctypes.data, classes, wide, 0, 0]
        )
        self.packs = np.array(packs)
        steps, inputs = x_NTI.shape[1:]
        self.x, self.y, self.chosen, self.taken = (
            x_NTI.contiguous(),
            y_N,
            np.zeros(batch, np.int64),
            np.zeros(batch, np.int64),
        )
        self.rows = np.arange(len(x_NTI))
        self.shift, self.scale = (np.broadcast_to(np.asarray(v, dtype), inputs).copy() for v in (shift, scale))
        self.weight_C, self.smoothing = np.ones(classes), np.zeros(1)
        number = max(1, min(threads, batch // 16))
        ends = [batch * (n + 1) // number for n in range(number)]
        parts = list(zip([0, *ends[:-1]], ends, strict=True))
        lengths = [layer.code.plan.sums + lanes for layer in self.layers]
        self.offsets = np.cumsum([0, *lengths, hidden * columns, columns])
        self.sums_QM = aligned_zeros([number, self.offsets[-1]], dtype)
        self.found, self.board = np.zeros([number, 2]), np.zeros(64, np.int64)
        self.keep: list[Any] = []
        self.arguments = []
        for q, (begin, end) in enumerate(parts):
            self.arguments.append(self._part(q, number, begin, end - begin, batch, steps, inputs, learns))
        self.sources = [self.sums_QM[0, a:b] for a, b in zip(self.offsets, self.offsets[1:], strict=False)]
        self._moves()
        self.threads = [threading.Thread(target=self._serve, args=[q], daemon=True) for q in range(1, number)]
        for thread in self.threads:
            thread.start()

    def _part(self, q: int, number: int, first: int, n: int, batch: int, steps: int, inputs: int, learns: bool) -> Any:
        dtype, size, zero_x = self.dtype, self.size, torch.zeros(steps, n, 1)
        runs, table = [], []
        for k, layer in enumerate(self.layers):
            x = zero_x.expand(-1, -1, layer.module.input_size).to(layer.prepared[0].dtype)
            start = layer.module.cell.initial_state(x[0])
            from rnnclf.cells.state import leaves

            run = Sequences(layer.code, x, leaves(start), None, learns)
            w = layer.code.plan.widths
            run.F, run.D = aligned_zeros([emit.BLOCK, w["forward_scratch"]], dtype), aligned_zeros([emit.BLOCK, w["backward_scratch"]], dtype)
            run.G = aligned_zeros([n, w["state_gradients"]], dtype)
            run.X = aligned_zeros([steps if k > 0 else 1, n, w["input_gradients"]], dtype)
            run.Y = aligned_zeros([steps if layer.code.graph.out_leaf is None else 0, n, w["output_gradients"]], dtype)
            runs.append((layer, run))
        for k, (layer, run) in enumerate(runs):
            code, plan, graph = layer.code, layer.code.plan, layer.code.graph
            if graph.out_leaf is None or len(graph.old[graph.out_leaf]) > 1:
                raise NotImplementedError(
                    "the prototype's step takes cells whose output is one whole part of the state"
                )
            known = {"steps": steps, "batch": n, "operands": run.A.ctypes.data, "operands_step": run.A.strides[0],
                     "saved": run.S.ctypes.data, "saved_step": run.S_t, "outputs": run.O.ctypes.data, "outputs_step": run.O.strides[0],
                     "running": run.running_T.ctypes.data, "weights": code.weights.ctypes.data,
                     "constants": code.constants.ctypes.data, "forward_scratch": run.F.ctypes.data, "backward_scratch": run.D.ctypes.data,
                     "state_gradients": run.G.ctypes.data, "input_gradients": run.X.ctypes.data, "input_gradients_step": run.X.strides[0] if k else 0,
                     "output_gradients": run.Y.ctypes.data, "output_gradients_step": run.Y.strides[0], "sums": self.sums_QM[q, self.offsets[k] :].ctypes.data,
                     "state_wanted": 0, "inputs_wanted": k > 0, "dy": 0, "dy_step": 0, "dy_row": 0}  # fmt: skip
            if k + 1 < len(runs):
                above, at = runs[k + 1][1].X, runs[k + 1][0].code.plan.dx_at[0].column
                known |= {"dy": above.ctypes.data + at * size, "dy_step": above.strides[0], "dy_row": above.strides[1]}
            forward, backward = (np.array([int(known[name]) for name in names]) for names in (FORWARD, BACKWARD))
            row = dict.fromkeys(LAYER, 0)
            row |= {"forward": ctypes.cast(code.forward, ctypes.c_void_p).value, "forward_args": forward.ctypes.data,
                    "backward": ctypes.cast(code.backward, ctypes.c_void_p).value, "backward_args": backward.ctypes.data,
                    "G": run.G.ctypes.data, "G_length": run.G.nbytes, "x": run.A.ctypes.data + plan.x_at * size,
                    "x_t": run.A.strides[0], "x_row": run.A.strides[1]}  # fmt: skip
            if k:
                lower, below = runs[k - 1]
                at = lower.code.plan.state_at[lower.code.graph.out_leaf][0].column
                row |= {"source": below.A[1:].ctypes.data + at * size, "source_t": below.A.strides[0],
                        "source_row": below.A.strides[1], "width": layer.module.input_size * size}  # fmt: skip
            table.append([row[name] for name in LAYER])
            self.keep += [run, forward, backward]
        table_ = np.array(table)
        top, run = runs[-1]
        out = top.code.graph.out_leaf
        h_at, g_at = top.code.plan.state_at[out][0].column, top.code.plan.carry_at[out][0].column
        z = aligned_zeros([n, self.columns], dtype)
        lowest = runs[0][1]
        head_at, bias_at = self.offsets[len(self.layers)], self.offsets[len(self.layers) + 1]
        known = {
            "board": self.board.ctypes.data, "size": number, "number": q, "leads": q == 0, "learns": learns,
            "packs": self.packs.ctypes.data, "pack_count": len(self.packs), "x": self.x.data_ptr(),
            "x_bytes": self.x.dtype == torch.uint8, "x_step": self.x.stride(0) * self.x.itemsize,
            "rows": self.rows.ctypes.data, "chosen": self.chosen.ctypes.data, "labels": self.y.data_ptr(),
            "first": first, "n": n, "batch": batch, "T": steps, "I": inputs, "shift": self.shift.ctypes.data,
            "scale": self.scale.ctypes.data, "A": lowest.A.ctypes.data + self.layers[0].code.plan.x_at * size,
            "A_t": lowest.A.strides[0], "A_row": lowest.A.strides[1], "layers": table_.ctypes.data,
            "layer_count": len(runs), "h": run.A[-1].ctypes.data + h_at * size, "h_row": run.A.strides[1],
            "hidden": self.hidden, "head": self.head_w.ctypes.data, "bias": self.head.bias.data_ptr(),
            "head_back": self.head_back.ctypes.data, "z": z.ctypes.data, "z_row": z.strides[0],
            "columns": self.columns * size, "classes": self.classes, "weight": self.weight_C.ctypes.data,
            "smoothing": self.smoothing.ctypes.data, "found": self.found[q].ctypes.data,
            "taken": self.taken[first:].ctypes.data, "dh": run.G.ctypes.data + g_at * size, "dh_row": run.G.strides[0],
            "dh_columns": -(-self.hidden // (VECTOR // size)) * VECTOR, "sums": self.sums_QM[q].ctypes.data,
            "sums_length": self.sums_QM[q].nbytes, "head_sums": self.sums_QM[q, head_at:].ctypes.data,
            "bias_sums": self.sums_QM[q, bias_at:].ctypes.data,
        }  # fmt: skip
        self.keep += [z, table_]
        return np.array([*(int(known[name]) for name in DRIVER), 0])

    def _moves(self) -> None:
        size, rows = self.size, []
        self.of_head = torch.zeros_like(self.head.weight.detach()), torch.zeros_like(self.head.bias.detach())
        for layer, source in zip(self.layers, self.sources, strict=False):
            for target, some in zip(layer.gradients, layer.moves or [None] * len(layer.names), strict=True):
                wide = target.shape[-1] if target is not None and target.ndim == 2 else 1
                for row, n, m, first, s_row, s_column in some or []:
                    rows.append([source.ctypes.data + first * size, s_row * size, s_column * size, n, m,
                                 target.data_ptr() + row * wide * size, wide * size, size])  # fmt: skip
        weight, bias = self.sources[len(self.layers) :]
        rows.append([weight.ctypes.data, size, self.columns * size, self.classes, self.hidden,
                     self.of_head[0].data_ptr(), self.hidden * size, size])  # fmt: skip
        rows.append([bias.ctypes.data, 0, size, 1, self.classes, self.of_head[1].data_ptr(), 0, size])
        self.moves = np.array(rows)
        self.move = np.array([self.moves.ctypes.data, len(rows)])

    def _serve(self, q: int) -> None:
        torch.set_flush_denormal(True)
        self.functions["take_part"](self.arguments[q].ctypes.data)

    def __call__(self, indices: Any) -> tuple[float, int]:
        """Loss and right answers of these sequences; the gradients are left beside the weights."""
        self.chosen[:] = indices
        prepared = [layer.prepare() for layer in self.layers]
        self.functions["take_part"](self.arguments[0].ctypes.data)
        for other in self.sums_QM[1:]:
            self.sums_QM[0] += other
        self.functions["move"](self.move.ctypes.data)
        for layer, graph, source in zip(self.layers, prepared, self.sources, strict=False):
            found = layer.gradients if layer.moves is not None else gradients(layer.code, source, layer.known)
            if graph is None:
                weights = dict(layer.module.named_parameters())
                for name, gradient in zip(layer.names, found, strict=True):
                    if name in weights:
                        weights[name].grad = gradient
            else:
                pairs = [(t, g) for t, g in zip(graph, found, strict=True) if g is not None and t.requires_grad]
                for weight in layer.module.parameters():
                    weight.grad = None
                torch.autograd.backward([t for t, _ in pairs], [g.clone() for _, g in pairs])
        self.head.weight.grad, self.head.bias.grad = self.of_head
        loss, right = self.found.sum(0).tolist()
        return loss, int(right)

    def close(self) -> None:
        self.board[POSTED // 8] += LAST
        for thread in self.threads:
            thread.join()
