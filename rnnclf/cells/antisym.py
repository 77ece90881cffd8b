"""The antisymmetric recurrent cell.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import AffineCell, Paper, Published
from rnnclf.cells.initializers import zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class AntisymmetricRNN(AffineCell):
    """Euler steps of an ODE that neither damps nor amplifies its state.

    S   = strictly upper triangular H × H matrix, stored row by row in skew_weight
    A   = S - S' - gamma I                                      S' is S transposed
    h_t = h_{t-1} + epsilon tanh(A h_{t-1} + V_h x_t + b_h)

    and with gated=true, where the gate uses the same A:

    g_t = sigmoid(A h_{t-1} + V_g x_t + b_g)
    h_t = h_{t-1} + epsilon g_t * tanh(A h_{t-1} + V_h x_t + b_h)

    The output is h_t. V_h and V_g are the blocks of input_weight, b_h and b_g the blocks of bias, in this
    order. The eigenvalues of S - S' are imaginary, so the continuous flow preserves its state; gamma shifts
    them to the left to compensate for the growth that Euler steps introduce. For hundreds of steps, use a
    smaller epsilon, such as 0.01.

    Differs from the paper: the paper has a full matrix W, of which only W - W' is used. Here that difference
    is the parameter, initialised with the same variance (that of W is 1/H).
    """

    name: str = "antisym"
    gated: bool = option(False, "scale each unit's step by a gate")
    epsilon: float = option(0.1, "size of one Euler step", above=0, high=10)
    gamma: float = option(0.01, "diffusion: damping that keeps the Euler steps stable", low=0, high=100)

    paper: ClassVar = Paper(
        "AntisymmetricRNN: A Dynamical System View on Recurrent Neural Networks",
        "Chang et al.",
        2019,
        "https://arxiv.org/abs/1902.09689",
    )
    published: ClassVar = (
        Published("sMNIST", 98.0, "the paper", "hidden 128"),
        Published("psMNIST", 95.8, "the paper", "hidden 128"),
        Published("sMNIST", 98.8, "the paper", "hidden 128, gated"),
        Published("psMNIST", 93.1, "the paper", "hidden 128, gated"),
    )
    family: ClassVar = "dynamical systems"

    @property
    def formula(self) -> str:
        return f"{'2*' if self.gated else ''}h*(n + 1) + h*(h - 1)//2"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        size = self.hidden_size
        rows = size * (2 if self.gated else 1)
        input_std = 1 / math.sqrt(input_size)
        skew_std = math.sqrt(2 / size)  # of W_ij - W_ji
        return {
            "input_weight": ParameterSpec((rows, input_size), lambda w: w.normal_(0, input_std)),
            "skew_weight": ParameterSpec((size * (size - 1) // 2,), lambda w: w.normal_(0, skew_std)),
            "bias": ParameterSpec((rows,), zeros),
        }

    def prepare(self, p: Parameters) -> Parameters:
        import torch

        size, like = self.hidden_size, p.skew_weight
        above = torch.triu_indices(size, size, 1, device=like.device).unbind(0)
        upper = like.new_zeros(size, size).index_put(above, like)
        damping = self.gamma * torch.eye(size, dtype=like.dtype, device=like.device)
        return Parameters(**vars(p), flow=upper - upper.t() - damping)

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if self.gated:
            x_h, x_g = z.chunk(2, dim=-1)
            a_BH = state @ p.flow.t()
            change_BH = (a_BH + x_g).sigmoid() * (a_BH + x_h).tanh()
        else:
            change_BH = z.addmm(state, p.flow.t()).tanh()
        h_BH = state.add(change_BH, alpha=self.epsilon)
        return h_BH, h_BH
