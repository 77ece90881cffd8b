"""The undamped independent oscillatory recurrent cell.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rnnclf.cells.base import AffineCell, Paper, Published
from rnnclf.cells.initializers import zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


class UnICORNNState(NamedTuple):
    """The positions and the velocities of the oscillators, both (B, H)."""

    y: Tensor
    z: Tensor


@dataclass
class UnICORNN(AffineCell):
    """Undamped, uncoupled oscillators with learned time steps.

    s   = dt sigmoid(c)                                     sigmoid(c) = 0.5 + 0.5 tanh(c / 2)
    z_t = z_{t-1} - s * (tanh(u * y_{t-1} + V x_t + b) + alpha y_{t-1})
    y_t = y_{t-1} + s * z_t

    The output is y_t. V is input_weight, u is recurrent_weight (H), c is step_weight (H), b is bias. This is
    a symplectic Euler step of a Hamiltonian system: it preserves information and can be inverted. As in
    IndRNN, units interact only in the next layer; the paper stacks three.

    Tune dt and alpha to the task: the authors use 0.19 and 30.65 for psMNIST. The defaults here are for tens
    of steps. Without input and with alpha above 0, oscillations stay bounded while s² (alpha + |u|) is below
    4; input at a resonant frequency makes them grow.
    """

    name: str = "unicornn"
    dt: float = option(1.0, "largest time step; each unit learns its own below it", above=0, high=10)
    alpha: float = option(1.0, "stiffness: squared frequency of each oscillator", low=0, high=1000)

    paper: ClassVar = Paper(
        "UnICORNN: A recurrent model for learning very long time dependencies",
        "Rusch & Mishra",
        2021,
        "https://arxiv.org/abs/2103.05487",
    )
    published: ClassVar = (
        Published(
            "psMNIST",
            98.4,
            "https://github.com/tk-rusch/unicornn",
            "3 layers of 256; permutation: torch seed 5544",
        ),
    )
    family: ClassVar = "dynamical systems"

    @property
    def formula(self) -> str:
        return "h*(n + 3)"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        size = self.hidden_size
        limit = math.sqrt(6 / (65 * input_size))  # He et al. 2015, for a leaky ReLU of slope 8
        return {
            "input_weight": ParameterSpec((size, input_size), lambda w: w.uniform_(-limit, limit)),
            "recurrent_weight": ParameterSpec((size,), lambda u: u.uniform_(0, 1)),
            "step_weight": ParameterSpec((size,), lambda c: c.uniform_(-0.1, 0.1)),
            "bias": ParameterSpec((size,), zeros),
        }

    def prepare(self, p: Parameters) -> Parameters:
        return Parameters(**vars(p), s=self.dt * p.step_weight.sigmoid())

    def initial_state(self, x_BI: Tensor) -> UnICORNNState:
        zeros_BH = x_BI.new_zeros(x_BI.shape[0], self.hidden_size)
        return UnICORNNState(zeros_BH, zeros_BH)

    def step(self, p: Parameters, z: Tensor, state: UnICORNNState) -> tuple[Tensor, UnICORNNState]:
        force_BH = z.addcmul(p.recurrent_weight, state.y).tanh() + self.alpha * state.y
        z_BH = state.z.addcmul(p.s, force_BH, value=-1)
        y_BH = state.y.addcmul(p.s, z_BH)
        return y_BH, UnICORNNState(y_BH, z_BH)
