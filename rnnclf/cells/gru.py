"""Gated recurrent unit.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import GatedCell, Paper, Published
from rnnclf.cells.initializers import zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor

    from rnnclf.engine.fused_steps import FusedSteps


@dataclass
class GRU(GatedCell):
    """Gated recurrent unit: an update gate and a reset gate.

    r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)          reset gate
    z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)          update gate
    n_t = tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + c)) candidate, reset "after"
    n_t = tanh(W_n x_t + b_n + U_n (r_t * h_{t-1}))     candidate, reset "before"
    h_t = (1 - z_t) * n_t + z_t * h_{t-1}

    The output is h_t. W, U and b are input_weight, recurrent_weight and bias, in blocks of H rows:
    r, z, n. Reset "before" is the paper's version. With "after", as in torch.nn.GRUCell and cuDNN, r_t
    multiplies the product with U_n, which then has its own bias c, candidate_bias.
    """

    name: str = "gru"
    reset: str = option(
        "after",
        "whether the reset gate r_t acts after or before the product with U_n",
        choices=("after", "before"),
    )

    paper: ClassVar = Paper(
        "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
        "Cho et al.",
        2014,
        "https://arxiv.org/abs/1406.1078",
    )
    published: ClassVar[tuple[Published, ...]] = (
        Published("psMNIST", 94.1, "https://arxiv.org/abs/2610.10690", "200,000 parameters; as quoted there"),
    )
    family: ClassVar = "gated"
    gates: ClassVar[tuple[str, ...]] = ("r", "z", "n")

    @property
    def formula(self) -> str:
        return f"{super().formula} + h" if self.reset == "after" else super().formula

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        shared = super().parameters(input_size)
        if self.reset == "before":
            return shared
        return {**shared, "candidate_bias": ParameterSpec((self.hidden_size,), zeros)}

    def declares(self, method: str) -> bool:
        return self.reset == "after" and super().declares(method)

    def fused_steps(self) -> type[FusedSteps]:
        from rnnclf.engine.fused_steps import FusedGRU

        return FusedGRU

    def native_layer(self) -> str:
        return "gru"

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x_r, x_z, x_n = z.chunk(3, dim=-1)
        if self.reset == "after":
            h_r, h_z, h_n = (state @ p.recurrent_weight.t()).chunk(3, dim=-1)
            r = (x_r + h_r).sigmoid()
            u = (x_z + h_z).sigmoid()  # z_t of the equations
            n = (x_n + r * (h_n + p.candidate_bias)).tanh()
        else:
            gates = 2 * self.hidden_size
            U_rz, U_n = p.recurrent_weight[:gates], p.recurrent_weight[gates:]
            r, u = z[:, :gates].addmm(state, U_rz.t()).sigmoid().chunk(2, dim=-1)
            n = x_n.addmm(r * state, U_n.t()).tanh()
        h_BH = (1 - u) * n + u * state
        return h_BH, h_BH
