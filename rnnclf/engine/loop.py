"""The loop engine: any cell, one step after the other.  Shapes: T time, B batch, I inputs, H hidden."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rnnclf.cells.module import CellModule
from rnnclf.cells.state import leaves, map_states
from rnnclf.engine.plan import Plan

Blend = Callable[[Any, Any], Any]
"""(state before, state after) → the state to go on with: zoneout."""


def loop(
    module: CellModule, x_TBI: Tensor, state: Any, plan: Plan, blend: Blend | None = None
) -> tuple[Tensor, Any]:
    """Walks through time; see `unroll` for what comes back."""
    cell, p = module.cell, module.prepared()
    if state is None:
        state = cell.initial_state(x_TBI[0])
    outputs: list[Tensor] = []
    # One product for the inputs of all steps; unbind, not indexing: its backward is one stack.
    for t, z in enumerate(cell.inputs(p, x_TBI).unbind(0)):
        output, new_state = cell.step(p, z, state)
        if blend is not None:
            output, new_state = _blended(blend, state, output, new_state)
        if plan.lengths_B is not None and t > 0:
            keep = partial(_where, plan.lengths_B <= t)
            output, new_state = keep(outputs[-1], output), map_states(keep, state, new_state)
        state = new_state
        outputs.append(output)
    return (torch.stack(outputs) if plan.every_step else outputs[-1]), state


def _where(condition_B: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(condition_B.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


def _blended(blend: Blend, state: Any, output: Tensor, new_state: Any) -> tuple[Tensor, Any]:
    """The blended state; an output that is part of the state is blended with it."""
    blended = blend(state, new_state)
    for new, leaf in zip(leaves(new_state), leaves(blended), strict=True):
        if new is output:
            return leaf, blended
    return output, blended
