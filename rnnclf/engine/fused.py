"""The fused engine: gated cells with a way back through time written by hand.

One product for the inputs of all steps; at each step one product with the state before, added in place to
what is ready, and the cell's own numberwise part (rnnclf/cells/fused.py). Backward the same in reverse; the
gradients of the weights are one product over all steps each, and nothing is computed that nobody needs.
Autograd sees one operation instead of dozens a step.

Of ragged sequences the longest come first, and a step works on those that are still running: padding costs
nothing. Within `parts_of_batches`, each core takes a part of the batch through all steps, so that cores wait
for each other twice a batch instead of twice a step.

Shapes: T time, B batch, I inputs, H hidden, G gates × H; R rows, one for each step of each sequence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rnnclf.cells.base import GatedCell, Parameters
from rnnclf.cells.fused import FusedSteps, first, tanh_scale
from rnnclf.cells.module import CellModule
from rnnclf.cells.state import leaves
from rnnclf.engine.plan import Plan

SHARED = ("input_weight", "recurrent_weight", "bias")
LEAST = 16  # sequences of a part; with fewer, a product is too small to be worth a core

Result = TypeVar("Result")


class _Parts(threading.local):
    """How many parts this thread makes of a batch."""

    number = 1


_parts = _Parts()


@contextmanager
def parts_of_batches() -> Iterator[None]:
    """Within it, the fused engine gives each of torch's threads a part of the batch; all else is done by one.

    The parts, and so the last digits of sums over them, depend on the number of threads alone.
    """
    threads = torch.get_num_threads()
    _parts.number = threads
    torch.set_num_threads(1)  # threads of the library's own would wait busily for work, on the same cores
    try:
        yield
    finally:
        _parts.number = 1
        torch.set_num_threads(threads)


def fused(module: CellModule, x_TBI: Tensor, state: Any, plan: Plan) -> tuple[Tensor, Any]:
    """Products and numberwise steps; see `unroll` for what comes back."""
    cell, p = module.cell, module.prepared()
    assert isinstance(cell, GatedCell)
    kind = cell.fused_steps()
    start = cell.initial_state(x_TBI[0]) if state is None else state
    states = leaves(start)
    steps, batch, _ = x_TBI.shape
    share = _Share(plan.lengths_B, steps, batch, x_TBI.device)
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

    def __init__(self, lengths_B: Tensor | None, steps: int, batch: int, device: torch.device) -> None:
        number = max(min(_parts.number, batch // LEAST), 1) if device.type == "cpu" else 1
        sizes = [batch // number + (part < batch % number) for part in range(number)]
        ends = [sum(sizes[: part + 1]) for part in range(number)]
        self.rows = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
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
        self, cell: GatedCell, kind: type[FusedSteps], share: _Share, every_step: bool, started: bool
    ) -> None:
        self.cell, self.kind, self.share, self.every_step = cell, kind, share, every_step
        self.started = started
        """Whether there is a state to start from other than zeros."""
        self.parts: list[FusedSteps] | None = None


class _Fused(torch.autograd.Function):
    """(outputs, last states) of inputs, weights and first states."""

    @staticmethod
    def forward(ctx: Any, run: _Run, x_TBI: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        names = (*SHARED, *run.kind.own_parameters)
        p = Parameters(**dict(zip(names, rest, strict=False)))
        walk = partial(_walk, run, x_TBI, p, rest[len(names) :], _scaled(run, p))
        parts = _side_by_side(walk, len(run.share.rows))
        ctx.set_materialize_grads(False)
        if any(ctx.needs_input_grad):
            run.parts, ctx.run = parts, run
            ctx.save_for_backward(x_TBI, *rest)
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
            raise RuntimeError("engine=fused goes back through time once: use engine=loop to do it again.")
        x_TBI, input_weight, recurrent_weight, *_ = ctx.saved_tensors
        back = partial(_walk_back, run, parts, x_TBI, recurrent_weight, dy, dlast)
        dstates, dweights = zip(*_side_by_side(back, len(parts)), strict=True)
        dx_TBI = None
        if ctx.needs_input_grad[1]:
            dx_TBI = _joined([part.z_TBG @ input_weight for part in parts], 1)
        summed = [_total(gradients) for gradients in zip(*dweights, strict=True)]
        return None, dx_TBI, *summed, *(_joined(d, 0) for d in zip(*dstates, strict=True))


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def _total(parts: Sequence[Tensor]) -> Tensor:
    """The sum, in the order of the parts, laid out as weights are."""
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total.t().contiguous() if total.ndim == 2 else total


def _side_by_side(work: Callable[[int], Result], parts: int) -> list[Result]:
    """The work of all parts, each on a core: the first on this thread, the others on threads of their own."""
    others = [_threads(parts - 1).submit(work, part) for part in range(1, parts)] if parts > 1 else []
    own = work(0)
    return [own, *(other.result() for other in others)]


@cache
def _threads(number: int) -> ThreadPoolExecutor:
    def prepare() -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # of this thread alone

    return ThreadPoolExecutor(number, "rnnclf-fused", initializer=prepare)


def _scaled(run: _Run, p: Parameters) -> Parameters:
    """The weights with the rows of tanh gates multiplied by `tanh_scale`."""
    scale_G1 = torch.ones_like(p.bias).view(-1, run.cell.hidden_size)
    for gate in run.kind.tanh_gates(run.cell):
        scale_G1[gate] = tanh_scale(p.bias.dtype)
    scale_G1 = scale_G1.view(-1, 1)
    return Parameters(
        input_weight=p.input_weight * scale_G1,
        recurrent_weight=p.recurrent_weight * scale_G1,
        bias=p.bias * scale_G1[:, 0],
    )


@torch.no_grad()
def _walk(
    run: _Run, x_TBI: Tensor, p: Parameters, start: Sequence[Tensor], scaled: Parameters, part: int
) -> FusedSteps:
    """One part forward through all steps."""
    rows, running = run.share.rows[part], run.share.running[part]
    x_TBI = x_TBI[:, rows]
    z_RG = torch.addmm(scaled.bias, x_TBI.flatten(0, 1), scaled.input_weight.t())
    steps = run.kind(run.cell, p, z_RG.view(*x_TBI.shape[:2], -1), tuple(state[rows] for state in start))
    products = [
        (sums.unbind(0), (scaled if is_scaled else p).recurrent_weight[block].t().contiguous())
        for sums, block, is_scaled in steps.products()
    ]
    h = steps.states[0]
    for t in range(len(x_TBI)):
        n = None if running is None else running[t]
        if t > 0 or run.started:
            for sums, weight_HR in products:
                first(sums[t], n).addmm_(first(h[t], n), weight_HR)
        steps.forward(t, n)
        if n is not None:
            for states in steps.states:
                states[t + 1][n:] = states[t][n:]
    return steps


@torch.no_grad()
def _walk_back(
    run: _Run,
    parts: Sequence[FusedSteps],
    x_TBI: Tensor,
    recurrent_weight: Tensor,
    dy: Tensor | None,
    dlast: Sequence[Tensor | None],
    part: int,
) -> tuple[list[Tensor], list[Tensor]]:
    """One part backward through all steps: its sums become their gradients.

    Returns the gradients of the first states, and those of the weights, matrices transposed.
    """
    steps, rows, running = parts[part], run.share.rows[part], run.share.running[part]
    dstates = [
        torch.zeros_like(states[0]) if d is None else d[rows].clone()
        for states, d in zip(steps.states, dlast, strict=True)
    ]
    dh = dstates[0]
    dy_T = dy[:, rows].unbind(0) if dy is not None and run.every_step else None
    if dy is not None and dy_T is None:
        dh += dy[rows]
    products = [(sums.unbind(0), recurrent_weight[block]) for sums, block, _ in steps.products()]
    for t in reversed(range(len(x_TBI))):
        n = None if running is None else running[t]
        if dy_T is not None:
            dh += dy_T[t]
        steps.backward(t, n, *[first(d, n) for d in dstates])
        if n is not None:
            for part_TBG in (steps.z_TBG, *(sums_TBR for sums_TBR, _, _ in steps.products())):
                part_TBG[t, n:] = 0
        if t > 0 or run.started:
            _through_products(steps, products, t, first(dh, n), n)
    return dstates, _of_weights(run, steps, x_TBI[:, rows])


def _through_products(
    steps: FusedSteps, products: list[tuple[tuple[Tensor, ...], Tensor]], t: int, dh_NH: Tensor, n: int | None
) -> None:
    """The gradient of the output of step t - 1, from those of the sums of step t."""
    carries = steps.carries
    for sums, weight_RH in products:
        if carries:
            dh_NH.addmm_(first(sums[t], n), weight_RH)
        else:
            torch.mm(first(sums[t], n), weight_RH, out=dh_NH)
        carries = True


def _of_weights(run: _Run, steps: FusedSteps, x_TBI: Tensor) -> list[Tensor]:
    """The gradients of the weights, each one product; transposed, as such products are faster."""
    begin = 0 if run.started else 1  # a state of zeros adds nothing
    dz_RG = steps.z_TBG.flatten(0, 1)
    before_HR = steps.states_SBH[0][begin:-1].flatten(0, 1).t()
    drecurrent_HG = dz_RG.new_zeros(run.cell.hidden_size, dz_RG.shape[1])
    for sums_TBR, block, _ in steps.products():
        drecurrent_HG[:, block] = before_HR @ sums_TBR[begin:].flatten(0, 1)
    return [x_TBI.flatten(0, 1).t() @ dz_RG, drecurrent_HG, dz_RG.sum(0), *steps.own_gradients()]
