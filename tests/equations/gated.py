"""Peephole LSTM, layer-normalised LSTM, MGU, UGRNN, UR-LSTM, UR-GRU, FastGRNN, sLSTM."""

import numpy as np

from tests.equations.common import affine, gate_rows, sigmoid


def peephole(x, state, weights, cell):
    h, c = state
    to_input, to_forget, to_output = np.split(weights["peephole_weight"], 3)
    i = sigmoid(affine(x, h, weights, 0) + to_input * c)
    f = sigmoid(affine(x, h, weights, 1) + to_forget * c)
    g = np.tanh(affine(x, h, weights, 2))
    c = f * c + i * g
    o = sigmoid(affine(x, h, weights, 3) + to_output * c)  # the one gate that sees the memory as it is now
    h = o * np.tanh(c)
    return h, [h, c]


def normalised(row, gain, bias):
    """One sample: its numbers less their mean, over the root of their mean square."""
    centred = row - sum(row) / len(row)
    return gain * centred / np.sqrt(sum(centred * centred) / len(row) + 1e-5) + bias


def lnlstm(x, state, weights, cell):
    hs, cs = [], []
    for x_I, h, c in zip(x, *state, strict=True):
        from_input = weights["input_weight"] @ x_I + weights["input_bias"]
        from_state = weights["recurrent_weight"] @ h
        sums = normalised(from_input, weights["input_gain"], 0)
        sums = sums + normalised(from_state, weights["recurrent_gain"], 0) + weights["bias"]
        i, f, g, o = np.split(sums, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)  # what is kept is not normalised, only what is read
        h = sigmoid(o) * np.tanh(normalised(c, weights["cell_gain"], weights["cell_bias"]))
        hs.append(h)
        cs.append(c)
    return np.stack(hs), [np.stack(hs), np.stack(cs)]


def mgu(x, state, weights, cell):
    h = state[0]
    f = sigmoid(affine(x, h, weights, 0))
    n = np.tanh(affine(x, f * h, weights, 1))
    h = (1 - f) * h + f * n
    return h, [h]


def ugrnn(x, state, weights, cell):
    h = state[0]
    g = sigmoid(affine(x, h, weights, 0))
    n = np.tanh(affine(x, h, weights, 1))
    h = g * h + (1 - g) * n
    return h, [h]


def refined(f, r):
    """The refine gate's way from the lower bound f² to the upper bound 1 - (1 - f)²."""
    return (1 - r) * f**2 + r * (1 - (1 - f) ** 2)


def urlstm(x, state, weights, cell):
    h, c = state
    f = sigmoid(affine(x, h, weights, 0))
    r = sigmoid(affine(x, h, weights, 1))
    u = np.tanh(affine(x, h, weights, 2))
    o = sigmoid(affine(x, h, weights, 3))
    g = refined(f, r)
    c = g * c + (1 - g) * u
    h = o * np.tanh(c)
    return h, [h, c]


def urgru(x, state, weights, cell):
    h = state[0]
    f = sigmoid(affine(x, h, weights, 0))
    r = sigmoid(affine(x, h, weights, 1))
    s = sigmoid(affine(x, h, weights, 2))
    u = np.tanh(affine(x, s * h, weights, 3))
    g = refined(f, r)
    h = g * h + (1 - g) * u
    return h, [h]


def fastgrnn(x, state, weights, cell):
    h = state[0]
    w, u = weights["input_weight"], weights["recurrent_weight"]
    if cell.input_rank is not None:
        w = weights["input_expansion"] @ w
    if cell.recurrent_rank is not None:
        u = weights["recurrent_expansion"] @ u
    shared = x @ w.T + h @ u.T
    z = sigmoid(shared + weights["gate_bias"])
    n = np.tanh(shared + weights["candidate_bias"])
    h = (sigmoid(weights["zeta"]) * (1 - z) + sigmoid(weights["nu"])) * n + z * h
    return h, [h]


def slstm(x, state, weights, cell):
    """In the numbers that the stabiliser m scales: memory and normaliser are c exp(m) and n exp(m)."""
    h, c, n, m = state

    def sums(index):
        w, u, b = gate_rows(weights, index, cell.hidden_size)
        units_of_heads = np.split(np.arange(cell.hidden_size), cell.heads)
        from_state = [h[:, units] @ u[units].T for units in units_of_heads]
        return x @ w.T + np.concatenate(from_state, axis=1) + b

    i = np.exp(sums(0))
    f = np.exp(sums(1)) if cell.forget_gate == "exp" else sigmoid(sums(1))
    z = np.tanh(sums(2))
    o = sigmoid(sums(3))
    memory = f * (c * np.exp(m)) + i * z
    normaliser = f * (n * np.exp(m)) + i
    h = o * memory / normaliser
    m = np.maximum(np.log(f) + m, np.log(i))
    return h, [h, memory / np.exp(m), normaliser / np.exp(m), m]


EQUATIONS = {
    "peephole": peephole,
    "lnlstm": lnlstm,
    "mgu": mgu,
    "ugrnn": ugrnn,
    "urlstm": urlstm,
    "urgru": urgru,
    "fastgrnn": fastgrnn,
    "slstm": slstm,
}
