"""Plans: every value is where its readers look for it."""

from __future__ import annotations

import inspect
import sys

import pytest
import torch

from rnnclf.engine.machine.graph import UncoveredError
from rnnclf.engine.machine.schedule.planner import plan
from rnnclf.engine.machine.trace.tracer import record
from tests.engine.machine.comparing import NAMES, VARIANTS, difference, named
from tests.engine.machine.plans import carry_out, gaps, named_plan, plan_of
from tests.engine.machine.users_cells import COVERED, cell, random_cell

FEW = ("basic", "lstm")
CELLS = [pytest.param(name, marks=[] if name in FEW else [pytest.mark.long]) for name in (*NAMES, *VARIANTS)]


@pytest.mark.parametrize("name", CELLS)
def test_no_value_is_stored_over_another_that_is_read_later(name):
    carry_out(named_plan(name, 6))


@pytest.mark.parametrize("name", CELLS)
def test_sums_fill_every_gradient_once(name):
    assert not gaps(named_plan(name, 6))


@pytest.mark.long
@pytest.mark.parametrize("hidden", [1, 16])
def test_no_value_is_stored_over_another_at_other_sizes(hidden):
    for name in ("lstm", "slstm"):
        found = named_plan(name, hidden)
        carry_out(found)
        assert not gaps(found)


@pytest.mark.parametrize(
    "name", [*list(COVERED)[1:8:5], *(pytest.param(name, marks=pytest.mark.slow) for name in COVERED)]
)
def test_no_value_of_a_users_step_is_stored_over_another(name):
    found = plan_of(COVERED[name](hidden_size=6))
    carry_out(found)
    assert not gaps(found)


@pytest.mark.parametrize(
    "seed", [*range(2), *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 60))]
)
def test_no_value_of_a_random_step_is_stored_over_another(seed):
    found = plan_of(random_cell(seed)(hidden_size=(3, 8, 10)[seed % 3]))
    carry_out(found)
    assert not gaps(found)


@pytest.mark.parametrize("name", ["basic", "cfc-deep"])
def test_no_product_covers_what_lies_between_its_operands(name):
    """Masks of zoneout lie between inputs and state."""
    module = named(name, 6).build(3).double()
    found = plan(record(module.cell, vars(module.prepared()), 3, zoneout=True), 8)
    carry_out(found)
    assert not gaps(found)


BASIC = """\
numbers in a row
  operands             16
  backward_scratch      8
  forward_scratch       8
  state_gradients       8
  input_gradients       8
forward
  stage 0
    forward_scratch[0:8] = operands[4:13] · weights[0:72]
    pass
      next operands[8:13] = tanh(forward_scratch[0:5])
backward
  stage 0
    pass
      backward_scratch[0:5] = \
(state_gradients[0:5] - ((state_gradients[0:5] * next operands[8:13]) * next operands[8:13]))
  then
    state_gradients[0:8] = backward_scratch[0:5] · weights[72:112]
    input_gradients[0:8] = backward_scratch[0:5] · weights[112:152]   where the inputs' gradients are wanted
    sums[0:72] += operands[4:13]ᵀ · backward_scratch[0:8]"""


def test_a_plan_prints_as_buffers_products_and_passes():
    assert str(named_plan("basic", 5)) == BASIC


def test_values_that_a_pass_uses_twice_are_printed_once():
    text = str(named_plan("lnlstm", 6))
    assert len(text) < 12_000
    assert text.count("rsqrt(") == 3


def output_twice(cell, p, z, h):
    h = (z + h @ p.recurrent_weight.t()).tanh()
    return torch.cat((h, h), 1), h


def output_equal_to_a_linear_state(cell, p, z, h):
    h = z + h @ p.recurrent_weight.t()
    return 1.0 * h, h


def bias_three_times(cell, p, z, h):
    h = (z + p.bias + p.bias + h @ p.recurrent_weight.t() + p.bias).tanh()
    return h, h


def products_of_one_operand(cell, p, z, h):
    u = p.recurrent_weight
    h = (z + h @ u.t() + h @ u + 0.5 * (h @ u.t())).tanh()
    return h, h


def two_hundred_additions(cell, p, z, h):
    for _ in range(100):
        h = h + 0.01 * (z - h).tanh()
    return h, h


@pytest.mark.parametrize(
    "step",
    [
        output_twice,
        pytest.param(bias_three_times, marks=pytest.mark.long),
        pytest.param(output_equal_to_a_linear_state, marks=pytest.mark.long),
        pytest.param(products_of_one_operand, marks=pytest.mark.long),
        pytest.param(two_hundred_additions, marks=pytest.mark.slow),
    ],
)
def test_a_step_with_values_in_several_places_equals_the_loop(step):
    own = cell(step, 1)(hidden_size=5)
    carry_out(plan_of(own))
    worst, where = difference(own, torch.float64, steps=3, batch=4, ragged=True)
    assert worst < 1e-12, where


def test_a_step_that_is_too_long_for_pythons_stack_is_refused_in_words():
    graph = plan_of(cell(two_hundred_additions, 1)(hidden_size=5)).graph
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 80)
    try:
        with pytest.raises(UncoveredError, match="its step is a chain of too many operations"):
            plan(graph, 8)
    finally:
        sys.setrecursionlimit(limit)
