"""Runs a cell over whole sequences with a chosen engine.  Shapes: T time, B batch, I inputs, H hidden."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from rnnclf.cells.module import CellModule
from rnnclf.engine.choose import ENGINES, Run, engine_for
from rnnclf.engine.loop import Blend, loop
from rnnclf.engine.plan import Plan
from rnnclf.errors import ConfigError


def unroll(
    module: CellModule,
    x_TBI: Tensor,
    state: Any = None,
    lengths_B: Tensor | None = None,
    *,
    engine: str = "auto",
    every_step: bool = True,
    final_state: bool = True,
    blend: Blend | None = None,
    bf16: bool = False,
) -> tuple[Tensor, Any]:
    """Runs a cell over whole sequences.

    Args:
        module: the cell with its weights.
        x_TBI: the sequences, time first.
        state: the state to start from; the cell's initial state if None.
        lengths_B: the number of valid steps of each sequence, at least 1; None if all steps are valid.
        engine: one of the cell's `engines`, or auto.
        every_step: whether to return the outputs of all steps, or only the last valid one.
        final_state: whether the state after the last valid step is needed; otherwise it may be None.
        blend: combines previous and new state at each step (zoneout); needs the loop engine.
        bf16: whether to round the factors of matrix products to bfloat16. Results are float32 all the same.

    Returns:
        (outputs, state): outputs (T, B, H), or (B, H) without `every_step`. After the end of a sequence
        its output and state keep their values of its last valid step, whatever the padding contains.

    Raises ConfigError if the engine cannot run the cell in bf16.
    """
    plan = Plan(lengths_B, every_step, final_state)
    ragged = lengths_B is not None
    device = x_TBI.device.type
    situation = {"every_step": every_step, "ragged": ragged, "bf16": bf16, "zoneout": blend is not None}
    name = engine_for(module, device, engine, **situation)
    if name not in module.cell.engines:
        raise ValueError(
            f"engine must be one of {', '.join(module.cell.engines)} for this cell, got '{name}'."
        )
    run = partial(loop, blend=blend) if blend is not None else ENGINES[name].run
    return _in_bf16(run, module, x_TBI, state, plan) if bf16 else run(module, x_TBI, state, plan)


def _in_bf16(run: Run, module: CellModule, x_TBI: Tensor, state: Any, plan: Plan) -> tuple[Tensor, Any]:
    """Runs with bfloat16 products. The outputs have the dtype of the inputs, so nothing else changes."""
    try:
        with torch.autocast(x_TBI.device.type, torch.bfloat16):
            output, last = run(module, x_TBI, state, plan)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # torch lacks the operation for these types or on this machine
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"precision=bf16 does not work with cell={module.cell.name} here: use precision=float32, or"
            f" another engine. ({reason})"
        ) from error
    return output.to(x_TBI.dtype), last
