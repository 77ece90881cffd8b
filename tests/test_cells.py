"""Every cell keeps the same promises: equations, initialisation, gradients, causality."""

import math
from dataclasses import fields
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from rnnclf.cells import CELLS, GatedCell, Parameters
from rnnclf.cells.initializers import INPUT_INITS, RECURRENT_INITS
from rnnclf.engine import unroll
from rnnclf.errors import ConfigError

BATCH, STEPS, INPUT, HIDDEN = 4, 7, 3, 5

GATED = [name for name, kind in CELLS.items() if issubclass(kind, GatedCell)]


def built(name, *, hidden=HIDDEN, inputs=INPUT, seed=0, **options):
    torch.manual_seed(seed)
    return CELLS[name](hidden_size=hidden, **options).build(inputs)


def randomised(name, **options):
    """The cell in float64, with biases that are not zero either."""
    module = built(name, **options).double()
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(std=0.7)
    return module


def leaves(state):
    """The tensors of a state, in order."""
    return [state] if isinstance(state, torch.Tensor) else [leaf for part in state for leaf in leaves(part)]


def with_leaves(state, new):
    """A state of the same kind that holds the tensors of the iterator `new`."""
    if isinstance(state, torch.Tensor):
        return next(new)
    return type(state)(*(with_leaves(part, new) for part in state))


def random_state(module, x_BI):
    """A state that is not zero, of tensors that ask for gradients."""
    zero = module.initial_state(x_BI)
    return with_leaves(zero, (torch.randn_like(leaf).requires_grad_() for leaf in leaves(zero)))


def blocks(module, weight_name):
    """One block of a weight per gate."""
    return getattr(module, weight_name).detach().chunk(len(module.cell.gates))


# The equations of the papers once more, gate by gate, in NumPy: (x, state, weights, cell) → (output, state)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def gate_rows(weights, index):
    rows = slice(index * HIDDEN, (index + 1) * HIDDEN)
    return weights["input_weight"][rows], weights["recurrent_weight"][rows], weights["bias"][rows]


def affine(x, h, weights, index):
    w, u, b = gate_rows(weights, index)
    return x @ w.T + h @ u.T + b


def basic_equations(x, state, weights, cell):
    a = affine(x, state[0], weights, 0)
    h = np.tanh(a) if cell.nonlinearity == "tanh" else np.maximum(a, 0)
    return h, [h]


def lstm_equations(x, state, weights, cell):
    h, c = state
    i = sigmoid(affine(x, h, weights, 0))
    f = sigmoid(affine(x, h, weights, 1))
    g = np.tanh(affine(x, h, weights, 2))
    o = sigmoid(affine(x, h, weights, 3))
    c = f * c + i * g
    h = o * np.tanh(c)
    return h, [h, c]


def gru_equations(x, state, weights, cell):
    h = state[0]
    r = sigmoid(affine(x, h, weights, 0))
    z = sigmoid(affine(x, h, weights, 1))
    w, u, b = gate_rows(weights, 2)
    n = np.tanh(x @ w.T + b + r * (h @ u.T + weights["candidate_bias"]))
    h = (1 - z) * n + z * h
    return h, [h]


EQUATIONS = {"basic": basic_equations, "lstm": lstm_equations, "gru": gru_equations}


def test_every_cell_has_its_equations_here():
    assert set(EQUATIONS) == set(CELLS.names())


def step_cases():
    """Every cell with each choice of its own words that change the step."""
    shared = {field.name for field in fields(GatedCell)}
    cases = [(name, {}) for name in CELLS.names()]
    for name, kind in CELLS.items():
        own = [field for field in fields(kind) if field.name not in shared and field.metadata.get("choices")]
        cases += [(name, {field.name: c}) for field in own for c in field.metadata["choices"][1:]]
    return cases


@pytest.mark.parametrize(("name", "options"), step_cases())
def test_step_equals_the_equations_in_numpy(name, options):
    module = randomised(name, **options)
    x_BI = torch.randn(BATCH, INPUT, dtype=torch.float64)
    state = random_state(module, x_BI)
    output_BH, new_state = module(x_BI, state)
    expected_BH, expected_state = EQUATIONS[name](
        x_BI.numpy(),
        [leaf.detach().numpy() for leaf in leaves(state)],
        {key: weight.detach().numpy() for key, weight in module.named_parameters()},
        module.cell,
    )
    np.testing.assert_allclose(output_BH.detach().numpy(), expected_BH, rtol=0, atol=1e-10)
    for leaf, expected in zip(leaves(new_state), expected_state, strict=True):
        np.testing.assert_allclose(leaf.detach().numpy(), expected, rtol=0, atol=1e-10)


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
    module = randomised(name, **options)
    twin = torch_twin(module, kind)
    x_BI = torch.randn(BATCH, INPUT, dtype=torch.float64, requires_grad=True)
    state = random_state(module, x_BI)
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


