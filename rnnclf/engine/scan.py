"""The scan engine: cells that are linear in their state.  Shapes: T time, B batch, N state.

h_t = a_t h_{t-1} + b_t for all steps takes O(T) work. The gradient follows the same kind of recurrence,
backward in time: g_t = ∂L/∂h_t + conj(a_{t+1}) g_{t+1}, from which ∂L/∂b = g and
∂L/∂a_t = g_t conj(h_{t-1}). So autograd sees one operation, which saves a and h, instead of T operations.

Pairs (a, b) are only composed, never divided by a running product. So nothing overflows, however long the
sequence and however fast the cell forgets, and no logarithms are needed for stability.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rnnclf.cells.linear import LinearCell, LinearState, applied
from rnnclf.cells.module import CellModule
from rnnclf.cells.parameters import Parameters
from rnnclf.engine.plan import Plan

WORTH_CPU, WORTH_GPU = 2**12, 2**20
"""Elements that make an operation worth its launch; with fewer, chunks of time are computed together."""


def scan(module: CellModule, x_TBI: Tensor, state: Any, plan: Plan) -> tuple[Tensor, Any]:
    """Computes all states at once. Returns what `unroll` does."""
    cell, p = module.cell, module.prepared()
    assert isinstance(cell, LinearCell)
    if state is None:
        state = cell.initial_state(x_TBI[0])
    s, h, past = signals(cell, p, cell.inputs(p, x_TBI), state, plan)
    h_TBN = linear_scan(*cell.recurrence(p, s), h)
    last_h = plan.last_of(h_TBN)
    # without every_step, `read` is called for one step only: in many cells it has the largest products
    every = plan.every_step
    output = plan.held(cell.read(p, s, h_TBN)) if every else cell.read(p, plan.last_of(s), last_h)
    rows = cell.to_rows(last_h)
    return output, rows if past is None else LinearState(rows, past)


def signals(
    cell: LinearCell, p: Parameters, z_TBZ: Tensor, state: Any, plan: Plan
) -> tuple[Any, Tensor, Tensor | None]:
    """The signals of all steps, the initial h, and the final `LinearState.past` (None for cells without
    one)."""
    steps, _ = cell.past
    if not steps:
        return cell.signals(p, z_TBZ, ()), cell.from_rows(state), None
    kept = torch.cat((torch.stack(state.past.chunk(steps, dim=1)), cell.keep(z_TBZ)))
    time = len(z_TBZ)
    past = tuple(kept[steps - k : steps - k + time] for k in range(1, steps + 1))
    latest = [plan.last_of(kept[steps - k : steps - k + time]) for k in reversed(range(steps))]
    return cell.signals(p, z_TBZ, past), cell.from_rows(state.h), torch.cat(latest, dim=1)


def linear_scan(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + b_t for all steps, from the initial state h: (T, B, *state).

    Args:
        a: (T, B, *state), or (*state) if it is the same at all steps of all sequences; for 2 × 2 matrices
            (T, B, N, 2, 2) or (N, 2, 2), with b (T, B, N, 2).
        b: (T, B, *state).
        h: (B, *state).
    """
    return _LinearScan.apply(a, b, h)  # type: ignore[no-any-return]


class _LinearScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        pairs = (a.ndim - b.ndim) % 2 == 1
        a_T = a if a.ndim >= b.ndim else a.unsqueeze(0).unsqueeze(0)
        h_T = torch.empty_like(b, memory_format=torch.contiguous_format)
        _recur(a_T, b, h, h_T, pairs)
        ctx.save_for_backward(a_T, h, h_T)
        ctx.pairs, ctx.shape = pairs, a.shape
        return h_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_T: Tensor) -> tuple[Tensor | None, ...]:
        a_T, h, h_T = ctx.saved_tensors
        adjoint_T = (a_T.mH if ctx.pairs else a_T.conj()).resolve_conj()
        g_T = torch.empty_like(grad_T, memory_format=torch.contiguous_format)
        # the gradient reaches h_t through a_{t+1}, except at the last step
        g_T[-1] = grad_T[-1]
        next_T = adjoint_T if len(a_T) == 1 else adjoint_T[1:]
        _recur(next_T, grad_T[:-1], grad_T[-1], g_T[:-1], ctx.pairs, backward=True)
        grad_a = grad_h = None
        if ctx.needs_input_grad[0]:
            first = _outer(g_T[0], h, ctx.pairs)
            rest_T = _outer(g_T[1:], h_T[:-1], ctx.pairs)
            if len(a_T) == 1:
                grad_a = (first + rest_T.sum(0)).sum_to_size(a_T.shape[1:])
            else:
                grad_a = torch.cat((first.unsqueeze(0), rest_T)).sum_to_size(a_T.shape)
        if ctx.needs_input_grad[2]:
            grad_h = applied(adjoint_T[0], g_T[0], ctx.pairs)
        return None if grad_a is None else grad_a.reshape(ctx.shape), g_T, grad_h


