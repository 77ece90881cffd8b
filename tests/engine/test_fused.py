"""The fused engine: what its own threads, its order of ragged sequences and its one way back keep."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.cells import CELLS
from rnnclf.cells.state import leaves, map_states
from rnnclf.engine import fused, parts
from rnnclf.engine.choose import choose
from rnnclf.engine.fused_steps import fast_tanh
from rnnclf.engine.parts import parts_of_batches
from rnnclf.engine.unrolling import unroll
from rnnclf.errors import ConfigError
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from tests.pairwise import pairwise

FUSED = [name for name, kind in CELLS.items() if "fused" in kind().engines]


@pytest.fixture
def two_cores(monkeypatch):
    """Parts are made of the smallest batches, for two threads."""
    monkeypatch.setattr(parts.Worth, "most_parts", lambda worth, batch, work: batch)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def outcome(name, engine, *, dtype, lengths_B=None, every_step=True, started=False, batch=5, steps=9, seed=0):
    """Outputs, last states and all gradients, by name."""
    torch.manual_seed(seed)
    cell = CELLS[name](hidden_size=6).build(3).to(dtype)
    x_TBI = torch.randn(steps, batch, 3, dtype=dtype, requires_grad=True)
    state = None
    if started:
        fresh = cell.cell.initial_state(x_TBI[0].detach())
        state = map_states(lambda part: torch.randn_like(part).requires_grad_(), fresh)
    with parts_of_batches():
        y, last = unroll(cell, x_TBI, state, lengths_B, engine=engine, every_step=every_step)
        loss = sum((part * torch.randn_like(part)).sum() for part in (y, *leaves(last)))
        sources = {"x": x_TBI, **dict(cell.named_parameters())}
        sources |= {f"state {i}": part for i, part in enumerate(leaves(state))} if started else {}
        gradients = torch.autograd.grad(loss, list(sources.values()))
    found = dict(zip(sources, gradients, strict=True))
    return {"y": y, **{f"last {i}": part for i, part in enumerate(leaves(last))}, **found}


TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


LENGTHS = (None, (3, 9, 1, 5, 9), (2, 1, 1, 2, 1))


@pytest.mark.parametrize(
    ("runs", "dtype", "lengths", "every_step", "started"),
    pairwise(
        product(FUSED, ("fused", "machine", "native")), TOLERANCE, LENGTHS, (True, False), (True, False)
    ),
)
def test_it_equals_the_loop_in_outputs_and_gradients(two_cores, runs, dtype, lengths, every_step, started):
    name, engine = runs
    options = {"dtype": dtype, "every_step": every_step, "started": started}
    options["lengths_B"] = None if lengths is None else torch.tensor(lengths)
    found, expected = (outcome(name, each, **options) for each in (engine, "loop"))
    for key, value in expected.items():
        error = (found[key] - value).norm() / value.norm().clamp(min=1e-30)
        assert error <= TOLERANCE[dtype], key


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(FUSED),
    steps=st.integers(1, 12),
    batch=st.integers(1, 40),
    threads=st.integers(1, 3),
    data=st.data(),
)
def test_any_size_and_any_number_of_threads_give_what_the_loop_gives(name, steps, batch, threads, data):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    lengths = data.draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch) | st.none())
    options = {"dtype": torch.float64, "steps": steps, "batch": batch}
    options["lengths_B"] = None if lengths is None else torch.tensor(lengths)
    found, machine, expected = (outcome(name, engine, **options) for engine in ("fused", "machine", "loop"))
    torch.set_num_threads(before)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(machine[key], value, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("engine", ["fused", "machine"])
def test_it_repeats_itself_bit_for_bit_on_any_number_of_threads(name, engine, two_cores):
    lengths_B = torch.tensor([3, 9, 1, 5, 9])
    once, again = (outcome(name, engine, dtype=torch.float32, lengths_B=lengths_B) for _ in range(2))
    assert all(torch.equal(once[key], again[key]) for key in once)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("engine", ["fused", "machine"])
def test_outputs_and_gradients_at_784_steps(name, engine):
    options = {"dtype": torch.float32, "steps": 784, "every_step": False}
    found, expected = (outcome(name, each, **options) for each in (engine, "loop"))
    for key, value in expected.items():
        assert (found[key] - value).norm() <= 1e-4 * value.norm().clamp(min=1e-30), key


NUMBERS = torch.cat(
    (torch.linspace(-12, 12, 200_001), torch.tensor([0.0, 1e-20, -1e-3, 90.0, -90.0, math.inf]))
)


def test_the_fast_tanh_is_off_by_no_more_than_rounding():
    error = fast_tanh(2 * NUMBERS, torch.empty_like(NUMBERS)).double() - NUMBERS.double().tanh()
    assert error.abs().max() <= 2e-7


def last_output(**changes):
    """The output of one unit after one step of input `x`, in machine code; W = U = 1, b = 0."""
    x = changes.pop("x")
    cell = CELLS["basic"](hidden_size=1, **changes).build(1)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.fill_(1)
        cell.get_parameter("bias").fill_(0)
        return unroll(cell, x.view(1, -1, 1), engine="machine", every_step=False)[0].flatten()


def test_tanh_in_machine_code_is_off_by_no_more_than_rounding_and_never_beyond_one():
    found = last_output(x=NUMBERS)
    assert (found.double() - NUMBERS.double().tanh()).abs().max() <= 4e-7
    assert found.abs().max() == 1


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_what_is_not_a_number_stays_none_in_machine_code(nonlinearity):
    found = last_output(x=torch.tensor([math.nan, -2.0]), nonlinearity=nonlinearity)
    assert found.isnan().tolist() == [True, False]


def test_without_llvmlite_the_other_engines_are_taken(monkeypatch):
    monkeypatch.setattr("rnnclf.engine.choose.find_spec", lambda name: None)
    assert choose(CELLS["gru"](), "cpu") == "fused"
    assert choose(CELLS["lem"](), "cpu") == "loop"
    with pytest.raises(ConfigError, match="engine=machine needs llvmlite: pip install llvmlite, or use"):
        SequenceClassifier(CELLS["gru"](hidden_size=3), 2, 2, Stack(engine="machine"))


def test_machine_code_refuses_another_device_in_words():
    cell = CELLS["gru"](hidden_size=3).build(2).to("meta")
    with pytest.raises(ConfigError, match="engine=machine runs on a CPU only: use engine=auto"):
        unroll(cell, torch.zeros(4, 2, 2, device="meta"), engine="machine")


@pytest.mark.parametrize("engine", ["fused", "machine"])
def test_going_back_twice_is_refused_not_wrong(engine):
    cell = CELLS["gru"](hidden_size=3).build(2)
    y, _ = unroll(cell, torch.randn(4, 2, 2), engine=engine)
    y.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="supports one backward pass"):
        y.sum().backward()


def test_a_cell_with_another_step_is_not_taken_for_the_one_it_derives_from():
    @dataclass
    class Slower(CELLS["lstm"]):
        name: str = "slower"

        def step(self, p, z, state):
            return super().step(p, 0.5 * z, state)

    @dataclass
    class Renamed(CELLS["lstm"]):
        name: str = "renamed"

    assert Slower().engines == ("machine", "loop")
    assert Renamed().engines == ("machine", "native", "fused", "loop")
    assert CELLS["gru"](reset="before").engines == ("machine", "loop")
    assert choose(Slower(), "cpu") == "machine"  # which is made from its own step
    assert choose(Renamed(), "cpu") == "machine"
    assert choose(Renamed(hidden_size=513), "cpu") == "native"
    assert choose(Renamed(hidden_size=513), "cpu", ragged=True) == "machine"
    assert choose(CELLS["gru"](), "mps") == "native"


@pytest.mark.parametrize(("name", "hidden"), [("basic", 2289), ("lstm", 512), ("gru", 1321)])
def test_weights_larger_than_the_caches_are_left_to_torchs_own_layer(name, hidden):
    at_most, larger = (CELLS[name](hidden_size=hidden + more) for more in (0, 1))
    assert choose(at_most, "cpu") == "machine"
    assert choose(larger, "cpu") == "native"
    assert choose(larger, "cpu", ragged=True) == "machine"


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "layers": 2}, {"recurrent_dropout": 0.5}])
def test_a_classifier_trains_alike_with_either_engine(options, two_cores):
    x_BTI, y_B = torch.randn(6, 7, 3), torch.arange(6) % 2
    gradients = []
    for engine in ("loop", "fused", "machine"):
        torch.manual_seed(0)
        model = SequenceClassifier(CELLS["lstm"](hidden_size=4), 3, 2, Stack(engine=engine, **options))
        with model.cores(6):
            torch.nn.functional.cross_entropy(model(x_BTI, torch.tensor([7, 2, 3, 7, 1, 5])), y_B).backward()
        gradients.append([weight.grad for weight in model.parameters()])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-6)


def test_the_cores_are_given_back():
    before = torch.get_num_threads()
    model = SequenceClassifier(CELLS["basic"](hidden_size=4), 3, 2)
    seen = []
    with contextlib.suppress(KeyboardInterrupt), model.cores(6):
        seen.append(torch.get_num_threads())
        raise KeyboardInterrupt
    assert [*seen, torch.get_num_threads()] == [1, before]
    others = SequenceClassifier(CELLS["rglru"](hidden_size=64), 3, 2)
    with others.cores(1000):
        assert torch.get_num_threads() == before  # another engine: the library's own threads
    with others.cores(1):
        assert torch.get_num_threads() == 1  # which would wait for each other more than work


def test_an_error_in_a_part_is_raised_not_lost(two_cores, monkeypatch):
    cell = CELLS["basic"](hidden_size=3).build(2)
    monkeypatch.setattr(fused.OverTime, "__init__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), parts_of_batches():
        unroll(cell, torch.randn(4, 4, 2), engine="fused")
