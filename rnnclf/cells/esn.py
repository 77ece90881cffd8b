"""Echo state network.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import AffineCell, Paper
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class ESN(AffineCell):
    """A fixed random reservoir: only what reads it is trained.

    c_t = tanh(W x_t + U h_{t-1} + b)
    h_t = (1 - leak) * h_{t-1} + leak * c_t

    The output is h_t. No weight of the cell is trained: W is input_weight, U is recurrent_weight, b is
    bias. W and b are drawn from U(-input_scale, input_scale). Each unit sees density · h of the units,
    rounded up, drawn at random, with weights from U(-1, 1); then U is scaled to spectral_radius, the
    modulus of its largest eigenvalue. Below 1 the reservoir usually forgets where it started, which is
    the echo state property; near 1 it remembers longest.

    The leak and the bias are of Lukoševičius 2012, https://doi.org/10.1007/978-3-642-35289-8_36.

    Differs from the paper: the linear head is trained by gradient descent as on top of every other cell,
    not solved for by regression.
    """

    name: str = "esn"
    spectral_radius: float = option(0.99, "largest modulus of U's eigenvalues", above=0, high=100)
    leak: float = option(0.2, "share of the state that is new at each step", above=0, high=1)
    input_scale: float = option(1.0, "largest weight of an input", above=0, high=1000)
    density: float = option(0.2, "share of the units that a unit sees", above=0, high=1)

    paper: ClassVar = Paper(
        'The "Echo State" Approach to Analysing and Training Recurrent Neural Networks',
        "Jaeger",
        2001,
        "https://www.ai.rug.nl/minds/uploads/EchoStatesTechRep.pdf",
    )
    family: ClassVar = "structured"
    zoneout: ClassVar[bool] = False

    @property
    def formula(self) -> str:
        return "0"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        hidden = self.hidden_size
        return {
            "input_weight": ParameterSpec((hidden, input_size), self.fill_input, trained=False),
            "recurrent_weight": ParameterSpec((hidden, hidden), self.fill_reservoir, trained=False),
            "bias": ParameterSpec((hidden,), self.fill_input, trained=False),
        }

    def fill_input(self, weight: Tensor) -> None:
        weight.uniform_(-self.input_scale, self.input_scale)

    def fill_reservoir(self, weight: Tensor) -> None:
        """Random weights at the same number of random places of each row. With at least one in each there
        is a cycle, so that the spectral radius is not zero and can be scaled."""
        import torch

        seen = math.ceil(round(self.density * self.hidden_size, 6))  # 0.07 · 100 is a little more than 7
        order = torch.rand_like(weight).argsort(dim=1)  # of each row, a random permutation
        weight.uniform_(-1, 1).masked_fill_(order >= seen, 0)
        radius = torch.linalg.eigvals(weight.double()).abs().max()
        weight.mul_(self.spectral_radius / radius)

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        c_BH = z.addmm(state, p.recurrent_weight.t()).tanh()
        h_BH = state.lerp(c_BH, self.leak)
        return h_BH, h_BH
