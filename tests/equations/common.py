"""What many equations share."""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def relu(a):
    return np.maximum(a, 0)


def softplus(a):
    return np.logaddexp(0, a)


def gate_rows(weights, index, hidden):
    """W, U and b of one gate."""
    rows = slice(index * hidden, (index + 1) * hidden)
    return weights["input_weight"][rows], weights["recurrent_weight"][rows], weights["bias"][rows]


def affine(x, h, weights, index):
    """W x + U h + b of one gate."""
    w, u, b = gate_rows(weights, index, h.shape[-1])
    return x @ w.T + h @ u.T + b


def complex_of(rows, *shape):
    """The complex numbers of a state: rows of all their real parts, then of all their imaginary parts."""
    re, im = np.split(rows, 2, axis=-1)
    return (re + 1j * im).reshape(len(rows), *shape)


def rows_of(h):
    """The inverse."""
    return np.concatenate([h.real.reshape(len(h), -1), h.imag.reshape(len(h), -1)], axis=-1)
