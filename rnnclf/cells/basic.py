"""The basic (Elman) recurrent cell.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import GatedCell, Paper
from rnnclf.cells.parameters import Parameters
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor

    from rnnclf.engine.fused_steps import FusedSteps


@dataclass
class Basic(GatedCell):
    """Elman network: a nonlinearity of a weighted sum of input and previous state.

    h_t = f(W x_t + U h_{t-1} + b)          f = tanh or relu

    The output is h_t. W is input_weight, U is recurrent_weight, b is bias. As torch.nn.RNNCell, but with one
    bias instead of two that are only ever added.
    """

    name: str = "basic"
    nonlinearity: str = option("tanh", "the nonlinearity, f in the equation", choices=("tanh", "relu"))

    paper: ClassVar = Paper(
        "Finding Structure in Time", "Elman", 1990, "https://doi.org/10.1207/s15516709cog1402_1"
    )
    family: ClassVar = "simple"
    gates: ClassVar[tuple[str, ...]] = ("h",)

    def fused_steps(self) -> type[FusedSteps]:
        from rnnclf.engine.fused_steps import FusedBasic

        return FusedBasic

    def native_layer(self) -> str:
        return f"rnn_{self.nonlinearity}"

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        a_BH = z.addmm(state, p.recurrent_weight.t())
        h_BH = a_BH.tanh() if self.nonlinearity == "tanh" else a_BH.relu()
        return h_BH, h_BH
