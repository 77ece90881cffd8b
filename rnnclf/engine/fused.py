"""The fused engine: gated cells with a hand-written backward pass through time.

One product for the inputs of all steps; at each step one product with the previous state, added in place to
what is ready, and the cell's elementwise part (rnnclf/engine/fused_steps.py). The backward pass is the same
in reverse; the gradients of the weights are one product over all steps each, and nothing is computed that
nobody needs. Autograd sees one operation instead of dozens a step.

Ragged sequences are sorted, the longest first, and a step works on those that are still running: padding
costs nothing. Within `parts_of_batches` each core takes a part of the batch through all steps.

Shapes: T time, B batch, I inputs, H hidden, G gates × H; R rows, one for each step of each sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rnnclf.cells.base import Cell, GatedCell
from rnnclf.cells.module import CellModule
from rnnclf.cells.parameters import Parameters
from rnnclf.cells.state import leaves
from rnnclf.engine.fused_steps import SHARED, Gradients, OverTime
from rnnclf.engine.parts import rows_of_parts, side_by_side
from rnnclf.engine.plan import Plan
from rnnclf.errors import ConfigError


def fused(module: CellModule, x_TBI: Tensor, state: Any, plan: Plan) -> tuple[Tensor, Any]:
    """Products and numberwise steps; see `unroll` for what comes back."""
    assert isinstance(module.cell, GatedCell)
    return _over_time(module.cell.fused_steps(), module, x_TBI, state, plan)


def compiled(module: CellModule, x_TBI: Tensor, state: Any, plan: Plan) -> tuple[Tensor, Any]:
    """The same in machine code; see `unroll` for what comes back. Raises ConfigError off the CPU."""
    if x_TBI.device.type != "cpu":
        raise ConfigError("engine=compiled runs on a CPU only: use engine=auto.")
    assert isinstance(module.cell, GatedCell)
    return _over_time(module.cell.compiled_steps(), module, x_TBI, state, plan)


def _over_time(
    kind: type[OverTime], module: CellModule, x_TBI: Tensor, state: Any, plan: Plan
) -> tuple[Tensor, Any]:
    cell, p = module.cell, module.prepared()
    start = cell.initial_state(x_TBI[0]) if state is None else state
    states = leaves(start)
    steps, batch, _ = x_TBI.shape
    work = 2 * batch * sum(getattr(p, name).numel() for name in SHARED)
    share = _Share(plan.lengths_B, steps, batch, work, x_TBI.device)
    if share.order_B is not None:
        x_TBI, states = x_TBI[:, share.order_B], [part[share.order_B] for part in states]
    weights = [getattr(p, name) for name in (*SHARED, *kind.own_parameters)]
    run = _Run(cell, kind, share, plan.every_step, state is not None)
    output, *last = _Fused.apply(run, x_TBI, *weights, *states)
    if share.order_B is not None:
        back_B = share.order_B.argsort()
        output = output[:, back_B] if plan.every_step else output[back_B]
        last = [part[back_B] for part in last]
    return output, type(start)(*last) if isinstance(start, tuple) else last[0]


class _Share:
    """Which sequences each part of a batch takes, and how many of them run at each step.

    order_B: the order in which the sequences are taken, None for the one in which they come.
    rows: the places of each part in that order. running: of each part, for each step; None where all run
    all the time.
    """

    def __init__(
        self, lengths_B: Tensor | None, steps: int, batch: int, work: int, device: torch.device
    ) -> None:
        self.rows = rows_of_parts(batch, work) if device.type == "cpu" else [slice(0, batch)]
        number = len(self.rows)
        self.order_B: Tensor | None = None
        self.running: list[list[int] | None] = [None] * number
        if lengths_B is None or bool((lengths_B >= steps).all()):
            return
        longest_first_B = lengths_B.argsort(descending=True, stable=True)
        self.order_B = torch.cat([longest_first_B[part::number] for part in range(number)])  # equal work
        t_T1 = torch.arange(steps, device=device).unsqueeze(-1)
        self.running = [(lengths_B[self.order_B[rows]] > t_T1).sum(dim=1).tolist() for rows in self.rows]


class _Run:
    """What one call of the engine is about, and between its two ways what it has computed."""

    def __init__(
        self, cell: Cell, kind: type[OverTime], share: _Share, every_step: bool, started: bool
    ) -> None:
        self.cell, self.kind, self.share, self.every_step = cell, kind, share, every_step
        self.started = started
        """Whether there is a state to start from other than zeros."""
        self.learns = torch.is_grad_enabled()
        self.parts: list[OverTime] | None = None


class _Fused(torch.autograd.Function):
    """(outputs, last states) of inputs, weights and first states."""

    @staticmethod
    def forward(ctx: Any, run: _Run, x_TBI: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        names = (*SHARED, *run.kind.own_parameters)
        p = run.kind.prepared(run.cell, Parameters(**dict(zip(names, rest, strict=False))))
        walk = partial(_walk, run, x_TBI, p, rest[len(names) :])
        parts = side_by_side(walk, len(run.share.rows))
        ctx.set_materialize_grads(False)
        if run.learns and any(ctx.needs_input_grad):
            run.parts, ctx.run = parts, run
            ctx.save_for_backward(*rest)
        states = zip(*(part.states_SBH for part in parts), strict=True)
        last = [_joined([states_SBH[-1] for states_SBH in state], 0) for state in states]
        output = _joined([part.states_SBH[0][1:] for part in parts], 1) if run.every_step else last[0]
        return output, *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, *dlast: Tensor | None) -> tuple[Tensor | None, ...]:
        run: _Run = ctx.run
        parts, run.parts = run.parts, None
        if parts is None:
            raise RuntimeError("This engine goes back through time once: use engine=loop to do it again.")
        _ = ctx.saved_tensors  # refuses weights that were changed since
        inputs = ctx.needs_input_grad[1]
        back = partial(_walk_back, run, parts, inputs, dy, dlast)
        dstates, gradients = zip(*side_by_side(back, len(parts)), strict=True)
        dx_TBI = _joined([part.x_TBI for part in gradients], 1) if inputs else None
        with torch.no_grad():
            summed = run.kind.summed(run.cell, parts[0].p, [part.weights for part in gradients])
        return None, dx_TBI, *summed, *(_joined(d, 0) for d in zip(*dstates, strict=True))


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


@torch.no_grad()
def _walk(run: _Run, x_TBI: Tensor, p: Parameters, start: Sequence[Tensor], part: int) -> OverTime:
    """One part forward through all steps."""
    rows, running = run.share.rows[part], run.share.running[part]
    state = tuple(state[rows] for state in start)
    steps = run.kind(run.cell, p, x_TBI[:, rows], state, running, run.started, run.learns)
    steps.run()
    return steps


@torch.no_grad()
def _walk_back(
    run: _Run,
    parts: Sequence[OverTime],
    inputs: bool,
    dy: Tensor | None,
    dlast: Sequence[Tensor | None],
    part: int,
) -> tuple[list[Tensor], Gradients]:
    """One part backward through all steps: the gradients of the first states, and all others."""
    steps, rows = parts[part], run.share.rows[part]
    dstates = [
        torch.zeros_like(states_SBH[0]) if d is None else d[rows].clone()
        for states_SBH, d in zip(steps.states_SBH, dlast, strict=True)
    ]
    dy_TBH = dy[:, rows] if dy is not None and run.every_step else None
    if dy is not None and dy_TBH is None:
        dstates[0] += dy[rows]
    return dstates, steps.run_back(dy_TBH, dstates, inputs)
