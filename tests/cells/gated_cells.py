"""What the tests of cells with gates and a linear state share.

Shapes: T time, B batch, I inputs, H hidden. What a step does is in tests/equations.
"""

import numpy as np
import pytest
import torch

from rnnclf.engine.unrolling import unroll
from tests.cells.weights import weights_of

TIME, BATCH, INPUT, HIDDEN = 9, 3, 4, 6

engines = pytest.mark.parametrize("engine", ["scan", "loop"])


def wild(kind, *, hidden=HIDDEN, inputs=INPUT, **options):
    """A cell with weights far from where they start."""
    module = kind(hidden_size=hidden, **options).build(inputs).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(1.5 * torch.randn(weight.shape, generator=generator))
    return module


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


def expect_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


# QRNN


def convolved(x_TBI, filters_KI):
    """One row of a masked convolution: filter k sees the input k steps before, and zeros before the first."""
    time, batch, inputs = x_TBI.shape
    total = np.zeros((time, batch))
    for b in range(batch):
        for i in range(inputs):
            total[:, b] += np.convolve(x_TBI[:, b, i], filters_KI[:, i])[:time]
    return total
