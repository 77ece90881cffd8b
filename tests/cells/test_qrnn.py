"""The QRNN is a masked convolution and a pooling along time, and starts as its paper says."""

import math

import numpy as np
import pytest
import torch

from rnnclf.cells.qrnn import QRNN
from rnnclf.cells.state import leaves
from rnnclf.conformance.cells import sequences
from rnnclf.engine.unrolling import unroll
from tests.cells.gated_cells import (
    BATCH,
    HIDDEN,
    TIME,
    convolved,
    engines,
    expect_close,
    outputs,
    pooled_at_every_step,
    start,
    started,
    wild,
)
from tests.cells.weights import expect_uniform, weights_of
from tests.equations.common import sigmoid


def qrnn_gates(x_TBI, module):
    """z, f, o, i of all steps, those that the pooling has, from zeros before the first."""
    weights, names = weights_of(module), {"f": "zf", "fo": "zfo", "ifo": "zfoi"}[module.cell.pooling]
    rows = range(len(names) * HIDDEN)
    a = np.stack([convolved(x_TBI.numpy(), weights["input_weight"][:, row]) for row in rows], axis=-1)
    z, *squashed = np.split(a + weights["bias"], len(names), axis=-1)
    return dict(zip(names, [np.tanh(z), *map(sigmoid, squashed)], strict=True))


@engines
@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
@pytest.mark.parametrize("window", [1, 2, 5, 12])
def test_qrnn_is_a_masked_convolution_and_a_pooling(window, pooling, engine):
    module, x_TBI = wild(QRNN, window=window, pooling=pooling), sequences(TIME)
    a = qrnn_gates(x_TBI, module)
    taken = a["i"] if pooling == "ifo" else 1 - a["f"]
    c = pooled_at_every_step(a["f"], taken * a["z"], np.zeros((BATCH, HIDDEN)))
    expect_close(outputs(module, x_TBI, engine=engine), c * a.get("o", 1))


@engines
def test_qrnn_starts_pooling_from_the_state_it_is_given(engine):
    module, x_TBI = wild(QRNN, window=1, pooling="f"), sequences(TIME)
    a = qrnn_gates(x_TBI, module)
    expected = pooled_at_every_step(a["f"], (1 - a["f"]) * a["z"], start().numpy())
    expect_close(outputs(module, x_TBI, start(), engine), expected)


def test_qrnn_without_a_window_keeps_nothing_but_its_state():
    assert len(leaves(wild(QRNN, window=1).initial_state(sequences(1)[0]))) == 1


@engines
@pytest.mark.parametrize("window", [1, 2, 4])
def test_qrnn_that_forgets_at_once_sees_its_window_and_no_further(window, engine):
    module = wild(QRNN, window=window, pooling="f")
    with torch.no_grad():
        module.input_weight[:, HIDDEN:] = 0
        module.bias[HIDDEN:] = -1e4
    x_TBI = sequences(TIME).requires_grad_()
    (gradient,) = torch.autograd.grad(unroll(module, x_TBI, engine=engine)[0][-1].sum(), x_TBI)
    seen_T = gradient.abs().amax(dim=(1, 2)) > 0
    assert seen_T.tolist() == [t >= TIME - window for t in range(TIME)]


@pytest.mark.parametrize("pooling", ["f", "fo"])
def test_qrnn_output_stays_within_one(pooling):
    found = outputs(wild(QRNN, pooling=pooling), 10 * sequences(300))
    assert np.abs(found).max() <= 1 + 1e-12


def test_qrnn_forget_gate_starts_at_its_bias_and_the_others_at_zero():
    for pooling, others in (("f", 1), ("fo", 2), ("ifo", 3)):
        bias = started(QRNN, hidden_size=7, pooling=pooling, forget_bias=2.5)["bias"]
        assert (bias[7:14] == 2.5).all()
        assert np.count_nonzero(bias) == 7
        assert len(bias) == 7 * (others + 1)


@pytest.mark.parametrize("window", [1, 3])
def test_qrnn_weights_fill_the_limits_of_glorot_for_all_inputs_in_the_window(window):
    limit = math.sqrt(6 / (50 + window * 20))
    expect_uniform(started(QRNN, hidden_size=50, inputs=20, window=window)["input_weight"], -limit, limit)
