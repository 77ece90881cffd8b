"""The fused engine: gated cells with a hand-written backward pass through time.

The forward pass computes one matrix product for the inputs of all steps; then, at each step, it adds the
product with the previous state in place and applies the cell's elementwise part
(rnnclf/engine/fused_steps.py). The backward pass does the same in reverse. The gradient of each weight is one
product over all steps, and gradients that are not needed are not computed. Autograd sees one operation
instead of dozens per step.

Ragged sequences are sorted by decreasing length, and each step computes only those that are still running, so
padding costs nothing. Within `parts_of_batches` each core computes all steps of a part of the batch.

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
from rnnclf.engine.parts import Share, Worth, run_parts
from rnnclf.engine.plan import Plan

LEAST = 16  # sequences per part; with fewer, the products of a step become inefficient
WORTH = 500_000  # FLOPs per time step and part; with fewer, threads wait for each other to call torch


def fused(module: CellModule, x_TBI: Tensor, state: Any, plan: Plan) -> tuple[Tensor, Any]:
    """Runs a cell with torch's operations. Returns what `unroll` does."""
    assert isinstance(module.cell, GatedCell)
    cell, p, kind = module.cell, module.prepared(), module.cell.fused_steps()
    start = cell.initial_state(x_TBI[0]) if state is None else state
    states = leaves(start)
    steps, batch, _ = x_TBI.shape
    work = 2 * batch * sum(getattr(p, name).numel() for name in SHARED)
    worth = Worth(LEAST, WORTH * steps)
    share = Share(plan.lengths_B, steps, batch, work, x_TBI.device, worth)
    x_TBI, states = share.ordered(x_TBI, states)
    weights = [getattr(p, name) for name in (*SHARED, *kind.own_parameters)]
    run = _Run(cell, kind, share, plan.every_step, state is not None)
    output, *last = _Fused.apply(run, x_TBI, *weights, *states)
    return share.restored(output, last, start)


class _Run:
    """One call of the engine: its arguments, and what the forward pass keeps for the backward pass."""

    def __init__(
        self, cell: Cell, kind: type[OverTime], share: Share, every_step: bool, started: bool
    ) -> None:
        self.cell, self.kind, self.share, self.every_step = cell, kind, share, every_step
        self.started = started
        """Whether the initial state is other than zeros."""
        self.needs_gradients = torch.is_grad_enabled()
        self.parts: list[OverTime] | None = None


class _Fused(torch.autograd.Function):
    """(inputs, weights, initial states) → (outputs, final states)."""

    @staticmethod
    def forward(ctx: Any, run: _Run, x_TBI: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        names = (*SHARED, *run.kind.own_parameters)
        p = run.kind.prepared(run.cell, Parameters(**dict(zip(names, rest, strict=False))))
        forward = partial(_forward, run, x_TBI, p, rest[len(names) :])
        parts = run_parts(forward, len(run.share.rows))
        ctx.set_materialize_grads(False)
        if run.needs_gradients and any(ctx.needs_input_grad):
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
            raise RuntimeError("This engine supports one backward pass: use engine=loop for a second one.")
        _ = ctx.saved_tensors  # raises if weights were changed since the forward pass
        inputs = ctx.needs_input_grad[1]
        backward = partial(_backward, run, parts, inputs, dy, dlast)
        dstates, gradients = zip(*run_parts(backward, len(parts)), strict=True)
        dx_TBI = _joined([part.x_TBI for part in gradients], 1) if inputs else None
        with torch.no_grad():
            summed = run.kind.summed(run.cell, parts[0].p, [part.weights for part in gradients])
        return None, dx_TBI, *summed, *(_joined(d, 0) for d in zip(*dstates, strict=True))


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


@torch.no_grad()
def _forward(run: _Run, x_TBI: Tensor, p: Parameters, start: Sequence[Tensor], part: int) -> OverTime:
    """The forward pass of one part, through all steps."""
    rows, running = run.share.rows[part], run.share.running[part]
    state = tuple(state[rows] for state in start)
    steps = run.kind(run.cell, p, x_TBI[:, rows], state, running, run.started, run.needs_gradients)
    steps.run()
    return steps


@torch.no_grad()
def _backward(
    run: _Run,
    parts: Sequence[OverTime],
    inputs: bool,
    dy: Tensor | None,
    dlast: Sequence[Tensor | None],
    part: int,
) -> tuple[list[Tensor], Gradients]:
    """The backward pass of one part: the gradients of the initial states, and all others."""
    steps, rows = parts[part], run.share.rows[part]
    dstates = [
        torch.zeros_like(states_SBH[0]) if d is None else d[rows].clone()
        for states_SBH, d in zip(steps.states_SBH, dlast, strict=True)
    ]
    dy_TBH = dy[:, rows] if dy is not None and run.every_step else None
    if dy is not None and dy_TBH is None:
        dstates[0] += dy[rows]
    return dstates, steps.run_backward(dy_TBH, dstates, inputs)
