"""LMU and ESN hold their input and forget it as they promise.

Shapes: T time, D memory. What a step does is in tests/equations.
"""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import legval

from rnnclf.cells.esn import ESN
from rnnclf.cells.lmu import LMU
from rnnclf.engine.unrolling import unroll
from rnnclf.model import SequenceClassifier
from tests.cells.structured_cells import INPUT, built, expect_uniform, learn, noise, put, weights_of
from tests.equations.structured import legendre_window
from tests.pairwise import pairwise

# LMU


@pytest.mark.long
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


@pytest.mark.parametrize(
    ("hidden", "radius", "density"), pairwise((1, 2, 7, 100), (0.3, 0.99, 1.5), (0.01, 0.2, 1.0))
)
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
