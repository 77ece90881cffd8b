"""Compares the machine code of a cell with the loop on a small batch, before its first use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnnclf.cells.module import CellModule
from rnnclf.cells.parameters import Parameters
from rnnclf.cells.state import leaves
from rnnclf.engine.loop import step_by_step
from rnnclf.engine.machine.code import CellCode
from rnnclf.engine.machine.engine import over_time
from rnnclf.engine.plan import Plan

STEPS, BATCH = 3, 5
TOLERANCE = 1e-3
"""The largest accepted difference in a tensor, relative to its largest number. Rounding stays far below."""


def mismatch(module: CellModule, code: CellCode) -> str:
    """Why machine code must not be used, as part of a sentence; '' if it gives the numbers of the loop."""
    draws = torch.Generator().manual_seed(0)
    weights = {name: _disturbed(weight, draws) for name, weight in vars(module.weights()).items()}
    p = {
        name: weight.detach().requires_grad_(weight.requires_grad)
        for name, weight in vars(module.cell.prepare(Parameters(**weights))).items()
    }
    dtype = next(iter(p.values())).dtype
    x_TBI = torch.randn(STEPS, BATCH, module.input_size, generator=draws, dtype=dtype).requires_grad_()
    lengths_B = torch.tensor([3, 1, 2, 3, 2])
    runs = []
    for run in (step_by_step, lambda cell, *rest: over_time(code, cell, *rest)):
        y_TBH, last = run(module.cell, Parameters(**p), x_TBI, None, Plan(lengths_B))
        runs.append(_results([y_TBH, *leaves(last)], [x_TBI, *p.values()]))
    if all(map(_close, *runs)):
        return ""
    return "its machine code and the loop disagree on a small batch"


def _disturbed(weight: Tensor, draws: torch.Generator) -> Tensor:
    """A weight with noise, so that biases of zero count, and without numbers that are not finite."""
    noise = torch.randn(weight.shape, generator=draws, dtype=weight.dtype)
    noise *= 0.1 / max((1, *weight.shape[-1:])) ** 0.5
    finite = torch.nan_to_num(weight.detach(), posinf=0.0, neginf=0.0)
    return (finite + noise).requires_grad_(weight.requires_grad)


def _results(outputs: list[Tensor], sources: list[Tensor]) -> list[Any]:
    """Outputs, and the gradients of a sum of them in which each number has a weight of its own."""
    draws, loss = torch.Generator().manual_seed(1), torch.zeros(())
    for output in outputs:
        if output.requires_grad:
            factors = torch.randn(output.shape, generator=draws, dtype=output.dtype)
            loss = loss + (torch.where(output.isfinite(), output, 0) * factors).sum()
    wanted = [source for source in sources if source.requires_grad]
    return [*outputs, *torch.autograd.grad(loss, wanted, allow_unused=True)]


def _close(found: Tensor | None, expected: Tensor | None) -> bool:
    """Whether two tensors agree; no gradient is a gradient of zeros."""
    if found is None or expected is None:
        other = expected if found is None else found
        return other is None or not bool(other.detach().any())
    found, expected = found.detach(), expected.detach()
    finite = expected.isfinite()
    if not torch.equal(finite, found.isfinite()):
        return False
    difference = (found - expected)[finite].abs()
    return not len(difference) or bool(
        difference.max() <= TOLERANCE * expected[finite].abs().max().clamp(min=0.01)
    )
