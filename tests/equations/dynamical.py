"""IndRNN, AntisymmetricRNN, coRNN, UnICORNN, LEM, Lipschitz RNN, CfC."""

import numpy as np

from tests.equations.common import relu, sigmoid


def from_input(x, weights):
    return x @ weights["input_weight"].T + weights["bias"]


def indrnn(x, state, weights, cell):
    bound = 2 ** (1 / cell.max_steps)
    u = np.clip(weights["recurrent_weight"], -bound, bound)
    a = from_input(x, weights) + u * state[0]
    h = np.tanh(a) if cell.nonlinearity == "tanh" else relu(a)
    return h, [h]


def above_diagonal(numbers, size):
    """A matrix of these numbers above its diagonal, row by row, and zeros."""
    matrix, given = np.zeros((size, size)), iter(numbers)
    for row in range(size):
        for column in range(row + 1, size):
            matrix[row, column] = next(given)
    return matrix


def antisym(x, state, weights, cell):
    h, size = state[0], cell.hidden_size
    s = above_diagonal(weights["skew_weight"], size)
    a = s - s.T - cell.gamma * np.eye(size)
    sums = from_input(x, weights)
    change = np.tanh(h @ a.T + sums[:, :size])
    if cell.gated:
        change = sigmoid(h @ a.T + sums[:, size:]) * change
    h = h + cell.epsilon * change
    return h, [h]


def cornn(x, state, weights, cell):
    y, z = state
    force = np.tanh(
        y @ weights["recurrent_weight"].T + z @ weights["velocity_weight"].T + from_input(x, weights)
    )
    z = z + cell.dt * (force - cell.gamma * y - cell.epsilon * z)
    y = y + cell.dt * z
    return y, [y, z]


def unicornn(x, state, weights, cell):
    y, z = state
    s = cell.dt * (0.5 + 0.5 * np.tanh(weights["step_weight"] / 2))
    force = np.tanh(weights["recurrent_weight"] * y + from_input(x, weights)) + cell.alpha * y
    z = z - s * force
    y = y + s * z
    return y, [y, z]


def lem(x, state, weights, cell):
    y, z = state
    of_p, of_q, of_z, of_y = np.split(from_input(x, weights), 4, axis=-1)
    w_p, w_q, w_z = np.split(weights["recurrent_weight"], 3)
    step_of_z = cell.dt * sigmoid(of_p + y @ w_p.T)
    step_of_y = cell.dt * sigmoid(of_q + y @ w_q.T)
    z = (1 - step_of_z) * z + step_of_z * np.tanh(of_z + y @ w_z.T)
    y = (1 - step_of_y) * y + step_of_y * np.tanh(of_y + z @ weights["memory_weight"].T)
    return y, [y, z]


def between(matrix, beta, gamma):
    """From symmetric (beta 0) to skew-symmetric (beta 1), its eigenvalues moved left by gamma."""
    symmetric, skew = matrix + matrix.T, matrix - matrix.T
    return (1 - beta) * symmetric + beta * skew - gamma * np.eye(len(matrix))


def lipschitz(x, state, weights, cell):
    h = state[0]
    a = between(weights["linear_weight"], cell.beta, cell.gamma_a)
    w = between(weights["recurrent_weight"], cell.beta, cell.gamma_w)
    h = h + cell.epsilon * (h @ a.T + np.tanh(h @ w.T + from_input(x, weights)))
    return h, [h]


def cfc(x, state, weights, cell):
    def scaled_tanh(a):
        return 1.7159 * np.tanh(2 / 3 * a)

    time = 1
    k = scaled_tanh(from_input(x, weights) + state[0] @ weights["recurrent_weight"].T)
    for i in range(2, cell.backbone_layers + 1):
        k = scaled_tanh(k @ weights[f"backbone{i}_weight"].T + weights[f"backbone{i}_bias"])
    heads = k @ weights["head_weight"].T + weights["head_bias"]
    if cell.mode == "pure":
        level, decay = weights["level"], np.abs(weights["rate"]) + np.abs(heads)
        h = level - level * np.exp(-decay * time) * heads
    else:
        f, g, v, w = np.split(heads, 4, axis=-1)
        q = sigmoid(v * time + w)
        kept = 1 if cell.mode == "no_gate" else 1 - q
        h = kept * np.tanh(f) + q * np.tanh(g)
    return h, [h]


EQUATIONS = {
    "indrnn": indrnn,
    "antisym": antisym,
    "cornn": cornn,
    "unicornn": unicornn,
    "lem": lem,
    "lipschitz": lipschitz,
    "cfc": cfc,
}
