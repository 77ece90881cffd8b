"""minGRU and minLSTM pool along time as their paper says, and start as it says."""

import math

import numpy as np
import pytest
import torch

from rnnclf.cells.minimal import MinGRU, MinLSTM
from rnnclf.conformance.cells import sequences
from tests.cells.gated_cells import (
    BATCH,
    HIDDEN,
    TIME,
    engines,
    expect_close,
    outputs,
    pooled_at_every_step,
    start,
    started,
    wild,
    write,
)
from tests.cells.weights import expect_uniform, weights_of
from tests.equations.common import sigmoid
from tests.equations.gates import positive

candidates = pytest.mark.parametrize("candidate", ["linear", "positive"])


def blocks(x_TBI, weights, names):
    """W x + b of each block of rows, by name."""
    parts = np.split(x_TBI.numpy() @ weights["input_weight"].T + weights["bias"], len(names), axis=-1)
    return dict(zip(names, parts, strict=True))


# minGRU and minLSTM


@candidates
@engines
def test_mingru_state_weights_each_candidate_by_its_gate_and_all_later_closed_ones(engine, candidate):
    module, x_TBI = wild(MinGRU, candidate=candidate), sequences(TIME)
    a = blocks(x_TBI, weights_of(module), "zn")
    z, n = sigmoid(a["z"]), positive(a["n"]) if candidate == "positive" else a["n"]
    expected = pooled_at_every_step(1 - z, z * n, start().numpy())
    expect_close(outputs(module, x_TBI, start(), engine), expected)


@candidates
@engines
def test_minlstm_state_weights_candidates_by_shares_of_both_gates(engine, candidate):
    module, x_TBI = wild(MinLSTM, candidate=candidate), sequences(TIME)
    a = blocks(x_TBI, weights_of(module), "fin")
    f, i, n = sigmoid(a["f"]), sigmoid(a["i"]), positive(a["n"]) if candidate == "positive" else a["n"]
    expected = pooled_at_every_step(f / (f + i), i / (f + i) * n, start().numpy())
    expect_close(outputs(module, x_TBI, start(), engine), expected)


@pytest.mark.parametrize("kind", [MinGRU, MinLSTM])
def test_shares_of_old_state_and_candidate_add_up_to_one_whatever_the_gates_say(kind):
    module = wild(kind)
    level_H = torch.linspace(-3, 3, HIDDEN, dtype=torch.float64)
    with torch.no_grad():
        module.input_weight[-HIDDEN:] = 0
        module.bias[-HIDDEN:] = level_H
    found = outputs(module, sequences(TIME), level_H.expand(BATCH, HIDDEN))
    expect_close(found, np.broadcast_to(level_H, found.shape))


@pytest.mark.parametrize("kind", [MinGRU, MinLSTM])
def test_minimal_state_stays_between_the_least_and_the_largest_candidate(kind):
    module, x_TBI = wild(kind), sequences(200)
    n = blocks(x_TBI, weights_of(module), module.cell.gates)["n"]
    found = outputs(module, x_TBI)
    least, largest = np.minimum(n.min(axis=0), 0), np.maximum(n.max(axis=0), 0)  # 0 is where it starts
    assert (least - 1e-12 <= found).all()
    assert (found <= largest + 1e-12).all()


def test_minlstm_gates_that_are_both_shut_still_share():
    module = MinLSTM(hidden_size=2).build(1).double()
    write(module, input_weight=0.0, bias=[-1000.0, -1002.0, -1001.0, -1001.0, 1.0, 1.0])
    found = outputs(module, torch.zeros(1, 1, 1, dtype=torch.float64))[0, 0]
    expect_close(found, sigmoid(np.array([-1.0, 1.0])))


@pytest.mark.parametrize(("kind", "to_open"), [(MinGRU, [100.0]), (MinLSTM, [-100.0, 0.0])])
def test_positive_candidate_is_shifted_above_zero_and_a_sigmoid_below(kind, to_open):
    points = [-30.0, -2.0, -1e-9, 0.0, 1e-9, 3.0]
    module = kind(hidden_size=1, candidate="positive").build(1).double()
    write(module, input_weight=[[0.0]] * len(to_open) + [[1.0]], bias=[*to_open, 0.0])
    found = outputs(module, torch.tensor(points, dtype=torch.float64).reshape(-1, 1, 1)).ravel()
    expected = [1 / (1 + math.exp(30)), 1 / (1 + math.exp(2)), 0.5, 0.5, 0.5, 3.5]
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert (found > 0).all()


def test_minimal_gates_that_decide_what_is_kept_start_at_their_bias():
    z, n = np.split(started(MinGRU, hidden_size=7, update_bias=-2.5)["bias"], 2)
    assert (z == -2.5).all()
    assert not n.any()
    f, i, n = np.split(started(MinLSTM, hidden_size=7, forget_bias=2.5)["bias"], 3)
    assert (f == 2.5).all()
    assert not np.concatenate([i, n]).any()


@pytest.mark.parametrize("kind", [MinGRU, MinLSTM])
def test_minimal_weights_fill_the_limits_of_glorot_gate_by_gate(kind):
    weights = started(kind, hidden_size=80, inputs=20)
    limit = math.sqrt(6 / (80 + 20))
    for block in np.split(weights["input_weight"], len(kind.gates)):
        expect_uniform(block, -limit, limit)
