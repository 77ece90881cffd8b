"""Every cell keeps the same claims, equals its paper's equations and starts as it should."""

import math
from functools import partial
from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch import nn

from rnnclf.cells import CELLS, GatedCell
from rnnclf.cells.base import FAMILIES
from rnnclf.cells.initializers import INPUT_INITS, RECURRENT_INITS
from rnnclf.cells.linear import LinearCell
from rnnclf.cells.state import leaves
from rnnclf.conformance.cells import drawn, made, reached_state, sequences, variants
from rnnclf.conformance.claims import CLAIMS
from rnnclf.conformance.verdict import BrokenError, UntestableError, words
from rnnclf.errors import ConfigError
from tests.equations import EQUATIONS

BATCH, STEPS, INPUT, HIDDEN = 4, 7, 3, 5

LINEAR = [name for name, kind in CELLS.items() if issubclass(kind, LinearCell)]
GATED = [name for name, kind in CELLS.items() if issubclass(kind, GatedCell)]


QUICK = ("basic", "lstm", "gru", "lem", "lmu", "mingru", "s4d", "rglru")
"""A cell or two of each family, on which claims are tested by default; on the others by the long tests."""

EXAMPLES = {("step_is_traceable", "basic"), ("step_is_traceable", "s4d")} | {
    ("engines_agree", name) for name in ("basic", "lstm", "lem", "lru", "s4d", "s5")
}
"""Claims that take seconds, on the cells on which the long tests test them; the slow ones do on all."""
LONGER = (
    *("padding_is_invisible", "one_batch_is_learned", "last_output_alone", "gradients_reach_step_one"),
    "faster_engine",
)
"""Claims that take a second on each cell: the long tests test them on QUICK alone. That padding is
invisible is also tested with the machine code of every cell."""


def claims():
    """Every cell with every claim. Comparing engines over 784 steps takes seconds for most cells, and torch
    takes seconds to load what records a step."""
    cases = []
    for name, claim in product(CELLS.names(), CLAIMS):
        is_long = claim.__name__ == "engines_agree" and name not in ("gru", "mingru", "irnn")
        is_long = is_long or claim.__name__ == "step_is_traceable"
        is_slow = (claim.__name__, name) not in EXAMPLES and is_long
        is_slow = is_slow or (claim.__name__ in LONGER and name not in QUICK)
        marks = pytest.mark.slow if is_slow else pytest.mark.long if is_long or name not in QUICK else ()
        cases.append(pytest.param(name, claim, id=f"{name}-{claim.__name__}", marks=marks))
    return cases


@pytest.mark.parametrize(("name", "claim"), claims())
def test_cell_keeps_the_claim(name, claim):
    try:
        claim(CELLS[name])
    except UntestableError as reason:
        if claim.__name__ != "devices_agree":
            raise  # a registered cell gives all that is needed
        pytest.skip(str(reason))
    except BrokenError as reason:
        pytest.fail(f"{words(claim)}: {reason}", pytrace=False)


def test_every_cell_has_its_equations_here():
    assert set(EQUATIONS) == set(CELLS.names())


def step_cases():
    """Every cell, with its defaults and with each option changed alone."""
    return [
        pytest.param(name, options, id="-".join([name, *(f"{k}={v}" for k, v in options.items())]))
        for name, kind in CELLS.items()
        for options in variants(kind)
    ]


@pytest.mark.parametrize(("name", "options"), step_cases())
def test_step_equals_the_equations_in_numpy(name, options):
    module = drawn(made(CELLS[name], HIDDEN, **options), inputs=INPUT)
    state = reached_state(module)
    x_BI = sequences(1, inputs=INPUT)[0]
    output_BH, new_state = module(x_BI, state)
    expected_BH, expected_state = EQUATIONS[name](
        x_BI.numpy(),
        [leaf.detach().numpy() for leaf in leaves(state)],
        {key: weight.numpy() for key, weight in module.state_dict().items()},
        module.cell,
    )
    np.testing.assert_allclose(output_BH.detach().numpy(), expected_BH, rtol=0, atol=1e-10)
    for leaf, expected in zip(leaves(new_state), expected_state, strict=True):
        np.testing.assert_allclose(leaf.detach().numpy(), expected, rtol=0, atol=1e-10)


def built(name, *, hidden=HIDDEN, inputs=INPUT, seed=0, **options):
    torch.manual_seed(seed)
    return CELLS[name](hidden_size=hidden, **options).build(inputs)


def blocks(module, weight_name):
    """One block of a weight per gate."""
    return getattr(module, weight_name).detach().chunk(len(module.cell.gates))


TORCH_CELLS = {
    "basic-tanh": ("basic", {}, nn.RNNCell),
    "basic-relu": ("basic", {"nonlinearity": "relu"}, partial(nn.RNNCell, nonlinearity="relu")),
    "lstm": ("lstm", {}, nn.LSTMCell),
    "gru": ("gru", {}, nn.GRUCell),
}


