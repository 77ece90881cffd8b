"""The Lipschitz recurrent cell.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import AffineCell, Paper, Published
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LipschitzRNN(AffineCell):
    """Euler steps of an ODE: a linear part plus a Lipschitz nonlinearity.

    A   = (1 - beta) (M + M') + beta (M - M') - gamma_a I       M = linear_weight
    W   = (1 - beta) (N + N') + beta (N - N') - gamma_w I       N = recurrent_weight
    h_t = h_{t-1} + epsilon (A h_{t-1} + tanh(W h_{t-1} + U x_t + b))

    The output is h_t. M' is M transposed, U is input_weight, b is bias. beta interpolates A and W between
    symmetric (0) and skew-symmetric (1), which has imaginary eigenvalues; gamma_a and gamma_w shift the
    eigenvalues to the left. The defaults are the authors' for MNIST pixel by pixel.
    """

    name: str = "lipschitz"
    beta: float = option(0.75, "0: symmetric A and W, 1: skew-symmetric", low=0, high=1)
    gamma_a: float = option(
        0.001, "damping of the states: multiples of the identity subtracted from A", low=0, high=100
    )
    gamma_w: float = option(
        0.001, "damping of the recurrent part: multiples of the identity subtracted from W", low=0, high=100
    )
    epsilon: float = option(0.03, "size of one Euler step", above=0, high=10)

    paper: ClassVar = Paper(
        "Lipschitz Recurrent Neural Networks",
        "Erichson et al.",
        2021,
        "https://arxiv.org/abs/2006.12070",
    )
    published: ClassVar = (
        Published("sMNIST", 99.4, "the paper", "hidden 128"),
        Published("psMNIST", 96.3, "the paper", "hidden 128; permutation: torch seed 12008"),
        Published("sCIFAR", 64.2, "the paper"),
    )
    family: ClassVar = "dynamical systems"

    @property
    def formula(self) -> str:
        return "h*(n + 2*h + 1)"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        size = self.hidden_size
        limit = 1 / math.sqrt(input_size)

        def fill_input(weight: Tensor) -> Tensor:
            return weight.uniform_(-limit, limit)

        return {
            "input_weight": ParameterSpec((size, input_size), fill_input),
            "linear_weight": ParameterSpec((size, size), self.fill_square),
            "recurrent_weight": ParameterSpec((size, size), self.fill_square),
            "bias": ParameterSpec((size,), fill_input),
        }

    def fill_square(self, weight: Tensor) -> None:
        weight.normal_(0, 0.1 / self.hidden_size)

    def prepare(self, p: Parameters) -> Parameters:
        import torch

        linear = self._damped(p.linear_weight, self.gamma_a)
        inner = self._damped(p.recurrent_weight, self.gamma_w)
        return Parameters(**vars(p), flow=torch.cat((linear, inner)))

    def _damped(self, weight: Tensor, gamma: float) -> Tensor:
        import torch

        symmetric, skew = weight + weight.t(), weight - weight.t()
        identity = torch.eye(self.hidden_size, dtype=weight.dtype, device=weight.device)
        return (1 - self.beta) * symmetric + self.beta * skew - gamma * identity

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        linear_BH, inner_BH = (state @ p.flow.t()).chunk(2, dim=-1)
        h_BH = state + self.epsilon * (linear_BH + (inner_BH + z).tanh())
        return h_BH, h_BH
