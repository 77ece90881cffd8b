"""The recurrences of basic, lstm and gru, forward and backward through time, in machine code.

The equations are those of rnnclf/engine/fused_steps.py.

Shapes: T time, B batch, N sequences still running (the first of B), I inputs, H hidden; S = T + 1 states.
P: H padded to whole vectors, so that each gate and state starts at a vector boundary; the padding is zero
on the forward pass and contributes nothing on the backward pass. G: gates × P. K: the columns of an operand
row, which holds the inputs, a one (its weight is the bias) and a state. R: rows, one per step and sequence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rnnclf.engine.compiled.kernels import (
    inlined,
    inner,
    jit,
    lanes_of,
    load_number,
    product,
    product_over_rows,
    sigmoid,
    tanh,
)


class Row(NamedTuple):
    """The layout of an operand row: arbitrary padding, the inputs, a one, and from the index `first` on,
    which is at a vector boundary, the state: `hidden` numbers, padded to `wide`."""

    inputs: int
    first: int
    hidden: int
    wide: int


@inner
def _start(states_BP: Any, start_BH: Any) -> None:
    """Writes the initial states, padded with zeros."""
    hidden = start_BH.shape[1]
    for row in range(len(start_BH)):
        for k in range(hidden):
            states_BP[row, k] = start_BH[row, k]
        for k in range(hidden, states_BP.shape[1]):
            states_BP[row, k] = 0


@inner
def _begin(a_SBK: Any, at: Any, start_BH: Any, x: int, x_steps: Any) -> None:
    """Writes the initial states, and the ones and inputs of all steps. x: address of the inputs. x_steps:
    their strides over time, sequences and features, in bytes."""
    zero, one = a_SBK.dtype.type(0), a_SBK.dtype.type(1)
    _start(a_SBK[0, :, at.first : at.first + at.wide], start_BH)
    for t in range(len(a_SBK) - 1):
        for row in range(a_SBK.shape[1]):
            a_K, source = a_SBK[t, row, at.first - at.inputs - 1 :], x + t * x_steps[0] + row * x_steps[1]
            a_K[at.inputs] = one
            for i in range(at.inputs):
                a_K[i] = load_number(source + i * x_steps[2], zero)


@inlined
def _operands(a_SBK: Any, t: int, n: int, at: Any, stateful: bool) -> Any:
    """The inputs, a one and, unless it is all zeros, the state."""
    return a_SBK[t, :n, at.first - at.inputs - 1 : at.first + (at.hidden if stateful else 0)]


@inner
def _add_sums(
    z_TBG: Any, begin: int, at: Any, gates: int, a_SBK: Any, first: int, t: int, n: int, stateful: bool,
    sums_GK: Any,
) -> None:  # fmt: skip
    """Adds the weight gradients of step t: products, summed over n sequences, of the gradients of some gates
    (from column `begin` on) with the operands (from column `first` on, a vector boundary; the state only if
    `stateful`)."""
    z_NG, a_NK = z_TBG[t % len(z_TBG), :n], a_SBK[t, :n]
    columns = sums_GK.shape[1] if stateful else at.first - first
    for gate in range(0, gates * at.wide, at.wide):
        product_over_rows(
            z_NG[:, begin + gate : begin + gate + at.hidden],
            a_NK[:, first:],
            sums_GK[gate : gate + at.hidden, :columns],
        )


@inner
def _hold(states_SBP: Any, t: int, n: int, first: int, wide: int) -> None:
    """Copies the states of sequences that have ended past step t."""
    for row in range(n, states_SBP.shape[1]):
        for k in range(first, first + wide):
            states_SBP[t + 1, row, k] = states_SBP[t, row, k]


@inner
def _clear(z_TBG: Any, t: int, n: int) -> None:
    """Zeroes the gradients of sequences that have ended by step t."""
    for row in range(n, z_TBG.shape[1]):
        for k in range(z_TBG.shape[2]):
            z_TBG[t, row, k] = 0


@inner
def _add(dy_TBH: Any, t: int, dh_BP: Any) -> None:
    """Adds the gradients of the outputs of step t, if there are any."""
    if len(dy_TBH):
        for row in range(dy_TBH.shape[1]):
            for k in range(dy_TBH.shape[2]):
                dh_BP[row, k] += dy_TBH[t, row, k]


# basic


@jit
def basic(
    a_SBK: Any,
    at: Any,
    x: int,
    x_steps: Any,
    start_BH: Any,
    sums_BP: Any,
    weights: Any,
    running_T: Any,
    started: bool,
    relu: bool,
) -> None:
    """Fills the operands, which contain the states."""
    _begin(a_SBK, at, start_BH, x, x_steps)
    basic_steps(a_SBK, at, sums_BP, weights, running_T, started, relu)


@inner
def basic_steps(
    a_SBK: Any, at: Any, sums_BP: Any, weights: Any, running_T: Any, started: bool, relu: bool
) -> None:
    """All steps, from operands that contain everything but the states."""
    zero, rows = a_SBK.dtype.type(0), at.inputs + 1 + at.hidden
    for t in range(len(running_T)):
        n = running_T[t]
        product(_operands(a_SBK, t, n, at, t > 0 or started), weights, rows, sums_BP[:n], 0)
        for row in range(n):
            h_P, sums_P = a_SBK[t + 1, row, at.first :], sums_BP[row]
            for k in range(at.wide):
                if relu:
                    h_P[k] = zero if sums_P[k] <= 0 else sums_P[k]
                else:
                    h_P[k] = tanh(sums_P[k])
        _hold(a_SBK, t, n, at.first, at.wide)


@jit
def basic_backward(
    a_SBK: Any,
    at: Any,
    da_TBP: Any,
    weights: Any,
    running_T: Any,
    started: bool,
    relu: bool,
    dy_TBH: Any,
    dh_BP: Any,
    sums_GK: Any,
) -> None:
    """Computes the gradients of the preactivations, da_TBP, which has room for all steps or for one; adds
    those of the weights; replaces those of the final state, dh_BP, by those of the initial state."""
    zero = dh_BP.dtype.type(0)
    for t in range(len(running_T) - 1, -1, -1):
        n = running_T[t]
        _add(dy_TBH, t, dh_BP)
        for row in range(n):
            h_P, dh_P, da_P = a_SBK[t + 1, row, at.first :], dh_BP[row], da_TBP[t % len(da_TBP), row]
            for k in range(at.wide):
                if relu:
                    da_P[k] = zero if h_P[k] <= 0 else dh_P[k]
                else:
                    da_P[k] = dh_P[k] - dh_P[k] * h_P[k] * h_P[k]
        _clear(da_TBP, t % len(da_TBP), n)
        if t > 0 or started:
            product(da_TBP[t % len(da_TBP), :n, : at.hidden], weights, at.hidden, dh_BP[:n], 0)
        _add_sums(da_TBP, 0, at, 1, a_SBK, 0, t, n, t > 0 or started, sums_GK)


# lstm: gates i, f, g, o


@jit
def lstm(
    a_SBK: Any,
    at: Any,
    x: int,
    x_steps: Any,
    start_BH: Any,
    start_c_BH: Any,
    c_SBP: Any,
    gates_TBG: Any,
    weights: Any,
    running_T: Any,
    started: bool,
) -> None:
    """Fills the operands, which contain the states h, the states c, and the gates, which have room for all
    steps or for one."""
    _begin(a_SBK, at, start_BH, x, x_steps)
    _start(c_SBP[0], start_c_BH)
    lstm_steps(a_SBK, at, c_SBP, gates_TBG, weights, running_T, started)


@inner
def lstm_steps(
    a_SBK: Any, at: Any, c_SBP: Any, gates_TBG: Any, weights: Any, running_T: Any, started: bool
) -> None:
    """All steps, from operands that contain everything but the states."""
    wide, rows = at.wide, at.inputs + 1 + at.hidden
    for t in range(len(running_T)):
        n = running_T[t]
        operands_NK = _operands(a_SBK, t, n, at, t > 0 or started)
        gates_NG = gates_TBG[t % len(gates_TBG), :n]
        product(operands_NK, weights, rows, gates_NG[:, : 4 * wide], 0)
        for row in range(n):
            gates_G, c_P = gates_NG[row], c_SBP[t + 1, row]
            _to_sigmoid(gates_G[: 2 * wide])
            _to_tanh(gates_G[2 * wide : 3 * wide])
            _to_sigmoid(gates_G[3 * wide : 4 * wide])
            _new_cell(gates_G, c_SBP[t, row], c_P)
            _new_output(gates_G[3 * wide :], c_P, a_SBK[t + 1, row, at.first :])
        _hold(a_SBK, t, n, at.first, wide)
        _hold(c_SBP, t, n, 0, wide)


@inner
def _to_sigmoid(a_K: Any) -> None:
    for k in range(len(a_K)):
        a_K[k] = sigmoid(a_K[k])


@inner
def _to_tanh(a_K: Any) -> None:
    for k in range(len(a_K)):
        a_K[k] = tanh(a_K[k])


@inner
def _new_cell(gates_G: Any, before_P: Any, c_P: Any) -> None:
    wide = len(c_P)
    for k in range(wide):
        c_P[k] = gates_G[wide + k] * before_P[k] + gates_G[k] * gates_G[2 * wide + k]


@inner
def _new_output(o_P: Any, c_P: Any, h_P: Any) -> None:
    for k in range(len(c_P)):
        h_P[k] = o_P[k] * tanh(c_P[k])


@jit
def lstm_backward(
    a_SBK: Any,
    at: Any,
    c_SBP: Any,
    gates_TBG: Any,
    weights: Any,
    running_T: Any,
    started: bool,
    dy_TBH: Any,
    dh_BP: Any,
    dc_BP: Any,
    sums_GK: Any,
) -> None:
    """Replaces the gates by the gradients of their preactivations; adds those of the weights; replaces those
    of the final states by those of the initial states."""
    wide, rows = at.wide, 3 * at.wide + at.hidden
    for t in range(len(running_T) - 1, -1, -1):
        n = running_T[t]
        _add(dy_TBH, t, dh_BP)
        for row in range(n):
            gates_G, dc_P = gates_TBG[t, row], dc_BP[row]
            _through_output(gates_G[3 * wide :], c_SBP[t + 1, row], dh_BP[row], dc_P)
            _through_cell(gates_G, c_SBP[t, row], dc_P)
        _clear(gates_TBG, t, n)
        if t > 0 or started:
            product(gates_TBG[t, :n, :rows], weights, rows, dh_BP[:n], 0)
        _add_sums(gates_TBG, 0, at, 4, a_SBK, 0, t, n, t > 0 or started, sums_GK)


@inner
def _through_output(o_P: Any, c_P: Any, dh_P: Any, dc_P: Any) -> None:
    for k in range(len(c_P)):
        o, tanh_c = o_P[k], tanh(c_P[k])
        dtanh_c = dh_P[k] * o
        dc_P[k] += dtanh_c - dtanh_c * tanh_c * tanh_c
        o_P[k] = dh_P[k] * tanh_c * (o - o * o)


@inner
def _through_cell(gates_G: Any, before_P: Any, dc_P: Any) -> None:
    wide = len(dc_P)
    for k in range(wide):
        i, f, g, dc = gates_G[k], gates_G[wide + k], gates_G[2 * wide + k], dc_P[k]
        gates_G[k] = dc * g * (i - i * i)
        gates_G[wide + k] = dc * before_P[k] * (f - f * f)
        gates_G[2 * wide + k] = dc * (i - i * g * g)
        dc_P[k] = dc * f


# gru: four blocks of columns: W_n x + b, later the candidate n; the gates r and u; U_n h + c


@jit
def gru(
    a_SBK: Any,
    at: Any,
    x: int,
    x_steps: Any,
    start_BH: Any,
    z_TBG: Any,
    gate_weights: Any,
    input_weights: Any,
    state_weights: Any,
    running_T: Any,
    started: bool,
) -> None:
    """Fills the operands, which contain the states, and the columns z_TBG, which have room for all steps or
    for one.

    gate_weights (I + 1 + H, 2 P) are those of r and u; input_weights (I + 1, P) and state_weights (1 + H, P)
    those of the candidate, each with its bias.
    """
    weights = gate_weights, input_weights, state_weights
    _begin(a_SBK, at, start_BH, x, x_steps)
    gru_steps(a_SBK, at, z_TBG, weights, running_T, started)


@inner
def gru_steps(a_SBK: Any, at: Any, z_TBG: Any, weights: Any, running_T: Any, started: bool) -> None:
    """All steps, from operands that contain everything but the states."""
    gate_weights, input_weights, state_weights = weights
    wide, before = at.wide, at.inputs + 1
    for t in range(len(running_T)):
        n = running_T[t]
        a_NK, z_NG = _operands(a_SBK, t, n, at, t > 0 or started), z_TBG[t % len(z_TBG), :n]
        product(a_NK[:, :before], input_weights, before, z_NG[:, :wide], 0)
        product(a_NK, gate_weights, before + at.hidden, z_NG[:, wide : 3 * wide], 0)
        product(a_NK[:, at.inputs :], state_weights, 1 + at.hidden, z_NG[:, 3 * wide : 4 * wide], 0)
        for row in range(n):
            z_G = z_NG[row]
            _to_sigmoid(z_G[wide : 3 * wide])
            _candidate(z_G, wide)
            _mixed(z_G, wide, a_SBK[t, row, at.first :], a_SBK[t + 1, row, at.first :])
        _hold(a_SBK, t, n, at.first, wide)


@inner
def _candidate(z_G: Any, wide: int) -> None:
    for k in range(wide):
        z_G[k] = tanh(z_G[k] + z_G[wide + k] * z_G[3 * wide + k])


@inner
def _mixed(z_G: Any, wide: int, before_P: Any, h_P: Any) -> None:
    for k in range(wide):
        h_P[k] = z_G[k] + z_G[2 * wide + k] * (before_P[k] - z_G[k])


@jit
def gru_backward(
    a_SBK: Any,
    at: Any,
    z_TBG: Any,
    weights: Any,
    running_T: Any,
    started: bool,
    dy_TBH: Any,
    dh_BP: Any,
    of_gates_GK: Any,
    of_input_GK: Any,
    of_state_GK: Any,
) -> None:
    """Replaces the columns by their gradients; adds those of the weights; replaces those of the final state
    by those of the initial state.

    weights (2 P + H, P) are the recurrent weights of r, u and n.
    """
    wide, rows = at.wide, 2 * at.wide + at.hidden
    for t in range(len(running_T) - 1, -1, -1):
        n = running_T[t]
        _add(dy_TBH, t, dh_BP)
        for row in range(n):
            _through_mixture(z_TBG[t, row], a_SBK[t, row, at.first :], dh_BP[row])
        _clear(z_TBG, t, n)
        if t > 0 or started:
            product(z_TBG[t, :n, wide : wide + rows], weights, rows, dh_BP[:n], 1)
        stateful, one = t > 0 or started, at.first - lanes_of(dh_BP)
        _add_sums(z_TBG, wide, at, 2, a_SBK, 0, t, n, stateful, of_gates_GK)
        _add_sums(z_TBG, 0, at, 1, a_SBK, 0, t, n, False, of_input_GK)
        _add_sums(z_TBG, 3 * wide, at, 1, a_SBK, one, t, n, stateful, of_state_GK)


@inner
def _through_mixture(z_G: Any, before_P: Any, dh_P: Any) -> None:
    """Leaves in `dh_P` the part of the gradient that passes through u."""
    wide = len(dh_P)
    for k in range(wide):
        candidate, r, u, own = z_G[k], z_G[wide + k], z_G[2 * wide + k], z_G[3 * wide + k]
        kept = dh_P[k] * u
        through = dh_P[k] - kept
        dn = through - through * candidate * candidate  # not 1 - …: an integer would make it float64
        z_G[2 * wide + k] = dh_P[k] * (before_P[k] - candidate) * (u - u * u)
        z_G[k] = dn
        z_G[wide + k] = dn * own * (r - r * r)
        z_G[3 * wide + k] = dn * r
        dh_P[k] = kept
