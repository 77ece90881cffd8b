"""What the tests of state spaces share.

Shapes: T time, B batch, I inputs, H hidden, M modes, N state. What a step does is in tests/equations.
"""

import math

import numpy as np
import pytest
import torch

from tests.cells.weights import weights_of


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


def expect_normal(values, variance):
    """Mean, variance and fourth moment are those of the normal distribution."""
    scaled = np.ravel(values) / math.sqrt(variance)
    assert len(scaled) >= 4000
    assert scaled.mean() == pytest.approx(0, abs=0.05)
    assert np.mean(scaled**2) == pytest.approx(1, rel=0.1)
    assert np.mean(scaled**4) == pytest.approx(3, rel=0.2)
