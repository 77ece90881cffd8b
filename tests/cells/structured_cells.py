"""What the tests of cells with structured matrices share.

Shapes: I inputs, H hidden. What a step does is in tests/equations.
"""

import numpy as np
import torch
from scipy.stats import kstest

from rnnclf.conformance.cells import sequences

INPUT, HIDDEN = 3, 6


def built(kind, *, hidden=HIDDEN, inputs=INPUT, seed=0, **options):
    """A cell with the weights it starts with, in double precision."""
    torch.manual_seed(seed)
    return kind(hidden_size=hidden, **options).build(inputs).double()


def put(module, **weights):
    """Gives each weight one value everywhere, or those of a tensor."""
    with torch.no_grad():
        for name, value in weights.items():
            weight = getattr(module, name)
            weight.copy_(torch.as_tensor(value, dtype=weight.dtype).expand_as(weight))
    return module


def weights_of(module):
    return {name: weight.numpy() for name, weight in module.state_dict().items()}


def expect_uniform(values, low, high):
    values = np.ravel(values)
    assert low - 1e-6 <= values.min() <= values.max() <= high + 1e-6
    assert kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-3


# ExpRNN


def learn(model, steps, lr):
    """Some steps of Adam on sequences of noise with arbitrary classes."""
    x_BTI = sequences(9, 8, INPUT, next(model.parameters()).dtype).transpose(0, 1)
    y_B = torch.arange(8) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x_BTI), y_B).backward()
        optimizer.step()


# Oscillators


def noise(steps, seed=0):
    """Inputs in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(steps, 1, INPUT, generator=generator, dtype=torch.float64) * 2 - 1
