"""The simple recurrent unit.  Shapes: B batch, I inputs, H hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import Paper
from rnnclf.cells.linear import LinearCell
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.engine.choose import machine_code_and
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class SRU(LinearCell):
    """Simple recurrent unit: no matrix product with the state, and a highway.

    f_t = sigmoid(W_f x_t + v_f * c_{t-1} + b_f)        forget gate
    r_t = sigmoid(W_r x_t + v_r * c_{t-1} + b_r)        reset gate
    c_t = f_t * c_{t-1} + (1 - f_t) * (W x_t)
    h_t = r_t * g(c_t) + (1 - r_t) * s_t                g = identity or tanh

    s_t = alpha x_t                     if the input is as wide as the output (n = h)
    s_t = W_s x_t                       otherwise
    alpha = sqrt(1 + 2 exp(highway_bias))

    The output is h_t. input_weight holds the rows W, W_f, W_r and, unless n = h, W_s; bias holds b_f, b_r;
    peephole_weight holds v_f, v_r. Without peepholes, v_f and v_r are 0 and this weight does not exist.

    Weights are initialised as in the authors' code: with variance 1/n (with peepholes, 1/(2n) for W_f and
    W_r, and 1/2 for v), W_s with alpha^2/n; b_r starts at highway_bias. Differs from the paper: b_f starts
    at forget_bias instead of 0, so that the forget gates are open at first, and by default there are no
    peepholes, as in the paper's first version of 2017. With peepholes the state is no longer linear in the
    previous one, so the cell has to be run step by step.
    """

    name: str = "sru"
    peephole: bool = option(False, "let the gates also see the state, through v_f and v_r")
    nonlinearity: str = option(
        "identity", "the nonlinearity, g in the equations", choices=("identity", "tanh")
    )
    forget_bias: float = option(1.0, "initial b_f; 1 starts with open forget gates", low=-100, high=100)
    highway_bias: float = option(0.0, "initial b_r; below 0 passes more of the input on", low=-20, high=20)

    paper: ClassVar = Paper(
        "Simple Recurrent Units for Highly Parallelizable Recurrence",
        "Lei et al.",
        2018,
        "https://arxiv.org/abs/1709.02755",
    )
    family: ClassVar = "linear gates"

    @property
    def formula(self) -> str:
        return f"(3 if n == h else 4)*h*n + {4 if self.peephole else 2}*h"

    @property
    def engines(self) -> tuple[str, ...]:
        return machine_code_and("loop") if self.peephole else super().engines

    @property
    def _alpha(self) -> float:
        return math.sqrt(1 + 2 * math.exp(self.highway_bias))

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        hidden = self.hidden_size
        blocks = 3 if input_size == hidden else 4
        limit = math.sqrt(3)  # numbers drawn uniformly from ±√3 have variance 1
        gate_scale = math.sqrt(1 / 2) if self.peephole else 1.0

        def fill_weight(weight: Tensor) -> None:
            weight.uniform_(-limit, limit).div_(math.sqrt(input_size))
            weight[hidden : 3 * hidden].mul_(gate_scale)
            weight[3 * hidden :].mul_(self._alpha)

        def fill_bias(bias: Tensor) -> None:
            bias[:hidden].fill_(self.forget_bias)
            bias[hidden:].fill_(self.highway_bias)

        def fill_peephole(weight: Tensor) -> None:
            weight.uniform_(-limit, limit).mul_(gate_scale)

        specs = {
            "input_weight": ParameterSpec((blocks * hidden, input_size), fill_weight),
            "bias": ParameterSpec((2 * hidden,), fill_bias),
        }
        if self.peephole:
            specs["peephole_weight"] = ParameterSpec((2 * hidden,), fill_peephole)
        return specs

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        """W x_t, the preactivations of both gates without peepholes, and s_t: (…, 4·H)."""
        import torch
        from torch.nn import functional

        rows, columns = p.input_weight.shape
        bias = functional.pad(p.bias, (self.hidden_size, rows - 3 * self.hidden_size))
        z = functional.linear(x, p.input_weight, bias)
        return torch.cat((z, self._alpha * x), dim=-1) if columns == self.hidden_size else z

    def recurrence(self, p: Parameters, s: Tensor) -> tuple[Tensor, Tensor]:
        c, f, _, _ = s.chunk(4, dim=-1)
        return f.sigmoid(), (-f).sigmoid() * c

    def read(self, p: Parameters, s: Tensor, h: Tensor) -> Tensor:
        _, _, r, highway = s.chunk(4, dim=-1)
        return self._output(r.sigmoid(), h, highway)

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if not self.peephole:
            return super().step(p, z, state)
        c, f, r, highway = z.chunk(4, dim=-1)
        v_f, v_r = p.peephole_weight.chunk(2)
        state_BH = c.lerp(state, f.addcmul(v_f, state).sigmoid())
        return self._output(r.addcmul(v_r, state).sigmoid(), state_BH, highway), state_BH

    def _output(self, r: Tensor, c: Tensor, highway: Tensor) -> Tensor:
        return highway.lerp(c.tanh() if self.nonlinearity == "tanh" else c, r)
