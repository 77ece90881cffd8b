"""What `record` makes of a step, what it refuses, and that it leaves torch as it was."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as f
from torch.utils._python_dispatch import TorchDispatchMode

from rnnclf.cells import CELLS, GatedCell
from rnnclf.cells.parameters import Parameters
from rnnclf.cells.state import leaves
from rnnclf.engine.machine.graph import Graph, UncoveredError, references
from rnnclf.engine.machine.trace.tracer import record
from tests.engine.machine.interpreter import Interpreter
from tests.engine.machine.tracing import INPUTS, cell_of, check, graph_of, recurrent_cells
from tests.imports import modules_after

NOT_COVERED: dict[str, str] = {}
"""Registered cells that machine code does not have, each with its reason."""

RECURRENT = recurrent_cells(6)


def text(graph: Graph) -> list[str]:
    return [repr(node) for node in graph.nodes.known.values()]


@pytest.mark.parametrize("name", RECURRENT)
def test_the_graph_of_every_recurrent_cell_computes_what_torch_does(name):
    if name in NOT_COVERED:
        with pytest.raises(UncoveredError, match=NOT_COVERED[name]):
            graph_of(RECURRENT[name])
    else:
        check(RECURRENT[name])


# the graph


def test_the_graph_of_a_basic_cell_is_as_one_would_write_it():
    graph = graph_of(CELLS["basic"](hidden_size=6))
    assert text(graph) == [
        "%0 = x(0): 3",
        "%1 = old(0, 0): 6",
        "%2 = dnew(0, 0): 6",
        "%3 = dot(%0, 3, 0, 3, 0): 6",
        "%4 = vec(2, 0): 6",
        "%5 = add(%4, %3): 6",
        "%6 = dot(%1, 4, 0, 6, 0): 6",
        "%7 = add(%5, %6): 6",
        "%8 = tanh(%7): 6",
        "%9 = const(1.0): 1",
        "%10 = mul(%2, %8): 6",
        "%11 = mul(%10, %8): 6",
        "%12 = sub(%2, %11): 6",
        "%13 = dot(%12, 5, 0, 6, 0): 6",
        "%14 = dot(%12, 6, 0, 6, 0): 3",
    ]
    node = list(graph.nodes.known.values())
    assert (graph.x, graph.old, graph.new) == ([node[0]], [[node[1]]], [[node[8]]])
    assert (graph.d_x, graph.d_old) == ([node[14]], [[node[13]]])
    assert (graph.out, graph.out_leaf) == (None, 0)


def test_weights_are_transposed_before_and_their_gradients_after_the_sequence():
    graph = graph_of(CELLS["basic"](hidden_size=6))
    assert graph.names == ["input_weight", "recurrent_weight", "bias"]
    names = [call.function.overloadpacket.__name__ for call in graph.before]
    assert [(name, str(call.args), call.slots) for name, call in zip(names, graph.before, strict=True)] == [
        ("t", "(before[0],)", [3]),
        ("t", "(before[1],)", [4]),
        ("t", "(before[4],)", [5]),
        ("t", "(before[3],)", [6]),
    ]
    sums = {slot: (str(total.left), str(total.right), total.shape) for slot, total in graph.sums.items()}
    dz = "[%12 = sub(%2, %11): 6]"
    assert sums == {
        0: (dz, "[%1 = old(0, 0): 6]", (6, 6)),
        3: (dz, "[%0 = x(0): 3]", (6, 3)),
        5: ("[]", dz, (1, 6)),
    }
    assert graph.gradients == {"input_weight": 7, "recurrent_weight": 2, "bias": 6}
    filled = {*graph.sums, *(slot for call in graph.after for slot in call.slots)}
    assert {ref.slot for call in graph.after for ref in references(call.args)} <= filled


def test_moves_cost_no_node():
    def plain(p, z, h):
        h = (z + h @ p.recurrent_weight.t()).tanh()
        return h, h

    def moved(p, z, h):
        h = (z + h @ p.recurrent_weight.t()).view(-1, 2, 3).transpose(0, 1).tanh()
        h = h.permute(1, 0, 2).reshape(-1, 6)
        return h, h

    assert text(graph_of(cell_of(moved))) == text(graph_of(cell_of(plain)))


def test_columns_are_cut_only_where_a_use_of_them_begins_or_ends():
    def step(p, z, h):
        a = z + h @ p.recurrent_weight.t()
        h = torch.cat((a[:, :2].tanh(), a[:, 2:].sigmoid()), 1)
        return h, h

    graph = graph_of(cell_of(step))
    assert [piece.width for piece in graph.new[0]] == [2, 4]
    assert [piece.width for piece in graph.x] == [INPUTS]


def test_an_output_beside_the_state_has_a_gradient_of_its_own():
    def step(p, z, h):
        h = (z + h @ p.recurrent_weight.t()).tanh()
        return h[:, :4].square(), h

    graph = check(cell_of(step))
    assert graph.out_leaf is None
    assert graph.out is not None
    assert [piece.width for piece in graph.out] == [4]
    assert "dout" in {node.op for node in graph.nodes.known.values()}


def test_a_state_of_several_tensors_keeps_their_order():
    graph = graph_of(CELLS["lstm"](hidden_size=6))
    assert [leaf[0].attr for leaf in graph.old] == [(0, 0), (1, 0)]
    assert graph.out_leaf == 0


def test_a_weight_that_is_not_learned_has_no_gradient():
    module = CELLS["basic"](hidden_size=6).build(INPUTS)
    module.bias.requires_grad_(False)
    graph = record(module.cell, vars(module.prepared()), INPUTS)
    assert graph.gradients.keys() == {"input_weight", "recurrent_weight"}
    assert graph.names == ["input_weight", "recurrent_weight", "bias"]


def test_a_weight_without_influence_has_no_gradient():
    def step(p, z, h):
        h = (z + h).tanh()
        return h, h

    assert "recurrent_weight" not in check(cell_of(step)).gradients


def test_a_step_from_which_nothing_is_learned_has_a_graph():
    def step(p, z, h):
        h = (z + h).tanh().detach()
        return h, h

    graph = graph_of(cell_of(step))
    assert (graph.d_x, graph.d_old, graph.gradients) == (None, [None], {})


@pytest.mark.parametrize("hidden", [1, 61, 122])
def test_widths_that_may_be_taken_for_the_batch_are_not(hidden):
    def step(p, z, h):
        h = (z + h @ p.recurrent_weight.t()).tanh()
        h = (h.view(len(h), -1, 1) * p.bias.view(1, -1, 1)).permute(1, 0, 2).sum(2).t()
        return h, h

    check(cell_of(step, hidden=hidden))


@pytest.mark.parametrize("name", ["gru", "lstm", "cornn"])
def test_masks_of_zoneout_are_columns_behind_the_inputs(name):
    torch.manual_seed(0)
    cell = CELLS[name](hidden_size=6)
    p = vars(cell.build(INPUTS).double().prepared())
    graph = record(cell, p, INPUTS, zoneout=True)
    x = torch.randn(4, INPUTS, dtype=torch.double)
    old = [torch.randn(4, 6, dtype=torch.double, requires_grad=True) for _ in graph.old]
    masks = [(torch.rand_like(leaf) < 0.3).double() for leaf in old]
    start = type(cell.initial_state(x))(*old) if len(old) > 1 else old[0]
    new = leaves(cell.step(Parameters(**p), cell.inputs(Parameters(**p), x), start)[1])
    mixed = [torch.where(m > 0, a, b) for m, a, b in zip(masks, old, new, strict=True)]
    draws = [torch.randn_like(leaf) for leaf in mixed]
    loss = torch.stack([(leaf * d).sum() for leaf, d in zip(mixed, draws, strict=True)]).sum()
    expected = torch.autograd.grad(loss, old)

    def arrays(tensors):
        return [tensor.detach().numpy() for tensor in tensors]

    run = Interpreter(graph, p)
    columns = torch.cat((x, *masks), 1).numpy()
    _, found = run.forward(columns, arrays(old))
    d_x, d_old, _ = run.backward(columns, arrays(old), torch.zeros(4, 6).numpy(), arrays(draws))
    assert d_x.shape == (4, INPUTS)
    for value, other in zip([*found, *d_old], arrays([*mixed, *expected]), strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-12, atol=1e-12)


def test_a_weight_without_elements_is_no_obstacle():
    p = vars(CELLS["exprnn"](hidden_size=1).build(INPUTS).prepared()) | {"nothing": torch.zeros(0)}
    assert record(CELLS["exprnn"](hidden_size=1), p, INPUTS).names[-1] == "nothing"


def test_a_constant_that_is_changed_in_place_is_the_same_in_each_batch():
    def step(p, z, h):
        h = (z + h).tanh() * torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=h.dtype).mul_(0.1)
        return h, h

    graph = graph_of(cell_of(step))
    p = {name: torch.zeros(6, 6) for name in graph.names}
    first, second = (
        [w.tolist() for w in Interpreter(graph, p).weights.values() if w.ndim == 1] for _ in "12"
    )
    assert first == second
    assert second[-1] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


# torch around it


class Counting(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "setting",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16), Counting],
    ids=["no_grad", "inference_mode", "autocast", "another dispatch mode"],
)
def test_the_graph_is_the_same_whatever_the_caller_has_switched_on(setting):
    module = CELLS["lstm"](hidden_size=6).build(INPUTS)
    with setting():
        p = vars(module.prepared())
        graph = record(module.cell, p, INPUTS)
    assert text(graph) == text(graph_of(CELLS["lstm"](hidden_size=6)))


def test_weights_made_in_inference_mode_can_be_recorded():
    with torch.inference_mode():
        module = CELLS["basic"](hidden_size=6).build(INPUTS)
        graph = record(module.cell, vars(module.prepared()), INPUTS)
    assert text(graph) == text(graph_of(CELLS["basic"](hidden_size=6)))


def test_other_dispatch_modes_see_nothing_of_the_recording():
    module = CELLS["basic"](hidden_size=6).build(INPUTS)
    p = vars(module.prepared())
    with Counting() as counting:
        record(module.cell, p, INPUTS)
    assert counting.calls == 0


def test_the_default_type_does_not_matter_and_stays():
    torch.set_default_dtype(torch.float64)
    try:
        graph = graph_of(CELLS["slstm"](hidden_size=6))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert text(graph) == text(graph_of(CELLS["slstm"](hidden_size=6)))


def test_the_random_numbers_of_the_caller_stay_as_they_are():
    @dataclass
    class Noisy(GatedCell):
        gates = ("h",)

        def initial_state(self, x_BI):
            return torch.randn(len(x_BI), 6, dtype=x_BI.dtype)

        def step(self, p, z, state):
            h = f.dropout(z + state)
            return h, h

    module = Noisy(hidden_size=6).build(INPUTS)
    p = vars(module.prepared())
    basic = CELLS["basic"](hidden_size=6).build(INPUTS)
    before = torch.get_rng_state()
    record(basic.cell, vars(basic.prepared()), INPUTS)
    with pytest.raises(UncoveredError, match="draws random numbers"):
        record(module.cell, p, INPUTS)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_and_their_gradients_stay_as_they_are():
    module = CELLS["lstm"](hidden_size=6).build(INPUTS)
    before = {name: w.clone() for name, w in module.named_parameters()}
    record(module.cell, vars(module.prepared()), INPUTS)
    for name, w in module.named_parameters():
        assert torch.equal(w, before[name])
        assert w.grad is None
        assert w.requires_grad


def test_another_thread_records_the_same_graph():
    found: list[Graph] = []
    thread = threading.Thread(target=lambda: found.append(graph_of(CELLS["gru"](hidden_size=6))))
    thread.start()
    thread.join()
    assert text(found[0]) == text(graph_of(CELLS["gru"](hidden_size=6)))


@pytest.mark.long
def test_recording_the_cells_of_the_package_imports_no_sympy():
    """It would take longer than all the rest: 0.4 s."""
    code = (
        "from tests.engine.machine.tracing import graph_of, recurrent_cells\n"
        "for cell in recurrent_cells(6).values(): graph_of(cell)"
    )
    modules = modules_after(code)
    assert "rnnclf.engine.machine.trace.tracer" in modules
    assert not modules & {"sympy", "torch._dynamo"}
