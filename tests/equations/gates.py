"""Linear states with gates: minGRU, minLSTM, SRU, QRNN, RG-LRU."""

import numpy as np

from tests.equations.common import sigmoid, softplus
from tests.equations.statespace import gelu


def positive(a):
    """g of the minimal cells' version in logarithms, always above 0."""
    return np.where(a >= 0, a + 0.5, sigmoid(a))


def minimal_rows(x, weights, cell, count):
    """W x + b of each gate and the candidate, which g has seen."""
    *gates, candidate = np.split(x @ weights["input_weight"].T + weights["bias"], count, axis=-1)
    return *(sigmoid(a) for a in gates), positive(candidate) if cell.candidate == "positive" else candidate


def mingru(x, state, weights, cell):
    z, n = minimal_rows(x, weights, cell, 2)
    h = (1 - z) * state[0] + z * n
    return h, [h]


def minlstm(x, state, weights, cell):
    f, i, n = minimal_rows(x, weights, cell, 3)
    h = f / (f + i) * state[0] + i / (f + i) * n
    return h, [h]


def sru(x, state, weights, cell):
    c = state[0]
    hidden = c.shape[-1]
    rows = x @ weights["input_weight"].T
    candidate, forget, reset = (rows[:, k * hidden : (k + 1) * hidden] for k in range(3))
    b_f, b_r = np.split(weights["bias"], 2)
    v_f, v_r = np.split(weights["peephole_weight"], 2) if cell.peephole else (0, 0)
    f = sigmoid(forget + v_f * c + b_f)
    r = sigmoid(reset + v_r * c + b_r)
    c = f * c + (1 - f) * candidate
    if x.shape[-1] == hidden:
        highway = np.sqrt(1 + 2 * np.exp(cell.highway_bias)) * x
    else:
        highway = rows[:, 3 * hidden :]
    h = r * (np.tanh(c) if cell.nonlinearity == "tanh" else c) + (1 - r) * highway
    return h, [c]


def qrnn(x, state, weights, cell):
    """The state keeps of each earlier input what it adds to the gates one step later, two steps, …"""
    shares = [x @ weight.T for weight in weights["input_weight"]]  # of this step, of the next one, …
    a = shares[0] + weights["bias"]
    earlier = np.split(state[1], cell.window - 1, axis=-1) if cell.window > 1 else []
    for k in range(1, cell.window):
        a = a + np.split(earlier[-k], cell.window - 1, axis=-1)[k - 1]
    gates = dict(zip("zfoi", np.split(a, {"f": 2, "fo": 3, "ifo": 4}[cell.pooling], axis=-1), strict=False))
    z, f = np.tanh(gates["z"]), sigmoid(gates["f"])
    i = sigmoid(gates["i"]) if cell.pooling == "ifo" else 1 - f
    c = f * state[0] + i * z
    h = c if cell.pooling == "f" else sigmoid(gates["o"]) * c
    if cell.window == 1:
        return h, [c]
    kept = np.concatenate(shares[1:], axis=-1)
    return h, [c, np.concatenate([*earlier[1:], kept], axis=-1)]


def rglru_gates(u, weights):
    """r and i, block by block."""
    parts = np.split(u, len(weights["gate_weight"]), axis=-1)
    r, i = [], []
    for part, weight, bias in zip(parts, weights["gate_weight"], weights["gate_bias"], strict=True):
        for gate, a in zip((r, i), np.split(part @ weight.T + bias, 2, axis=-1), strict=True):
            gate.append(sigmoid(a))
    return np.concatenate(r, axis=-1), np.concatenate(i, axis=-1)


def rglru(x, state, weights, cell):
    v, y = np.split(x @ weights["input_weight"].T + weights["input_bias"], 2, axis=-1)
    width = cell.conv_width
    window = [*np.split(state[1], width - 1, axis=-1), v] if width > 1 else [v]  # oldest first
    u = weights["conv_bias"] + sum(weights["conv_weight"][k] * window[-1 - k] for k in range(width))
    r, i = rglru_gates(u, weights)
    log_a = -8 * r * softplus(-weights["decay"])  # sigmoid(d) = exp(-softplus(-d))
    h = np.exp(log_a) * state[0] + np.sqrt(-np.expm1(2 * log_a)) * (i * u)  # 1 - a^2 without cancellation
    output = (h * gelu(y)) @ weights["output_weight"].T + weights["output_bias"]
    return output, [h, np.concatenate(window[1:], axis=-1)] if width > 1 else [h]


EQUATIONS = {"mingru": mingru, "minlstm": minlstm, "sru": sru, "qrnn": qrnn, "rglru": rglru}
