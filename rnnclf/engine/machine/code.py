"""The machine code of a cell: its step traced, scheduled over time, written as LLVM and compiled; and the
memory for weights that it reads."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnclf.engine.machine.blocks import Block, blocks_of, gradient_of
from rnnclf.engine.machine.cache import compiled
from rnnclf.engine.machine.emit import module as emit
from rnnclf.engine.machine.graph import Ref, references
from rnnclf.engine.machine.schedule.planner import Plan, plan
from rnnclf.engine.machine.trace.tracer import record

NUMBERS: dict[torch.dtype, Any] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
CACHE_LINE = 64  # bytes

MOVES = {"t", "transpose", "permute", "view", "_unsafe_view", "cat", "split", "slice"}
MOVES |= {"detach", "alias", "clone", "squeeze", "unsqueeze"}
"""Operations of torch that only move numbers."""

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
        self._blocks: list[list[Block] | None] | None = None
        self._blocks_known = False

    def _needed_derivations(self) -> list[Any]:
        """The traced calls on weights alone whose results are used."""
        used = {block.par for matrix in self.plan.matrices for block in matrix.blocks}
        used |= {slot for slot, *_ in self.plan.vectors}
        read = [ref for call in self.graph.after for ref in references((call.args, call.kwargs))]
        used |= {ref.slot for ref in read if ref.kind == "before"}
        calls = []
        for call in reversed(self.graph.before):
            if used & set(call.slots):
                used |= {ref.slot for ref in references((call.args, call.kwargs))}
                calls.append(call)
        return calls[::-1]

    def packed(self, weights: Sequence[Tensor]) -> PackedWeights:
        """The weights as machine code reads them; to be given back to `release`."""
        with self.lock:
            packed = self.unused.pop() if self.unused else PackedWeights(self)
        packed.fill(weights)
        return packed

    def release(self, packed: PackedWeights) -> None:
        packed.weights, packed.derived = (), {}
        with self.lock:
            self.unused.append(packed)

    def gradients(self, sums: Any, packed: PackedWeights) -> list[Tensor | None]:
        """The gradients of the weights, in the order of `graph.names`, from the sums over all steps and
        sequences. Each has memory of its own."""
        blocks, flat = self.gradient_blocks(packed.weights), torch.from_numpy(sums)
        if blocks is None:
            found = self.assembled(sums, packed.derived or self.derived(packed.weights))
            return [None if gradient is None else gradient.clone() for gradient in found]
        return [
            None if some is None else gradient_of(some, flat, weight)
            for some, weight in zip(blocks, packed.weights, strict=True)
        ]

    def gradient_blocks(self, weights: Sequence[Tensor]) -> list[list[Block] | None] | None:
        """For each weight the blocks of its gradient, or None if it has no gradient. None for all weights:
        torch has to compute the gradients from the sums.

        Found once, by assembling gradients from sums in which every number is its own position.
        """
        if not self._blocks_known:
            self._blocks = self._found_blocks([weight.detach() for weight in weights])
            self._blocks_known = True
        return self._blocks

    def _found_blocks(self, weights: Sequence[Tensor]) -> list[list[Block] | None] | None:
        if any(call.function.overloadpacket.__name__ not in MOVES for call in self._calls_after()):
            return None
        positions = np.arange(self.plan.sums + self.plan.lanes, dtype=np.float64)
        found = []
        for gradient in self.assembled(positions, self.derived(weights)):
            blocks = None if gradient is None else blocks_of(gradient.numpy().astype(np.int64))
            if gradient is not None and blocks is None:
                return None
            found.append(blocks)
        return found

    def _calls_after(self) -> list[Any]:
        """The calls of torch from the sums to the gradients."""
        graph = self.graph
        needed, calls = {Ref(("after", place)) for place in graph.gradients.values()}, []
        for call in reversed(graph.after):
            if needed & {Ref(("after", place)) for place in call.slots}:
                needed |= set(references((call.args, call.kwargs)))
                calls.append(call)
        return calls

    def derived(self, weights: Sequence[Tensor]) -> dict[int, Tensor]:
        """The weights and what is computed from them alone, by their places in `graph.before`. Vectors are
        contiguous."""
        known = dict(enumerate(weights))
        with torch.no_grad():
            replay(self.derivations, known, "before")
            for place, *_ in self.plan.vectors:
                known[place] = known[place].contiguous()
        return known

    def assembled(self, sums: Any, derived: dict[int, Tensor]) -> list[Tensor | None]:
        """The gradients, computed by torch as autograd would."""
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

    weights: those that were packed last. derived: see `CellCode.derived`; empty if it was not needed to pack
    them, since views of weights lie at known places.
    """

    def __init__(self, code: CellCode) -> None:
        self.code = code
        self.matrices = aligned_zeros([code.plan.weights + code.plan.lanes], code.dtype)
        self.vectors = aligned_zeros([code.plan.constants + code.plan.lanes], code.dtype)
        self.weights: Sequence[Tensor] = ()
        self.derived: dict[int, Tensor] = {}
        self._strides: list[tuple[int, ...]] = []
        self._of_views: list[tuple[int, list[int]]] = []
        self._of_others: list[int] = []

    def fill(self, weights: Sequence[Tensor]) -> None:
        """Packs weights. Where each block comes from is found for the first ones, and again if strides
        change."""
        strides = [weight.stride() for weight in weights]
        if strides != self._strides:
            self._find_sources(weights)
            self._strides = strides
        self.weights, self.derived = weights, {}
        addresses = [weight.data_ptr() for weight in weights]
        for n, (source, *rest) in self._of_views:
            self.code.pack(addresses[n] + source, *rest)
        if self._of_others:
            self.derived = self.code.derived(weights)
            others = [arguments for _, arguments in self.pack_arguments(self.derived)]
            for n in self._of_others:
                self.code.pack(*others[n])

    def _find_sources(self, weights: Sequence[Tensor]) -> None:
        """Sorts the blocks into those of views, whose sources lie at fixed distances from the beginnings of
        weights, and those of what is computed from weights."""
        derived, self._of_views, self._of_others = self.code.derived(weights), [], []
        owners = {weight.untyped_storage().data_ptr(): n for n, weight in enumerate(weights)}
        for number, (place, (source, *rest)) in enumerate(self.pack_arguments(derived)):
            owner = owners.get(derived[place].untyped_storage().data_ptr())
            if owner is None:
                self._of_others.append(number)
            else:
                self._of_views.append((owner, [source - weights[owner].data_ptr(), *rest]))

    def pack_arguments(self, derived: dict[int, Tensor]) -> Iterator[tuple[int, list[int]]]:
        """For all blocks of all matrices and vectors, the place in `derived` of what it is part of, and the
        arguments of `pack`. Vectors must be contiguous."""
        plan, size = self.code.plan, self.code.dtype.itemsize
        for matrix in plan.matrices:
            target = self.matrices.ctypes.data + matrix.offset * size
            for block in matrix.blocks:
                weight = derived[block.par]
                last = weight.stride(-1) * size if weight.ndim else size
                row, column = (weight.stride(0) * size, last) if weight.ndim == 2 else (0, last)
                source = weight.data_ptr() + block.k * row + block.n * column
                yield block.par, [
                    source, row, column, block.k_count, block.n_count, target, matrix.rows, matrix.columns,
                    block.row, block.column,
                ]  # fmt: skip
        for place, first, width, offset in plan.vectors:
            # not the last stride: a contiguous column (N, 1) may have any
            source, target = (
                derived[place].data_ptr() + first * size,
                self.vectors.ctypes.data + offset * size,
            )
            yield place, [source, 0, size, 1, width, target, 1, width, 0, 0]


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
