"""Elman network, LSTM, GRU."""

import numpy as np

from tests.equations.common import affine, gate_rows, relu, sigmoid


def basic(x, state, weights, cell):
    a = affine(x, state[0], weights, 0)
    h = np.tanh(a) if cell.nonlinearity == "tanh" else relu(a)
    return h, [h]


def lstm(x, state, weights, cell):
    h, c = state
    i = sigmoid(affine(x, h, weights, 0))
    f = sigmoid(affine(x, h, weights, 1))
    g = np.tanh(affine(x, h, weights, 2))
    o = sigmoid(affine(x, h, weights, 3))
    c = f * c + i * g
    h = o * np.tanh(c)
    return h, [h, c]


def gru(x, state, weights, cell):
    h = state[0]
    r = sigmoid(affine(x, h, weights, 0))
    z = sigmoid(affine(x, h, weights, 1))
    w, u, b = gate_rows(weights, 2, h.shape[-1])
    if cell.reset == "after":
        n = np.tanh(x @ w.T + b + r * (h @ u.T + weights["candidate_bias"]))
    else:
        n = np.tanh(x @ w.T + b + (r * h) @ u.T)
    h = (1 - z) * n + z * h
    return h, [h]


EQUATIONS = {"basic": basic, "lstm": lstm, "gru": gru, "irnn": basic}
