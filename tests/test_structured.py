"""Cells whose matrices or oscillations are made to last keep, bound or forget what they promise.

Shapes: T time, B batch, I inputs, H hidden, D memory. What a step does is in tests/equations.
"""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import legval
from scipy.stats import kstest
from torch.autograd.functional import jacobian

from rnnclf.cells.antisym import AntisymmetricRNN
from rnnclf.cells.cornn import CoRNN, CoRNNState
from rnnclf.cells.esn import ESN
from rnnclf.cells.exprnn import ExpRNN
from rnnclf.cells.indrnn import IndRNN
from rnnclf.cells.lem import LEM, LEMState
from rnnclf.cells.lipschitz import LipschitzRNN
from rnnclf.cells.lmu import LMU
from rnnclf.cells.unicornn import UnICORNN, UnICORNNState
from rnnclf.conformance import drawn, reached_state, sequences
from rnnclf.engine.unrolling import unroll
from rnnclf.model import SequenceClassifier
from tests.equations.dynamical import above_diagonal
from tests.equations.structured import legendre_window, rotation

INPUT, HIDDEN = 3, 6


def built(kind, *, hidden=HIDDEN, inputs=INPUT, seed=0, **options):
    """A cell with the weights it starts with, in double precision."""
    torch.manual_seed(seed)
    return kind(hidden_size=hidden, **options).build(inputs).double()


def put(module, **weights):
    """Gives each weight one value everywhere, or those of a tensor."""
    with torch.no_grad():
        for name, value in weights.items():
            weight = getattr(module, name)
            weight.copy_(torch.as_tensor(value, dtype=weight.dtype).expand_as(weight))
    return module


def weights_of(module):
    return {name: weight.numpy() for name, weight in module.state_dict().items()}


def recurrence(module, h_H=None, x_I=None):
    """What one step makes of small changes of the state: dh_t / dh_{t-1}, without input from zero."""
    h_H = torch.zeros(module.cell.hidden_size, dtype=torch.float64) if h_H is None else h_H
    x_I = torch.zeros(module.input_size, dtype=torch.float64) if x_I is None else x_I
    return jacobian(lambda h: module(x_I[None], h[None])[0][0], h_H).numpy()


def expect_uniform(values, low, high):
    values = np.ravel(values)
    assert low - 1e-6 <= values.min() <= values.max() <= high + 1e-6
    assert kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-3


def expect_normal(values, std):
    assert kstest(np.ravel(values), "norm", args=(0, std)).pvalue > 1e-3


# ExpRNN


def learn(model, steps, lr):
    """Some steps of Adam on sequences of noise with arbitrary classes."""
    x_BTI = sequences(9, 8, INPUT, next(model.parameters()).dtype).transpose(0, 1)
    y_B = torch.arange(8) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x_BTI), y_B).backward()
        optimizer.step()


def turning(module):
    """Q. Without a bias modrelu changes nothing, so that the step is Q alone."""
    somewhere_H = torch.randn(module.cell.hidden_size, dtype=torch.float64)  # not 0, where it has a corner
    return recurrence(put(module, bias=0), somewhere_H)


@pytest.mark.parametrize("hidden", [1, 2, 5, 40])
@pytest.mark.parametrize("init", ["cayley", "henaff"])
def test_exprnn_is_orthogonal_at_the_start_and_after_learning(hidden, init):
    torch.manual_seed(0)
    model = SequenceClassifier(ExpRNN(hidden_size=hidden, init=init), INPUT, 3).double()
    (module,) = (part for part in model.modules() if hasattr(part, "cell"))
    before = module.skew.detach().clone()
    for steps in (0, 5):
        learn(model, steps, lr=0.3)
        q = turning(module)
        np.testing.assert_allclose(q @ q.T, np.eye(hidden), rtol=0, atol=1e-12)
        np.testing.assert_allclose(q, rotation(weights_of(module), hidden), rtol=0, atol=1e-12)
        assert np.linalg.det(q) == pytest.approx(1)
    assert hidden == 1 or (module.skew - before).abs().max() > 0.1


