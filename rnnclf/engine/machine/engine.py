"""The generated engine: any cell over whole sequences in machine code, for torch's autograd.

module = cell.build(inputs)
generated = Generated(module)
outputs_TBH, state = generated(x_TBI)          # or generated(x_TBI, state, lengths_B, every_step=False)
"""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rnnclf.cells.state import leaves, map_states
from torch import Tensor
from torch.autograd.function import once_differentiable

from rnnclf.engine.machine import emit
from rnnclf.engine.machine.cache import functions
from rnnclf.engine.machine.emit import BACKWARD, FORWARD, PACK, vector_bytes
from rnnclf.engine.machine.graph import Ref, references
from rnnclf.engine.machine.trace import record
from rnnclf.engine.machine.schedule import Plan, plan

FOLDER = Path(__file__).with_name("cache")
_TimeLoop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Pack = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(PACK))
NUMBERS = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


def aligned_empty(shape: Any, dtype: Any) -> Any:
    """Starts at a cache line."""
    length = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(length + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + length].view(dtype).reshape(shape)


def aligned_zeros(shape: Any, dtype: Any) -> Any:
    array = aligned_empty(shape, dtype)
    array.fill(0)
    return array


def replay(calls: list, known: dict[int, Any], kind: str) -> None:
    """Runs recorded calls with torch."""

    def real(what: Any) -> Any:
        if isinstance(what, Ref):
            return known[what[1]] if what[0] == kind else known[what]
        if isinstance(what, list):
            return [real(part) for part in what]
        return what

    for function, args, kwargs, places in calls:
        out = function(*map(real, args), **{name: real(value) for name, value in kwargs.items()})
        for place, tensor in zip(places, out if isinstance(out, tuple | list) else [out], strict=True):
            known[place] = tensor


