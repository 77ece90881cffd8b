"""The workhorses through all steps in machine code, which Numba makes of these loops when first used.

The mathematics is that of rnnclf/cells/fused.py; what is saved are the calls, of which torch needs two dozen
a step, and the memory between them. Products are left to the BLAS that SciPy brings, one thread for each part
of a batch. No loop holds Python's lock, so that each core walks through its part by itself.

Numba keeps the machine code beside this file, or in the user's cache, and knows by this file's date whether
it is still right: so all that is compiled stands here.

Shapes: T time, B batch, N sequences still running (the first of B), I inputs, H hidden, G gates × H;
S = T + 1 states; J = I + 1 inputs with a one, whose weight is the bias; K = I + 1 + H those and the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numba
import numpy as np
import numpy.ma
import scipy.linalg.cython_blas  # noqa: F401  the library whose threads are limited below
import torch
from numba.extending import overload
from threadpoolctl import threadpool_limits
from torch import Tensor

from rnnclf.cells.fused import Gradients, OverTime

if TYPE_CHECKING:
    from rnnclf.cells.base import Parameters

F = TypeVar("F", bound=Callable[..., Any])

threadpool_limits(1, user_api="blas")  # of the whole process: the parts of a batch are threads already

# No check for a division by zero, which would keep the processor from doing 16 at once; a · b + c rounded
# once. Not more of "fast math": NaN has to stay NaN.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def jit(function: F) -> F:
    try:
        compiled: F = numba.njit(**_OPTIONS)(function)
    except RuntimeError:  # no folder to keep machine code in: it is made anew in each process
        compiled = numba.njit(**_OPTIONS | {"cache": False})(function)
    return compiled


# tanh(x) = x P(x²) / Q(x²) for |x| ≤ 9: least squares, weighted anew until the largest relative error
# was least, 2 · 10⁻⁸. With the rounding of float32 it is off by no more than 4 · 10⁻⁷.
_P = tuple(map(np.float32, (9.99999979e-01, 1.33810390e-01, 3.49560325e-03, 2.06093005e-05, 1.33549081e-08)))
_Q = tuple(map(np.float32, (1.0, 4.67143546e-01, 2.58770417e-02, 3.28565821e-04, 7.77667094e-07)))
_P0, _P1, _P2, _P3, _P4 = _P
_Q0, _Q1, _Q2, _Q3, _Q4 = _Q
_END, _ONE = np.float32(9), np.float32(1)


def _compiled_as(function: Callable[..., Any]) -> Callable[[F], F]:
    """For the function that gives the compiled code of `function` from the types of its arguments."""
    decorator: Callable[[F], F] = overload(function)
    return decorator


def tanh(x: Any) -> Any:
    """tanh of one number, inside compiled code: a fraction in float32, the library's in float64."""
    raise NotImplementedError("tanh is for compiled code.")


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) of one number, inside compiled code."""
    raise NotImplementedError("sigmoid is for compiled code.")


@_compiled_as(tanh)
def _tanh(x: Any) -> Any:
    def exact(x: Any) -> Any:
        return math.tanh(x)

    def fraction(x: Any) -> Any:
        x = _END if x > _END else (-_END if x < -_END else x)  # NaN stays
        u = x * x
        y = x * (_P0 + u * (_P1 + u * (_P2 + u * (_P3 + u * _P4))))
        y /= _Q0 + u * (_Q1 + u * (_Q2 + u * (_Q3 + u * _Q4)))
        return _ONE if y > _ONE else (-_ONE if y < -_ONE else y)

    return exact if x == numba.types.float64 else fraction


@_compiled_as(sigmoid)
def _sigmoid(x: Any) -> Any:
    half = np.float64(0.5) if x == numba.types.float64 else np.float32(0.5)

    def through_tanh(x: Any) -> Any:
        return half * tanh(half * x) + half

    return through_tanh


@jit
def _dot(a_MK: Any, b_KN: Any) -> Any:
    return np.dot(a_MK, b_KN)


@jit
def _rows(a_TBN: Any) -> Any:
    """All steps of all sequences below each other."""
    steps, batch, width = a_TBN.shape
    return a_TBN.reshape(steps * batch, width)


@jit
def _beside(x_TBI: Any, start_BH: Any) -> Any:
    """(S, B, K): the inputs, a one, and place for the states, of which the first stands there already."""
    steps, batch, inputs = x_TBI.shape
    a_SBK = np.empty((steps + 1, batch, inputs + 1 + start_BH.shape[1]), x_TBI.dtype)
    for t in range(steps):
        for row in range(batch):
            for k in range(inputs):
                a_SBK[t, row, k] = x_TBI[t, row, k]
            a_SBK[t, row, inputs] = 1
    a_SBK[0, :, inputs + 1 :] = start_BH
    return a_SBK


@jit
def _basic(x_TBI: Any, weight_KH: Any, start_BH: Any, running_T: Any, relu: bool) -> Any:
    steps, _, inputs = x_TBI.shape
    a_SBK, sums_BH = _beside(x_TBI, start_BH), np.empty_like(start_BH)
    zero = x_TBI.dtype.type(0)
    for t in range(steps):
        n = running_T[t]
        np.dot(a_SBK[t, :n], weight_KH, sums_BH[:n])
        for row in range(n):
            h_H, sums_H = a_SBK[t + 1, row, inputs + 1 :], sums_BH[row]
            for k in range(len(h_H)):
                if relu:
                    h_H[k] = zero if sums_H[k] <= 0 else sums_H[k]
                else:
                    h_H[k] = tanh(sums_H[k])
        a_SBK[t + 1, n:, inputs + 1 :] = a_SBK[t, n:, inputs + 1 :]
    return a_SBK


@jit
def _basic_back(
    a_SBK: Any, weight_HH: Any, running_T: Any, started: bool, relu: bool, dy_TBH: Any, dh_BH: Any
) -> Any:
    steps, batch, first = len(a_SBK) - 1, len(dh_BH), a_SBK.shape[2] - dh_BH.shape[1]
    da_TBH = np.empty((steps, batch, len(weight_HH)), dh_BH.dtype)
    zero = dh_BH.dtype.type(0)
    for t in range(steps - 1, -1, -1):
        n = running_T[t]
        if len(dy_TBH):
            dh_BH += dy_TBH[t]
        for row in range(n):
            h_H, dh_H, da_H = a_SBK[t + 1, row, first:], dh_BH[row], da_TBH[t, row]
            for k in range(len(da_H)):
                if relu:
                    da_H[k] = zero if h_H[k] <= 0 else dh_H[k]
                else:
                    da_H[k] = dh_H[k] - dh_H[k] * h_H[k] * h_H[k]
        da_TBH[t, n:] = 0
        if t > 0 or started:
            np.dot(da_TBH[t, :n], weight_HH, dh_BH[:n])
    return da_TBH, np.dot(_rows(a_SBK[:-1]).T, _rows(da_TBH))


@jit
def _lstm(x_TBI: Any, weight_KG: Any, start_BH: Any, start_c_BH: Any, running_T: Any) -> Any:
    """The states h, beside the inputs, and c; and the gates i, f, g, o."""
    steps, batch, inputs = x_TBI.shape
    hidden = start_BH.shape[1]
    a_SBK, c_SBH = _beside(x_TBI, start_BH), np.empty((steps + 1, batch, hidden), x_TBI.dtype)
    c_SBH[0] = start_c_BH
    gates_TBG = np.empty((steps, batch, 4 * hidden), x_TBI.dtype)
    for t in range(steps):
        n = running_T[t]
        np.dot(a_SBK[t, :n], weight_KG, gates_TBG[t, :n])
        for row in range(n):
            gates_G, c_H = gates_TBG[t, row], c_SBH[t + 1, row]
            _to_sigmoid(gates_G[: 2 * hidden])
            _to_tanh(gates_G[2 * hidden : 3 * hidden])
            _to_sigmoid(gates_G[3 * hidden :])
            _new_cell(gates_G, c_SBH[t, row], c_H)
            _new_output(gates_G[3 * hidden :], c_H, a_SBK[t + 1, row, inputs + 1 :])
        a_SBK[t + 1, n:, inputs + 1 :] = a_SBK[t, n:, inputs + 1 :]
        c_SBH[t + 1, n:] = c_SBH[t, n:]
    return a_SBK, c_SBH, gates_TBG


@jit
def _to_sigmoid(a_K: Any) -> None:
    for k in range(len(a_K)):
        a_K[k] = sigmoid(a_K[k])


@jit
def _to_tanh(a_K: Any) -> None:
    for k in range(len(a_K)):
        a_K[k] = tanh(a_K[k])


@jit
def _new_cell(gates_G: Any, before_H: Any, c_H: Any) -> None:
    hidden = len(c_H)
    for k in range(hidden):
        c_H[k] = gates_G[hidden + k] * before_H[k] + gates_G[k] * gates_G[2 * hidden + k]


@jit
def _new_output(o_H: Any, c_H: Any, h_H: Any) -> None:
    for k in range(len(h_H)):
        h_H[k] = o_H[k] * tanh(c_H[k])


@jit
def _lstm_back(
    a_SBK: Any,
    c_SBH: Any,
    gates_TBG: Any,
    weight_GH: Any,
    running_T: Any,
    started: bool,
    dy_TBH: Any,
    dh_BH: Any,
    dc_BH: Any,
) -> Any:
    """The gates become the gradients of their sums."""
    steps, _, width = gates_TBG.shape
    hidden = width // 4
    for t in range(steps - 1, -1, -1):
        n = running_T[t]
        if len(dy_TBH):
            dh_BH += dy_TBH[t]
        for row in range(n):
            gates_G, dc_H = gates_TBG[t, row], dc_BH[row]
            _through_output(gates_G[3 * hidden :], c_SBH[t + 1, row], dh_BH[row], dc_H)
            _through_cell(gates_G, c_SBH[t, row], dc_H)
        gates_TBG[t, n:] = 0
        if t > 0 or started:
            np.dot(gates_TBG[t, :n], weight_GH, dh_BH[:n])
    return np.dot(_rows(a_SBK[:-1]).T, _rows(gates_TBG))


@jit
def _through_output(o_H: Any, c_H: Any, dh_H: Any, dc_H: Any) -> None:
    for k in range(len(o_H)):
        o, squashed = o_H[k], tanh(c_H[k])
        squashed_dh = dh_H[k] * o
        dc_H[k] += squashed_dh - squashed_dh * squashed * squashed
        o_H[k] = dh_H[k] * squashed * (o - o * o)


@jit
def _through_cell(gates_G: Any, before_H: Any, dc_H: Any) -> None:
    hidden = len(dc_H)
    for k in range(hidden):
        i, f, g, dc = gates_G[k], gates_G[hidden + k], gates_G[2 * hidden + k], dc_H[k]
        gates_G[k] = dc * g * (i - i * i)
        gates_G[hidden + k] = dc * before_H[k] * (f - f * f)
        gates_G[2 * hidden + k] = dc * (i - i * g * g)
        dc_H[k] = dc * f


@jit
def _gru(
    x_TBI: Any,
    weight_JG: Any,
    weight_HG: Any,
    bias_H: Any,
    start_BH: Any,
    running_T: Any,
    started: bool,
) -> Any:
    """The inputs with ones; the states; the gates r, u, n; and U_n h + c."""
    steps, batch, _ = x_TBI.shape
    hidden = len(bias_H)
    x_TBJ = _beside(x_TBI, start_BH[:, :0])[:-1]
    z_TBG = np.dot(_rows(x_TBJ), weight_JG).reshape(steps, batch, 3 * hidden)
    h_SBH = np.empty((steps + 1, batch, hidden), x_TBI.dtype)
    h_SBH[0] = start_BH
    own_TBH = np.empty((steps, batch, hidden), x_TBI.dtype)
    sums_BG = np.zeros_like(z_TBG[0])
    for t in range(steps):
        n = running_T[t]
        if t > 0 or started:
            np.dot(h_SBH[t, :n], weight_HG, sums_BG[:n])
        for row in range(n):
            gates_G, sums_G, own_H = z_TBG[t, row], sums_BG[row], own_TBH[t, row]
            for k in range(2 * hidden):
                gates_G[k] = sigmoid(gates_G[k] + sums_G[k])
            for k in range(hidden):
                own_H[k] = sums_G[2 * hidden + k] + bias_H[k]
            _candidate(gates_G, own_H)
            _mixed(gates_G, h_SBH[t, row], h_SBH[t + 1, row])
        h_SBH[t + 1, n:] = h_SBH[t, n:]
    return x_TBJ, h_SBH, z_TBG, own_TBH


@jit
def _candidate(gates_G: Any, own_H: Any) -> None:
    hidden = len(own_H)
    for k in range(hidden):
        gates_G[2 * hidden + k] = tanh(gates_G[2 * hidden + k] + gates_G[k] * own_H[k])


@jit
def _mixed(gates_G: Any, before_H: Any, h_H: Any) -> None:
    hidden = len(h_H)
    for k in range(hidden):
        candidate = gates_G[2 * hidden + k]
        h_H[k] = candidate + gates_G[hidden + k] * (before_H[k] - candidate)


@jit
def _gru_back(
    x_TBJ: Any,
    h_SBH: Any,
    z_TBG: Any,
    own_TBH: Any,
    weight_GH: Any,
    running_T: Any,
    started: bool,
    dy_TBH: Any,
    dh_BH: Any,
) -> Any:
    """The gates become the gradients of the sums W x + b. Returns those of W and b, U, c."""
    steps, _, hidden = own_TBH.shape
    kept_BH, dbias_H = np.empty_like(dh_BH), np.zeros_like(dh_BH[0])
    for t in range(steps - 1, -1, -1):
        n = running_T[t]
        if len(dy_TBH):
            dh_BH += dy_TBH[t]
        for row in range(n):
            gates_G, own_H, dh_H = z_TBG[t, row], own_TBH[t, row], dh_BH[row]
            _through_mixture(gates_G, h_SBH[t, row], dh_H, kept_BH[row])
            _through_candidate(gates_G, own_H, dh_H)
            dbias_H += gates_G[2 * hidden :]
        z_TBG[t, n:] = 0
        own_TBH[t, n:] = 0
        if t > 0 or started:
            np.dot(z_TBG[t, :n], weight_GH, dh_BH[:n])
            for row in range(n):
                for k in range(hidden):
                    dh_BH[row, k] += kept_BH[row, k]
    drecurrent_HG = np.dot(_rows(h_SBH[:-1]).T, _rows(z_TBG))
    z_TBG[:, :, 2 * hidden :] = own_TBH
    return np.dot(_rows(x_TBJ).T, _rows(z_TBG)), drecurrent_HG, dbias_H


@jit
def _through_mixture(gates_G: Any, before_H: Any, dh_H: Any, kept_H: Any) -> None:
    """Leaves in `dh_H` the gradient of the sum in tanh, and in `kept_H` what u lets through."""
    hidden = len(dh_H)
    for k in range(hidden):
        u, candidate, dh = gates_G[hidden + k], gates_G[2 * hidden + k], dh_H[k]
        gates_G[hidden + k] = dh * (before_H[k] - candidate) * (u - u * u)
        kept = dh * u
        kept_H[k] = kept
        dh_H[k] = (dh - kept) - (dh - kept) * candidate * candidate


@jit
def _through_candidate(gates_G: Any, own_H: Any, dn_H: Any) -> None:
    hidden = len(own_H)
    for k in range(hidden):
        r, dn = gates_G[k], dn_H[k]
        gates_G[k] = dn * own_H[k] * (r - r * r)
        gates_G[2 * hidden + k] = dn * r
        own_H[k] = dn


class Compiled(OverTime):
    """One run in compiled loops."""

    def __init__(self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *how: Any) -> None:
        super().__init__(cell, p, x_TBI, state, *how)
        self.x_TBI = x_TBI.numpy()
        self.start: list[Any] = [part.contiguous().numpy() for part in state]
        steps, batch, _ = x_TBI.shape
        self.running_T = np.full(steps, batch) if self.running is None else np.array(self.running)

    @classmethod
    def prepared(cls, cell: Any, p: Parameters) -> Parameters:
        """Also all weights in one matrix, and what is multiplied with on the way back."""
        bias_G1 = p.bias.unsqueeze(-1)
        weight_KG = torch.cat((p.input_weight, bias_G1, p.recurrent_weight), 1).t().contiguous()
        return type(p)(**vars(p), weight_KG=weight_KG, weight_GH=p.recurrent_weight.contiguous())

    def h_of(self, a_SBK: Any) -> Tensor:
        """The states that stand beside the inputs."""
        return torch.from_numpy(a_SBK)[..., -self.cell.hidden_size :]

    def gradients(self, dz_TBG: Any, dweight_KG: Any, inputs: bool) -> Gradients:
        """Those of weights that lie in one matrix."""
        width = self.p.input_weight.shape[1]
        dweight = torch.from_numpy(dweight_KG)
        dx_TBI = self.of_inputs(dz_TBG) if inputs else None
        return Gradients([dweight[:width], dweight[width + 1 :], dweight[width]], dx_TBI)

    def of_inputs(self, dz_TBG: Any) -> Tensor:
        steps, batch, width = dz_TBG.shape
        weight_GI = self.p.input_weight.contiguous().numpy()
        dx_RI = _dot(dz_TBG.reshape(steps * batch, width), weight_GI)
        return torch.from_numpy(dx_RI).view(steps, batch, -1)


def _array(dy_TBH: Tensor | None, like_BH: Any) -> Any:
    """The gradients of all outputs, or none."""
    return like_BH[None][:0] if dy_TBH is None else dy_TBH.contiguous().numpy()


class CompiledBasic(Compiled):
    def run(self) -> None:
        relu = self.cell.nonlinearity == "relu"
        (start,) = self.start
        self.a_SBK = _basic(self.x_TBI, self.p.weight_KG.numpy(), start, self.running_T, relu)
        self.states_SBH = (self.h_of(self.a_SBK),)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        relu, (dh,) = self.cell.nonlinearity == "relu", (d.numpy() for d in dstates)
        weight, dy = self.p.weight_GH.numpy(), _array(dy_TBH, dh)
        da, dweight = _basic_back(self.a_SBK, weight, self.running_T, self.started, relu, dy, dh)
        return self.gradients(da, dweight, inputs)


class CompiledLSTM(Compiled):
    def run(self) -> None:
        start, start_c = self.start
        made = _lstm(self.x_TBI, self.p.weight_KG.numpy(), start, start_c, self.running_T)
        self.a_SBK, self.c_SBH, self.gates_TBG = made
        self.states_SBH = self.h_of(self.a_SBK), torch.from_numpy(self.c_SBH)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh, dc = (d.numpy() for d in dstates)
        weight, dy = self.p.weight_GH.numpy(), _array(dy_TBH, dh)
        how = weight, self.running_T, self.started
        dweight = _lstm_back(self.a_SBK, self.c_SBH, self.gates_TBG, *how, dy, dh, dc)
        return self.gradients(self.gates_TBG, dweight, inputs)


class CompiledGRU(Compiled):
    own_parameters = ("candidate_bias",)

    @classmethod
    def prepared(cls, cell: Any, p: Parameters) -> Parameters:
        weight_JG = torch.cat((p.input_weight, p.bias.unsqueeze(-1)), 1).t().contiguous()
        weights = {"weight_JG": weight_JG, "weight_HG": p.recurrent_weight.t().contiguous()}
        return type(p)(**vars(p), **weights, weight_GH=p.recurrent_weight.contiguous())

    def run(self) -> None:
        (start,), p = self.start, self.p
        weights = p.weight_JG.numpy(), p.weight_HG.numpy(), p.candidate_bias.numpy()
        made = _gru(self.x_TBI, *weights, start, self.running_T, self.started)
        self.x_TBJ, self.h_SBH, self.z_TBG, self.own_TBH = made
        self.states_SBH = (torch.from_numpy(self.h_SBH),)

    def run_back(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        (dh,) = (d.numpy() for d in dstates)
        weight, dy = self.p.weight_GH.numpy(), _array(dy_TBH, dh)
        made, how = (self.x_TBJ, self.h_SBH, self.z_TBG, self.own_TBH), (self.running_T, self.started)
        done: Any = _gru_back(*made, weight, *how, dy, dh)
        dweight, drecurrent, dcandidate = map(torch.from_numpy, done)
        dx_TBI = self.of_inputs(self.z_TBG) if inputs else None
        return Gradients([dweight[:-1], drecurrent, dweight[-1], dcandidate], dx_TBI)