def gradient_norms(module, steps):
    """Of the gradient of one probe of the last state, by the state at the start and by the last one."""
    h_BH = torch.randn(4, module.cell.hidden_size, dtype=torch.float64).requires_grad_()
    probe_BH = torch.randn_like(h_BH)
    last_BH = unroll(module, sequences(steps, 4, INPUT), h_BH)[1]
    gradient_BH = torch.autograd.grad(last_BH, h_BH, probe_BH)[0]
    return gradient_BH.norm(dim=1), probe_BH.norm(dim=1)


def test_exprnn_without_bias_keeps_the_length_of_gradients_over_500_steps():
    first_B, last_B = gradient_norms(put(built(ExpRNN, hidden=20), bias=0), 500)
    torch.testing.assert_close(first_B, last_B, rtol=1e-10, atol=0)


@pytest.mark.parametrize("bias", [-0.5, -0.01, 0.01, 0.5])
def test_exprnn_never_lengthens_gradients(bias):
    first_B, last_B = gradient_norms(put(built(ExpRNN, hidden=20), bias=bias), 100)
    assert (first_B <= last_B * (1 + 1e-10)).all()


@pytest.mark.parametrize("hidden", [1000, 1001])
@pytest.mark.parametrize("init", ["cayley", "henaff"])
def test_exprnn_starts_with_blocks_that_rotate_by_their_angles(hidden, init):
    skew = above_diagonal(weights_of(built(ExpRNN, hidden=hidden, init=init))["skew"], hidden)
    first = np.arange(0, hidden - 1, 2)
    angles = skew[first, first + 1].copy()
    skew[first, first + 1] = 0
    assert not skew.any()
    if init == "henaff":
        expect_uniform(angles, -math.pi, math.pi)
    else:
        expect_uniform(np.arctan(-angles) * 2, 0, math.pi / 2)


@pytest.mark.parametrize("init", ["cayley", "henaff"])
def test_exprnn_turns_pairs_of_units_at_the_start(init):
    module = built(ExpRNN, hidden=5, init=init)
    s, _, _, _, _, _, _, t, _, _ = module.skew.tolist()  # in rows of 4, 3, 2, 1: of (0, 1) and (2, 3)
    expected = np.zeros((5, 5))
    expected[:2, :2] = [[math.cos(s), math.sin(s)], [-math.sin(s), math.cos(s)]]
    expected[2:4, 2:4] = [[math.cos(t), math.sin(t)], [-math.sin(t), math.cos(t)]]
    expected[4, 4] = 1
    np.testing.assert_allclose(turning(module), expected, rtol=0, atol=1e-12)


# AntisymmetricRNN


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("gamma", "epsilon"), [(0.0, 1.0), (0.01, 0.1), (2.0, 0.05)])
def test_antisym_flows_by_a_skew_matrix_less_gamma(gated, gamma, epsilon):
    module = put(built(AntisymmetricRNN, gated=gated, gamma=gamma, epsilon=epsilon), bias=0)
    openness = 0.5 if gated else 1  # of the gate at zero, where tanh is the identity
    a = (recurrence(module) - np.eye(HIDDEN)) / (epsilon * openness)
    np.testing.assert_allclose((a + a.T) / 2, -gamma * np.eye(HIDDEN), rtol=0, atol=1e-10)
    upper = above_diagonal(weights_of(module)["skew_weight"], HIDDEN)
    np.testing.assert_allclose((a - a.T) / 2, upper - upper.T, rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.linalg.eigvals(a).real, -gamma, rtol=0, atol=1e-10)


