"""State spaces start as their papers promise, fade or swing as promised, and are convolutions.

Shapes: T time, B batch, I inputs, H hidden, M modes, N state. What a step does is in tests/equations.
"""

import math

import numpy as np
import pytest
import torch

from rnnclf.cells.linear import LinearState
from rnnclf.cells.linoss import LinOSS
from rnnclf.cells.lru import LRU
from rnnclf.cells.mamba import Mamba
from rnnclf.cells.s4d import S4D
from rnnclf.cells.s5 import S5
from rnnclf.cells.state import leaves
from rnnclf.conformance import drawn, made, reached_state, sequences
from rnnclf.engine.unrolling import unroll
from rnnclf.errors import ConfigError
from tests.equations import statespace
from tests.equations.common import relu, sigmoid, softplus
from tests.equations.statespace import gelu, glu, joined


def weights_of(module):
    return {name: weight.numpy().astype(np.float64) for name, weight in module.state_dict().items()}


def started(kind, *, inputs=1, seed=0, **options):
    """The weights with which a cell starts, by name."""
    torch.manual_seed(seed)
    return weights_of(kind(**options).build(inputs))


def wild(kind, seed=0, **options):
    """A cell with weights far from where they start."""
    module = kind(hidden_size=6, **options).build(2).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(3 * torch.randn(weight.shape, generator=generator))
    return module


def expect_uniform(values, low, high):
    """Kolmogorov and Smirnov: values that are uniform pass with every seed but one of a thousand."""
    shares = np.sort((np.ravel(values) - low) / (high - low))
    assert shares[0] >= -1e-5
    assert shares[-1] <= 1 + 1e-5
    expected = (np.arange(len(shares)) + 0.5) / len(shares)
    assert np.abs(shares - expected).max() < 1.95 / math.sqrt(len(shares))


def expect_normal(values, variance):
    """Mean, variance and fourth moment are those of the normal distribution."""
    scaled = np.ravel(values) / math.sqrt(variance)
    assert len(scaled) >= 4000
    assert scaled.mean() == pytest.approx(0, abs=0.05)
    assert np.mean(scaled**2) == pytest.approx(1, rel=0.1)
    assert np.mean(scaled**4) == pytest.approx(3, rel=0.2)


# HiPPO-LegS by its definition, and its part that is normal


def hippo_legs(size):
    """The matrix A of dc/dt = A c + B u for the coefficients c of scaled Legendre polynomials."""
    matrix = np.zeros((size, size))
    for n in range(size):
        matrix[n, n] = -(n + 1)
        for k in range(n):
            matrix[n, k] = -math.sqrt((2 * n + 1) * (2 * k + 1))
    return matrix


def normal_part(size):
    root = np.sqrt(np.arange(size) + 0.5)
    return hippo_legs(size) + np.outer(root, root)


def upper_eigenvalues(size):
    """Those above the real axis, from the lowest on."""
    eigenvalues = np.linalg.eigvals(normal_part(size))
    upper = eigenvalues[eigenvalues.imag > 0]
    return upper[np.argsort(upper.imag)]


# LRU


RINGS = [(0.9, 1.0), (0.0, 1.0), (0.5, 0.9), (0.999, 0.9999)]


def ring(r_min, r_max, **options):
    weights = started(LRU, hidden_size=1, state_size=20_000, r_min=r_min, r_max=r_max, **options)
    return np.exp(-np.exp(weights["log_decay"])), np.exp(weights["log_phase"]), weights


@pytest.mark.parametrize(("r_min", "r_max"), RINGS)
def test_lru_eigenvalues_fill_their_ring_uniformly_by_area(r_min, r_max):
    lengths, angles, _ = ring(r_min, r_max)
    expect_uniform(lengths**2, r_min**2, r_max**2)
    expect_uniform(angles, 0, 2 * math.pi)
    assert np.corrcoef(lengths, angles)[0, 1] == pytest.approx(0, abs=0.03)


def test_lru_angles_stay_below_the_largest_phase():
    expect_uniform(ring(0.9, 1.0, max_phase=math.pi / 10)[1], 0, math.pi / 10)


@pytest.mark.parametrize(("r_min", "r_max"), RINGS)
def test_lru_gain_makes_the_state_as_large_as_white_noise_that_enters_it(r_min, r_max):
    _, _, weights = ring(r_min, r_max)
    left_over = -np.expm1(-2 * np.exp(weights["log_decay"]))  # 1 - |lambda|^2
    np.testing.assert_allclose(np.exp(2 * weights["log_gain"]) / left_over, 1, rtol=1e-5)


