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
    """Echo state network: a fixed random reservoir; only the readout is trained.

    c_t = tanh(W x_t + U h_{t-1} + b)
    h_t = (1 - leak) * h_{t-1} + leak * c_t

    The output is h_t. W is input_weight, U is recurrent_weight, b is bias; none of them is trained. W and b
    are drawn uniformly from ±input_scale. Each unit is connected to density · h randomly chosen units,
    rounded up, with weights drawn uniformly from ±1; then U is scaled so that its largest eigenvalue has
    modulus spectral_radius. Below 1 the reservoir usually forgets its initial state (the echo state
    property); close to 1 it remembers longest.

    The leak and the bias follow Lukoševičius 2012, https://doi.org/10.1007/978-3-642-35289-8_36.

    Differs from the paper: the linear head is trained by gradient descent, as for every other cell, not
    solved for by regression.
    """

    name: str = "esn"
    spectral_radius: float = option(0.99, "largest modulus of the eigenvalues of U", above=0, high=100)
    leak: float = option(0.2, "share of the state that is replaced at each step", above=0, high=1)
    input_scale: float = option(
        1.0, "range of W and b: uniform between minus and plus this", above=0, high=1000
    )
    density: float = option(0.2, "share of the units that each unit is connected to", above=0, high=1)

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
        """Random weights at random positions, equally many in each row. At least one per row guarantees a
        cycle, so the spectral radius is not zero and can be scaled."""
        import torch

        per_row = math.ceil(round(self.density * self.hidden_size, 6))  # 0.07 · 100 is slightly above 7
        order = torch.rand_like(weight).argsort(dim=1)  # a random permutation per row
        weight.uniform_(-1, 1).masked_fill_(order >= per_row, 0)
        radius = torch.linalg.eigvals(weight.double()).abs().max()
        weight.mul_(self.spectral_radius / radius)

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        c_BH = z.addmm(state, p.recurrent_weight.t()).tanh()
        h_BH = state.lerp(c_BH, self.leak)
        return h_BH, h_BH
