"""Long short-term memory with peepholes.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import Paper, Published
from rnnclf.cells.initializers import zeros
from rnnclf.cells.lstm import LSTM, LSTMState
from rnnclf.cells.parameters import Parameters, ParameterSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Peephole(LSTM):
    """LSTM with peepholes: the gates also see the memory that they control.

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i)      input gate
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)      forget gate
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)                         candidate
    c_t = f_t * c_{t-1} + i_t * g_t
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)          output gate
    h_t = o_t * tanh(c_t)

    The output is h_t. W, U and b are input_weight, recurrent_weight and bias, in blocks of H rows:
    i, f, g, o. p is peephole_weight, in blocks of H elements: i, f, o; it starts at 0, which makes the cell a
    plain LSTM. b starts as in the cell `lstm`.

    Differs from the paper: both squashing functions are tanh and gradients are not truncated, as in
    Graves 2013 (https://arxiv.org/abs/1308.0850).
    """

    name: str = "peephole"

    paper: ClassVar = Paper(
        "Recurrent Nets that Time and Count",
        "Gers & Schmidhuber",
        2000,
        "https://doi.org/10.1109/IJCNN.2000.861302",
    )
    published: ClassVar[tuple[Published, ...]] = ()

    @property
    def formula(self) -> str:
        return f"{super().formula} + 3*h"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        peephole_weight = ParameterSpec((3 * self.hidden_size,), zeros)
        return {**super().parameters(input_size), "peephole_weight": peephole_weight}

    def step(self, p: Parameters, z: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        i, f, g, o = z.addmm(state.h, p.recurrent_weight.t()).chunk(4, dim=-1)
        p_i, p_f, p_o = p.peephole_weight.chunk(3)
        i, f = (i + p_i * state.c).sigmoid(), (f + p_f * state.c).sigmoid()
        c_BH = f * state.c + i * g.tanh()
        h_BH = (o + p_o * c_BH).sigmoid() * c_BH.tanh()
        return h_BH, LSTMState(h_BH, c_BH)
