"""The loop engine: any cell, step by step.  Shapes: T time, B batch, I inputs, H hidden."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rnnclf.cells.base import Cell
from rnnclf.cells.module import CellModule
from rnnclf.cells.parameters import Parameters
from rnnclf.cells.state import leaves, map_states
from rnnclf.engine.plan import Plan

Blend = Callable[[Any, Any], Any]
"""(previous state, new state) → the state for the next step: zoneout."""


def loop(
    module: CellModule, x_TBI: Tensor, state: Any, plan: Plan, blend: Blend | None = None
) -> tuple[Tensor, Any]:
    """Runs a cell step by step. Returns what `unroll` does."""
    return step_by_step(module.cell, module.prepared(), x_TBI, state, plan, blend)


def step_by_step(
    cell: Cell, p: Parameters, x_TBI: Tensor, state: Any, plan: Plan, blend: Blend | None = None
) -> tuple[Tensor, Any]:
    """The same with prepared weights."""
    if state is None:
        state = cell.initial_state(x_TBI[0])
    outputs: list[Tensor] = []
    # One product for the inputs of all steps. unbind instead of indexing: its backward is a single stack.
    for t, z in enumerate(cell.inputs(p, x_TBI).unbind(0)):
        output, new_state = cell.step(p, z, state)
        if blend is not None:
            output, new_state = blended(blend, state, output, new_state)
        if plan.lengths_B is not None and t > 0:
            keep = partial(_where, plan.lengths_B <= t)
            output, new_state = keep(outputs[-1], output), map_states(keep, state, new_state)
        state = new_state
        outputs.append(output)
    return (torch.stack(outputs) if plan.every_step else outputs[-1]), state


def _where(condition_B: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(condition_B.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


def blended(blend: Blend, state: Any, output: Tensor, new_state: Any) -> tuple[Tensor, Any]:
    """Blends the state, and the output if it is part of the state."""
    mixed = blend(state, new_state)
    for new, leaf in zip(leaves(new_state), leaves(mixed), strict=True):
        if new is output:
            return leaf, mixed
    return output, mixed
