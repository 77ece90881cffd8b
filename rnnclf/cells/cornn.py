"""The coupled oscillatory recurrent cell.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rnnclf.cells.base import AffineCell, Paper, Published
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


class CoRNNState(NamedTuple):
    """The positions and the velocities of the oscillators, both (B, H)."""

    y: Tensor
    z: Tensor


@dataclass
class CoRNN(AffineCell):
    """Coupled, damped oscillators driven by the input.

    f_t = tanh(W y_{t-1} + Z z_{t-1} + V x_t + b)
    z_t = z_{t-1} + dt (f_t - gamma y_{t-1} - epsilon z_{t-1})
    y_t = y_{t-1} + dt z_t

    The output is y_t. W is recurrent_weight, Z is velocity_weight, V is input_weight, b is bias. This is an
    implicit-explicit time step: y is updated with the new z, while the damping uses z at t-1, as in the
    authors' code.

    Tune dt, gamma and epsilon to the task: the authors use 0.042, 2.7 and 4.7 for sMNIST, and 0.076, 0.4 and
    8 for psMNIST. The defaults here are for tens of steps, over which such a small dt would hardly change y.
    """

    name: str = "cornn"
    dt: float = option(0.5, "time step of the oscillators", above=0, high=10)
    gamma: float = option(0.4, "stiffness: squared frequency of each uncoupled oscillator", low=0, high=1000)
    epsilon: float = option(1.0, "damping of the oscillators' velocities", low=0, high=1000)

    paper: ClassVar = Paper(
        "Coupled Oscillatory Recurrent Neural Network (coRNN): An accurate and (gradient) stable"
        " architecture for learning long time dependencies",
        "Rusch & Mishra",
        2021,
        "https://arxiv.org/abs/2010.00951",
    )
    published: ClassVar = (
        Published("sMNIST", 99.4, "https://github.com/tk-rusch/coRNN", "hidden 256; 99.35 in the log"),
        Published(
            "psMNIST", 97.3, "https://github.com/tk-rusch/coRNN", "hidden 256; permutation: torch seed 12008"
        ),
    )
    family: ClassVar = "dynamical systems"
    recurrent_weights: ClassVar[tuple[str, ...]] = ("recurrent_weight", "velocity_weight")

    @property
    def formula(self) -> str:
        return "h*(n + 2*h + 1)"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        size = self.hidden_size
        limit = 1 / math.sqrt(input_size + 2 * size)

        def fill(weight: Tensor) -> Tensor:
            return weight.uniform_(-limit, limit)

        return {
            "input_weight": ParameterSpec((size, input_size), fill),
            "recurrent_weight": ParameterSpec((size, size), fill),
            "velocity_weight": ParameterSpec((size, size), fill),
            "bias": ParameterSpec((size,), fill),
        }

    def initial_state(self, x_BI: Tensor) -> CoRNNState:
        zeros_BH = x_BI.new_zeros(x_BI.shape[0], self.hidden_size)
        return CoRNNState(zeros_BH, zeros_BH)

    def step(self, p: Parameters, z: Tensor, state: CoRNNState) -> tuple[Tensor, CoRNNState]:
        f_BH = z.addmm(state.y, p.recurrent_weight.t()).addmm(state.z, p.velocity_weight.t()).tanh()
        z_BH = state.z + self.dt * (f_BH - self.gamma * state.y - self.epsilon * state.z)
        y_BH = state.y + self.dt * z_BH
        return y_BH, CoRNNState(y_BH, z_BH)
