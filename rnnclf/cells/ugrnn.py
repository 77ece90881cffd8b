"""Update gate recurrent network.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import GatedCell, Paper
from rnnclf.cells.parameters import Parameters
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class UGRNN(GatedCell):
    """Elman network with one update gate between previous state and candidate.

    g_t = sigmoid(W_g x_t + U_g h_{t-1} + b_g)          update gate
    n_t = tanh(W_n x_t + U_n h_{t-1} + b_n)             candidate
    h_t = g_t * h_{t-1} + (1 - g_t) * n_t

    The output is h_t. W, U and b are input_weight, recurrent_weight and bias, in blocks of H rows: g, n.
    b_g starts at forget_bias, as in tf.contrib.rnn.UGRNNCell.
    """

    name: str = "ugrnn"
    forget_bias: float = option(1.0, "initial b_g; 1 starts by keeping most of the state", low=-100, high=100)

    paper: ClassVar = Paper(
        "Capacity and Trainability in Recurrent Neural Networks",
        "Collins et al.",
        2017,
        "https://arxiv.org/abs/1611.09913",
    )
    family: ClassVar = "gated"
    gates: ClassVar[tuple[str, ...]] = ("g", "n")

    def fill_bias(self, bias: Tensor) -> None:
        super().fill_bias(bias)
        bias.chunk(2)[0].fill_(self.forget_bias)

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        g, n = z.addmm(state, p.recurrent_weight.t()).chunk(2, dim=-1)
        g = g.sigmoid()
        h_BH = g * state + (1 - g) * n.tanh()
        return h_BH, h_BH
