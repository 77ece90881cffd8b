"""The independently recurrent cell.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import AffineCell, Paper, Published
from rnnclf.cells.initializers import Fan, glorot, zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class IndRNN(AffineCell):
    """Independently recurrent network: each unit sees only its own past state.

    r   = 2^(1/max_steps)
    u   = min(max(recurrent_weight, -r), r)
    h_t = f(W x_t + u * h_{t-1} + b)                f = relu or tanh

    The output is h_t. W is input_weight, b is bias. Over max_steps steps a unit multiplies its state by
    at most 2, which keeps gradients bounded: set max_steps to the length of the sequences, or more.

    recurrent_weight is drawn uniformly from [1/r, r] with recurrent_init=long, from [0, r] with mixed. The
    authors' code uses the first for the last layer of a classifier, the second for the layers below it.

    Units interact only in the next layer, so use two layers or more: the paper's results have six, with
    batch normalisation. Differs from the paper: a weight beyond ±r acts as ±r and gets no gradient; the
    paper clips it after each update.
    """

    name: str = "indrnn"
    nonlinearity: str = option("relu", "the nonlinearity, f in the equation", choices=("relu", "tanh"))
    recurrent_init: str = option(
        "long",
        "initial recurrent weights u: near 1 (long), or between 0 and r (mixed)",
        choices=("long", "mixed"),
    )
    max_steps: int = option(
        784, "length of the longest sequence; r is 2^(1/max_steps)", low=1, high=10_000_000
    )

    paper: ClassVar = Paper(
        "Independently Recurrent Neural Network (IndRNN): Building A Longer and Deeper RNN",
        "Li et al.",
        2018,
        "https://arxiv.org/abs/1803.04831",
    )
    published: ClassVar = (
        Published("sMNIST", 99.0, "the paper", "6 layers with batch normalisation"),
        Published("psMNIST", 96.0, "the paper", "6 layers with batch normalisation"),
    )
    family: ClassVar = "simple"

    @property
    def formula(self) -> str:
        return "h*(n + 2)"

    @property
    def bound(self) -> float:
        """r in the equations."""
        return math.pow(2, 1 / self.max_steps)

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        size = self.hidden_size
        fan = Fan(inputs=input_size, hidden=size, gates=1)
        return {
            "input_weight": ParameterSpec((size, input_size), lambda w: glorot(w, fan)),
            "recurrent_weight": ParameterSpec((size,), self.fill_recurrent),
            "bias": ParameterSpec((size,), zeros),
        }

    def fill_recurrent(self, weight: Tensor) -> None:
        weight.uniform_(1 / self.bound if self.recurrent_init == "long" else 0, self.bound)

    def prepare(self, p: Parameters) -> Parameters:
        return Parameters(**vars(p), u=p.recurrent_weight.clamp(-self.bound, self.bound))

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        a_BH = z.addcmul(p.u, state)
        h_BH = a_BH.relu() if self.nonlinearity == "relu" else a_BH.tanh()
        return h_BH, h_BH
