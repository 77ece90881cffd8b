"""Cells whose matrices or oscillations are made to last keep, bound or forget what they promise.

Shapes: T time, B batch, I inputs, H hidden, D memory. What a step does is in tests/equations.
"""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch.autograd.functional import jacobian

from rnnclf.cells.antisym import AntisymmetricRNN
from rnnclf.cells.exprnn import ExpRNN
from rnnclf.cells.indrnn import IndRNN
from rnnclf.cells.lipschitz import LipschitzRNN
from rnnclf.cells.unicornn import UnICORNN, UnICORNNState
from rnnclf.conformance.cells import drawn, reached_state, sequences
from rnnclf.engine.unrolling import unroll
from rnnclf.model import SequenceClassifier
from tests.cells.structured_cells import HIDDEN, INPUT, built, expect_uniform, learn, put, weights_of
from tests.equations.dynamical import above_diagonal
from tests.equations.structured import rotation


def recurrence(module, h_H=None, x_I=None):
    """What one step makes of small changes of the state: dh_t / dh_{t-1}, without input from zero."""
    h_H = torch.zeros(module.cell.hidden_size, dtype=torch.float64) if h_H is None else h_H
    x_I = torch.zeros(module.input_size, dtype=torch.float64) if x_I is None else x_I
    return jacobian(lambda h: module(x_I[None], h[None])[0][0], h_H).numpy()


def expect_normal(values, std):
    assert kstest(np.ravel(values), "norm", args=(0, std)).pvalue > 1e-3


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
