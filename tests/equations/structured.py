"""expRNN, LMU, ESN."""

import numpy as np
from scipy.linalg import expm

from tests.equations.common import relu
from tests.equations.dynamical import above_diagonal


def rotation(weights, size):
    """exp(K - K'): the recurrent matrix of an expRNN."""
    k = above_diagonal(weights["skew"], size)
    return expm(k - k.T)


def exprnn(x, state, weights, cell):
    v = x @ weights["input_weight"].T + state[0] @ rotation(weights, cell.hidden_size).T
    h = np.sign(v) * relu(np.abs(v) + weights["bias"])
    return h, [h]


def legendre_window(size, theta):
    """The memory of an LMU over steps of length 1: what it keeps of itself, what it takes of its input."""
    from scipy.signal import cont2discrete  # here, because it takes long to import

    a, b = np.empty((size, size)), np.empty((size, 1))
    for i in range(size):
        b[i] = (2 * i + 1) * (-1) ** i
        for j in range(size):
            a[i, j] = (2 * i + 1) * (-1 if i < j else (-1) ** (i - j + 1))
    unread = np.zeros((1, size)), np.zeros((1, 1))
    keep, take, *_ = cont2discrete((a / theta, b / theta, *unread), dt=1, method="zoh")
    return keep, take[:, 0]


def lmu(x, state, weights, cell):
    """The window's matrices are as they are stored, rounded; tests/test_structured.py has them exact."""
    h, m = state
    u = x @ weights["input_encoder"] + h @ weights["hidden_encoder"] + m @ weights["memory_encoder"]
    m = m @ weights["memory_decay"].T + np.outer(u, weights["memory_input"])
    from_state = h @ weights["recurrent_weight"].T + m @ weights["memory_weight"].T
    h = np.tanh(x @ weights["input_weight"].T + from_state)
    return h, [h, m]


def esn(x, state, weights, cell):
    h = state[0]
    c = np.tanh(x @ weights["input_weight"].T + h @ weights["recurrent_weight"].T + weights["bias"])
    h = (1 - cell.leak) * h + cell.leak * c
    return h, [h]


EQUATIONS = {"exprnn": exprnn, "lmu": lmu, "esn": esn}