@pytest.mark.parametrize("name", CELLS.names())
@pytest.mark.parametrize(("n", "h"), [(1, 1), (3, 5), (28, 10)])
def test_formula_counts_the_parameters(name, n, h):
    module = built(name, hidden=h, inputs=n)
    count = sum(weight.numel() for weight in module.parameters())
    assert eval(module.cell.formula, {}, {"n": n, "h": h}) == count


ALTERNATIVES = {"hidden_size": 7, "forget_bias": -2.0}  # where an option has no list of choices


def values_of(field):
    """All choices of an option, or its default and another value."""
    if field.metadata.get("choices"):
        return field.metadata["choices"]
    return (False, True) if field.type in (bool, "bool") else (field.default, ALTERNATIVES[field.name])


def outcome(cell):
    """The initial weights and the outputs of a few steps, in one vector."""
    torch.manual_seed(0)
    module = cell.build(INPUT)
    x_TBI = torch.randn(3, BATCH, INPUT, generator=torch.Generator().manual_seed(1))
    outputs, _ = unroll(module, x_TBI)
    return torch.cat([t.detach().flatten() for t in (*module.parameters(), *outputs)])


@pytest.mark.parametrize(
    ("name", "field"),
    [
        pytest.param(name, field, id=f"{name}.{field.name}")
        for name, kind in CELLS.items()
        for field in fields(kind)
        if field.name != "name"
    ],
)
def test_every_value_of_every_option_builds_another_cell(name, field):
    values = values_of(field)
    assert len(values) > 1
    outcomes = {value: outcome(CELLS[name](**{field.name: value})) for value in values}
    for one, other in combinations(values, 2):
        assert not torch.equal(outcomes[one], outcomes[other]), f"{field.name}: {one} is {other}"


@pytest.mark.parametrize("name", CELLS.names())
def test_name_cannot_be_changed(name):
    with pytest.raises(ConfigError, match=f"'{name}' cannot be changed to 'other'"):
        CELLS[name](name="other")


@pytest.mark.parametrize("name", CELLS.names())
def test_registered_name_is_the_name_of_the_cell(name):
    assert CELLS[name]().name == name


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
    assert {*INPUT_INITS, *RECURRENT_INITS} == {*UNIFORM, "orthogonal", "identity"}


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("kind", UNIFORM)
@pytest.mark.parametrize("weight_name", ["input_weight", "recurrent_weight"])
def test_uniform_weights_fill_their_limits_in_every_gate(name, kind, weight_name):
    hidden, inputs = 60, 20
    module = built(name, hidden=hidden, inputs=inputs, input_init=kind, recurrent_init=kind)
    for block in blocks(module, weight_name):
        limit = uniform_limit(kind, *block.shape, inputs=inputs, hidden=hidden, gates=len(module.cell.gates))
        assert block.abs().max() <= limit
        assert block.abs().max() > 0.98 * limit
        assert block.var() == pytest.approx(limit**2 / 3, rel=0.1)
        assert block.mean() == pytest.approx(0, abs=0.05 * limit)


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("inputs", [2, HIDDEN, 9])
def test_orthogonal_blocks_have_singular_values_of_one(name, inputs):
    module = built(name, inputs=inputs, input_init="orthogonal", recurrent_init="orthogonal")
    for block in (*blocks(module, "input_weight"), *blocks(module, "recurrent_weight")):
        torch.testing.assert_close(torch.linalg.svdvals(block), torch.ones(min(block.shape)))


@pytest.mark.parametrize("name", GATED)
def test_identity_blocks_are_the_identity(name):
    module = built(name, recurrent_init="identity")
    for block in blocks(module, "recurrent_weight"):
        assert torch.equal(block, torch.eye(HIDDEN))


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("weight_name", ["input_weight", "recurrent_weight"])
def test_gates_are_drawn_independently(name, weight_name):
    for one, other in combinations(blocks(built(name), weight_name), 2):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("name", GATED)
def test_biases_start_at_zero_but_for_the_forget_gate(name):
    module = built(name)
    for key, weight in module.named_parameters():
        if weight.ndim == 1 and (name, key) != ("lstm", "bias"):
            assert not weight.any()


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