def test_antisym_without_diffusion_has_imaginary_eigenvalues_in_every_state():
    module = drawn(AntisymmetricRNN(hidden_size=HIDDEN, gamma=0.0), inputs=INPUT)
    for seed in range(5):
        torch.manual_seed(seed)
        h_H, x_I = torch.randn(HIDDEN, dtype=torch.float64), torch.randn(INPUT, dtype=torch.float64)
        eigenvalues = np.linalg.eigvals(recurrence(module, h_H, x_I) - np.eye(HIDDEN))
        np.testing.assert_allclose(eigenvalues.real, 0, rtol=0, atol=1e-12)
        assert np.abs(eigenvalues.imag).max() > 0.01


def test_antisym_starts_with_the_variances_of_the_paper():
    weights = weights_of(built(AntisymmetricRNN, hidden=100, inputs=50))
    expect_normal(weights["skew_weight"], math.sqrt(2 / 100))  # of the difference of two, 1/100 each
    expect_normal(weights["input_weight"], math.sqrt(1 / 50))


# Lipschitz RNN


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.75, 1.0])
def test_lipschitz_matrices_go_from_symmetric_to_skew_less_gamma(beta):
    gammas = {"linear_weight": 0.3, "recurrent_weight": 0.05}
    options = {"beta": beta, "gamma_a": 0.3, "gamma_w": 0.05, "epsilon": 0.2}
    module = drawn(LipschitzRNN(hidden_size=HIDDEN, **options), inputs=INPUT)
    saturated = recurrence(put(module, bias=1000))  # a flat tanh: A alone is left
    linear = recurrence(put(module, bias=0))  # at zero tanh is the identity
    matrices = {
        "linear_weight": (saturated - np.eye(HIDDEN)) / 0.2,
        "recurrent_weight": (linear - saturated) / 0.2,
    }
    for name, matrix in matrices.items():
        stored, gamma = weights_of(module)[name], gammas[name]
        symmetric, skew = (matrix + matrix.T) / 2, (matrix - matrix.T) / 2
        expected = (1 - beta) * (stored + stored.T) - gamma * np.eye(HIDDEN)
        np.testing.assert_allclose(symmetric, expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(skew, beta * (stored - stored.T), rtol=0, atol=1e-10)
        eigenvalues, limits = np.linalg.eigvals(matrix), np.linalg.eigvalsh(symmetric)
        assert limits[0] - 1e-10 <= eigenvalues.real.min() <= eigenvalues.real.max() <= limits[-1] + 1e-10
        if beta == 0:
            np.testing.assert_allclose(eigenvalues.imag, 0, rtol=0, atol=1e-10)
        if beta == 1:
            np.testing.assert_allclose(eigenvalues.real, -gamma, rtol=0, atol=1e-10)


def test_lipschitz_starts_with_normal_matrices_of_a_tenth_over_hidden():
    weights = weights_of(built(LipschitzRNN, hidden=60))
    expect_normal(weights["linear_weight"], 0.1 / 60)
    expect_normal(weights["recurrent_weight"], 0.1 / 60)


# IndRNN


@pytest.mark.parametrize("max_steps", [1, 10, 784])
@pytest.mark.parametrize("weight", [5.0, -5.0])
def test_indrnn_at_most_doubles_its_state_and_gradient_over_max_steps(max_steps, weight):
    module = put(built(IndRNN, max_steps=max_steps), recurrent_weight=weight, bias=0)
    h_BH = torch.rand(2, HIDDEN, dtype=torch.float64).requires_grad_()
    x_TBI = torch.zeros(max_steps, 2, INPUT, dtype=torch.float64)
    last_BH = unroll(module, x_TBI, h_BH)[1]
    torch.testing.assert_close(last_BH, 2 * h_BH if weight > 0 else 0 * h_BH, rtol=1e-10, atol=0)
    gradient_BH, of_weight_H = torch.autograd.grad(last_BH.sum(), [h_BH, module.recurrent_weight])
    assert gradient_BH.abs().max() <= 2 * (1 + 1e-10)
    assert not of_weight_H.any()


@pytest.mark.parametrize("share", [-0.99, 0.5, 0.99])
def test_indrnn_weights_within_the_bound_are_used_as_they_are_and_learn(share):
    module = built(IndRNN, max_steps=10, nonlinearity="tanh")
    put(module, recurrent_weight=share * 2**0.1, bias=0)
    np.testing.assert_allclose(recurrence(module), share * 2**0.1 * np.eye(HIDDEN), rtol=0, atol=1e-12)
    torch.autograd.backward(unroll(module, sequences(5, inputs=INPUT))[0].sum())
    assert module.recurrent_weight.grad.all()


@pytest.mark.parametrize(("init", "low"), [("long", 2**-0.1), ("mixed", 0)])
def test_indrnn_starts_within_its_bound(init, low):
    weights = weights_of(built(IndRNN, hidden=2000, recurrent_init=init, max_steps=10))
    expect_uniform(weights["recurrent_weight"], low, 2**0.1)


@pytest.mark.parametrize("kind", [IndRNN, UnICORNN])
def test_units_see_only_their_own_past(kind):
    module = drawn(kind(hidden_size=HIDDEN), inputs=INPUT)
    x_BI, state = sequences(1, 1, INPUT)[0], reached_state(module, batch=1)
    parts = (state,) if kind is IndRNN else tuple(state)

    def output(*parts):
        return module(x_BI, parts[0] if kind is IndRNN else UnICORNNState(*parts))[0]

    for by_part in jacobian(output, parts):
        matrix = by_part[0, :, 0]
        assert torch.equal(matrix, torch.diag(matrix.diagonal()))


# Oscillators


def noise(steps, seed=0):
    """Inputs in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(steps, 1, INPUT, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("seed", range(3))
def test_cornn_stays_within_the_gain_of_its_oscillators_over_2000_steps(seed):
    module, cell = built(CoRNN, hidden=30, seed=seed), CoRNN()
    y, z = 0.0, cell.dt  # after a force of 1 for one step
    responses = []
    for _ in range(2000):
        y += cell.dt * z
        responses.append(y)
        z += cell.dt * (-cell.gamma * y - cell.epsilon * z)
    gain = np.abs(responses).sum()  # of forces between -1 and 1, as those of a tanh are
    assert gain < 4
    assert np.abs(responses[-1000:]).max() < 1e-12
    with torch.no_grad():
        y_TBH = unroll(module, noise(2000, seed))[0]
    assert 0.1 < y_TBH.abs().max() <= gain


@pytest.mark.parametrize("seed", range(3))
def test_unicornn_stays_bounded_over_2000_steps(seed):
    with torch.no_grad():
        y_TBH = unroll(built(UnICORNN, hidden=30, seed=seed), noise(2000, seed))[0]
    assert 0.5 < y_TBH.abs().max() < 10


def test_unicornn_left_alone_swings_as_far_after_2000_steps_as_at_first():
    module = built(UnICORNN, hidden=30)
    with torch.no_grad():
        _, state = unroll(module, noise(50))
        y_TBH = unroll(module, torch.zeros(2000, 1, INPUT, dtype=torch.float64), state)[0]
    first_H, last_H = (part.abs().amax(dim=(0, 1)) for part in y_TBH.split(1000))
    torch.testing.assert_close(last_H, first_H, rtol=0.05, atol=0)


def test_unicornn_can_be_run_backwards_over_2000_steps():
    module = drawn(UnICORNN(hidden_size=HIDDEN), inputs=INPUT)
    weights, x_TI = weights_of(module), noise(2000)[:, 0].numpy()
    with torch.no_grad():
        _, state = unroll(module, noise(2000))
    y, z = state.y[0].numpy(), state.z[0].numpy()
    s = module.cell.dt / (1 + np.exp(-weights["step_weight"]))
    assert np.abs(y).max() > 0.1
    for x_I in x_TI[::-1]:
        y = y - s * z
        force = np.tanh(weights["recurrent_weight"] * y + weights["input_weight"] @ x_I + weights["bias"])
        z = z + s * (force + module.cell.alpha * y)
    np.testing.assert_allclose(np.stack([y, z]), 0, rtol=0, atol=1e-8)


def step_of_both(kind, state_type):
    """The change of a unit's position and velocity by both before the step, (2, 2)."""
    module = drawn(kind(hidden_size=1), inputs=INPUT)
    x_BI, state = sequences(1, 1, INPUT)[0], reached_state(module, batch=1)

    def after(y, z):
        return torch.cat(list(module(x_BI, state_type(y, z))[1]))[:, 0]

    return torch.cat([part[:, 0] for part in jacobian(after, tuple(state))], dim=1)


def test_unicornn_keeps_volumes_and_cornn_shrinks_them():
    assert torch.det(step_of_both(UnICORNN, UnICORNNState)).item() == pytest.approx(1)
    assert abs(torch.det(step_of_both(CoRNN, CoRNNState)).item()) < 1


# LEM


def strong_lem(dt):
    """A LEM with weights far from where they start, so that gates come near their ends."""
    module = built(LEM, hidden=20, dt=dt)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(0, 0.7)
    return module


@pytest.mark.parametrize("dt", [0.01, 0.21, 1.0, 2.0])
def test_lem_time_steps_are_above_zero_and_at_most_dt(dt):
    module = strong_lem(dt)
    _, _, z_rows, y_rows = torch.arange(80).split(20)
    with torch.no_grad():
        for rows in (z_rows, y_rows):
            module.bias[rows] = 1000  # what z and y move towards is 1 whatever the input
        y_BH, z_BH = torch.rand(2, 50, 20, dtype=torch.float64) * 2 - 2
        y_after_BH, state = module(sequences(1, 50, INPUT)[0], LEMState(y_BH, z_BH))
    for before_BH, after_BH in ((y_BH, y_after_BH), (z_BH, state.z)):
        step_BH = (after_BH - before_BH) / (1 - before_BH)
        assert 0 < step_BH.min() < 0.1 * dt
        assert 0.9 * dt < step_BH.max() <= dt * (1 + 1e-12)


@pytest.mark.parametrize("dt", [0.01, 0.21, 1.0])
def test_lem_states_stay_between_minus_one_and_one(dt):
    with torch.no_grad():
        y_TBH, state = unroll(strong_lem(dt), 10 * noise(2000))
    assert 0.5 < y_TBH.abs().max() <= 1 + 1e-12
    assert state.z.abs().max() <= 1 + 1e-12


# LMU


@pytest.mark.parametrize(
    ("size", "theta"), [(1, 1.0), (1, 10.0), (4, 2.5), (32, 28.0), (32, 1.0), (32, 1e6), (256, 784.0)]
)
def test_lmu_holds_its_input_over_each_step(size, theta):
    keep, take = legendre_window(size, theta)
    cell = LMU(memory_size=size, theta=theta)
    held = cell.held().numpy()
    np.testing.assert_allclose(held, np.column_stack([keep, take]), rtol=0, atol=1e-11)
    stored = cell.build(INPUT)
    np.testing.assert_allclose(stored.memory_decay.numpy(), keep, rtol=0, atol=1e-6)
    np.testing.assert_allclose(stored.memory_input.numpy(), take, rtol=1e-5, atol=1e-7)
    assert np.abs(np.linalg.eigvals(stored.memory_decay.double().numpy())).max() < 1


def memories(size, theta, u_T):
    """The memory after each step that takes u and nothing else."""
    module = built(LMU, inputs=1, memory_size=size, theta=theta)
    put(module, input_encoder=1, hidden_encoder=0, memory_encoder=0)
    state, memory_TD = None, []
    with torch.no_grad():
        for u in u_T:
            _, state = module(torch.full((1, 1), u, dtype=torch.float64), state)
            memory_TD.append(state.m[0].numpy())
    return np.stack(memory_TD)


@pytest.mark.parametrize(
    ("size", "theta", "tolerance"), [(8, 28, 0.05), (32, 28, 0.03), (12, 100, 0.01), (32, 200, 0.005)]
)
def test_lmu_memory_holds_the_window_as_legendre_polynomials(size, theta, tolerance):
    turns = 2 * math.pi * np.arange(5 * theta) / theta
    u_T = np.sin(turns) + 0.5 * np.cos(1.7 * turns + 1)
    memory_TD = memories(size, theta, u_T)
    for delay in (0, theta // 4, theta // 2, 3 * theta // 4, theta - 1):
        age = (delay + 0.5) / theta  # the middle of a step over which u is held
        decoded_T = legval(2 * age - 1, memory_TD.T)
        error_T = decoded_T[2 * theta :] - u_T[2 * theta - delay : len(u_T) - delay]
        assert np.sqrt((error_T**2).mean()) < tolerance * u_T.std()


def test_lmu_forgets_what_is_older_than_its_window():
    theta = 28
    memory_TD = memories(32, theta, np.eye(4 * theta)[0])  # 1, then zeros
    size_T = np.abs(memory_TD).max(axis=1)
    assert size_T[theta // 2] > 0.5 * size_T[0]
    assert size_T[2 * theta] < 1e-4 * size_T[0]


def test_lmu_fixed_matrices_are_saved_but_not_trained():
    module = built(LMU)
    fixed = {"memory_decay", "memory_input"}
    assert fixed == set(module.state_dict()) - {name for name, _ in module.named_parameters()}


# ESN


@pytest.mark.parametrize("hidden", [1, 2, 7, 100])
@pytest.mark.parametrize("radius", [0.3, 0.99, 1.5])
@pytest.mark.parametrize("density", [0.01, 0.2, 1.0])
def test_esn_has_the_spectral_radius_and_density_asked_for(hidden, radius, density):
    weights = weights_of(built(ESN, hidden=hidden, spectral_radius=radius, density=density))
    reservoir = weights["recurrent_weight"]
    assert np.abs(np.linalg.eigvals(reservoir)).max() == pytest.approx(radius, rel=1e-5)
    assert ((reservoir != 0).sum(axis=1) == math.ceil(density * hidden)).all()


def test_esn_reservoir_is_uniform_and_anywhere():
    reservoir = weights_of(built(ESN, hidden=200, density=0.3))["recurrent_weight"]
    seen = reservoir[reservoir != 0]
    expect_uniform(seen / np.abs(seen).max(), -1, 1)
    columns = (reservoir != 0).sum(axis=0)  # how many units each unit is seen by
    assert columns.mean() == pytest.approx(60)
    assert 0.5 < columns.var() / (200 * 0.3 * 0.7) < 1.5


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_esn_input_weights_and_biases_are_uniform_up_to_the_scale(scale):
    weights = weights_of(built(ESN, hidden=500, input_scale=scale))
    expect_uniform(weights["input_weight"], -scale, scale)
    expect_uniform(weights["bias"], -scale, scale)


def test_esn_learns_in_the_head_alone():
    assert not list(built(ESN).parameters())
    torch.manual_seed(0)
    model = SequenceClassifier(ESN(hidden_size=20), INPUT, 3)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    learn(model, 5, lr=0.1)
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {name for name, _ in model.named_parameters()}
    cells = [name for name in before if name.endswith(("input_weight", "recurrent_weight"))]
    assert len(cells) == 2
    assert not changed & set(cells)
    assert len(changed) == 2  # weight and bias of the head


def test_esn_forgets_where_it_started():
    module = built(ESN, hidden=100, spectral_radius=0.5)
    h_BH = torch.rand(2, 100, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        y_TBH = unroll(module, noise(300).expand(-1, 2, -1), h_BH)[0]
    assert (y_TBH[0, 0] - y_TBH[0, 1]).abs().max() > 0.1
    assert (y_TBH[-1, 0] - y_TBH[-1, 1]).abs().max() < 1e-10
