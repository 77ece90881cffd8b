"""Long expressive memory.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rnnclf.cells.base import AffineCell, Paper, Published
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


class LEMState(NamedTuple):
    """The output and the memory of a LEM, both (B, H)."""

    y: Tensor
    z: Tensor


@dataclass
class LEM(AffineCell):
    """Long expressive memory: two states with learned, input-dependent time steps.

    p_t = dt sigmoid(V_p x_t + W_p y_{t-1} + b_p)           time step of z
    q_t = dt sigmoid(V_q x_t + W_q y_{t-1} + b_q)           time step of y
    z_t = (1 - p_t) * z_{t-1} + p_t * tanh(V_z x_t + W_z y_{t-1} + b_z)
    y_t = (1 - q_t) * y_{t-1} + q_t * tanh(V_y x_t + W_y z_t + b_y)

    The output is y_t. V and b are input_weight and bias, in blocks of H rows: p, q, z, y. W_p, W_q and W_z
    are the blocks of recurrent_weight; W_y, which multiplies the new z_t, is memory_weight. The smaller dt,
    the slower the states change: the authors use 0.21 for sMNIST.
    """

    name: str = "lem"
    dt: float = option(1.0, "largest time step; at 1 one step can replace the whole state", above=0, high=2)

    paper: ClassVar = Paper(
        "Long Expressive Memory for Sequence Modeling",
        "Rusch et al.",
        2022,
        "https://arxiv.org/abs/2110.04744",
    )
    published: ClassVar = (
        Published("sMNIST", 99.5, "https://github.com/tk-rusch/LEM", "hidden 128, dt 0.21; 99.45 in the log"),
        Published(
            "psMNIST", 96.6, "https://github.com/tk-rusch/LEM", "hidden 128; permutation: torch seed 5544"
        ),
    )
    family: ClassVar = "dynamical systems"
    gates: ClassVar[tuple[str, ...]] = ("p", "q", "z", "y")
    recurrent_weights: ClassVar[tuple[str, ...]] = ("recurrent_weight", "memory_weight")

    @property
    def formula(self) -> str:
        return "4*h*(n + h + 1)"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        size = self.hidden_size
        limit = 1 / math.sqrt(size)

        def fill(weight: Tensor) -> Tensor:
            return weight.uniform_(-limit, limit)

        return {
            "input_weight": ParameterSpec((4 * size, input_size), fill),
            "recurrent_weight": ParameterSpec((3 * size, size), fill),
            "memory_weight": ParameterSpec((size, size), fill),
            "bias": ParameterSpec((4 * size,), fill),
        }

    def initial_state(self, x_BI: Tensor) -> LEMState:
        zeros_BH = x_BI.new_zeros(x_BI.shape[0], self.hidden_size)
        return LEMState(zeros_BH, zeros_BH)

    def step(self, p: Parameters, z: Tensor, state: LEMState) -> tuple[Tensor, LEMState]:
        x_pqz, x_y = z.tensor_split((3 * self.hidden_size,), dim=-1)
        a_p, a_q, a_z = x_pqz.addmm(state.y, p.recurrent_weight.t()).chunk(3, dim=-1)
        z_BH = state.z.lerp(a_z.tanh(), self.dt * a_p.sigmoid())
        a_y = x_y.addmm(z_BH, p.memory_weight.t())
        y_BH = state.y.lerp(a_y.tanh(), self.dt * a_q.sigmoid())
        return y_BH, LEMState(y_BH, z_BH)
