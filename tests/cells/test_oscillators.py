"""coRNN, UnICORNN and LEM stay bounded and keep what they promise.

Shapes: I inputs, H hidden. What a step does is in tests/equations.
"""

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

from rnnclf.cells.cornn import CoRNN, CoRNNState
from rnnclf.cells.lem import LEM, LEMState
from rnnclf.cells.unicornn import UnICORNN, UnICORNNState
from rnnclf.conformance.cells import drawn, reached_state, sequences
from rnnclf.engine.unrolling import unroll
from tests.cells.structured_cells import HIDDEN, INPUT, built, noise, weights_of


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