def torch_twin(module, kind):
    """torch's own cell with the weights of `module`; its second bias holds what only the GRU has."""
    twin = kind(INPUT, HIDDEN).double()
    with torch.no_grad():
        twin.weight_ih.copy_(module.input_weight)
        twin.weight_hh.copy_(module.recurrent_weight)
        twin.bias_ih.copy_(module.bias)
        twin.bias_hh.zero_()
        if hasattr(module, "candidate_bias"):
            twin.bias_hh[-HIDDEN:].copy_(module.candidate_bias)
    return twin


@pytest.mark.parametrize("case", TORCH_CELLS)
def test_outputs_and_gradients_equal_those_of_torch(case):
    name, options, kind = TORCH_CELLS[case]
    module = drawn(CELLS[name](hidden_size=HIDDEN, **options), inputs=INPUT)
    twin = torch_twin(module, kind)
    x_BI = torch.randn(BATCH, INPUT, dtype=torch.float64, requires_grad=True)
    state = reached_state(module, BATCH)
    ours = leaves(module(x_BI, state)[1])
    twin_state = leaves(state) if len(leaves(state)) > 1 else leaves(state)[0]
    theirs = leaves(twin(x_BI, twin_state))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)

    probes = [torch.randn_like(leaf) for leaf in ours]
    our_weights = [module.input_weight, module.recurrent_weight, module.bias]
    their_weights = [twin.weight_ih, twin.weight_hh, twin.bias_ih]
    sources = [x_BI, *leaves(state)]
    our_gradients = torch.autograd.grad(ours, sources + our_weights, probes, retain_graph=True)
    their_gradients = torch.autograd.grad(theirs, sources + their_weights, probes, retain_graph=True)
    torch.testing.assert_close(our_gradients, their_gradients, rtol=0, atol=1e-12)
    if name == "gru":
        (our_gradient,) = torch.autograd.grad(ours, module.candidate_bias, probes)
        (their_gradient,) = torch.autograd.grad(theirs, twin.bias_hh, probes)
        torch.testing.assert_close(our_gradient, their_gradient[-HIDDEN:], rtol=0, atol=1e-12)


# Facts


def test_name_cannot_be_changed():
    for name, kind in CELLS.items():
        with pytest.raises(ConfigError, match=f"'{name}' cannot be changed to 'other'"):
            kind(name="other")


def test_cell_says_what_it_is_and_where_it_comes_from():
    for name, kind in CELLS.items():
        assert kind().name == name
        assert kind.family in FAMILIES[:-1], name
        assert kind.paper.url.startswith("https://"), name
        assert all(0 < figure.accuracy < 100 and figure.source for figure in kind.published), name
        summary, _, rest = kind.__doc__.partition("\n")
        assert summary.endswith("."), name
        assert len(summary) <= 80, name
        assert " = " in rest, name


# Initialisation, gate by gate


def uniform_limit(kind, rows, columns, *, inputs, hidden, gates):
    limits = {
        "glorot": math.sqrt(6 / (rows + columns)),
        "torch": 1 / math.sqrt(hidden),
        "tensorflow1": math.sqrt(6 / (inputs + hidden + gates * hidden)),
    }
    return limits[kind]


UNIFORM = ("glorot", "torch", "tensorflow1")


def test_every_initialiser_has_a_claim_here():
    assert {*INPUT_INITS, *RECURRENT_INITS} == {*UNIFORM, "orthogonal", "identity", "gaussian"}


@pytest.mark.parametrize("name", GATED)
def test_gaussian_weights_are_tiny_as_those_of_the_irnn(name):
    for block in blocks(built(name, hidden=60, inputs=20, input_init="gaussian"), "input_weight"):
        assert block.std() == pytest.approx(0.001, rel=0.1)
        assert block.mean() == pytest.approx(0, abs=0.0002)


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("kind", UNIFORM)
def test_uniform_weights_fill_their_limits_in_every_gate(name, kind):
    hidden, inputs = 60, 20
    module = built(name, hidden=hidden, inputs=inputs, input_init=kind, recurrent_init=kind)
    for block in (*blocks(module, "input_weight"), *blocks(module, "recurrent_weight")):
        limit = uniform_limit(kind, *block.shape, inputs=inputs, hidden=hidden, gates=len(module.cell.gates))
        assert block.abs().max() <= limit
        assert block.abs().max() > 0.98 * limit
        assert block.var() == pytest.approx(limit**2 / 3, rel=0.1)
        assert block.mean() == pytest.approx(0, abs=0.05 * limit)


@pytest.mark.parametrize("name", GATED)
def test_orthogonal_blocks_have_singular_values_of_one(name):
    for inputs in (2, HIDDEN, 9):
        module = built(name, inputs=inputs, input_init="orthogonal", recurrent_init="orthogonal")
        for block in (*blocks(module, "input_weight"), *blocks(module, "recurrent_weight")):
            torch.testing.assert_close(torch.linalg.svdvals(block), torch.ones(min(block.shape)))