def _outer(g: Tensor, h: Tensor, pairs: bool) -> Tensor:
    """∂L/∂a of one step: g conj(h), elementwise, or as 2 × 2 matrices."""
    return g.unsqueeze(-1) * h.unsqueeze(-2).conj() if pairs else g * h.conj()


def _recur(a: Tensor, b: Tensor, h: Tensor, out: Tensor, pairs: bool, backward: bool = False) -> None:
    """Writes h_t = a_t h_{t-1} + b_t into `out`, forward or backward in time; a is (T or 1, B or 1, …).

    If a step of the batch is too little work for one operation, time is divided into chunks that are computed
    together, all but the first starting from zero; then the final state of each chunk, multiplied by the
    running products of a, is added to the next one. Either way the work is O(T).
    """
    time, worth = len(b), WORTH_CPU if b.device.type == "cpu" else WORTH_GPU
    chunks = max(1, min(worth // max(h.numel(), 1), math.isqrt(time)))
    if chunks > 1 and backward:  # such steps are small, so reversing time costs little
        reversed_out = torch.empty_like(out)
        _recur(a.flip(0), b.flip(0), h, reversed_out, pairs)
        out.copy_(reversed_out.flip(0))
        return
    if chunks > 1:
        length = time // chunks
        body = chunks * length
        start = torch.cat((h.unsqueeze(0), h.new_zeros(chunks - 1, *h.shape)))
        a_LC, b_LC, out_LC = (_chunked(part, chunks, length) for part in (a, b, out))
        _steps(a_LC, b_LC, start, out_LC, pairs)
        products_LC = _running_products(a_LC, length, pairs)
        for chunk in range(1, chunks):
            products_L = products_LC[:, min(chunk, products_LC.shape[1] - 1)]
            out_LC[:, chunk] += applied(products_L, out_LC[-1, chunk - 1], pairs)
        h, a, b, out = out[body - 1], a if len(a) == 1 else a[body:], b[body:], out[body:]
    _steps(a, b, h, out, pairs, backward)


def _chunked(x_T: Tensor, chunks: int, length: int) -> Tensor:
    """Time as two dimensions (steps of a chunk, chunks), or as (1, 1) if x is the same at all steps."""
    if len(x_T) == 1:
        return x_T.unsqueeze(1)
    return x_T[: chunks * length].reshape(chunks, length, *x_T.shape[1:]).transpose(0, 1)


def _steps(a_T: Tensor, b_T: Tensor, h: Tensor, out_T: Tensor, pairs: bool, backward: bool = False) -> None:
    """Writes h_t = a_t h_{t-1} + b_t into `out_T` step by step, from the first or (`backward`) the last."""
    every_a = a_T.expand(len(b_T), *a_T.shape[1:]).unbind(0)
    steps = list(zip(every_a, b_T.unbind(0), out_T.unbind(0), strict=True))
    for a, b, out in reversed(steps) if backward else steps:
        h = torch.add(b, applied(a, h, pairs), out=out) if pairs else torch.addcmul(b, a, h, out=out)


def _running_products(a_LC: Tensor, length: int, pairs: bool) -> Tensor:
    """a_l … a_2 a_1 for each step l of each chunk: (L, C or 1, …)."""
    every_a = a_LC.expand(length, *a_LC.shape[1:])
    products = [every_a[0]]
    for a in every_a[1:]:
        products.append(a @ products[-1] if pairs else a * products[-1])
    return torch.stack(products)
