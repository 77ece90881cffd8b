"""One cell over whole sequences, by the engine of choice.  Shapes: T time, B batch, I inputs, H hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rnnclf.cells.base import Cell
from rnnclf.cells.module import CellModule
from rnnclf.engine.fft import fft
from rnnclf.engine.fused import compiled, fused
from rnnclf.engine.loop import Blend, loop
from rnnclf.engine.native import native
from rnnclf.engine.plan import Plan
from rnnclf.engine.scan import scan
from rnnclf.registry import Registry

Engine = Callable[[CellModule, Tensor, Any, Plan], tuple[Tensor, Any]]

ENGINES: Registry[Engine] = Registry(
    "engine", {"loop": loop, "fused": fused, "compiled": compiled, "native": native, "scan": scan, "fft": fft}
)


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
) -> tuple[Tensor, Any]:
    """Runs a cell over whole sequences.

    Args:
        module: the cell with its weights.
        x_TBI: the sequences, time first.
        state: where to start; the cell's initial state if None.
        lengths_B: the number of valid steps of each sequence, at least 1; all of them if None.
        engine: a name of ENGINES that the cell has among its `engines`, or auto.
        every_step: whether the outputs of all steps are wanted, or the last valid one only.
        final_state: whether the state after the last valid step is wanted; without it, it may be None.
        blend: what becomes of the old and the new state at each step (zoneout); needs the loop.

    Returns:
        (outputs, state): outputs (T, B, H), or (B, H) without `every_step`. After the end of a sequence
        its output and state stay what they were at its last valid step, whatever the padding holds.
    """
    plan = Plan(lengths_B, every_step, final_state)
    if blend is not None:
        return loop(module, x_TBI, state, plan, blend)
    ragged = lengths_B is not None
    name = choose(module.cell, x_TBI.device.type, every_step, ragged) if engine == "auto" else engine
    if name not in module.cell.engines:
        raise ValueError(
            f"engine must be one of {', '.join(module.cell.engines)} for this cell, got '{name}'."
        )
    return ENGINES[name](module, x_TBI, state, plan)


def choose(cell: Cell, device: str, every_step: bool = True, ragged: bool = False) -> str:
    """The fastest engine for a cell: `engine=auto`. The figures behind it are in docs/cells.md and speed.md.

    A cell names its engines in the order in which they are fast on a CPU when all outputs are wanted of
    sequences of one length. A convolution whose last output alone is wanted is a weighted sum, which nothing
    beats; on a GPU a few transforms beat many small steps, and so does cuDNN. `ragged` sequences have torch
    leave oneDNN for a loop of its own.
    """
    if "fft" in cell.engines and (not every_step or device != "cpu"):
        return "fft"
    if "native" in cell.engines and device != "cpu":
        return "native"
    slow = {"native"} if ragged else set()
    slow |= {"compiled"} if device != "cpu" else set()
    return next(name for name in cell.engines if name not in slow)
