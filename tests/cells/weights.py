"""The weights of a cell as NumPy arrays, and whether freshly drawn ones are distributed as they should be."""

import math

import numpy as np


def weights_of(module):
    return {name: weight.numpy().astype(np.float64) for name, weight in module.state_dict().items()}


def expect_uniform(values, low, high):
    """Kolmogorov and Smirnov: values that are uniform pass with every seed but one of a thousand."""
    shares = np.sort((np.ravel(values) - low) / (high - low))
    assert shares[0] >= -1e-5
    assert shares[-1] <= 1 + 1e-5
    expected = (np.arange(len(shares)) + 0.5) / len(shares)
    assert np.abs(shares - expected).max() < 1.95 / math.sqrt(len(shares))
