"""Gated recurrent unit.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import GatedCell, Paper, Parameters, ParameterSpec
from rnnclf.cells.initializers import zeros

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class GRU(GatedCell):
    """Gated recurrent unit: one gate keeps the state, one lets the candidate see it.

    r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)          reset gate
    z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)          update gate
    n_t = tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + c)) candidate
    h_t = (1 - z_t) * n_t + z_t * h_{t-1}

    The output is h_t. Differs from the paper: r_t acts after the product with U_n, which needs the
    bias c of its own, as in torch.nn.GRUCell and cuDNN.
    """

    name: str = "gru"

    paper: ClassVar = Paper(
        "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
        "Cho et al.",
        2014,
        "https://arxiv.org/abs/1406.1078",
    )
    formula: ClassVar[str] = "3*h*(n + h + 1) + h"
    gates: ClassVar[tuple[str, ...]] = ("r", "z", "n")

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        candidate_bias = ParameterSpec((self.hidden_size,), zeros)
        return {**super().parameters(input_size), "candidate_bias": candidate_bias}

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x_r, x_z, x_n = z.chunk(3, dim=-1)
        h_r, h_z, h_n = (state @ p.recurrent_weight.t()).chunk(3, dim=-1)
        r = (x_r + h_r).sigmoid()
        u = (x_z + h_z).sigmoid()  # z_t of the equations
        n = (x_n + r * (h_n + p.candidate_bias)).tanh()
        h_BH = (1 - u) * n + u * state
        return h_BH, h_BH