@pytest.mark.parametrize("name", CELLS.names())
def test_same_seed_gives_same_weights(name):
    one, same, other = (dict(built(name, seed=seed).named_parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


# Gradients


@pytest.mark.parametrize("name", CELLS.names())
def test_gradients_of_a_step_equal_finite_differences(name):
    module = randomised(name, hidden=3, inputs=2)
    cell, names = module.cell, [key for key, _ in module.named_parameters()]
    x_BI = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    state = random_state(module, x_BI)
    parts = len(leaves(state))

    def step(x_BI, *tensors):
        p = Parameters(**dict(zip(names, tensors[parts:], strict=True)))
        output_BH, new_state = cell.step(p, cell.inputs(p, x_BI), with_leaves(state, iter(tensors[:parts])))
        return output_BH, *leaves(new_state)

    assert torch.autograd.gradcheck(step, (x_BI, *leaves(state), *module.parameters()))


@pytest.mark.parametrize("name", CELLS.names())
def test_gradients_of_the_last_output_reach_step_one(name):
    module = built(name, hidden=20)
    x_TBI = torch.randn(30, BATCH, INPUT, requires_grad=True)
    outputs, _ = unroll(module, x_TBI)
    outputs[-1].sum().backward()
    norms_T = x_TBI.grad.flatten(1).norm(dim=1)
    assert norms_T[0] > 1e-6 * norms_T[-1] > 0


@pytest.mark.parametrize("name", CELLS.names())
def test_every_parameter_gets_a_gradient(name):
    module = built(name)
    outputs, _ = unroll(module, torch.randn(STEPS, BATCH, INPUT))
    outputs[-1].sum().backward()
    for key, weight in module.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.abs().max() > 0, key


# Time


@pytest.mark.parametrize("name", CELLS.names())
def test_later_inputs_leave_earlier_outputs_alone(name):
    module = built(name)
    x_TBI = torch.randn(STEPS, BATCH, INPUT)
    before = torch.stack(unroll(module, x_TBI)[0])
    x_TBI[4:] += 1.0
    after = torch.stack(unroll(module, x_TBI)[0])
    torch.testing.assert_close(after[:4], before[:4])
    assert (after[4:] - before[4:]).abs().amax(dim=(1, 2)).min() > 0


@pytest.mark.parametrize("name", CELLS.names())
def test_two_halves_with_the_state_handed_over_equal_the_whole(name):
    module = randomised(name)
    x_TBI = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    whole, end = unroll(module, x_TBI)
    first, middle = unroll(module, x_TBI[:3])
    second, halves_end = unroll(module, x_TBI[3:], middle)
    torch.testing.assert_close(first + second, whole)
    torch.testing.assert_close(leaves(halves_end), leaves(end))


@pytest.mark.parametrize("name", CELLS.names())
def test_unroll_equals_one_step_after_the_other(name):
    module = randomised(name)
    x_TBI = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    outputs, end = unroll(module, x_TBI)
    state = None
    for x_BI, output_BH in zip(x_TBI, outputs, strict=True):
        expected_BH, state = module(x_BI, state)
        torch.testing.assert_close(output_BH, expected_BH)
    torch.testing.assert_close(leaves(end), leaves(state))


@pytest.mark.parametrize("name", CELLS.names())
def test_output_and_state_stay_after_the_end_of_a_sequence(name):
    module = randomised(name)
    x_TBI = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    lengths = [1, 4, STEPS, 2]
    outputs, end = unroll(module, x_TBI, lengths_B=torch.tensor(lengths))
    for b, length in enumerate(lengths):
        alone, alone_end = unroll(module, x_TBI[:length, b : b + 1])
        for t in range(STEPS):
            torch.testing.assert_close(outputs[t][b : b + 1], alone[min(t, length - 1)])
        torch.testing.assert_close([leaf[b : b + 1] for leaf in leaves(end)], leaves(alone_end))


@pytest.mark.parametrize("name", CELLS.names())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_initial_state_has_a_row_per_sequence_and_the_type_of_the_input(name, dtype):
    state = built(name).initial_state(torch.randn(BATCH, INPUT, dtype=dtype))
    assert leaves(state)
    for leaf in leaves(state):
        assert len(leaf) == BATCH
        assert leaf.dtype == dtype


# Building


@pytest.mark.parametrize("name", CELLS.names())
def test_meta_device_gives_the_same_shapes(name):
    with torch.device("meta"):
        shadow = built(name)
    assert all(weight.is_meta for weight in shadow.parameters())
    shapes = {key: weight.shape for key, weight in built(name).named_parameters()}
    assert {key: weight.shape for key, weight in shadow.named_parameters()} == shapes


@pytest.mark.parametrize("name", CELLS.names())
def test_meta_device_takes_no_memory_and_draws_nothing(name):
    before = torch.get_rng_state()
    with torch.device("meta"):  # terabytes, were it real
        shadow = CELLS[name](hidden_size=1_000_000).build(INPUT)
    assert sum(weight.numel() for weight in shadow.parameters()) >= 1_000_000
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", CELLS.names())
@pytest.mark.parametrize("shape", [(BATCH, INPUT + 1), (INPUT,), (STEPS, BATCH, INPUT)])
def test_wrong_input_shape_is_named(name, shape):
    module = built(name)
    with pytest.raises(ValueError, match="x must have shape") as caught:
        module(torch.randn(shape))
    assert f"(batch, {INPUT})" in str(caught.value)
    assert f"got {shape}" in str(caught.value)
