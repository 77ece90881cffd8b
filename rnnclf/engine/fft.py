"""The fft engine: cells whose recurrence is a convolution.  Shapes: T time, B batch, S convolved signals.

If a is the same at all steps, h_t = Σ_k a^k b_{t-k}: a convolution with the kernel a^k. It takes O(T log T);
a single output is a weighted sum, computed in O(T).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rnnclf.cells.linear import LinearState, TimeInvariantCell, applied
from rnnclf.cells.module import CellModule
from rnnclf.cells.parameters import Parameters
from rnnclf.engine.convolution import convolve
from rnnclf.engine.plan import Plan
from rnnclf.engine.scan import signals


def fft(module: CellModule, x_TBI: Tensor, state: Any, plan: Plan) -> tuple[Tensor, Any]:
    """Computes all outputs at once. Returns what `unroll` does, with None as state unless `final_state`."""
    cell, p = module.cell, module.prepared()
    assert isinstance(cell, TimeInvariantCell)
    fresh = state is None
    if fresh:
        weight_SI = None if plan.every_step or plan.final_state else cell.source_weight(p)
        if weight_SI is not None and x_TBI.shape[2] <= len(x_TBI):
            return last_output(cell, p, x_TBI, plan, weight_SI), None
        state = cell.initial_state(x_TBI[0])
    s, h, past = signals(cell, p, cell.inputs(p, x_TBI), state, plan)
    source_TBS = cell.source(p, s)
    kernel_TS = cell.kernel(p, len(x_TBI))
    echo_TBS = None if fresh else cell.echo(p, h, len(x_TBI))
    if plan.every_step:
        v_TBS = convolve(kernel_TS, source_TBS)
        v_TBS = v_TBS if echo_TBS is None else v_TBS + echo_TBS
        output = plan.held(cell.read_convolved(p, s, v_TBS))
    else:
        v_BS = weighted_sum(kernel_TS, plan.right_aligned(source_TBS))
        v_BS = v_BS if echo_TBS is None else v_BS + plan.last_of(echo_TBS)
        output = cell.read_convolved(p, plan.last_of(s), v_BS)
    if not plan.final_state:
        return output, None
    rows = cell.to_rows(_final_h(cell, p, s, h, plan))
    return output, rows if past is None else LinearState(rows, past)


def last_output(
    cell: TimeInvariantCell, p: Parameters, x_TBI: Tensor, plan: Plan, weight_SI: Tensor
) -> Tensor:
    """Only the last valid output, (B, H), without a source for each step.

    Σ_k kernel_k W x_{T-1-k} is a product of two matrices, kernel and inputs, weighted by W afterwards, which
    takes less time and memory if a step has few inputs.
    """
    s = cell.signals(p, cell.inputs(p, plan.last_of(x_TBI)), ())
    if weight_SI.shape[1] > x_TBI.shape[2]:
        x_TBI = functional.pad(x_TBI, (0, 1), value=1.0)
    v_BS = weighted_inputs(cell.kernel(p, len(x_TBI)), weight_SI, plan.right_aligned(x_TBI))
    return cell.read_convolved(p, s, v_BS)


def weighted_inputs(kernel_TS: Tensor, weight_SI: Tensor, x_TBI: Tensor) -> Tensor:
    """Σ_k kernel_k W x_{T-1-k}, (B, S), for real x."""
    kernel_TS = kernel_TS.flip(0)
    if not kernel_TS.is_complex():
        sums_BIS = torch.einsum("ts,tbi->bis", kernel_TS, x_TBI)
    else:  # in real arithmetic, which takes half the work
        parts_BIS2 = torch.einsum("tsc,tbi->bisc", torch.view_as_real(kernel_TS), x_TBI)
        sums_BIS = torch.view_as_complex(parts_BIS2.contiguous())
    return (weight_SI.t() * sums_BIS).sum(1)


def weighted_sum(kernel_TS: Tensor, source_TBS: Tensor) -> Tensor:
    """Only the last value of the convolution: Σ_k kernel_k source_{T-1-k}, (B, S)."""
    return (kernel_TS.flip(0).unsqueeze(1) * source_TBS).sum(0)


def _final_h(cell: TimeInvariantCell, p: Parameters, s: Any, h: Tensor, plan: Plan) -> Tensor:
    """The state after the last valid step: Σ_k a^k b_{T-1-k} + a^T h_0."""
    b_TB = plan.right_aligned(cell.recurrence(p, s)[1])
    steps = len(b_TB)
    powers_T = cell.powers(p, steps + 1)
    weighted = "tnij,tbnj->bni" if cell.pairs else "t...,tb...->b..."
    sum_B = torch.einsum(weighted, powers_T[:steps].flip(0), b_TB)
    lengths = slice(steps, None) if plan.lengths_B is None else plan.lengths_B
    return sum_B + applied(powers_T[lengths], h, cell.pairs)
