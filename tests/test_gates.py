"""Cells whose gates let their state stay linear pool along time as their papers say, and start so.

Shapes: T time, B batch, I inputs, H hidden. What a step does is in tests/equations.
"""

import math

import numpy as np
import pytest
import torch

from rnnclf.cells.linear import LinearState
from rnnclf.cells.minimal import MinGRU, MinLSTM
from rnnclf.cells.qrnn import QRNN
from rnnclf.cells.rglru import RGLRU
from rnnclf.cells.sru import SRU
from rnnclf.cells.state import leaves
from rnnclf.conformance import made, sequences, variants
from rnnclf.engine.unrolling import unroll
from rnnclf.errors import ConfigError
from rnnclf.model import SequenceClassifier
from rnnclf.stack import Stack
from tests.equations import gates
from tests.equations.common import sigmoid, softplus
from tests.equations.gates import positive
from tests.equations.statespace import gelu

TIME, BATCH, INPUT, HIDDEN = 9, 3, 4, 6
KINDS = (MinGRU, MinLSTM, SRU, QRNN, RGLRU)

engines = pytest.mark.parametrize("engine", ["scan", "loop"])
candidates = pytest.mark.parametrize("candidate", ["linear", "positive"])


def wild(kind, *, hidden=HIDDEN, inputs=INPUT, **options):
    """A cell with weights far from where they start."""
    module = kind(hidden_size=hidden, **options).build(inputs).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(1.5 * torch.randn(weight.shape, generator=generator))
    return module


def weights_of(module):
    return {name: weight.numpy().astype(np.float64) for name, weight in module.state_dict().items()}


def started(kind, *, inputs=INPUT, **options):
    """The weights with which a cell starts, by name."""
    torch.manual_seed(0)
    return weights_of(kind(**options).build(inputs))


def write(module, **values):
    """Sets weights to numbers."""
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name).copy_(torch.as_tensor(value))


def outputs(module, x_TBI, state=None, engine="auto"):
    with torch.no_grad():
        return unroll(module, x_TBI, state, engine=engine)[0].numpy()


def start(hidden=HIDDEN):
    return torch.randn(BATCH, hidden, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def pooled(keep_TBH, add_TBH, start_BH):
    """What is added at each step, times all that is kept of it up to the last step, summed over time."""
    total = np.prod(keep_TBH, axis=0) * start_BH
    for t in range(len(add_TBH)):
        total = total + add_TBH[t] * np.prod(keep_TBH[t + 1 :], axis=0)
    return total


def pooled_at_every_step(keep_TBH, add_TBH, start_BH):
    steps = range(1, len(add_TBH) + 1)
    return np.stack([pooled(keep_TBH[:t], add_TBH[:t], start_BH) for t in steps])


def blocks(x_TBI, weights, names):
    """W x + b of each block of rows, by name."""
    parts = np.split(x_TBI.numpy() @ weights["input_weight"].T + weights["bias"], len(names), axis=-1)
    return dict(zip(names, parts, strict=True))


def expect_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def expect_uniform(values, low, high):
    """Kolmogorov and Smirnov: values that are uniform pass with every seed but one of a thousand."""
    shares = np.sort((np.ravel(values) - low) / (high - low))
    assert shares[0] >= -1e-5
    assert shares[-1] <= 1 + 1e-5
    expected = (np.arange(len(shares)) + 0.5) / len(shares)
    assert np.abs(shares - expected).max() < 1.95 / math.sqrt(len(shares))


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
    assert SRU(peephole=True).engines == ("loop",)
    assert set(SRU().engines) == {"scan", "loop"}
    SequenceClassifier(SRU(), INPUT, 2, Stack(engine="scan"))
    with pytest.raises(ConfigError, match="engine=scan cannot run cell=sru, only loop can"):
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


# QRNN


def convolved(x_TBI, filters_KI):
    """One row of a masked convolution: filter k sees the input k steps before, and zeros before the first."""
    time, batch, inputs = x_TBI.shape
    total = np.zeros((time, batch))
    for b in range(batch):
        for i in range(inputs):
            total[:, b] += np.convolve(x_TBI[:, b, i], filters_KI[:, i])[:time]
    return total


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
    after = module(x_BI, LinearState(h, state.past_BKW))[1]
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


# All of them


def extremes(time):
    """Sequences (T, B, I) of ±1000: constant, alternating, one jump, one pulse, at random."""
    t = torch.arange(time)
    rows = [
        torch.ones(time),
        -torch.ones(time),
        1 - 2.0 * (t % 2),
        torch.where(t < time // 2, 1.0, -1.0),
        torch.where(t == time // 2, 1.0, 0.0),
    ]
    random = torch.randn(time, BATCH, INPUT, generator=torch.Generator().manual_seed(0)).sign()
    return 1e3 * torch.cat([torch.stack(rows, dim=1)[..., None].expand(-1, -1, INPUT), random], dim=1)


def extreme_cases():
    """Each cell with its defaults by each engine, and each option changed alone by the fastest."""
    cases = []
    for kind in KINDS:
        for options in variants(kind):
            able = made(kind, INPUT, **options).engines
            for engine in able if not options else able[:1]:
                changed = [f"{key}={value}" for key, value in options.items()]
                cases.append(pytest.param(kind, options, engine, id="-".join([kind.name, *changed, engine])))
    return cases


@pytest.mark.parametrize(("kind", "options", "engine"), extreme_cases())
def test_3000_steps_of_extreme_inputs_stay_finite_in_outputs_and_gradients(kind, options, engine):
    torch.manual_seed(0)
    module = made(kind, INPUT, **options).build(INPUT)
    x_TBI = extremes(3000).requires_grad_()
    y_TBH, state = unroll(module, x_TBI, engine=engine)
    probe = torch.randn(y_TBH.shape, generator=torch.Generator().manual_seed(1))
    total = (y_TBH * probe).sum() + sum(leaf.sum() for leaf in leaves(state))
    names, sources = zip(("x", x_TBI), *module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, sources)
    assert y_TBH.isfinite().all()
    assert all(leaf.isfinite().all() for leaf in leaves(state))
    for name, gradient in zip(names, gradients, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


@pytest.mark.parametrize("decay", [-1000.0, -20.0, 20.0, 1000.0])
def test_rglru_decays_at_both_ends_have_finite_gradients(decay):
    torch.manual_seed(0)
    module = RGLRU(hidden_size=HIDDEN).build(INPUT)
    write(module, decay=decay)
    x_TBI = sequences(50, dtype=torch.float32).requires_grad_()
    y_TBH, _ = unroll(module, x_TBI)
    assert y_TBH.isfinite().all()
    for gradient in torch.autograd.grad(y_TBH.sum(), [x_TBI, *module.parameters()]):
        assert gradient.isfinite().all()


def test_every_cell_with_equations_in_that_file_is_tested_here():
    assert set(gates.EQUATIONS) == {kind.name for kind in KINDS}