@pytest.mark.parametrize("name", GATED)
def test_identity_blocks_are_the_identity(name):
    module = built(name, recurrent_init="identity")
    for block in blocks(module, "recurrent_weight"):
        assert torch.equal(block, torch.eye(HIDDEN))


@pytest.mark.parametrize("name", GATED)
def test_gates_are_drawn_independently(name):
    module = built(name)
    for weight_name in ("input_weight", "recurrent_weight"):
        for one, other in combinations(blocks(module, weight_name), 2):
            assert not torch.equal(one, other)


FORGET = {"lstm": "f", "peephole": "f", "lnlstm": "f", "ugrnn": "g"}  # the gate that keeps the state
SPREAD = {"urlstm": "fr", "urgru": "fr", "slstm": "f"}  # gates that start at all time scales


@pytest.mark.parametrize("name", GATED)
def test_biases_start_at_zero_but_for_the_gates_that_keep_the_state(name):
    module = built(name)
    for gate, block in zip(module.cell.gates, blocks(module, "bias"), strict=True):
        if gate == FORGET.get(name):
            assert torch.equal(block, torch.ones(HIDDEN))
        elif gate not in SPREAD.get(name, ""):
            assert not block.any()


def test_forget_gates_of_each_head_of_the_slstm_fall_from_5_to_minus_7():
    _, f, _, _ = blocks(built("slstm", hidden=12, heads=2), "bias")
    for head in f.chunk(2):
        assert head[0] == 5
        assert head[-1] == pytest.approx(-7)
        assert (head.diff() < 0).all()


@pytest.mark.parametrize("name", ["urlstm", "urgru"])
def test_refined_gates_start_uniform_and_opposite(name):
    module = built(name, hidden=2000, recurrent_init="torch")
    f, r = blocks(module, "bias")[:2]
    assert torch.equal(r, -f)
    shares = f.sigmoid()
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / 12, rel=0.05)
    assert 1 / 2000 - 1e-6 <= shares.min() <= shares.max() <= 1 - 1 / 2000 + 1e-6


@pytest.mark.long
def test_chrono_spreads_the_forget_gate_over_the_time_scales():
    i, f, g, o = blocks(built("lstm", hidden=4000, recurrent_init="torch", chrono=101), "bias")
    assert torch.equal(i, -f)
    assert not torch.cat([g, o]).any()
    steps = f.exp()  # uniform in [1, 100]
    assert 1 <= steps.min() <= steps.max() <= 100 * (1 + 1e-6)
    assert steps.mean() == pytest.approx(50.5, rel=0.03)
    assert steps.var() == pytest.approx(99**2 / 12, rel=0.05)


def test_forget_bias_is_in_the_forget_gate_only():
    i, f, g, o = blocks(built("lstm", forget_bias=2.5), "bias")
    assert torch.equal(f, torch.full((HIDDEN,), 2.5))
    assert not torch.cat([i, g, o]).any()


def spectral_radius(weight_HH):
    return torch.linalg.eigvals(weight_HH).abs().max().item()


@pytest.mark.parametrize("seed", range(3))
def test_torch_weights_of_150_units_have_a_spectral_radius_near_0_6(seed):
    module = built("basic", hidden=150, recurrent_init="torch", seed=seed)
    assert spectral_radius(module.recurrent_weight.detach()) == pytest.approx(0.6, abs=0.06)


@pytest.mark.parametrize("name", GATED)
def test_orthogonal_weights_have_only_eigenvalues_of_length_one(name):
    module = built(name, hidden=50, recurrent_init="orthogonal")
    for block in blocks(module, "recurrent_weight"):
        torch.testing.assert_close(torch.linalg.eigvals(block).abs(), torch.ones(50))


# Building


@pytest.mark.parametrize("shape", [(BATCH, INPUT + 1), (INPUT,), (STEPS, BATCH, INPUT)])
def test_wrong_input_shape_is_named(shape):
    module = built("basic")
    with pytest.raises(ValueError, match="x must have shape") as caught:
        module(torch.randn(shape))
    assert f"(batch, {INPUT})" in str(caught.value)
    assert f"got {shape}" in str(caught.value)


@pytest.mark.parametrize("name", LINEAR)
def test_between_steps_a_linear_state_is_rows_of_real_numbers(name):
    module = drawn(made(CELLS[name]), inputs=INPUT)
    cell, state = module.cell, reached_state(module, BATCH)
    for part in leaves(state):
        assert part.dtype == torch.float64
        assert part.ndim == 2
    rows = leaves(state)[0]
    h = cell.from_rows(rows)
    assert h.shape == (BATCH, *cell.state_shape)
    assert h.is_complex() == cell.complex_state
    assert torch.equal(cell.to_rows(h), rows)
