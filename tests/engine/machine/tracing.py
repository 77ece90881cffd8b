"""Cells made of a step, and whether the graph of a step computes what torch does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rnnclf.cells import GatedCell
from rnnclf.cells.parameters import Parameters
from rnnclf.cells.state import leaves, map_states
from rnnclf.engine.machine.graph import Graph
from rnnclf.engine.machine.trace.tracer import record
from tests.engine.machine.comparing import NAMES, VARIANTS, named
from tests.engine.machine.interpreter import Interpreter

STEPS, BATCH, INPUTS = 2, 4, 3


def recurrent_cells(hidden: int) -> dict[str, Any]:
    """All registered cells, with variants, whose step is not linear in the state."""
    return {name: named(name, hidden) for name in (*NAMES, *VARIANTS)}


@dataclass
class StepCell(GatedCell):
    """A cell with a step of its own."""

    function: Any = None

    def step(self, p: Any, z: Any, state: Any) -> Any:
        return self.function(p, z, state)


def cell_of(step: Callable[..., Any], gates: int = 1, hidden: int = 6) -> Any:
    """A cell with this step: step(p, z, state), where z are `gates` blocks of `hidden` columns."""
    cell: Any = StepCell(hidden_size=hidden, function=step)
    cell.gates = tuple(f"gate{n}" for n in range(gates))
    return cell


def graph_of(cell: Any) -> Graph:
    module = cell.build(INPUTS).double()
    return record(cell, vars(module.prepared()), INPUTS)


def check(cell: Any) -> Graph:
    """Compares a cell's graph with torch and its autograd over a few steps. Returns the graph."""
    torch.set_num_threads(1)  # small tensors; the fixture of all tests sets it back
    torch.manual_seed(0)
    module = cell.build(INPUTS).double()
    with torch.no_grad():
        for w in module.parameters():
            w.add_(torch.randn_like(w), alpha=0.2)
    p = {n: w.detach().requires_grad_(w.requires_grad) for n, w in vars(module.prepared()).items()}
    graph = record(cell, p, INPUTS)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.double, requires_grad=True)
    with torch.no_grad():
        state = cell.initial_state(x[0])
        for x_t in x:  # a state that the cell can have
            state = cell.step(module.prepared(), cell.inputs(module.prepared(), x_t), state)[1]
    state = map_states(lambda leaf: leaf.clone().requires_grad_(), state)
    expected = _by_torch(cell, p, x, state)
    found = _by_graph(graph, p, x, state)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-10, err_msg=name)
    return graph


def _draws(like: list[torch.Tensor], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in like]


def _by_torch(cell: Any, p: dict[str, Any], x: Any, state: Any) -> dict[str, torch.Tensor]:
    weights = Parameters(**p)
    outputs, start = [], leaves(state)
    for x_t in x:
        out, state = cell.step(weights, cell.inputs(weights, x_t), state)
        outputs.append(out)
    results = [torch.stack(outputs), *leaves(state)]
    loss = sum((r * d).sum() for r, d in zip(results, _draws(results, 1), strict=True))
    wanted = {"d_x": x, **{f"d_start{k}": leaf for k, leaf in enumerate(start)}}
    wanted |= {f"d_{name}": w for name, w in p.items() if w.requires_grad}
    gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    found = {
        n: torch.zeros_like(wanted[n]) if g is None else g for n, g in zip(wanted, gradients, strict=True)
    }
    found["out"] = results[0]
    return {n: t.detach() for n, t in (found | {f"last{k}": r for k, r in enumerate(results[1:])}).items()}


def _by_graph(graph: Graph, p: dict[str, Any], x: Any, state: Any) -> dict[str, torch.Tensor]:
    run = Interpreter(graph, p)
    states, outputs = [[leaf.detach().numpy() for leaf in leaves(state)]], []
    for x_t in x.detach().numpy():
        out, new = run.forward(x_t, states[-1])
        outputs.append(torch.as_tensor(out))
        states.append(new)
    last = [torch.as_tensor(leaf) for leaf in states.pop()]
    d_out, *d_last = (d.numpy() for d in _draws([torch.stack(outputs), *last], 1))
    d_x, totals = [], dict.fromkeys(graph.sums, 0.0)
    for t in reversed(range(STEPS)):
        d_inputs, d_last, sums = run.backward(x[t].detach().numpy(), states[t], d_out[t], d_last)
        d_x.insert(0, torch.as_tensor(d_inputs))
        totals = {slot: totals[slot] + total for slot, total in sums.items()}
    gradients = run.gradients(totals)
    learned = {n: gradients.get(n, torch.zeros_like(w)) for n, w in p.items() if w.requires_grad}
    return {
        "out": torch.stack(outputs), "d_x": torch.stack(d_x),
        **{f"last{k}": leaf for k, leaf in enumerate(last)},
        **{f"d_start{k}": torch.as_tensor(d) for k, d in enumerate(d_last)},
        **{f"d_{name}": gradient for name, gradient in learned.items()},
    }  # fmt: skip
