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
    """Orthogonal recurrent matrix, as the exponential of a skew-symmetric matrix.

    h_t = modrelu(W x_t + Q h_{t-1})
    modrelu(v) = sign(v) * relu(|v| + b)        one b per unit
    Q = exp(A),  A = K - K^T                    Q is orthogonal: it preserves the norm of the state

    The output is h_t. W is input_weight and b is bias. K holds the elements of skew above its diagonal, row
    by row, and is zero elsewhere; Q is computed once per sequence.

    W is drawn from a normal distribution with variance 2/n, b uniformly from ±0.01. A starts with 2 × 2
    blocks [[0, s], [-s, 0]] along its diagonal, each a rotation by s, plus a single 0 if the number of units
    is odd. With init=henaff (Henaff et al. 2016), s is drawn from U(-π, π). With init=cayley (Helfrich et al.
    2018), s is -tan(a / 2) with a drawn from U(0, π / 2): slower rotations.

    Differs from the paper: A has the same learning rate as all other weights, not a tenth of it.
    """

    name: str = "exprnn"
    init: str = option("cayley", "initialisation of the rotation angles", choices=("cayley", "henaff"))

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
    capturable: ClassVar = False  # torch's matrix_exp picks its algorithm on the host

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
        """Writes the angles to (0, 1), (2, 3), … of the matrix, and zeros elsewhere."""
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
        # exp(A) = exp(A + 1) / e: for a small A, torch 2.14's matrix_exp has errors of 10⁻¹² in float64
        shifted_HH = upper_HH - upper_HH.t() + torch.eye(hidden, dtype=p.skew.dtype, device=p.skew.device)
        return Parameters(**vars(p), recurrent_weight=torch.matrix_exp(shifted_HH) / math.e)

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        import torch

        return torch.nn.functional.linear(x, p.input_weight)

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        v_BH = z.addmm(state, p.recurrent_weight.t())
        h_BH = v_BH.sign() * (v_BH.abs() + p.bias).relu()
        return h_BH, h_BH
