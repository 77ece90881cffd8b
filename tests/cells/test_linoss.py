"""LinOSS swings or fades as its paper says."""

import numpy as np
import pytest
import torch

from rnnclf.cells.linoss import LinOSS
from rnnclf.engine.unrolling import unroll
from tests.cells.state_spaces import started, wild
from tests.cells.weights import expect_uniform, weights_of
from tests.equations.common import relu, sigmoid

# LinOSS


DISCRETIZATIONS = ["imex", "implicit"]


def oscillators(module):
    weights = weights_of(module)
    return relu(weights["stiffness"]), sigmoid(weights["timestep"])


def energy(state, stiffness):
    z, y = np.split(state, 2, axis=-1)
    return z**2 + stiffness * y**2


def swung(module, steps):
    """The states of free oscillators before and after a number of steps."""
    before = torch.randn(1, 2 * module.cell.oscillators, dtype=torch.float64)
    x_TBI = torch.zeros(steps, 1, module.input_size, dtype=torch.float64)
    after = unroll(module, x_TBI, before)[1]
    return before.numpy()[0], after.detach().numpy()[0]


def test_linoss_oscillators_start_soft_with_steps_above_one_half():
    weights = started(LinOSS, hidden_size=1, state_size=4000)
    expect_uniform(weights["stiffness"], 0, 1)
    expect_uniform(weights["timestep"], 0, 1)
    dt = sigmoid(weights["timestep"])
    assert 0.5 <= dt.min() <= dt.max() <= sigmoid(1.0)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_linoss_stiffness_is_never_negative_and_steps_are_between_zero_and_one(discretization):
    module = wild(LinOSS, state_size=200, discretization=discretization)
    assert (module.stiffness < 0).any()
    transition = module.cell.transition(module.prepared()).detach().numpy()
    # Either way z becomes z - dt A y and y gets dt z, both over 1 + dt^2 A where the step is implicit.
    dt = transition[:, 1, 0] / transition[:, 0, 0]
    stiffness = -transition[:, 0, 1] / transition[:, 1, 0]
    assert ((dt > 0) & (dt < 1)).all()
    assert (stiffness >= 0).all()
    np.testing.assert_allclose(stiffness, oscillators(module)[0], atol=1e-9)
    np.testing.assert_allclose(dt, oscillators(module)[1], atol=1e-9)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_linoss_eigenvalues_have_the_lengths_of_the_paper(discretization):
    module = wild(LinOSS, state_size=200, discretization=discretization)
    stiffness, dt = oscillators(module)
    swings = (stiffness > 0.01) & (dt**2 * stiffness < 3.99)
    assert swings.sum() > 50
    lengths = np.abs(np.linalg.eigvals(module.cell.transition(module.prepared()).detach().numpy()))[swings]
    expected = 1 if discretization == "imex" else (1 + dt**2 * stiffness)[swings, None] ** -0.5
    np.testing.assert_allclose(lengths, np.broadcast_to(expected, lengths.shape), rtol=1e-9)


def test_linoss_imex_keeps_its_energy_over_a_thousand_steps():
    module = LinOSS(hidden_size=20).build(1).double()
    stiffness, dt = oscillators(module)
    # What the method keeps exactly is the energy of an oscillator a little off: z^2 + A y^2 - dt A y z.
    before, after = (
        energy(state, stiffness) - dt * stiffness * np.prod(np.split(state, 2), axis=0)
        for state in swung(module, 1000)
    )
    np.testing.assert_allclose(after, before, rtol=1e-9)


def test_linoss_implicit_loses_the_same_share_of_its_energy_at_each_step():
    module = LinOSS(hidden_size=20, discretization="implicit").build(1).double()
    stiffness, dt = oscillators(module)
    before, after = (energy(state, stiffness) for state in swung(module, 30))
    np.testing.assert_allclose(after, before * (1 + dt**2 * stiffness) ** -30.0, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 70])
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_linoss_powers_are_repeated_products_also_without_stiffness(discretization, steps):
    module = wild(LinOSS, state_size=6, discretization=discretization)
    with torch.no_grad():
        module.stiffness[:2] = torch.tensor([-1.0, 0.0])  # both eigenvalues are 1, with one eigenvector
    p = module.prepared()
    found = module.cell.powers(p, steps)
    transition = module.cell.transition(p).detach().numpy()
    expected = [np.linalg.matrix_power(transition, exponent) for exponent in range(steps)]
    np.testing.assert_allclose(found.detach().numpy(), np.stack(expected), rtol=1e-12, atol=1e-12)
    found.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in (module.stiffness, module.timestep))
