"""The SRU pools along time as its paper says, and starts as it says."""

import math

import numpy as np
import pytest

from rnnclf.cells.sru import SRU
from rnnclf.conformance.cells import sequences
from rnnclf.errors import ConfigError
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from tests.cells.gated_cells import (
    HIDDEN,
    INPUT,
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

# SRU


def sru_terms(x_TBI, weights, cell):
    """f, r, W x and the highway of all steps, without peepholes."""
    x = x_TBI.numpy()
    w, w_f, w_r, *w_s = np.split(weights["input_weight"], len(weights["input_weight"]) // HIDDEN)
    b_f, b_r = np.split(weights["bias"], 2)
    highway = x @ w_s[0].T if w_s else math.sqrt(1 + 2 * math.exp(cell.highway_bias)) * x
    return sigmoid(x @ w_f.T + b_f), sigmoid(x @ w_r.T + b_r), x @ w.T, highway


@engines
@pytest.mark.parametrize("nonlinearity", ["identity", "tanh"])
@pytest.mark.parametrize("inputs", [HIDDEN - 2, HIDDEN])
def test_sru_pools_along_time_and_lets_the_input_pass(inputs, nonlinearity, engine):
    module = wild(SRU, inputs=inputs, nonlinearity=nonlinearity, highway_bias=-0.7)
    x_TBI = sequences(TIME, inputs=inputs)
    f, r, candidate, highway = sru_terms(x_TBI, weights_of(module), module.cell)
    c = pooled_at_every_step(f, (1 - f) * candidate, start().numpy())
    expected = r * (np.tanh(c) if nonlinearity == "tanh" else c) + (1 - r) * highway
    expect_close(outputs(module, x_TBI, start(), engine), expected)


@pytest.mark.parametrize("inputs", [HIDDEN - 2, HIDDEN])
def test_sru_with_peepholes_shows_its_gates_the_state_before_the_step(inputs):
    module, x_TBI = wild(SRU, inputs=inputs, peephole=True), sequences(TIME, inputs=inputs)
    weights = weights_of(module)
    v_f, v_r = np.split(weights["peephole_weight"], 2)
    f, r, candidate, highway = sru_terms(x_TBI, weights, module.cell)

    def seeing(gate, v, state):
        """The gate with v times the state added to its odds: e^(v c) times as good."""
        odds = gate / (1 - gate) * np.exp(v * state)
        return odds / (1 + odds)

    c, expected = start().numpy(), []
    for t in range(TIME):
        f_t, r_t = seeing(f[t], v_f, c), seeing(r[t], v_r, c)
        c = f_t * c + (1 - f_t) * candidate[t]
        expected.append(r_t * c + (1 - r_t) * highway[t])
    expect_close(outputs(module, x_TBI, start()), np.stack(expected))


def test_sru_with_peepholes_at_zero_is_the_sru_without():
    plain, peephole = wild(SRU), wild(SRU, peephole=True)
    write(peephole, input_weight=plain.input_weight, bias=plain.bias, peephole_weight=0.0)
    expect_close(outputs(peephole, sequences(TIME)), outputs(plain, sequences(TIME)))


def test_sru_with_peepholes_must_walk_through_time():
    assert SRU(peephole=True).engines == ("machine", "loop")
    assert SRU().engines == ("machine", "scan", "loop")
    SequenceClassifier(SRU(), INPUT, 2, Stack(engine="scan"))
    with pytest.raises(ConfigError, match="engine=scan cannot run cell=sru, only machine or loop can"):
        SequenceClassifier(SRU(peephole=True), INPUT, 2, Stack(engine="scan"))


@pytest.mark.parametrize("bias", [-20.0, -1.0, 0.0, 2.0])
def test_sru_without_a_state_passes_its_input_on_scaled_by_alpha(bias):
    module = SRU(hidden_size=INPUT, highway_bias=bias).build(INPUT).double()
    write(module, input_weight=0.0)
    x_TBI = sequences(TIME)
    factor = math.sqrt(1 + 2 * math.exp(bias)) / (1 + math.exp(bias))
    expect_close(outputs(module, x_TBI), factor * x_TBI.numpy())


def test_sru_biases_start_where_the_options_say():
    f, r = np.split(started(SRU, hidden_size=7, forget_bias=2.5, highway_bias=-1.5)["bias"], 2)
    assert (f == 2.5).all()
    assert (r == -1.5).all()


@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("inputs", [50, 100])
def test_sru_weights_start_uniform_with_the_variances_of_the_paper(inputs, peephole):
    weights = started(SRU, hidden_size=100, inputs=inputs, peephole=peephole, highway_bias=1.0)
    of_gates = 0.5 if peephole else 1.0
    variances = [1.0, of_gates, of_gates, 1 + 2 * math.e][: 3 if inputs == 100 else 4]
    found = np.split(weights["input_weight"], len(weights["input_weight"]) // 100)
    for block, variance in zip(found, variances, strict=True):
        limit = math.sqrt(3 * variance / inputs)
        expect_uniform(block, -limit, limit)
    if peephole:
        expect_uniform(weights["peephole_weight"], -math.sqrt(1.5), math.sqrt(1.5))
