"""The sLSTM cell of xLSTM.  Shapes: B batch, I inputs, H hidden, J heads, D units per head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rnnclf.cells.base import GatedCell, Paper
from rnnclf.cells.initializers import RECURRENT_INITS, Fan
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


class SLSTMState(NamedTuple):
    """Hidden state h, memory c, normaliser n, and the logarithm m of the scale of c and n, each (B, H)."""

    h: Tensor
    c: Tensor
    n: Tensor
    m: Tensor


@dataclass
class SLSTM(GatedCell):
    """sLSTM: LSTM with an exponential input gate and a normalised memory.

    i_t = W_i x_t + U_i h_{t-1} + b_i                       logarithm of the input gate
    f_t = logsigmoid(W_f x_t + U_f h_{t-1} + b_f)           logarithm of the forget gate
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)                 candidate
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)              output gate
    m_t = max(f_t + m_{t-1}, i_t)                           log of the scale, prevents overflow
    c_t = exp(f_t + m_{t-1} - m_t) * c_{t-1} + exp(i_t - m_t) * g_t
    n_t = exp(f_t + m_{t-1} - m_t) * n_{t-1} + exp(i_t - m_t)
    h_t = o_t * c_t / n_t
    h_0 = c_0 = n_0 = 0,  m_0 = -infinity                   so n_t is at least 1

    The output is h_t. With forget_gate=exp, f_t is the sum itself, without logsigmoid.

    W, U and b are input_weight, recurrent_weight and bias, in blocks of H rows: i, f, g, o. heads divides
    the units into that many equal groups; each row of recurrent_weight then has h / heads columns, for the
    units of its own head, so that the U of each gate is block-diagonal.

    b_f starts at 5 - 12 (k / (D - 1))^1.6 for unit k = 0 … D - 1 of a head: some units keep their memory,
    others forget quickly. With forget_gate=exp it starts at the logsigmoid of that, which is the same gate.

    Differs from the paper: only the cell, without the convolution, group norm and projections of its block.
    b_f starts as in the last block of the paper's code, but U follows recurrent_init and does not start at
    zero.
    """

    name: str = "slstm"
    forget_gate: str = option("sigmoid", "the function used by the forget gate", choices=("sigmoid", "exp"))
    heads: int = option(1, "groups of units without recurrent weights between them", low=1, high=1_000_000)

    paper: ClassVar = Paper(
        "xLSTM: Extended Long Short-Term Memory",
        "Beck et al.",
        2024,
        "https://arxiv.org/abs/2405.04517",
    )
    family: ClassVar = "gated"
    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")
    zoneout: ClassVar[bool] = False

    @property
    def formula(self) -> str:
        return "4*h*(n + 1) + 4*h*h//heads"

    @property
    def multiple(self) -> int:
        return self.heads

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        fan = Fan(inputs=input_size, hidden=self.hidden_size, gates=len(self.gates))
        fill = RECURRENT_INITS[self.recurrent_init]

        def fill_heads(weight: Tensor) -> None:
            for block_DD in weight.chunk(len(self.gates) * self.heads):
                fill(block_DD, fan)

        shape = (len(self.gates) * self.hidden_size, self.hidden_size // self.heads)
        return {**super().parameters(input_size), "recurrent_weight": ParameterSpec(shape, fill_heads)}

    def fill_bias(self, bias: Tensor) -> None:
        import torch

        super().fill_bias(bias)
        share_D = torch.linspace(0, 1, self.hidden_size // self.heads)
        b_f = (5 - 12 * share_D**1.6).repeat(self.heads)
        _, bias_f, _, _ = bias.chunk(4)
        bias_f.copy_(b_f if self.forget_gate == "sigmoid" else torch.nn.functional.logsigmoid(b_f))

    def initial_state(self, x_BI: Tensor) -> SLSTMState:
        zeros_BH = x_BI.new_zeros(x_BI.shape[0], self.hidden_size)
        return SLSTMState(zeros_BH, zeros_BH, zeros_BH, zeros_BH - math.inf)

    def step(self, p: Parameters, z: Tensor, state: SLSTMState) -> tuple[Tensor, SLSTMState]:
        from torch.nn.functional import logsigmoid

        i, f, g, o = self._mixed(p, z, state.h).chunk(4, dim=-1)
        kept = state.m + (logsigmoid(f) if self.forget_gate == "sigmoid" else f)
        m_BH = kept.maximum(i)
        keep, write = (kept - m_BH).exp(), (i - m_BH).exp()
        c_BH = keep * state.c + write * g.tanh()
        n_BH = keep * state.n + write
        h_BH = o.sigmoid() * c_BH / n_BH
        return h_BH, SLSTMState(h_BH, c_BH, n_BH, m_BH)

    def _mixed(self, p: Parameters, z: Tensor, h_BH: Tensor) -> Tensor:
        """z plus the recurrent contribution to each gate: (B, 4·H)."""
        import torch

        if self.heads == 1:
            return z.addmm(h_BH, p.recurrent_weight.t())
        units = self.hidden_size // self.heads
        h_BJD = h_BH.reshape(-1, self.heads, units)
        weight_GJED = p.recurrent_weight.reshape(len(self.gates), self.heads, units, units)
        return z + torch.einsum("bjd,gjed->bgje", h_BJD, weight_GJED).flatten(1)
