"""Recurrent network with an orthogonal recurrent matrix, exp(A).  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import Cell, Paper, Published
from rnnclf.cells.initializers import normal
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class ExpRNN(Cell):
    """Orthogonal recurrent matrix, the exponential of a skew one.

    h_t = modrelu(W x_t + Q h_{t-1})
    modrelu(v) = sign(v) * relu(|v| + b)        one b per unit
    Q = exp(A),  A = K - K^T                    Q is orthogonal: it keeps the length of the state

    The output is h_t. W is input_weight and b is bias, the only one. K has the numbers of skew above its
    diagonal, row by row, and is zero elsewhere; Q is computed once per sequence.

    W starts normal with variance 2/n, b uniform in ±0.01. A starts with 2 × 2 blocks [[0, s], [-s, 0]] along
    its diagonal, each a rotation by s, and, where the number of units is odd, one 0. With init=henaff (Henaff
    et al. 2016) s is drawn from U(-π, π), with init=cayley (Helfrich et al. 2018) it is -tan(a / 2), a drawn
    from U(0, π / 2): slower rotations.

    Differs from the paper: A learns at the rate of all other weights; there, at a tenth of it.
    """

    name: str = "exprnn"
    init: str = option("cayley", "how the angles of the rotations start", choices=("cayley", "henaff"))

    paper: ClassVar = Paper(
        "Cheap Orthogonal Constraints in Neural Networks: A Simple Parametrization of the Orthogonal and"
        " Unitary Group",
        "Lezcano-Casado & Martínez-Rubio",
        2019,
        "https://arxiv.org/abs/1901.08428",
    )
    published: ClassVar[tuple[Published, ...]] = (
        Published("sMNIST", 98.7, "https://arxiv.org/abs/1901.08428", "hidden 512"),
        Published("psMNIST", 96.6, "https://arxiv.org/abs/1901.08428", "hidden 512"),
    )
    family: ClassVar = "structured"
    capturable: ClassVar = False  # the host chooses how torch's matrix_exp goes

    @property
    def formula(self) -> str:
        return "h*n + h + h*(h - 1)//2"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        hidden = self.hidden_size
        return {
            "input_weight": ParameterSpec((hidden, input_size), normal(2 / input_size)),
            "skew": ParameterSpec((hidden * (hidden - 1) // 2,), self.fill_skew),
            "bias": ParameterSpec((hidden,), lambda bias: bias.uniform_(-0.01, 0.01)),
        }

    def fill_skew(self, skew: Tensor) -> None:
        """Puts the angles at (0, 1), (2, 3), … of the matrix."""
        import torch

        row = torch.arange(0, self.hidden_size - 1, 2, device=skew.device)
        first_of_row = row * self.hidden_size - row * (row + 1) // 2
        angles = skew.new_empty(len(row))
        if self.init == "henaff":
            angles.uniform_(-math.pi, math.pi)
        else:
            angles.uniform_(0, math.pi / 2).div_(2).tan_().neg_()
        skew.zero_()[first_of_row] = angles

    def prepare(self, p: Parameters) -> Parameters:
        import torch

        hidden = self.hidden_size
        above = torch.triu_indices(hidden, hidden, 1, device=p.skew.device).unbind()
        upper_HH = p.skew.new_zeros(hidden, hidden).index_put(above, p.skew)
        # exp(A) = exp(A + 1) / e: for small A alone torch 2.14 is off by 10⁻¹² in float64
        shifted_HH = upper_HH - upper_HH.t() + torch.eye(hidden, dtype=p.skew.dtype, device=p.skew.device)
        return Parameters(**vars(p), recurrent_weight=torch.matrix_exp(shifted_HH) / math.e)

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        import torch

        return torch.nn.functional.linear(x, p.input_weight)

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        v_BH = z.addmm(state, p.recurrent_weight.t())
        h_BH = v_BH.sign() * (v_BH.abs() + p.bias).relu()
        return h_BH, h_BH
