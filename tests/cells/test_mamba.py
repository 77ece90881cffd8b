"""Mamba's rates and time steps are those of its paper."""

import math

import numpy as np
import pytest
import torch

from rnnclf.cells.linear import LinearState
from rnnclf.cells.mamba import Mamba
from rnnclf.conformance.cells import drawn, made, reached_state, sequences
from tests.cells.state_spaces import started, wild
from tests.cells.weights import expect_uniform, weights_of
from tests.equations import statespace
from tests.equations.common import softplus


def test_mamba_steps_of_time_start_log_uniform_between_a_thousandth_and_a_tenth():
    bias = started(Mamba, hidden_size=100, expand=40)["step_bias"]
    expect_uniform(np.log(softplus(bias)), math.log(0.001), math.log(0.1))


# Mamba


def test_mamba_rates_start_at_minus_one_to_minus_n_in_every_channel():
    weights = started(Mamba, hidden_size=3, expand=2, state_size=16)
    expected = np.broadcast_to(-np.arange(1.0, 17.0), (6, 16))
    np.testing.assert_allclose(-np.exp(weights["log_rate"]), expected, rtol=1e-6)
    assert (weights["skip"] == 1).all()


@pytest.mark.parametrize(("hidden", "rank"), [(1, 1), (16, 1), (17, 2), (150, 10)])
def test_mamba_steps_come_from_a_sixteenth_of_the_units(hidden, rank):
    weights = started(Mamba, hidden_size=hidden, expand=3, state_size=4)
    assert weights["step_weight"].shape == (3 * hidden, rank)
    assert weights["select_weight"].shape == (rank + 8, 3 * hidden)
    expect_uniform(weights["step_weight"], -(rank**-0.5), rank**-0.5)


def test_mamba_without_earlier_inputs_has_no_window_in_its_state():
    module = drawn(made(Mamba, conv_width=1), inputs=3)
    state, x_BI = reached_state(module), sequences(1, inputs=3)[0]
    assert isinstance(state, torch.Tensor)
    output_BH, after = module(x_BI, state)
    expected_BH, (expected,) = statespace.mamba(
        x_BI.numpy(), [state.detach().numpy()], weights_of(module), module.cell
    )
    np.testing.assert_allclose(output_BH.detach().numpy(), expected_BH, rtol=0, atol=1e-10)
    np.testing.assert_allclose(after.detach().numpy(), expected, rtol=0, atol=1e-10)


def test_mamba_steps_never_let_a_state_grow():
    module = wild(Mamba)
    assert (-np.exp(weights_of(module)["log_rate"]) < 0).all()
    x_BI = torch.zeros(1, 2, dtype=torch.float64)
    start = module.initial_state(x_BI)
    state = torch.randn(start.h.shape, dtype=torch.float64)
    with torch.no_grad():  # without input and biases nothing is written
        for name in ("input_bias", "conv_bias"):
            getattr(module, name).zero_()
    after = module(x_BI, LinearState(state, start.past))[1].h
    assert (after.abs() < state.abs()).all()
