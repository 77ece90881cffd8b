"""Engines: the scan against its definition, convolutions against sums, and which engine is chosen."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.cells import CELLS
from rnnclf.cells.linear import TimeInvariantCell
from rnnclf.cells.module import CellModule
from rnnclf.engine import scan as scan_module
from rnnclf.engine.choose import choose, engines_on
from rnnclf.engine.convolution import fast_length
from rnnclf.engine.plan import Plan
from rnnclf.engine.scan import linear_scan
from rnnclf.engine.unrolling import unroll
from tests.pairwise import pairwise


def by_definition(a, b, h):
    """h_t = a_t h_{t-1} + b_t, one step after the other."""
    pairs = (a.ndim - b.ndim) % 2 == 1
    states = []
    for t in range(len(b)):
        a_t = a[t] if a.ndim >= b.ndim else a
        h = ((a_t @ h.unsqueeze(-1)).squeeze(-1) if pairs else a_t * h) + b[t]
        states.append(h)
    return torch.stack(states)


SHAPES = {  # of a and of the state, for T steps of B sequences with N numbers each
    "a-at-every-step": lambda time, batch, n: ((time, batch, n), (batch, n)),
    "one-a": lambda time, batch, n: ((n,), (batch, n)),
    "one-a-of-two-dimensions": lambda time, batch, n: ((n, 3), (batch, n, 3)),
    "pairs-at-every-step": lambda time, batch, n: ((time, batch, n, 2, 2), (batch, n, 2)),
    "one-a-for-pairs": lambda time, batch, n: ((n, 2, 2), (batch, n, 2)),
}


def recurrence(kind, time, batch, n, dtype, seed=0):
    torch.manual_seed(seed)
    a_shape, state_shape = SHAPES[kind](time, batch, n)
    a = 0.5 * torch.randn(a_shape, dtype=dtype)
    b, h = torch.randn(time, *state_shape, dtype=dtype), torch.randn(state_shape, dtype=dtype)
    return [part.requires_grad_() for part in (a, b, h)]


# 1 is the least, 30 leaves a rest of every number of chunks, 3000 numbers are walked without chunks
SIZES = [(1, 1, 1), (2, 3, 2), (7, 1, 4), (30, 2, 5), (100, 1, 3), (9, 50, 60)]


@pytest.mark.parametrize(
    ("kind", "size", "dtype"), pairwise(SHAPES, SIZES, (torch.float64, torch.complex128))
)
def test_scan_equals_its_definition_in_values_and_gradients(kind, size, dtype):
    parts = recurrence(kind, *size, dtype)
    found, expected = linear_scan(*parts), by_definition(*parts)
    torch.testing.assert_close(found, expected)
    probe = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, parts, probe), torch.autograd.grad(expected, parts, probe)
    )


@settings(deadline=None, max_examples=30)
@given(
    kind=st.sampled_from(sorted(SHAPES)),
    time=st.integers(1, 60),
    batch=st.integers(1, 3),
    n=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_scan_equals_its_definition_at_any_size(kind, time, batch, n, seed):
    parts = recurrence(kind, time, batch, n, torch.float64, seed)
    torch.testing.assert_close(linear_scan(*parts), by_definition(*parts))


@pytest.mark.long
@pytest.mark.parametrize("kind", SHAPES)
def test_gradients_of_the_scan_equal_finite_differences(kind):
    for dtype in (torch.float64, torch.complex128):
        assert torch.autograd.gradcheck(linear_scan, recurrence(kind, 11, 1, 2, dtype))


def test_chunks_are_used_where_steps_are_small_and_not_where_they_are_large(monkeypatch):
    walked, steps = [], scan_module._steps
    monkeypatch.setattr(
        scan_module, "_steps", lambda a, b, *rest: walked.append(len(b)) or steps(a, b, *rest)
    )
    for n in (1, scan_module.WORTH_CPU):
        walked.clear()
        linear_scan(torch.rand(n), torch.randn(100, 1, n), torch.zeros(1, n))
        assert walked == ([10, 0] if n == 1 else [100])


def test_what_fades_at_once_and_what_stays_for_ever_are_exact():
    b, h = torch.randn(500, 1, 2, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)
    a = torch.tensor([0.0, 1.0], dtype=torch.float64)  # a quotient of running products would be 0 / 0
    found = linear_scan(a, b, h)
    torch.testing.assert_close(found[..., 0], b[..., 0])
    torch.testing.assert_close(found[..., 1], h[..., 1] + b[..., 1].cumsum(0))


def test_long_sequences_of_small_numbers_stay_finite():
    a = torch.full((3000, 1, 2), 1e-30, requires_grad=True)
    b = torch.full((3000, 1, 2), 1e-30, requires_grad=True)
    states = linear_scan(a, b, torch.zeros(1, 2))
    states.sum().backward()
    assert torch.isfinite(states).all()
    assert torch.isfinite(a.grad).all()
    assert torch.isfinite(b.grad).all()


# Convolutions


INVARIANT = [name for name in CELLS.names() if isinstance(CELLS[name](hidden_size=2), TimeInvariantCell)]


@pytest.mark.parametrize("name", INVARIANT)
@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize(("steps", "inputs"), [(13, 1), (13, 2), (4, 9), (1, 1), (1, 3)])
def test_the_last_output_alone_is_that_of_all_steps(name, ragged, steps, inputs):
    torch.manual_seed(3)
    module = CellModule(CELLS[name](hidden_size=6), inputs).double()
    x_TBI = torch.randn(steps, 5, inputs, dtype=torch.float64, requires_grad=True)
    lengths_B = torch.randint(1, steps + 1, (5,)) if ragged else None
    weights = [x_TBI, *module.parameters()]
    expected_BH, found_BH = (
        unroll(module, x_TBI, None, lengths_B, engine=engine, every_step=False, final_state=False)[0]
        for engine in ("loop", "fft")
    )
    torch.testing.assert_close(found_BH, expected_BH)
    probe_BH = torch.randn_like(expected_BH)
    found, expected = (torch.autograd.grad(y_BH, weights, probe_BH) for y_BH in (found_BH, expected_BH))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", INVARIANT)
def test_for_the_last_output_nothing_is_kept_for_each_step(name):
    """It is one matrix product with the inputs, if they have fewer numbers in a step than there are steps."""
    module = CellModule(CELLS[name](hidden_size=50), 1)
    x_TBI, kept = torch.randn(300, 64, 1), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        unroll(module, x_TBI, engine="fft", every_step=False, final_state=False)
    assert max(kept) < 300 * 64 * 50 / 2


@given(st.integers(1, 20_000))
def test_fast_length_is_the_next_number_without_large_factors(at_least):
    def smooth(number):
        for factor in (2, 3, 5):
            while number % factor == 0:
                number //= factor
        return number == 1

    length = fast_length(at_least)
    assert length >= at_least
    assert smooth(length)
    assert not any(smooth(number) for number in range(at_least, length))


# Plans


def test_last_and_held_and_right_aligned_follow_the_lengths():
    x_TB = torch.arange(12.0).reshape(4, 3)
    plan = Plan(torch.tensor([1, 4, 2]))
    assert plan.last_of(x_TB).tolist() == [0, 10, 5]
    assert plan.held(x_TB.unsqueeze(-1)).squeeze(-1).tolist() == [[0, 1, 2], [0, 4, 5], [0, 7, 5], [0, 10, 5]]
    assert plan.right_aligned(x_TB).tolist() == [[0, 1, 0], [0, 4, 0], [0, 7, 2], [0, 10, 5]]


@pytest.mark.long
def test_scan_takes_time_in_proportion_to_the_length():
    """Operations, not seconds: those are in docs/cells.md."""
    counts = []
    for time in (100, 200, 400):
        with torch.profiler.profile() as profile:
            linear_scan(torch.rand(time, 8, 600), torch.randn(time, 8, 600), torch.zeros(8, 600))
        counts.append(sum(event.count for event in profile.key_averages() if event.key == "aten::addcmul"))
    assert counts == [100, 200, 400]
    assert math.isclose(counts[2] / counts[0], 4)


@pytest.mark.parametrize(
    ("name", "device", "every_step", "engine"),
    [
        ("lstm", "cpu", True, "machine"),
        ("gru", "cpu", True, "machine"),
        ("lstm", "cuda", False, "native"),
        ("mingru", "cpu", True, "machine"),
        ("mingru", "cuda", False, "scan"),
        ("lru", "cpu", True, "machine"),
        ("linoss", "cpu", True, "machine"),
        ("linoss", "cpu", False, "fft"),
        ("lru", "cpu", False, "fft"),
        ("lru", "cuda", True, "fft"),
        ("s4d", "cpu", True, "fft"),
    ],
)
def test_auto_is_the_engine_that_was_measured_to_be_the_fastest(name, device, every_step, engine):
    assert choose(CELLS[name](), device, every_step) == engine


def test_an_engine_that_cannot_run_the_cell_is_refused():
    module = CELLS["sru"](hidden_size=2, peephole=True).build(1)
    with pytest.raises(ValueError, match="engine must be one of machine, loop for this cell, got 'scan'"):
        unroll(module, torch.zeros(3, 1, 1), engine="scan")


def test_what_needs_a_cpu_is_not_among_the_engines_of_a_gpu():
    assert engines_on("cpu", CELLS["gru"]()) == CELLS["gru"]().engines
    assert set(CELLS["gru"]().engines) - set(engines_on("cuda", CELLS["gru"]())) == {"machine"}
