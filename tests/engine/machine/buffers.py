"""Machine code run on buffers between guard bytes, filled with what a test chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rnnclf.cells.state import leaves
from rnnclf.engine.machine.code import CellCode
from rnnclf.engine.machine.emit import module as emit

GUARD = 512
"""Bytes before and behind a buffer. All their bits are set, which is NaN to whoever reads them."""


class Buffers:
    """Arrays between guard bytes."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.memory: dict[str, np.ndarray] = {}

    def new(self, name: str, shape: list[int], fill: float) -> Any:
        length = int(np.prod(shape)) * self.dtype.itemsize
        memory = np.full(length + 2 * GUARD + 64, 0xFF, np.uint8)
        memory = memory[-memory.ctypes.data % 64 :][: length + 2 * GUARD]
        self.memory[name] = memory
        array = memory[GUARD : GUARD + length].view(self.dtype).reshape(shape)
        array.fill(fill)
        return array

    def damaged(self) -> list[str]:
        """The buffers outside of which something was written."""
        guards = {name: (m[:GUARD], m[len(m) - GUARD :]) for name, m in self.memory.items()}
        return [name for name, (a, b) in guards.items() if a.min() < 0xFF or b.min() < 0xFF]


def run(
    code: CellCode, module: Any, x_TBI: torch.Tensor, running: list[int], fill: float
) -> tuple[Buffers, dict[str, torch.Tensor]]:
    """Forward and backward from the first state, with gradients of ones.

    Args:
        running: the number of sequences that are not over yet, at each time step.
        fill: what lies in buffers that need not be zero beforehand.

    Returns:
        The buffers, and all results by name.
    """
    steps, batch, inputs = x_TBI.shape
    plan, graph, buffers, size = code.plan, code.graph, Buffers(code.dtype), code.dtype.itemsize
    widths, has_outputs = plan.widths, graph.out_leaf is None
    operands = buffers.new("operands", [steps + 1, batch, widths["operands"]], fill)
    one = plan.x_at + inputs
    operands[:steps, :, plan.x_at : one] = x_TBI.numpy()
    operands[:, :, one] = 1
    operands[0, :, one + 1 :] = 0
    start = leaves(module.cell.initial_state(x_TBI[0]))
    for places, pieces, leaf in zip(plan.state_at, graph.old, start, strict=True):
        for place, piece in zip(places, pieces, strict=True):
            first = piece.attr[1]
            operands[0, :, place.column : place.column + piece.width] = leaf[:, first : first + piece.width]
    arrays = {
        "operands": operands,
        "saved": buffers.new("saved", [steps, batch, widths["saved"]], fill),
        "outputs": buffers.new("outputs", [steps, batch, widths["outputs"]], fill),
        "forward_scratch": buffers.new("forward_scratch", [emit.BLOCK, widths["forward_scratch"]], fill),
        "backward_scratch": buffers.new("backward_scratch", [emit.BLOCK, widths["backward_scratch"]], fill),
        "state_gradients": buffers.new("state_gradients", [batch, widths["state_gradients"]], 0),
        "input_gradients": buffers.new("input_gradients", [steps, batch, widths["input_gradients"]], 0),
        "output_gradients": buffers.new(
            "output_gradients", [steps if has_outputs else 0, batch, widths["output_gradients"]], 1
        ),
        "sums": buffers.new("sums", [plan.sums + plan.lanes], 0),
    }
    weights = [getattr(module.prepared(), name).detach() for name in graph.names]
    packed, counts = code.packed(weights), np.array(running)
    dy = np.ones([steps, batch, sum(p.width for p in graph.old[graph.out_leaf or 0])], code.dtype)
    known: dict[str, int] = {f"{name}_step": array.strides[0] for name, array in arrays.items()}
    known |= {name: array.ctypes.data for name, array in arrays.items()}
    known |= {
        "steps": steps,
        "batch": batch,
        "running": counts.ctypes.data,
        "state_wanted": 1,
        "inputs_wanted": 1,
    }
    known |= {"weights": packed.matrices.ctypes.data, "constants": packed.vectors.ctypes.data}
    known |= {"dy": 0 if has_outputs else dy.ctypes.data, "dy_step": dy.strides[0], "dy_row": dy.strides[1]}
    assert size == dy.itemsize
    for function, names in ((code.forward, emit.FORWARD), (code.backward, emit.BACKWARD)):
        table = np.array([known[name] for name in names])
        function(table.ctypes.data)
    return buffers, _results(code, arrays, packed.derived)


def _results(code: CellCode, arrays: dict[str, Any], derived: Any) -> dict[str, torch.Tensor]:
    plan, graph = code.plan, code.graph
    results: dict[str, torch.Tensor] = {}

    def add(name: str, places: Any, pieces: Any, array: Any) -> None:
        for n, (place, piece) in enumerate(zip(places, pieces, strict=True)):
            part = array[..., place.column : place.column + piece.width]
            results[f"{name} {n}"] = torch.from_numpy(part.copy())

    for k, pieces in enumerate(graph.old):
        add(f"state {k}", plan.state_at[k], pieces, arrays["operands"])
        add(f"gradient of state {k}", plan.carry_at[k], pieces, arrays["state_gradients"])
    add("gradient of inputs", plan.dx_at, graph.d_x or [], arrays["input_gradients"])
    column = 0
    for piece in graph.out or []:
        results[f"output {column}"] = torch.from_numpy(
            arrays["outputs"][..., column : column + piece.width].copy()
        )
        column += -(-piece.width // plan.lanes) * plan.lanes
    for name, gradient in zip(graph.names, code.assembled(arrays["sums"], derived), strict=True):
        if gradient is not None:
            results[f"gradient of {name}"] = gradient.clone()
    return results
