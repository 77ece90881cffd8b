"""LSTM and GRU with uniform-refine gates.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import GatedCell, Paper, Published
from rnnclf.cells.lstm import LSTMState
from rnnclf.cells.parameters import Parameters

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class UniformRefineCell(GatedCell):
    """Base of both cells: initialisation of the forget gate f and the refine gate r."""

    paper: ClassVar = Paper(
        "Improving the Gating Mechanism of Recurrent Neural Networks",
        "Gu et al.",
        2020,
        "https://arxiv.org/abs/1910.09890",
    )
    family: ClassVar = "gated"

    def fill_bias(self, bias: Tensor) -> None:
        super().fill_bias(bias)
        blocks = dict(zip(self.gates, bias.chunk(len(self.gates)), strict=True))
        edge = 1 / max(2, self.hidden_size)  # keeps the gate away from 0 and 1, where its bias is infinite
        blocks["f"].uniform_(edge, 1 - edge).logit_()
        blocks["r"].copy_(-blocks["f"])


def _refined(f: Tensor, r: Tensor) -> Tensor:
    """The gate f adjusted by the refine gate r: from f² at r = 0 to 1 - (1 - f)² at r = 1."""
    return f + f * (1 - f) * (2 * r - 1)


@dataclass
class URLSTM(UniformRefineCell):
    """LSTM with a refined forget gate, initialised over all time scales.

    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)          forget gate
    r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)          refine gate
    u_t = tanh(W_u x_t + U_u h_{t-1} + b_u)             candidate
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)          output gate
    g_t = 2 r_t * f_t + (1 - 2 r_t) * f_t * f_t         refined forget gate
    c_t = g_t * c_{t-1} + (1 - g_t) * u_t
    h_t = o_t * tanh(c_t)

    The output is h_t. W, U and b are input_weight, recurrent_weight and bias, in blocks of H rows:
    f, r, u, o. b_f is initialised so that sigmoid(b_f) is uniform between 1/H and 1 - 1/H (1/2 for H up to
    2), and b_r to -b_f.

    Differs from the paper: there a single trained b_f is added in f_t and subtracted in r_t; here each gate
    has its own bias, and only their initial values are tied.
    """

    name: str = "urlstm"

    published: ClassVar[tuple[Published, ...]] = (
        Published("sMNIST", 99.28, "the paper"),
        Published("psMNIST", 96.96, "the paper"),
        Published("sCIFAR", 71.0, "the paper"),
    )
    gates: ClassVar[tuple[str, ...]] = ("f", "r", "u", "o")

    def initial_state(self, x_BI: Tensor) -> LSTMState:
        zeros_BH = x_BI.new_zeros(x_BI.shape[0], self.hidden_size)
        return LSTMState(zeros_BH, zeros_BH)

    def step(self, p: Parameters, z: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        f, r, u, o = z.addmm(state.h, p.recurrent_weight.t()).chunk(4, dim=-1)
        g = _refined(f.sigmoid(), r.sigmoid())
        c_BH = g * state.c + (1 - g) * u.tanh()
        h_BH = o.sigmoid() * c_BH.tanh()
        return h_BH, LSTMState(h_BH, c_BH)


@dataclass
class URGRU(UniformRefineCell):
    """GRU with a refined forget gate, initialised over all time scales.

    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)          forget gate, called z_t in the cell `gru`
    r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)          refine gate
    s_t = sigmoid(W_s x_t + U_s h_{t-1} + b_s)          reset gate
    g_t = 2 r_t * f_t + (1 - 2 r_t) * f_t * f_t         refined forget gate
    u_t = tanh(W_u x_t + U_u (s_t * h_{t-1}) + b_u)     candidate
    h_t = g_t * h_{t-1} + (1 - g_t) * u_t

    The output is h_t. W, U and b are input_weight, recurrent_weight and bias, in blocks of H rows:
    f, r, s, u. b_f and b_r are initialised as in the cell `urlstm`, with the same difference from the paper.
    """

    name: str = "urgru"

    published: ClassVar[tuple[Published, ...]] = (
        Published("sMNIST", 99.27, "the paper"),
        Published("psMNIST", 96.51, "the paper"),
        Published("sCIFAR", 74.4, "the paper"),
    )
    gates: ClassVar[tuple[str, ...]] = ("f", "r", "s", "u")

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        gates = 3 * self.hidden_size
        U_frs, U_u = p.recurrent_weight[:gates], p.recurrent_weight[gates:]
        f, r, s = z[:, :gates].addmm(state, U_frs.t()).sigmoid().chunk(3, dim=-1)
        g = _refined(f, r)
        u = z[:, gates:].addmm(s * state, U_u.t()).tanh()
        h_BH = g * state + (1 - g) * u
        return h_BH, h_BH