class CellCode:
    """A cell's machine code for weights of given shapes."""

    def __init__(self, cell: Any, p: dict[str, Tensor], inputs: int, folder: Path | None = FOLDER) -> None:
        begin = time.perf_counter()
        self.graph = record(cell, p, inputs)
        self.dtype = NUMBERS[next(iter(p.values())).dtype]
        self.plan: Plan = plan(self.graph, vector_bytes() // self.dtype.itemsize)
        text = str(emit.Module(self.plan, self.dtype.itemsize == 8).ir)
        recorded = time.perf_counter()
        at = functions(text, ("forward", "backward", "pack"), folder)
        self.seconds = {"record, schedule, emit": recorded - begin, "compile or load": time.perf_counter() - recorded}
        self.forward, self.backward = _TimeLoop(at["forward"]), _TimeLoop(at["backward"])
        self.packer = _Pack(at["pack"])
        plan_, size = self.plan, self.dtype.itemsize
        self.weights = aligned_zeros([plan_.weights + plan_.lanes], self.dtype)
        self.constants = aligned_zeros([plan_.constants + plan_.lanes], self.dtype)
        self.size = size
        self.needs = self._needed()

    def _needed(self) -> list:
        """The calls of `before` whose results are used."""
        used = {b.par for m in self.plan.matrices for b in m.blocks}
        used |= {v[0] for v in self.plan.vectors}
        used |= {r[1] for call in self.graph.after for r in references(call[1:3]) if r[0] == "before"}
        calls = []
        for call in reversed(self.graph.before):
            if used & set(call[3]):
                used |= {r[1] for r in references(call[1:3])}
                calls.append(call)
        return calls[::-1]

    def pack_weights(self, weights: list[Tensor]) -> dict[int, Tensor]:
        """Copies the weights into the layout that machine code reads."""
        known: dict[int, Any] = dict(enumerate(weights))
        replay(self.needs, known, "before")
        base, size = self.weights.ctypes.data, self.size
        for matrix in self.plan.matrices:
            for b in matrix.blocks:
                par = known[b.par]
                if par.ndim == 2:
                    steps = [s * size for s in par.stride()]
                else:
                    steps = [0, par.stride(-1) * size if par.ndim else size]
                source = par.data_ptr() + b.k * steps[0] + b.n * steps[1]
                self.packer(source, *steps, b.k_count, b.n_count, base + matrix.offset * size, matrix.rows,
                            matrix.columns, b.row, b.column)  # fmt: skip
        for place, lo, width, offset in self.plan.vectors:
            self.constants[offset : offset + width] = known[place].detach().reshape(-1)[lo : lo + width].numpy()
        return known


class Sequences:
    """One part of a batch, forward and backward: its buffers."""

    def __init__(self, code: CellCode, x_TBI: Tensor, start: list[Tensor], running: Any, learns: bool):
        self.code, plan_, dtype = code, code.plan, code.dtype
        self.steps, self.batch, inputs = x_TBI.shape
        w = plan_.widths
        self.running_T = np.full(self.steps, self.batch) if running is None else np.array(running)
        self.A = aligned_empty([self.steps + 1, self.batch, w["operands"]], dtype)
        first = plan_.x_at
        torch.from_numpy(self.A)[:-1, :, first : first + inputs] = x_TBI
        self.A[:, :, first + inputs] = 1
        self.A[0, :, first + inputs + 1 :] = 0
        for places, leaf, pieces in zip(plan_.state_at, start, code.graph.old, strict=True):
            for place, piece in zip(places, pieces, strict=True):
                lo = piece.attr[1]
                self.A[0, :, place.column : place.column + piece.width] = leaf[:, lo : lo + piece.width].numpy()
        self.S = aligned_empty([self.steps if learns else 1, self.batch, w["saved"]], dtype)
        self.S_t = self.S.strides[0] if learns else 0
        self.O = aligned_empty([self.steps, self.batch, w["outputs"]], dtype)

    def forward(self) -> None:
        self.F = aligned_zeros([emit.BLOCK, self.code.plan.widths["forward_scratch"]], self.code.dtype)
        self._call(self.code.forward, FORWARD, {"forward_scratch": self.F.ctypes.data})

    def _call(self, function: Any, names: tuple[str, ...], more: dict[str, int]) -> None:
        known = {
            "steps": self.steps, "batch": self.batch,
            "operands": self.A.ctypes.data, "operands_step": self.A.strides[0], "saved": self.S.ctypes.data, "saved_step": self.S_t,
            "outputs": self.O.ctypes.data, "outputs_step": self.O.strides[0], "running": self.running_T.ctypes.data,
            "weights": self.code.weights.ctypes.data, "constants": self.code.constants.ctypes.data, **more,
        }  # fmt: skip
        arguments = np.array([int(known[name]) for name in names])
        function(arguments.ctypes.data)

    def states(self, t: slice | int) -> list[Tensor]:
        """Parts of the state at steps (0: the first one)."""
        a, found = torch.from_numpy(self.A), []
        for places, pieces in zip(self.code.plan.state_at, self.code.graph.old, strict=True):
            parts = [a[t, ..., p.column : p.column + n.width] for p, n in zip(places, pieces, strict=True)]
            found.append(parts[0] if len(parts) == 1 else torch.cat(parts, -1))
        return found

    def outputs(self) -> Tensor:
        graph = self.code.graph
        if graph.out_leaf is not None:
            return self.states(slice(1, None))[graph.out_leaf]
        o, at, parts = torch.from_numpy(self.O), 0, []
        for piece in graph.out:
            parts.append(o[..., at : at + piece.width])
            at += -(-piece.width // self.code.plan.lanes) * self.code.plan.lanes
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def backward(self, dy: Tensor | None, every_step: bool, dlast: list[Tensor | None], inputs: bool, state: bool):
        plan_, graph, dtype = self.code.plan, self.code.graph, self.code.dtype
        w = plan_.widths
        D, G = aligned_zeros([emit.BLOCK, w["backward_scratch"]], dtype), aligned_zeros([self.batch, w["state_gradients"]], dtype)
        X = aligned_zeros([self.steps if inputs else 1, self.batch, w["input_gradients"]], dtype)
        Y = aligned_zeros([self.steps if graph.out_leaf is None else 0, self.batch, w["output_gradients"]], dtype)
        sums = aligned_zeros([plan_.sums + plan_.lanes], dtype)
        gradients = list(dlast)
        more = {"dy": 0, "dy_step": 0, "dy_row": 0}
        if dy is not None and graph.out_leaf is None:
            at = lo = 0
            for piece in graph.out:
                part = dy[..., lo : lo + piece.width]
                torch.from_numpy(Y)[slice(None) if every_step else -1, :, at : at + piece.width] = part
                lo, at = lo + piece.width, at + -(-piece.width // plan_.lanes) * plan_.lanes
            for t in range(self.steps - 1, 0, -1):  # what came after the end of a sequence was its last output
                Y[t - 1, self.running_T[t] :] += Y[t, self.running_T[t] :]
        elif dy is not None and every_step:
            dy = dy.contiguous()
            more = {"dy": dy.data_ptr(), "dy_step": dy.stride(0) * self.code.size, "dy_row": dy.stride(1) * self.code.size}
        elif dy is not None:
            gradients[graph.out_leaf] = dy if gradients[graph.out_leaf] is None else gradients[graph.out_leaf] + dy
        for places, pieces, gradient in zip(plan_.carry_at, graph.old, gradients, strict=True):
            for place, piece in zip(places, pieces, strict=True):
                if gradient is not None:
                    lo = piece.attr[1]
                    G[:, place.column : place.column + piece.width] = gradient[:, lo : lo + piece.width].numpy()
        self._call(self.code.backward, BACKWARD, {
            "backward_scratch": D.ctypes.data, "state_gradients": G.ctypes.data, "input_gradients": X.ctypes.data, "input_gradients_step": X.strides[0] if inputs else 0,
            "output_gradients": Y.ctypes.data, "output_gradients_step": Y.strides[0], "sums": sums.ctypes.data, "state_wanted": state,
            "inputs_wanted": inputs, **more,
        })  # fmt: skip
        d_states = []
        for places, pieces in zip(plan_.carry_at, graph.old, strict=True):
            parts = [torch.from_numpy(G)[:, p.column : p.column + n.width] for p, n in zip(places, pieces, strict=True)]
            d_states.append(parts[0] if len(parts) == 1 else torch.cat(parts, -1))
        dx = None
        if inputs:
            parts = [
                torch.from_numpy(X)[..., p.column : p.column + n.width]
                for p, n in zip(plan_.dx_at, graph.d_x, strict=True)
            ]
            dx = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return sums, dx, d_states


def gradients(code: CellCode, sums: Any, known: dict[int, Any]) -> list[Tensor | None]:
    """Gradients of the weights, from the sums over all sequences and steps."""
    graph, after = code.graph, {Ref(("before", place)): tensor for place, tensor in known.items()}
    flat = torch.from_numpy(sums)
    for place, blocks in code.plan.assembly.items():
        shape = graph.sums[place].shape
        whole = torch.empty(shape, dtype=flat.dtype)
        two = whole if graph.sums[place].left else whole.view(1, -1)
        for row, column, rows, columns, offset, step, turned in blocks:
            if turned:
                part = flat.as_strided((columns, rows), (step, 1), offset).t()
            else:
                part = flat.as_strided((rows, columns), (step, 1), offset)
            two[row : row + rows, column : column + columns] = part
        after[place] = whole
    for function, args, kwargs, places in graph.after:
        if all(r in after or r[1] in after for r in references((args, kwargs))):
            replay([(function, args, kwargs, places)], after, "after")
    return [after[graph.gradients[name]] if name in graph.gradients else None for name in graph.names]


class _Generated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, engine: Generated, how: Any, x_TBI: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        code, (every_step, running) = engine.code, how
        count = len(code.graph.names)
        known = code.pack_weights(list(rest[:count]))
        learns = torch.is_grad_enabled() or any(ctx.needs_input_grad)
        parts = engine.parts(x_TBI.shape[1])
        runs = [
            Sequences(
                code,
                x_TBI[:, part],
                [leaf[part] for leaf in rest[count:]],
                None if running is None else running[n],
                learns,
            )  # fmt: skip
            for n, part in enumerate(parts)
        ]
        engine.side_by_side([run.forward for run in runs])
        if any(ctx.needs_input_grad):
            ctx.runs, ctx.engine, ctx.known, ctx.parts, ctx.every_step = runs, engine, known, parts, every_step
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*rest)
        last = [
            torch.cat(leaf) if len(leaf) > 1 else leaf[0]
            for leaf in zip(*(run.states(-1) for run in runs), strict=True)
        ]
        outputs = [run.outputs() if every_step else run.outputs()[-1] for run in runs]
        return (torch.cat(outputs, -2) if len(outputs) > 1 else outputs[0]), *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, *dlast: Tensor | None) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors
        engine, runs, code = ctx.engine, ctx.runs, ctx.engine.code
        inputs, count = ctx.needs_input_grad[2], len(code.graph.names)
        state = any(ctx.needs_input_grad[3 + count :])

        def back(n: int) -> Any:
            part = ctx.parts[n]
            cut = None if dy is None else dy[..., part, :]
            return runs[n].backward(cut, ctx.every_step, [None if d is None else d[part] for d in dlast], inputs, state)

        found = engine.side_by_side([lambda n=n: back(n) for n in range(len(runs))])
        sums = found[0][0]
        for other, _, _ in found[1:]:
            sums += other
        weights = gradients(code, sums, ctx.known)
        weights = [w if need else None for w, need in zip(weights, ctx.needs_input_grad[3:], strict=False)]
        dx = torch.cat([f[1] for f in found], 1) if inputs else None
        d_state = [torch.cat(leaf) for leaf in zip(*(f[2] for f in found), strict=True)]
        return (
            None,
            None,
            dx,
            *weights,
            *(d if n else None for d, n in zip(d_state, ctx.needs_input_grad[3 + count :], strict=True)),
        )


class Generated:
    """Runs a cell's module over whole sequences. threads: cores that share a batch."""

    def __init__(self, module: Any, threads: int = 1, folder: Path | None = FOLDER) -> None:
        self.module, self.threads = module, threads
        self.code = CellCode(module.cell, vars(module.prepared()), module.input_size, folder)
        self.pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def parts(self, batch: int) -> list[slice]:
        number = max(1, min(self.threads, batch // 16))
        ends = [batch * (n + 1) // number for n in range(number)]
        return [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    def side_by_side(self, works: list) -> list:
        others = [self.pool.submit(work) for work in works[1:]] if len(works) > 1 else []
        own = works[0]()
        return [own, *(other.result() for other in others)]

    def __call__(
        self, x_TBI: Tensor, state: Any = None, lengths_B: Tensor | None = None, every_step: bool = True
    ) -> tuple[Tensor, Any]:
        cell, p = self.module.cell, vars(self.module.prepared())
        start = cell.initial_state(x_TBI[0]) if state is None else state
        states = leaves(start)
        order_B = running = None
        if lengths_B is not None:
            parts = self.parts(x_TBI.shape[1])
            longest = lengths_B.argsort(descending=True, stable=True)
            sizes = [part.stop - part.start for part in parts]
            order_B = (
                torch.cat([longest[n :: len(parts)][: sizes[n]] for n in range(len(parts))])
                if len(parts) > 1
                else longest
            )
            assert len(order_B) == len(longest)
            steps = torch.arange(x_TBI.shape[0]).unsqueeze(1)
            running = [(lengths_B[order_B[part]] > steps).sum(1).tolist() for part in parts]
            x_TBI, states = x_TBI[:, order_B], [leaf[order_B] for leaf in states]
        out, *last = _Generated.apply(
            self, (every_step, running), x_TBI, *(p[n] for n in self.code.graph.names), *states
        )
        if order_B is not None:
            back = order_B.argsort()
            out, last = (out[:, back] if every_step else out[back]), [leaf[back] for leaf in last]
        rest = iter(last)
        return out, map_states(lambda _: next(rest), start)
