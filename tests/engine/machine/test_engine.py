"""Machine code made from steps gives what the loop gives, for every cell and however it is run."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.cells import CELLS
from rnnclf.engine.choose import engine_for, obstacle, why_not_faster
from rnnclf.engine.parts import parts_of_batches
from rnnclf.engine.unrolling import unroll
from rnnclf.errors import ConfigError
from tests.engine.machine.comparing import (
    LIMIT,
    NAMES,
    VARIANTS,
    difference,
    drawn,
    named,
    smallest_parts,
    weighed,
)
from tests.engine.machine.users_cells import COVERED, REFUSED, TwoBiases, cell, random_cell

pytest.importorskip("llvmlite")

WAYS = {
    "whole": {},
    "ragged-and-started": {"ragged": True, "started": True},
    "last-output": {"every_step": False, "wants_inputs": False},
    "one-step-of-one-sequence": {"steps": 1, "batch": 1, "inputs": 1},
}
QUICK = ("lstm",)


def marks_of(name, way):
    """One cell in every way; all cells in the way that has everything; the rest takes its time."""
    if name in QUICK:
        return []
    return [pytest.mark.long] if way == "ragged-and-started" else [pytest.mark.long, pytest.mark.slow]


def expect_close(cell, dtype, **way):
    found, where = difference(cell, dtype, **way)
    # a layer norm of one or two numbers is their rounding, enlarged 300 times
    enlarged = 1000 if cell.name == "lnlstm" and cell.hidden_size < 3 else 1
    assert found < enlarged * LIMIT[dtype], where


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_that_lists_machine_code_is_covered(name):
    module = named(name, 3).build(2)
    assert obstacle("machine", module) == ""
    assert why_not_faster(module, "cpu") == ""


@pytest.mark.parametrize(
    ("name", "way"),
    [pytest.param(name, way, marks=marks_of(name, way)) for name in (*NAMES, *VARIANTS) for way in WAYS],
)
def test_it_equals_autograd_through_the_loop(name, way):
    expect_close(named(name, 6), torch.float64, **WAYS[way])
    if name in QUICK:
        expect_close(named(name, 6), torch.float32, **WAYS[way])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("hidden", [1, 22, 33])
@pytest.mark.parametrize("name", [*NAMES, *VARIANTS])
def test_it_equals_the_loop_at_odd_sizes(name, hidden, dtype):
    if name == "slstm-two-heads" and hidden % 2:
        pytest.skip("two heads need an even number of units")
    for way in WAYS.values():
        expect_close(named(name, hidden), dtype, **{"steps": 9, "batch": 13, "inputs": 5} | way)


@pytest.mark.long
@pytest.mark.parametrize("name", COVERED)
def test_cells_as_users_write_them_are_covered(name):
    for dtype in LIMIT:
        expect_close(COVERED[name](hidden_size=6), dtype, ragged=True)


@pytest.mark.parametrize("name", REFUSED)
def test_a_step_that_cannot_be_covered_runs_in_the_loop_and_the_reason_is_given(name):
    kind, words = REFUSED[name]
    module = kind(hidden_size=130 if name == "cumulative_sum" else 4).build(2)
    assert words in obstacle("machine", module)
    assert engine_for(module, "cpu") == "loop"
    assert why_not_faster(module, "cpu").startswith(f"cell={module.cell.name} runs in the loop: ")
    y, _ = unroll(module, torch.randn(3, 2, 2))
    assert y.shape == (3, 2, module.cell.hidden_size)
    with pytest.raises(ConfigError, match=f"engine=machine does not go with cell={module.cell.name}: .*loop"):
        unroll(module, torch.randn(3, 2, 2), engine="machine")


def test_a_step_that_depends_on_the_size_of_the_batch_is_found_out_before_it_is_used():
    def scaled_by_the_batch(cell, p, z, h):
        h = (z + h @ p.recurrent_weight.t()).tanh() / len(z)
        return h, h

    module = cell(scaled_by_the_batch, 1)(hidden_size=4).build(2)
    assert obstacle("machine", module) == "its machine code and the loop disagree on a small batch"
    assert engine_for(module, "cpu") == "loop"


def test_a_fault_of_the_compiler_leaves_the_cell_to_the_next_engine_and_is_told(monkeypatch):
    """As when llvmlite changes."""

    def changed(text):
        raise TypeError("an unexpected argument.\nDetails")

    monkeypatch.setattr("rnnclf.engine.machine.cache.object_code", changed)
    module = named("gru", 4).build(11)  # a size that nothing else has compiled
    reason = "no machine code could be made for it (TypeError: an unexpected argument)"
    assert engine_for(module, "cpu") == "fused"
    assert why_not_faster(module, "cpu") == f"cell=gru runs by engine=fused: {reason}"


def test_a_step_that_fails_is_refused_without_a_traceback():
    def broken(cell, p, z, h):
        raise LookupError("no such thing")

    module = cell(broken, 1)(hidden_size=4).build(2)
    assert obstacle("machine", module) == "its step raises LookupError on a trial batch (no such thing)"
    with pytest.raises(LookupError):  # from the loop, where the user can see it
        unroll(module, torch.randn(3, 2, 2))


@pytest.mark.parametrize("name", ["lstm", pytest.param("slstm", marks=pytest.mark.long)])
@pytest.mark.parametrize("every_step", [True, False])
def test_two_threads_give_the_same(name, every_step, monkeypatch):
    smallest_parts(monkeypatch)
    expect_close(named(name, 6), torch.float64, threads=2, ragged=True, every_step=every_step)


@pytest.mark.parametrize("name", ["lstm", pytest.param("slstm", marks=pytest.mark.long)])
def test_it_repeats_itself_bit_for_bit_and_nan_stays_where_the_loop_has_it(name, monkeypatch):
    smallest_parts(monkeypatch)
    torch.set_num_threads(2)
    module, x_TBI = drawn(named(name, 6), 3, torch.float32), torch.randn(6, 9, 3)

    def gradients():
        with parts_of_batches():
            y, _ = unroll(module, x_TBI, engine="machine")
            return torch.autograd.grad(weighed(y), list(module.parameters()), allow_unused=True)

    for once, again in zip(gradients(), gradients(), strict=True):
        assert once is again is None or torch.equal(once, again)
    x_TBI[2, 5, 1] = math.nan
    found, expected = (unroll(module, x_TBI, engine=engine)[0] for engine in ("machine", "loop"))
    assert torch.equal(found.isnan(), expected.isnan())
    assert found.isnan().any()


@pytest.mark.parametrize("name", ["lstm", "cornn"])
def test_recurrent_dropout_masks_the_same_weights_in_machine_code(name):
    module, x_TBI, found = drawn(named(name, 6), 3, torch.float64), torch.randn(6, 9, 3).double(), []
    module.recurrent_dropout = 0.3
    for engine in ("machine", "loop"):
        torch.manual_seed(5)
        y, _ = unroll(module, x_TBI, engine=engine)
        found.append(torch.autograd.grad(weighed(y), list(module.parameters()), allow_unused=True))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("name", ["basic", "gru", "lnlstm", "lem", "cfc"])
def test_gradients_equal_finite_differences(name):
    module = drawn(named(name, 3), 2, torch.float64)
    x_TBI = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)

    def loss():
        return weighed(unroll(module, x_TBI, engine="machine")[0])

    sources = [x_TBI, *module.parameters()]
    for source, gradient in zip(sources, torch.autograd.grad(loss(), sources), strict=True):
        direction, step, ends = torch.randn_like(source), 1e-6, []
        for sign in (1, -1, 0):
            with torch.no_grad():
                source.add_(direction, alpha=(1 if sign == 1 else -2 if sign == -1 else 1) * step)
                ends.append(float(loss()))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_weights_with_equal_gradients_have_one_each():
    """Otherwise what changes gradients in place, such as clipping, would change them twice."""
    module = TwoBiases(hidden_size=4).build(3)
    unroll(module, torch.randn(5, 2, 3), engine="machine")[0].sum().backward()
    expected = module.bias.grad.clone() / 2
    torch._foreach_mul_([module.bias.grad, module.other_bias.grad], 0.5)
    assert torch.equal(module.bias.grad, expected)
    assert torch.equal(module.other_bias.grad, expected)


def test_one_unit_with_several_inputs_is_not_read_beyond_its_weights():
    """Its input weights (1, I), transposed, are a contiguous column whose last stride is I."""
    expect_close(named("basic", 1), torch.float64, inputs=3)


def test_only_frozen_weights_have_no_gradient():
    module = drawn(named("lstm", 4), 2, torch.float32)
    module.bias.requires_grad_(False)
    y, _ = unroll(module, torch.randn(3, 2, 2), engine="machine")
    y.sum().backward()
    assert module.bias.grad is None
    assert module.recurrent_weight.grad.abs().sum() > 0


def test_without_gradients_nothing_is_kept_and_the_outputs_are_the_same():
    module, x_TBI = drawn(named("lem", 4), 2, torch.float32), torch.randn(5, 3, 2)
    with_gradients, _ = unroll(module, x_TBI, engine="machine")
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            y, _ = unroll(module, x_TBI, engine="machine")
        assert not y.requires_grad
        assert torch.equal(y, with_gradients)


def test_a_second_backward_pass_and_weights_that_changed_are_refused():
    module, x_TBI = drawn(named("lem", 4), 2, torch.float32), torch.randn(5, 3, 2)
    y, _ = unroll(module, x_TBI, engine="machine")
    y.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        y.sum().backward()
    y, _ = unroll(module, x_TBI, engine="machine")
    with torch.no_grad():
        next(module.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_outputs_cannot_be_changed_in_place():
    """They share memory with what the backward pass reads."""
    module = drawn(named("lem", 4), 2, torch.float32)
    for every_step in (True, False):
        y, _ = unroll(module, torch.randn(5, 3, 2), engine="machine", every_step=every_step)
        with pytest.raises(RuntimeError, match="modified inplace"):
            y.mul_(2)


def test_two_modules_of_one_cell_keep_their_own_weights():
    """They share code, and memory for packed weights."""
    one, other = (drawn(named("gru", 4), 2, torch.float64) for _ in range(2))
    with torch.no_grad():
        other.recurrent_weight.mul_(2)
    x_TBI = torch.randn(5, 3, 2).double()
    found = []
    for engine in ("machine", "loop"):
        y = unroll(other, unroll(one, x_TBI, engine=engine)[0][..., :2], engine=engine)[0]
        weights = [*one.parameters(), *other.parameters()]
        found.append([y, *torch.autograd.grad(weighed(y), weights)])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_inputs_of_another_type_are_refused():
    module = named("lem", 4).build(2)
    with pytest.raises(ValueError, match=r"x must be torch.float32, as the weights are, got torch.float64"):
        unroll(module, torch.zeros(3, 1, 2).double(), engine="machine")


@pytest.mark.long
@settings(max_examples=10, deadline=None)
@given(
    name=st.sampled_from(NAMES), hidden=st.sampled_from([1, 2, 3, 7, 8, 9, 16, 17, 33]),
    steps=st.sampled_from([1, 2, 5]), batch=st.sampled_from([1, 2, 40, 90, 160]), inputs=st.sampled_from([1,
    2, 7, 8]), ragged=st.booleans(), started=st.booleans(), every_step=st.booleans(),
    wants_inputs=st.booleans(), threads=st.integers(1, 2),
)  # fmt: skip
def test_it_equals_the_loop_at_any_size(name, hidden, steps, started, **way):
    way |= {"steps": steps, "started": started and steps > 2}
    expect_close(CELLS[name](hidden_size=hidden), torch.float64, **way)


@pytest.mark.long
@pytest.mark.parametrize(
    "seeds", [range(12), pytest.param(range(12, 1000), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_random_steps_are_covered_and_equal_the_loop(seeds):
    for seed in seeds:
        kind = random_cell(seed)
        expect_close(kind(hidden_size=(1, 3, 8, 17)[seed % 4]), torch.float64, steps=4, batch=7, ragged=True)
