"""Minimal gated unit.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import GatedCell, Paper
from rnnclf.cells.parameters import Parameters

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class MGU(GatedCell):
    """Minimal gated unit: a GRU with one gate for both reset and update.

    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)          forget gate
    n_t = tanh(W_n x_t + U_n (f_t * h_{t-1}) + b_n)     candidate
    h_t = (1 - f_t) * h_{t-1} + f_t * n_t

    The output is h_t. W, U and b are input_weight, recurrent_weight and bias, in blocks of H rows: f, n.
    """

    name: str = "mgu"

    paper: ClassVar = Paper(
        "Minimal Gated Unit for Recurrent Neural Networks",
        "Zhou et al.",
        2016,
        "https://arxiv.org/abs/1603.09420",
    )
    family: ClassVar = "gated"
    gates: ClassVar[tuple[str, ...]] = ("f", "n")

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x_f, x_n = z.chunk(2, dim=-1)
        U_f, U_n = p.recurrent_weight.chunk(2)
        f = x_f.addmm(state, U_f.t()).sigmoid()
        n = x_n.addmm(f * state, U_n.t()).tanh()
        h_BH = (1 - f) * state + f * n
        return h_BH, h_BH
