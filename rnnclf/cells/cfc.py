"""The closed-form continuous-time cell.  Shapes: B batch, I inputs, H hidden, K backbone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import AffineCell, Paper
from rnnclf.cells.initializers import ones, zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class CfC(AffineCell):
    """Closed-form continuous-time network: approximates an ODE without a solver.

    k_1 = s(W x_t + U h_{t-1} + b)                      s(a) = 1.7159 tanh(2 a / 3)
    k_i = s(W_i k_{i-1} + b_i)                          i = 2 … backbone_layers
    f, g, v, w = P k + d                                k is the last k_i; four blocks of H rows
    q_t = sigmoid(v t + w)                              t is the time since the previous step: 1
    h_t = (1 - q_t) * tanh(f) + q_t * tanh(g)           mode=default
    h_t = tanh(f) + q_t * tanh(g)                       mode=no_gate
    h_t = A - A * exp(-(|r| + |f|) t) * f               mode=pure, where P and d have only the rows of f

    The output is h_t. W, U and b are input_weight, recurrent_weight and bias; W_i and b_i are
    backbone<i>_weight and backbone<i>_bias; P and d are head_weight and head_bias; A and r are level and
    rate. Steps are assumed to be one unit of time apart.

    The modes are those of the authors' code; pure is its version of the closed-form solution itself.
    Differs from that code: it uses 0.666 for 2/3 in s, and starts r at 0, where |r| has no gradient; here r
    starts at 0.1.
    """

    name: str = "cfc"
    mode: str = option(
        "default", "how the heads are combined into the new state", choices=("default", "no_gate", "pure")
    )
    backbone_size: int = option(128, "units of each backbone layer", low=1, high=1_000_000)
    backbone_layers: int = option(1, "hidden layers between the inputs and the heads", low=1, high=100)

    paper: ClassVar = Paper(
        "Closed-form continuous-time neural networks",
        "Hasani et al.",
        2022,
        "https://arxiv.org/abs/2106.13898",
    )
    family: ClassVar = "dynamical systems"
    recurrent_weights: ClassVar[tuple[str, ...]] = ("recurrent_weight",)

    @property
    def formula(self) -> str:
        size = "backbone_size"
        more = f" + (backbone_layers - 1)*{size}*({size} + 1)" if self.backbone_layers > 1 else ""
        heads = f"h*({size} + 3)" if self.mode == "pure" else f"4*h*({size} + 1)"
        return f"{size}*(n + h + 1){more} + {heads}"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        size, width = self.hidden_size, self.backbone_size
        heads = size if self.mode == "pure" else 4 * size
        first = _glorot(input_size + size, width)
        specs = {
            "input_weight": ParameterSpec((width, input_size), first),
            "recurrent_weight": ParameterSpec((width, size), first),
            "bias": ParameterSpec((width,), zeros),
        }
        for layer in self._more_layers():
            specs[f"{layer}_weight"] = ParameterSpec((width, width), _glorot(width, width))
            specs[f"{layer}_bias"] = ParameterSpec((width,), zeros)
        specs["head_weight"] = ParameterSpec((heads, width), _glorot(width, size))
        specs["head_bias"] = ParameterSpec((heads,), zeros)
        if self.mode == "pure":
            specs["level"] = ParameterSpec((size,), ones)
            specs["rate"] = ParameterSpec((size,), lambda rate: rate.fill_(0.1))
        return specs

    def _more_layers(self) -> list[str]:
        return [f"backbone{i}" for i in range(2, self.backbone_layers + 1)]

    def prepare(self, p: Parameters) -> Parameters:
        if self.mode == "pure":
            return p
        # as t is always 1, v t + w needs one product instead of two
        weight, bias = self._with_time(p.head_weight), self._with_time(p.head_bias)
        return Parameters(**{**vars(p), "head_weight": weight, "head_bias": bias})

    def _with_time(self, heads: Tensor) -> Tensor:
        import torch

        f, g, v, w = heads.chunk(4)
        return torch.cat((f, g, v + w))

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        k = _lecun_tanh(z.addmm(state, p.recurrent_weight.t()))
        for layer in self._more_layers():
            k = _lecun_tanh(getattr(p, f"{layer}_bias").addmm(k, getattr(p, f"{layer}_weight").t()))
        heads = p.head_bias.addmm(k, p.head_weight.t())
        h_BH = self._solution(p, heads)
        return h_BH, h_BH

    def _solution(self, p: Parameters, heads: Tensor) -> Tensor:
        if self.mode == "pure":
            decay = (-(p.rate.abs() + heads.abs())).exp()
            solution: Tensor = p.level - p.level * decay * heads
            return solution
        f, g, q = heads.chunk(3, dim=-1)
        if self.mode == "no_gate":
            return f.tanh() + q.sigmoid() * g.tanh()
        return f.tanh().lerp(g.tanh(), q.sigmoid())


def _glorot(columns: int, rows: int) -> Callable[[Tensor], Tensor]:
    """Glorot-uniform for a (rows, columns) matrix, of which the weight may be only a part."""
    limit = math.sqrt(6 / (columns + rows))
    return lambda weight: weight.uniform_(-limit, limit)


def _lecun_tanh(a: Tensor) -> Tensor:
    """LeCun et al. 1998: scaled so that ±1 maps to ±1."""
    return 1.7159 * (a * (2 / 3)).tanh()