def test_lru_starts_finite_even_at_the_edge_of_the_unit_disc():
    fills = {
        name: spec.fill for name, spec in LRU(hidden_size=1, r_min=0.9999, r_max=1.0).parameters(1).items()
    }
    torch.manual_seed(0)
    for name in ("log_decay", "log_phase", "log_gain"):
        weight = torch.empty(1_000_000)
        fills[name](weight)
        assert weight.isfinite().all()


def test_lru_input_and_output_weights_start_as_in_the_papers_code():
    weights = started(LRU, hidden_size=80, state_size=100, inputs=50)
    for part in ("re", "im"):
        expect_normal(weights[f"input_weight_{part}"], 1 / (2 * 50))
        expect_normal(weights[f"output_weight_{part}"], 1 / 100)


def test_lru_ring_may_be_a_circle_but_not_inside_out():
    np.testing.assert_allclose(ring(0.9, 0.9)[0], 0.9, rtol=1e-6)
    with pytest.raises(ConfigError, match="r_min"):
        LRU(r_min=0.9, r_max=0.5)


# S4D


SIZES = [2, 4, 64]
S4D_FREQUENCIES = {
    "lin": lambda size: np.pi * np.arange(size // 2),
    "inv": lambda size: size / np.pi * (size / (2 * np.arange(size // 2) + 1) - 1),
    "legs": lambda size: upper_eigenvalues(size).imag,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("init", S4D_FREQUENCIES)
def test_s4d_eigenvalues_start_as_the_paper_has_them_in_every_unit(init, size):
    weights = started(S4D, hidden_size=3, init=init, state_size=size)
    np.testing.assert_allclose(np.exp(weights["log_decay"]), 0.5, rtol=1e-6)
    expected = np.broadcast_to(S4D_FREQUENCIES[init](size), (3, size // 2))
    np.testing.assert_allclose(weights["frequency"], expected, rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_eigenvalues_of_normal_hippo_all_have_the_real_part_of_minus_one_half(size):
    eigenvalues = upper_eigenvalues(size)
    assert len(eigenvalues) == size // 2
    np.testing.assert_allclose(eigenvalues.real, -0.5, rtol=1e-10)


def test_inverse_frequencies_of_s4d_follow_the_law_of_those_of_hippo():
    size = 256
    legs = started(S4D, hidden_size=1, init="legs", state_size=size)["frequency"][0]
    inverse = started(S4D, hidden_size=1, init="inv", state_size=size)["frequency"][0, ::-1]
    assert legs[-1] == pytest.approx(size**2 / math.pi, rel=1e-4)
    np.testing.assert_allclose(inverse[-8:], legs[-8:], rtol=0.06)


def test_s4d_output_weights_and_skip_start_normal():
    weights = started(S4D, hidden_size=4000 // 32, state_size=64)
    for part in ("re", "im"):
        expect_normal(weights[f"output_weight_{part}"], 1 / 2)
    assert np.mean(weights["skip"] ** 2) == pytest.approx(1, rel=0.4)


# S5


@pytest.mark.parametrize(("size", "blocks"), [(2, 1), (64, 1), (64, 4), (12, 6)])
def test_s5_eigenvalues_start_as_those_of_hippo_in_blocks(size, blocks):
    weights = started(S5, hidden_size=3, state_size=size, init_blocks=blocks)
    np.testing.assert_allclose(np.exp(weights["log_decay"]), 0.5, rtol=1e-6)
    expected = np.tile(upper_eigenvalues(size // blocks).imag, blocks)
    np.testing.assert_allclose(weights["frequency"], expected, rtol=1e-6)


def test_s5_keeps_one_of_each_pair_of_eigenvalues_of_the_block_diagonal_matrix():
    size, blocks = 24, 3
    weights = started(S5, hidden_size=3, state_size=size, init_blocks=blocks)
    half = -np.exp(weights["log_decay"]) + 1j * weights["frequency"]
    found = np.linalg.eigvals(np.kron(np.eye(blocks), normal_part(size // blocks)))
    ours = np.concatenate((half, half.conj()))
    np.testing.assert_allclose(np.sort(ours.imag), np.sort(found.imag), rtol=1e-6)
    np.testing.assert_allclose(ours.real, found.real, rtol=1e-6)


@pytest.mark.parametrize(("hidden", "blocks", "modes"), [(5, 1, 3), (6, 1, 3), (7, 2, 4), (9, 3, 6)])
def test_s5_state_is_as_large_as_the_output_or_the_next_size_that_fits(hidden, blocks, modes):
    assert S5(hidden_size=hidden, init_blocks=blocks).state_shape == (modes,)


def test_s5_input_and_output_weights_start_as_large_as_before_their_turn():
    weights = started(S5, hidden_size=80, state_size=200, inputs=50)
    for part in ("re", "im"):
        expect_normal(weights[f"input_weight_{part}"], 1 / (2 * 50))
        expect_normal(weights[f"output_weight_{part}"], 1 / 200)


def test_turned_by_the_eigenvectors_of_hippo_real_normal_numbers_become_independent_complex_ones():
    size = 32
    eigenvalues, vectors = np.linalg.eigh(-1j * (normal_part(size) + np.eye(size) / 2))
    turn = vectors[:, eigenvalues > 0].conj().T
    parts = np.concatenate((turn.real, turn.imag))  # (2M, N): what they make of N real numbers
    np.testing.assert_allclose(parts @ parts.T, np.eye(size) / 2, atol=1e-10)


# Steps of time


@pytest.mark.parametrize(("low", "high"), [(0.001, 0.1), (0.01, 1.0)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(S4D, {"hidden_size": 1000, "state_size": 2}), (S5, {"hidden_size": 1, "state_size": 4000})],
    ids=["s4d", "s5"],
)
def test_steps_of_time_start_log_uniform_in_their_range(kind, options, low, high):
    blocks = {"init_blocks": 1000} if kind is S5 else {}
    log_dt = started(kind, dt_min=low, dt_max=high, **options, **blocks)["log_dt"]
    expect_uniform(log_dt, math.log(low), math.log(high))


@pytest.mark.parametrize("kind", [S4D, S5])
def test_range_of_the_steps_of_time_must_not_be_empty(kind):
    with pytest.raises(ConfigError, match="dt_min"):
        kind(dt_min=0.2, dt_max=0.1)


def test_mamba_steps_of_time_start_log_uniform_between_a_thousandth_and_a_tenth():
    bias = started(Mamba, hidden_size=100, expand=40)["step_bias"]
    expect_uniform(np.log(softplus(bias)), math.log(0.001), math.log(0.1))


# LinOSS


DISCRETIZATIONS = ["imex", "implicit"]


def oscillators(module):
    weights = weights_of(module)
    return relu(weights["stiffness"]), sigmoid(weights["timestep"])


def energy(state, stiffness):
    z, y = state[..., 0], state[..., 1]
    return z**2 + stiffness * y**2


def swung(module, steps):
    """The states of free oscillators before and after a number of steps."""
    before = torch.randn(1, *module.cell.state_shape, dtype=torch.float64)
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
    transition = module.prepared().transition.detach().numpy()
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
    lengths = np.abs(np.linalg.eigvals(module.prepared().transition.detach().numpy()))[swings]
    expected = 1 if discretization == "imex" else (1 + dt**2 * stiffness)[swings, None] ** -0.5
    np.testing.assert_allclose(lengths, np.broadcast_to(expected, lengths.shape), rtol=1e-9)


def test_linoss_imex_keeps_its_energy_over_a_thousand_steps():
    module = LinOSS(hidden_size=20).build(1).double()
    stiffness, dt = oscillators(module)
    # What the method keeps exactly is the energy of an oscillator a little off: z^2 + A y^2 - dt A y z.
    before, after = (
        energy(state, stiffness) - dt * stiffness * state[:, 0] * state[:, 1] for state in swung(module, 1000)
    )
    np.testing.assert_allclose(after, before, rtol=1e-9)


def test_linoss_implicit_loses_the_same_share_of_its_energy_at_each_step():
    module = LinOSS(hidden_size=20, discretization="implicit").build(1).double()
    stiffness, dt = oscillators(module)
    before, after = (energy(state, stiffness) for state in swung(module, 30))
    np.testing.assert_allclose(after, before * (1 + dt**2 * stiffness) ** -30.0, rtol=1e-9)


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
    state = torch.randn(1, *module.cell.state_shape, dtype=torch.float64)
    with torch.no_grad():  # without input and biases nothing is written
        for name in ("input_bias", "conv_bias"):
            getattr(module, name).zero_()
    past_BKW = torch.zeros(1, *module.cell.past, dtype=torch.float64)
    x_BI = torch.zeros(1, 2, dtype=torch.float64)
    after = module(x_BI, LinearState(state, past_BKW))[1].h
    assert (after.abs() < state.abs()).all()


# Time-invariant cells fade, whatever their weights, and are convolutions


INVARIANT = [
    pytest.param(kind, options, id="-".join([kind.name, *options.values()]))
    for kind, options in [
        (LRU, {}),
        (S4D, {"discretization": "zoh"}),
        (S4D, {"discretization": "bilinear"}),
        (S5, {"discretization": "zoh"}),
        (S5, {"discretization": "bilinear"}),
    ]
]


@pytest.mark.parametrize(("kind", "options"), INVARIANT)
def test_no_weights_make_a_state_grow(kind, options):
    for seed in range(5):
        assert (wild(kind, seed, **options).prepared().log_a.real < 0).all()


def sampled(rate, dt, discretization):
    """(keep, take): what dh/dt = rate h + u makes of h = 1 and of u = 1 in one step of length dt.

    zoh is the solution for a u that stays, here with its integral as a sum over nodes of Gauss; bilinear
    holds the mean of the ends for the h in between: h' - h = dt (rate (h' + h) / 2 + u).
    """
    if discretization == "bilinear":
        left = 1 - dt * rate / 2
        return (1 + dt * rate / 2) / left, dt / left
    nodes, shares = np.polynomial.legendre.leggauss(80)
    times = dt[..., None] * (1 + nodes) / 2
    take = np.sum(dt[..., None] * shares / 2 * np.exp(rate[..., None] * times), axis=-1)
    return np.exp(rate * dt), take


def with_conjugates(*parts, axis=-1):
    return [np.concatenate((part, part.conj()), axis=axis) for part in parts]


def lru_sum(x_TBI, start, weights, cell):
    keep = np.exp(-np.exp(weights["log_decay"])) * np.exp(1j * np.exp(weights["log_phase"]))
    into = np.exp(weights["log_gain"])[:, None] * joined(weights, "input_weight")
    return modes_sum(x_TBI, start, keep, into, joined(weights, "output_weight"), weights["skip_weight"])


def s5_sum(x_TBI, start, weights, cell):
    rate = -np.exp(weights["log_decay"]) + 1j * weights["frequency"]
    keep, take = sampled(rate, np.exp(weights["log_dt"]), cell.discretization)
    into = take[:, None] * joined(weights, "input_weight")
    keep, out, start = with_conjugates(keep, joined(weights, "output_weight"), start)
    (into,) = with_conjugates(into, axis=0)
    return modes_sum(x_TBI, start, keep, into, out, weights["skip_weight"])


def modes_sum(x_TBI, start, keep, into, out, skip):
    """y_t = Re(out keep^(t+1) start) + sum of Re(out keep^k into) x_{t-k} + skip x_t."""
    steps = len(x_TBI)
    powers = [keep**t for t in range(steps + 1)]
    kernel = [((out * power) @ into).real for power in powers]
    return np.stack(
        [
            ((start * powers[t + 1]) @ out.T).real
            + sum(x_TBI[t - k] @ kernel[k].T for k in range(t + 1))
            + x_TBI[t] @ skip.T
            for t in range(steps)
        ]
    )


def s4d_sum(x_TBI, start, weights, cell):
    rate = -np.exp(weights["log_decay"]) + 1j * weights["frequency"]
    dt = np.broadcast_to(np.exp(weights["log_dt"])[:, None], rate.shape)
    keep, take = sampled(rate, dt, cell.discretization)
    keep, take, out, start = with_conjugates(keep, take, joined(weights, "output_weight"), start)
    u_TBH = x_TBI @ weights["input_weight"].T + weights["input_bias"]
    steps = len(u_TBH)
    kernel = [np.sum(out * keep**k * take, axis=-1).real for k in range(steps)]
    return np.stack(
        [
            np.sum(out * keep ** (t + 1) * start, axis=-1).real
            + sum(kernel[k] * u_TBH[t - k] for k in range(t + 1))
            + weights["skip"] * u_TBH[t]
            for t in range(steps)
        ]
    )


def half_glu(a, weights):
    return a * sigmoid(a @ weights["gate_weight"].T + weights["gate_bias"])


CONVOLUTIONS = {"lru": (lru_sum, glu), "s4d": (s4d_sum, glu), "s5": (s5_sum, half_glu)}


@pytest.mark.parametrize("start", ["fresh", "reached"])
@pytest.mark.parametrize(("kind", "options"), INVARIANT)
def test_output_of_every_engine_is_a_sum_over_all_inputs_so_far(kind, options, start):
    module = drawn(made(kind, **options), inputs=3)
    x_TBI, weights = sequences(40, inputs=3), weights_of(module)
    state = reached_state(module) if start == "reached" else module.initial_state(x_TBI[0])
    before = leaves(state)[0].detach().numpy()
    convolved, mixed = CONVOLUTIONS[kind.name]
    expected_TBH = mixed(gelu(convolved(x_TBI.numpy(), before, weights, module.cell)), weights)
    for engine in module.cell.engines:
        y_TBH = unroll(module, x_TBI, state, engine=engine)[0]
        np.testing.assert_allclose(y_TBH.detach().numpy(), expected_TBH, rtol=0, atol=1e-10)
