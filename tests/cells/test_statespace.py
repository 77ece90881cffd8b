"""State spaces start as their papers promise, fade or swing as promised, and are convolutions.

Shapes: T time, B batch, I inputs, H hidden, M modes, N state. What a step does is in tests/equations.
"""

import math

import numpy as np
import pytest

from rnnclf.cells.lru import LRU
from rnnclf.cells.s4d import S4D
from rnnclf.cells.s5 import S5
from rnnclf.cells.state import leaves
from rnnclf.conformance.cells import drawn, made, reached_state, sequences
from rnnclf.engine.unrolling import unroll
from rnnclf.errors import ConfigError
from tests.cells.state_spaces import started, wild
from tests.cells.weights import expect_uniform, weights_of
from tests.equations.common import complex_of, sigmoid
from tests.equations.statespace import gelu, glu, joined

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
        assert (wild(kind, seed, **options).prepared().a.abs() <= 1).all()


@pytest.mark.parametrize("steps", [1, 2, 7, 64])
@pytest.mark.parametrize(("kind", "options"), INVARIANT)
def test_powers_are_repeated_products(kind, options, steps):
    module = wild(kind, **options)
    p = module.prepared()
    a = p.a.detach().numpy()
    found = module.cell.powers(p, steps).detach().numpy()
    np.testing.assert_allclose(found, [a**t for t in range(steps)], rtol=1e-12, atol=1e-30)


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
    before = complex_of(leaves(state)[0].detach().numpy(), *module.cell.state_shape)
    convolved, mixed = CONVOLUTIONS[kind.name]
    expected_TBH = mixed(gelu(convolved(x_TBI.numpy(), before, weights, module.cell)), weights)
    for engine in module.cell.engines:
        y_TBH = unroll(module, x_TBI, state, engine=engine)[0]
        np.testing.assert_allclose(y_TBH.detach().numpy(), expected_TBH, rtol=0, atol=1e-10)
