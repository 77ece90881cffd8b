"""The LRU starts as its paper says."""

import math

import numpy as np
import pytest
import torch

from rnnclf.cells.lru import LRU
from rnnclf.errors import ConfigError
from tests.cells.state_spaces import expect_normal, started
from tests.cells.weights import expect_uniform

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
