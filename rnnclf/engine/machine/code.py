"""The machine code of a cell: its step traced, scheduled over time, written as LLVM and compiled; and the
memory for weights that it reads."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnclf.engine.machine.cache import compiled
from rnnclf.engine.machine.emit import module as emit
from rnnclf.engine.machine.graph import Ref, references
from rnnclf.engine.machine.schedule.planner import Plan, plan
from rnnclf.engine.machine.trace.tracer import record

NUMBERS: dict[torch.dtype, Any] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
CACHE_LINE = 64  # bytes

_TimeLoop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Pack = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(emit.PACK))


def aligned_empty(shape: Sequence[int], dtype: Any) -> Any:
    """An uninitialised array that begins at a cache line."""
    length = math.prod(shape) * dtype.itemsize
    memory = np.empty(length + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + length].view(dtype).reshape(shape)


def aligned_zeros(shape: Sequence[int], dtype: Any) -> Any:
    array = aligned_empty(shape, dtype)
    array.fill(0)
    return array


class CellCode:
    """The machine code of a cell for weights of given shapes.

    graph: the traced step. plan: the layout of memory and the order of work. forward, backward: through all
    time steps; their arguments are tables of numbers, see `emit.FORWARD` and `emit.BACKWARD`."""

    def __init__(self, cell: Any, p: dict[str, Tensor], inputs: int) -> None:
        self.graph = record(cell, p, inputs)
        self.dtype = NUMBERS[next(iter(p.values())).dtype]
        self.plan: Plan = plan(self.graph, emit.vector_bytes() // self.dtype.itemsize)
        text = str(emit.Module(self.plan, self.dtype.itemsize == 8).ir)
        addresses = compiled(text, ("forward", "backward", "pack"))
        self.forward: Callable[[int], None] = _TimeLoop(addresses["forward"])
        self.backward: Callable[[int], None] = _TimeLoop(addresses["backward"])
        self.pack: Callable[..., None] = _Pack(addresses["pack"])
        self.derivations = self._needed_derivations()
        self.lock, self.unused = Lock(), list[PackedWeights]()

    def _needed_derivations(self) -> list[Any]:
        """The traced calls on weights alone whose results are used."""
        used = {block.par for matrix in self.plan.matrices for block in matrix.blocks}
        used |= {vector[0] for vector in self.plan.vectors}
        used |= {
            place for call in self.graph.after for kind, place in references(call[1:3]) if kind == "before"
        }
        calls = []
        for call in reversed(self.graph.before):
            if used & set(call[3]):
                used |= {place for _, place in references(call[1:3])}
                calls.append(call)
        return calls[::-1]

    def packed(self, weights: Sequence[Tensor]) -> PackedWeights:
        """The weights as machine code reads them; to be given back to `release`."""
        with self.lock:
            packed = self.unused.pop() if self.unused else PackedWeights(self)
        packed.fill(weights)
        return packed

    def release(self, packed: PackedWeights) -> None:
        packed.derived = {}
        with self.lock:
            self.unused.append(packed)

    def gradients(self, sums: Any, derived: dict[int, Tensor]) -> list[Tensor | None]:
        """The gradients of the weights, in the order of `graph.names`, from the sums over all steps and
        sequences.

        derived: see `PackedWeights`.
        """
        graph, flat = self.graph, torch.from_numpy(sums)
        known: dict[Any, Any] = {Ref(("before", place)): tensor for place, tensor in derived.items()}
        for place, blocks in self.plan.assembly.items():
            whole = torch.empty(graph.sums[place].shape, dtype=flat.dtype)
            rows_of_it = whole if graph.sums[place].left else whole.view(1, -1)
            for row, column, rows, columns, offset, step, transposed in blocks:
                shape = (columns, rows) if transposed else (rows, columns)
                block = flat.as_strided(shape, (step, 1), offset)
                rows_of_it[row : row + rows, column : column + columns] = block.t() if transposed else block
            known[place] = whole
        for function, args, kwargs, places in graph.after:
            if all(ref in known or ref[1] in known for ref in references((args, kwargs))):
                replay([(function, args, kwargs, places)], known, "after")
        return [known[graph.gradients[name]] if name in graph.gradients else None for name in graph.names]


class PackedWeights:
    """Memory for the weights of a cell in the layout that machine code reads. Its padding stays zero.

    derived: the weights and everything computed from them alone, by their places in `graph.before`.
    """

    def __init__(self, code: CellCode) -> None:
        self.code = code
        self.matrices = aligned_zeros([code.plan.weights + code.plan.lanes], code.dtype)
        self.vectors = aligned_zeros([code.plan.constants + code.plan.lanes], code.dtype)
        self.derived: dict[int, Tensor] = {}

    @torch.no_grad()
    def fill(self, weights: Sequence[Tensor]) -> None:
        code, self.derived = self.code, dict(enumerate(weights))
        replay(code.derivations, self.derived, "before")
        base, size = self.matrices.ctypes.data, code.dtype.itemsize
        for matrix in code.plan.matrices:
            for block in matrix.blocks:
                weight = self.derived[block.par]
                if weight.ndim == 2:
                    row_step, column_step = (step * size for step in weight.stride())
                else:
                    row_step, column_step = 0, (weight.stride(-1) if weight.ndim else 1) * size
                source = weight.data_ptr() + block.k * row_step + block.n * column_step
                code.pack(
                    source, row_step, column_step, block.k_count, block.n_count, base + matrix.offset * size,
                    matrix.rows, matrix.columns, block.row, block.column,
                )  # fmt: skip
        for place, first, width, offset in code.plan.vectors:
            numbers = self.derived[place].reshape(-1)[first : first + width]
            self.vectors[offset : offset + width] = numbers.numpy()


def replay(calls: Sequence[Any], known: dict[Any, Any], kind: str) -> None:
    """Runs traced calls with torch, and adds their results to what is known."""

    def actual(argument: Any) -> Any:
        if isinstance(argument, Ref):
            return known[argument[1]] if argument[0] == kind else known[argument]
        if isinstance(argument, list):
            return [actual(part) for part in argument]
        return argument

    for function, args, kwargs, places in calls:
        result = function(*map(actual, args), **{name: actual(value) for name, value in kwargs.items()})
        results = result if isinstance(result, tuple | list) else [result]
        for place, tensor in zip(places, results, strict=True):
            known[place] = tensor
