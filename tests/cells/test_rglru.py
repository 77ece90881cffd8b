"""The RG-LRU pools along time as its paper says, and starts as it says."""

import math

import numpy as np
import pytest
import torch

from rnnclf.cells.linear import LinearState
from rnnclf.cells.rglru import RGLRU
from rnnclf.conformance.cells import sequences
from tests.cells.gated_cells import (
    BATCH,
    HIDDEN,
    INPUT,
    TIME,
    convolved,
    engines,
    expect_close,
    outputs,
    pooled_at_every_step,
    started,
    wild,
    write,
)
from tests.cells.weights import expect_uniform, weights_of
from tests.equations.common import sigmoid, softplus
from tests.equations.statespace import gelu

# RG-LRU


@engines
@pytest.mark.parametrize("conv_width", [1, 2, 4, 12])
@pytest.mark.parametrize("gate_blocks", [1, 3])
def test_rglru_convolves_gates_and_pools_along_time(gate_blocks, conv_width, engine):
    module = wild(RGLRU, conv_width=conv_width, gate_blocks=gate_blocks)
    x_TBI, weights = sequences(TIME), weights_of(module)
    v, y = np.split(x_TBI.numpy() @ weights["input_weight"].T + weights["input_bias"], 2, axis=-1)
    one_channel = [convolved(v[..., [j]], weights["conv_weight"][:, [j]]) for j in range(HIDDEN)]
    u = np.stack(one_channel, axis=-1) + weights["conv_bias"]
    size = HIDDEN // gate_blocks
    r, i = np.empty_like(u), np.empty_like(u)
    for j in range(HIDDEN):  # unit j is number `row` of its block
        block, row = divmod(j, size)
        seen = u[..., block * size : (block + 1) * size]
        for gate, k in ((r, row), (i, size + row)):
            gate[..., j] = sigmoid(
                seen @ weights["gate_weight"][block, k] + weights["gate_bias"][block, k],
            )
    log_a = -8 * r * softplus(-weights["decay"])
    taken = np.sqrt(-np.expm1(2 * log_a))  # sqrt(1 - a^2), exact where a is near 1 too
    h = pooled_at_every_step(np.exp(log_a), taken * i * u, np.zeros((BATCH, HIDDEN)))
    expected = (h * gelu(y)) @ weights["output_weight"].T + weights["output_bias"]
    expect_close(outputs(module, x_TBI, engine=engine), expected)


def test_rglru_gates_in_blocks_are_those_of_a_matrix_with_zeros_outside():
    parts, full = wild(RGLRU, gate_blocks=2), wild(RGLRU)
    names = (
        "input_weight",
        "input_bias",
        "conv_weight",
        "conv_bias",
        "decay",
        "output_weight",
        "output_bias",
    )
    shared = {name: getattr(parts, name) for name in names}
    of_r, of_i = parts.gate_weight.detach().chunk(2, dim=1)
    gate_weight = torch.cat([torch.block_diag(*of_r), torch.block_diag(*of_i)])[None]
    bias_r, bias_i = parts.gate_bias.detach().chunk(2, dim=1)
    gate_bias = torch.cat([bias_r.flatten(), bias_i.flatten()])[None]
    write(full, **shared, gate_weight=gate_weight, gate_bias=gate_bias)
    expect_close(outputs(parts, sequences(TIME)), outputs(full, sequences(TIME)))


def kept_of_the_state(module, x_BI):
    """a_t, element by element: how the state after a step follows the one before."""
    state = module.initial_state(x_BI)
    h = state.h.clone().requires_grad_()
    after = module(x_BI, LinearState(h, state.past))[1]
    return torch.autograd.grad(after.h.sum(), h)[0].detach().numpy()


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_rglru_keeps_a_share_between_its_fastest_and_one(scale):
    torch.manual_seed(0)
    module = RGLRU(hidden_size=200).build(INPUT).double()
    a = kept_of_the_state(module, scale * sequences(1, batch=50)[0])
    fastest = sigmoid(module.decay.detach().numpy()) ** 8
    assert (a > fastest).all()
    assert (a < 1).all()
    assert a.min() > 0.9


def test_rglru_with_an_extreme_gate_keeps_all_or_a_to_the_eighth():
    module = wild(RGLRU)
    fastest = sigmoid(module.decay.detach().numpy()) ** 8
    for bias, expected in ((-1e4, np.ones(HIDDEN)), (1e4, fastest)):
        write(module, gate_weight=0.0, gate_bias=bias)
        found = kept_of_the_state(module, sequences(1)[0])
        expect_close(found, np.broadcast_to(expected, found.shape))


def test_rglru_decay_to_the_eighth_starts_uniform_between_0_9_and_0_999():
    expect_uniform(sigmoid(started(RGLRU, hidden_size=2000)["decay"]) ** 8, 0.9, 0.999)


def test_rglru_weights_start_normal_with_one_over_the_numbers_they_see():
    weights = started(RGLRU, hidden_size=120, inputs=40, conv_width=50, gate_blocks=2)
    seen = {"input_weight": 40, "conv_weight": 50, "gate_weight": 60, "output_weight": 120}
    for name, numbers in seen.items():
        scaled = weights.pop(name) * math.sqrt(numbers)
        assert scaled.mean() == pytest.approx(0, abs=0.05)
        assert np.mean(scaled**2) == pytest.approx(1, rel=0.1)
        assert np.mean(scaled**4) == pytest.approx(3, rel=0.2)
    b_v, b_y = np.split(weights.pop("input_bias"), 2)
    assert (b_y == 1).all()
    del weights["decay"]
    assert not np.concatenate([b_v, *map(np.ravel, weights.values())]).any()


def test_rglru_state_is_as_large_as_white_noise_that_enters_it():
    module = RGLRU(hidden_size=200, conv_width=1).build(200).double()
    identity = torch.eye(200)
    write(
        module,
        input_weight=torch.cat([identity, torch.zeros(200, 200)]),
        input_bias=torch.cat([torch.zeros(200), torch.full((200,), 50.0)]),  # gelu(50) = 50: a branch of ones
        conv_weight=1.0,
        gate_weight=0.0,
        gate_bias=torch.cat([torch.zeros(200), torch.full((200,), 50.0)]),  # r = 1/2, i = 1
        decay=2.0,
        output_weight=identity / 50,
    )
    h = outputs(module, sequences(500, batch=2, inputs=200))[100:]
    assert h.var() == pytest.approx(1, rel=0.05)
    assert sequences(500, batch=2, inputs=200).var() == pytest.approx(1, rel=0.02)
