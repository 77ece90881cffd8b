"""The loop engine: any cell, one step after the other.  Shapes: T time, B batch, I inputs, H hidden."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnnclf.cells.module import CellModule


def unroll(
    module: CellModule, x_TBI: Tensor, state: Any = None, lengths_B: Tensor | None = None
) -> tuple[list[Tensor], Any]:
    """Runs a cell over whole sequences.

    Args:
        module: the cell with its weights.
        x_TBI: the sequences, time first.
        state: where to start; the cell's initial state if None.
        lengths_B: the number of valid steps of each sequence, at least 1; all of them if None.

    Returns:
        (outputs, state): T outputs of shape (B, H), and the state after the last valid step. After the
        end of a sequence its output and state stay what they were at its last valid step, whatever
        the padding holds: the last output is the last valid one for every sequence.
    """
    cell, p = module.cell, module.weights()
    if state is None:
        state = cell.initial_state(x_TBI[0])
    outputs: list[Tensor] = []
    # One product for the inputs of all steps; unbind, not indexing: its backward is one stack.
    for t, z in enumerate(cell.inputs(p, x_TBI).unbind(0)):
        output, new_state = cell.step(p, z, state)
        if lengths_B is not None and t > 0:
            ended_B1 = (lengths_B <= t).unsqueeze(-1)
            output = torch.where(ended_B1, outputs[-1], output)
            new_state = _where(ended_B1, state, new_state)
        state = new_state
        outputs.append(output)
    return outputs, state


def _where(condition_B1: Tensor, yes: Any, no: Any) -> Any:
    if isinstance(yes, Tensor):
        return torch.where(condition_B1, yes, no)
    return type(yes)(*(_where(condition_B1, a, b) for a, b in zip(yes, no, strict=True)))
