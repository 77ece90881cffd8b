"""Long short-term memory.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rnnclf.cells.base import GatedCell, Paper, Parameters
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


class LSTMState(NamedTuple):
    """The hidden state and the memory of an LSTM, both (B, H)."""

    h: Tensor
    c: Tensor


@dataclass
class LSTM(GatedCell):
    """Long short-term memory: written, kept and read through gates.

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)      input gate
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)      forget gate
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)         candidate
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)      output gate
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

    The output is h_t. With the forget gate of Gers et al. 2000; as torch.nn.LSTMCell, with one bias
    instead of two that are only ever added. b_f starts at forget_bias (Jozefowicz et al. 2015), which
    keeps the memory open at the start.
    """

    name: str = "lstm"
    forget_bias: float = option(1.0, "start of b_f; 1 keeps the memory open", low=-100, high=100)

    paper: ClassVar = Paper(
        "Long Short-Term Memory",
        "Hochreiter & Schmidhuber",
        1997,
        "https://doi.org/10.1162/neco.1997.9.8.1735",
    )
    formula: ClassVar[str] = "4*h*(n + h + 1)"
    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")

    def fill_bias(self, bias: Tensor) -> None:
        super().fill_bias(bias)
        bias.chunk(len(self.gates))[self.gates.index("f")].fill_(self.forget_bias)

    def initial_state(self, x_BI: Tensor) -> LSTMState:
        zeros_BH = x_BI.new_zeros(x_BI.shape[0], self.hidden_size)
        return LSTMState(zeros_BH, zeros_BH)

    def step(self, p: Parameters, z: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        i, f, g, o = z.addmm(state.h, p.recurrent_weight.t()).chunk(4, dim=-1)
        c_BH = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
        h_BH = o.sigmoid() * c_BH.tanh()
        return h_BH, LSTMState(h_BH, c_BH)
