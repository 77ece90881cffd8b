"""State spaces: LRU, S4D, S5, LinOSS, Mamba."""

import numpy as np
from scipy.special import erf

from tests.equations.common import complex_of, relu, rows_of, sigmoid, softplus


def gelu(a):
    return a * (1 + erf(a / np.sqrt(2))) / 2


def silu(a):
    return a * sigmoid(a)


def glu(a, weights):
    """The upper half of the rows of glu_weight gives values, the lower half what lets them through."""
    value, gate = np.split(a @ weights["glu_weight"].T + weights["glu_bias"], 2, axis=-1)
    return value * sigmoid(gate)


def joined(weights, name):
    """A complex weight of its real and imaginary parts."""
    return weights[f"{name}_re"] + 1j * weights[f"{name}_im"]


def discrete(rate, dt, method):
    """What a mode dh/dt = rate h + u keeps of itself and takes of u in one step of length dt."""
    if method == "zoh":
        keep = np.exp(rate * dt)
        return keep, (keep - 1) / rate
    return (2 + rate * dt) / (2 - rate * dt), 2 * dt / (2 - rate * dt)


def lru(x, state, weights, cell):
    eigenvalues = np.exp(-np.exp(weights["log_decay"]) + 1j * np.exp(weights["log_phase"]))
    h = eigenvalues * complex_of(state[0], len(eigenvalues)) + np.exp(weights["log_gain"]) * (
        x @ joined(weights, "input_weight").T
    )
    y = (h @ joined(weights, "output_weight").T).real + x @ weights["skip_weight"].T
    return glu(gelu(y), weights), [rows_of(h)]


def s4d(x, state, weights, cell):
    u = x @ weights["input_weight"].T + weights["input_bias"]
    rate = -np.exp(weights["log_decay"]) + 1j * weights["frequency"]
    keep, take = discrete(rate, np.exp(weights["log_dt"])[:, None], cell.discretization)
    h = keep * complex_of(state[0], *keep.shape) + take * u[:, :, None]
    y = 2 * np.sum(joined(weights, "output_weight") * h, axis=-1).real + weights["skip"] * u
    return glu(gelu(y), weights), [rows_of(h)]


def s5(x, state, weights, cell):
    rate = -np.exp(weights["log_decay"]) + 1j * weights["frequency"]
    keep, take = discrete(rate, np.exp(weights["log_dt"]), cell.discretization)
    h = keep * complex_of(state[0], *keep.shape) + take * (x @ joined(weights, "input_weight").T)
    y = 2 * (h @ joined(weights, "output_weight").T).real + x @ weights["skip_weight"].T
    v = gelu(y)
    return v * sigmoid(v @ weights["gate_weight"].T + weights["gate_bias"]), [rows_of(h)]


def linoss(x, state, weights, cell):
    z, y = np.split(state[0], 2, axis=-1)
    stiffness, dt = relu(weights["stiffness"]), sigmoid(weights["timestep"])
    force = x @ weights["input_weight"].T
    if cell.discretization == "imex":
        z = z + dt * (force - stiffness * y)
        y = y + dt * z
    else:  # both equations of a step at once: z + dt stiffness y = …, y - dt z = …
        matrix = np.empty((len(dt), 2, 2))
        matrix[:, 0, 0], matrix[:, 0, 1] = 1, dt * stiffness
        matrix[:, 1, 0], matrix[:, 1, 1] = -dt, 1
        right = np.stack([z + dt * force, y], axis=-1)
        z, y = np.moveaxis(np.linalg.solve(matrix, right[..., None])[..., 0], -1, 0)
    v = gelu(y @ weights["output_weight"].T + x @ weights["skip_weight"].T)
    return glu(v, weights), [np.concatenate([z, y], axis=-1)]


def mamba(x, state, weights, cell):
    v, gate = np.split(x @ weights["input_weight"].T + weights["input_bias"], 2, axis=-1)
    width, states = cell.conv_width, cell.state_size
    window = np.stack(
        [*np.split(state[1], width - 1, axis=-1), v] if width > 1 else [v], axis=1
    )  # oldest first
    u = silu(np.einsum("bke,ke->be", window[:, ::-1], weights["conv_weight"]) + weights["conv_bias"])
    selected = u @ weights["select_weight"].T
    rank = selected.shape[-1] - 2 * states
    q, write, read = np.split(selected, [rank, rank + states], axis=-1)
    dt = softplus(q @ weights["step_weight"].T + weights["step_bias"])
    rate = -np.exp(weights["log_rate"])
    before = state[0].reshape(len(x), states, -1).swapaxes(1, 2)  # kept as (N, E)
    h = np.exp(dt[..., None] * rate) * before + (dt * u)[..., None] * write[:, None, :]
    y = np.einsum("ben,bn->be", h, read) + weights["skip"] * u
    output = (y * silu(gate)) @ weights["output_weight"].T
    rows = h.swapaxes(1, 2).reshape(len(x), -1)
    return output, [rows, window[:, 1:].reshape(len(x), -1)] if width > 1 else [rows]


EQUATIONS = {"lru": lru, "s4d": s4d, "s5": s5, "linoss": linoss, "mamba": mamba}
