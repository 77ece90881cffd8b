"""Machine code compared with autograd through the loop: outputs, last state, all gradients."""

from __future__ import annotations

import math
from typing import Any

import torch

from rnnclf.cells import CELLS
from rnnclf.cells.base import Cell
from rnnclf.cells.state import leaves, map_states
from rnnclf.engine import parts
from rnnclf.engine.parts import parts_of_batches
from rnnclf.engine.unrolling import unroll

NAMES = [name for name, kind in CELLS.items() if "machine" in kind().engines]
"""The cells that run in machine code."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "basic-relu": ("basic", {"nonlinearity": "relu"}),
    "gru-before": ("gru", {"reset": "before"}),
    "antisym-gated": ("antisym", {"gated": True}),
    "fastgrnn-of-low-rank": ("fastgrnn", {"input_rank": 2, "recurrent_rank": 3}),
    "cfc-pure": ("cfc", {"mode": "pure"}),
    "cfc-deep": ("cfc", {"mode": "no_gate", "backbone_layers": 3, "backbone_size": 7}),
    "slstm-exp": ("slstm", {"forget_gate": "exp"}),
    "slstm-two-heads": ("slstm", {"heads": 2}),
    "slstm-one-head": ("slstm", {"heads": 1}),
    "indrnn-tanh": ("indrnn", {"nonlinearity": "tanh"}),
    "exprnn-henaff": ("exprnn", {"init": "henaff"}),
}
LIMIT = {torch.float64: 1e-12, torch.float32: 2e-5}


def named(name: str, hidden: int) -> Cell:
    """A registered cell, or one of the variants."""
    kind, options = VARIANTS.get(name, (name, {}))
    return CELLS[kind](hidden_size=hidden, **options)


def drawn(cell: Cell, inputs: int, dtype: torch.dtype) -> Any:
    """A cell with weights of which none is zero."""
    torch.manual_seed(1)
    module = cell.build(inputs).to(dtype)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1 / max((1, *weight.shape[-1:])) ** 0.5)
    return module


def difference(
    cell: Cell, dtype: torch.dtype = torch.float64, *, steps: int = 6, batch: int = 9, inputs: int = 3,
    ragged: bool = False, every_step: bool = True, started: bool = False, wants_inputs: bool = True,
    threads: int = 1,
) -> tuple[float, str]:  # fmt: skip
    """The largest difference between machine code and loop, relative to the largest number of each tensor,
    and the name of that tensor."""
    module = drawn(cell, inputs, dtype)
    x_TBI = torch.randn(steps, batch, inputs, dtype=dtype, requires_grad=wants_inputs)
    lengths_B = torch.randint(1, steps + 1, (batch,)) if ragged else None
    state = reached(module, x_TBI[:2]) if started else None
    sources = {"x": x_TBI} if wants_inputs else {}
    sources |= dict(module.named_parameters())
    sources |= {f"start {k}": leaf for k, leaf in enumerate(leaves(state))} if started else {}
    found = {}
    for engine in ("machine", "loop"):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        with parts_of_batches():
            y, last = unroll(module, x_TBI, state, lengths_B, engine=engine, every_step=every_step)
            wanted = list(sources.values())  # none of an esn, if not those of the inputs
            total = weighed(y, *leaves(last))
            gradients = torch.autograd.grad(total, wanted, allow_unused=True) if wanted else ()
        torch.set_num_threads(before)
        results = {"output": y, **{f"state {k}": leaf for k, leaf in enumerate(leaves(last))}}
        found[engine] = results | dict(zip(sources, gradients, strict=True))
    return max((apart(found["machine"][key], found["loop"][key]), key) for key in found["loop"])


def reached(module: Any, x_TBI: torch.Tensor) -> Any:
    """A state that a cell can be in, whose gradients are wanted."""
    with torch.no_grad():
        state = unroll(module, x_TBI, engine="loop")[1]
    return map_states(lambda leaf: leaf.detach().clone().requires_grad_(), state)


def weighed(*values: torch.Tensor) -> torch.Tensor:
    """The sum of all finite numbers, each times a random one of its own."""
    draws, total = torch.Generator().manual_seed(3), torch.zeros((), dtype=torch.float64)
    for value in values:  # the running maximum of an slstm starts at -inf
        factors = torch.randn(value.shape, generator=draws, dtype=torch.float64)
        total = total + (torch.where(value.isfinite(), value, 0) * factors).sum()
    return total


def apart(a: torch.Tensor | None, b: torch.Tensor | None) -> float:
    if a is None or b is None:
        other = b if a is None else a
        return 0.0 if other is None else float(other.detach().abs().max())
    a, b = a.detach().double(), b.detach().double()
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()) or not torch.equal(a.isnan(), b.isnan()):
        return math.inf
    a, b = a[finite], b[finite]
    return float((a - b).abs().max() / a.abs().max().clamp(min=0.01)) if a.numel() else 0.0


def smallest_parts(monkeypatch: Any) -> None:
    """Batches of any size are divided among threads."""
    monkeypatch.setattr(parts.Worth, "most_parts", lambda worth, batch, work: batch)
