"""The recurrent block of Griffin.  Shapes: I inputs, H hidden, K convolution, N blocks, D = H / N."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rnnclf.cells.base import Paper
from rnnclf.cells.convolution import convolved
from rnnclf.cells.initializers import normal, zeros
from rnnclf.cells.linear import LinearCell
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor

SHARPNESS = 8.0
"""c of the paper: a_t lies between a^c and 1."""


class RGLRUSignals(NamedTuple):
    """The convolved input, the preactivations of the gates, and the other branch: each (…, H)."""

    u: Tensor
    r: Tensor
    i: Tensor
    y: Tensor


@dataclass
class RGLRU(LinearCell):
    """RG-LRU: the real-gated linear recurrent unit in the block of Griffin.

    v_t = W_v x_t + b_v                         the recurrent branch
    y_t = gelu(W_y x_t + b_y)                   the gating branch; gelu(s) = s Phi(s), Phi the normal CDF
    u_t = sum_k w_k * v_{t-k} + b_w             k = 0 … conv_width - 1; v before the first step is 0
    r_t = sigmoid(W_r u_t + b_r)                recurrence gate
    i_t = sigmoid(W_i u_t + b_i)                input gate
    a_t = sigmoid(lambda)^(8 r_t)
    h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * u_t)
    o_t = W_o (h_t * y_t) + b_o

    The output is o_t. input_weight holds the rows W_v, W_y, and input_bias b_v, b_y; conv_weight holds the
    rows w_k, conv_bias is b_w; decay is lambda; output_weight and output_bias are W_o and b_o. W_r and W_i
    are block-diagonal with D by D blocks, D = h / gate_blocks: gate_weight (gate_blocks, 2·D, D) holds, for
    each block, the D rows of W_r, then those of W_i, and gate_bias (gate_blocks, 2·D) likewise. A single
    block is a full matrix.

    Weights are normal with variance 1 / fan-in; lambda is initialised so that sigmoid(lambda)^8 is uniform
    between 0.9 and 0.999. Differs from the paper: b_y starts at 1, so that the gating branch is open where
    the input is 0. The normalisation and the residual connection around the block are not part of the cell.
    """

    name: str = "rglru"
    conv_width: int = option(4, "width of the causal convolution, in steps", low=1, high=100)
    gate_blocks: int = option(
        1, "diagonal blocks in the weights of the gates; must divide hidden", low=1, high=1000
    )

    paper: ClassVar = Paper(
        "Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient Language Models",
        "De et al.",
        2024,
        "https://arxiv.org/abs/2402.19427",
    )
    family: ClassVar = "linear gates"
    export_tolerance: ClassVar[float] = 1e-3  # it takes a root of a gate that is nearly 0

    @property
    def formula(self) -> str:
        return "h*(2*n + conv_width + 2*(h//gate_blocks) + h + 7)"

    @property
    def multiple(self) -> int:
        return self.gate_blocks

    @property
    def past(self) -> tuple[int, int]:
        return (self.conv_width - 1, self.hidden_size)

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        hidden, blocks = self.hidden_size, self.gate_blocks
        size = hidden // blocks

        def spec(fan_in: int, *shape: int) -> ParameterSpec:
            return ParameterSpec(shape, normal(1 / fan_in))

        return {
            "input_weight": spec(input_size, 2 * hidden, input_size),
            "input_bias": ParameterSpec((2 * hidden,), _fill_input_bias),
            "conv_weight": spec(self.conv_width, self.conv_width, hidden),
            "conv_bias": ParameterSpec((hidden,), zeros),
            "gate_weight": spec(size, blocks, 2 * size, size),
            "gate_bias": ParameterSpec((blocks, 2 * size), zeros),
            "decay": ParameterSpec((hidden,), _fill_decay),
            "output_weight": spec(hidden, hidden, hidden),
            "output_bias": ParameterSpec((hidden,), zeros),
        }

    def prepare(self, p: Parameters) -> Parameters:
        from torch.nn.functional import logsigmoid

        return Parameters(**vars(p), log_decay=SHARPNESS * logsigmoid(p.decay))

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.linear(x, p.input_weight, p.input_bias)

    def keep(self, z: Tensor) -> Tensor:
        return z[..., : self.hidden_size]

    def signals(self, p: Parameters, z: Tensor, past: tuple[Tensor, ...]) -> RGLRUSignals:
        import torch

        v, y = z.chunk(2, dim=-1)
        u = convolved(p.conv_weight, p.conv_bias, v, past)
        by_block = u.reshape(*u.shape[:-1], self.gate_blocks, -1)
        gates = torch.einsum("...nd,ned->...ne", by_block, p.gate_weight) + p.gate_bias
        r, i = gates.chunk(2, dim=-1)
        return RGLRUSignals(u, r.flatten(-2), i.flatten(-2), y)

    def recurrence(self, p: Parameters, s: RGLRUSignals) -> tuple[Tensor, Tensor]:
        import torch

        log_a = s.r.sigmoid() * p.log_decay
        # 1 - a² without cancellation; clamped, since the gradient of the square root is infinite at 0
        rest = (-(2 * log_a).expm1()).clamp(min=torch.finfo(log_a.dtype).tiny)
        return log_a.exp(), rest.sqrt() * s.i.sigmoid() * s.u

    def read(self, p: Parameters, s: RGLRUSignals, h: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.linear(h * functional.gelu(s.y), p.output_weight, p.output_bias)


def _fill_input_bias(bias: Tensor) -> None:
    b_v, b_y = bias.chunk(2)
    b_v.zero_()
    b_y.fill_(1)


def _fill_decay(decay: Tensor) -> None:
    """Fills lambda so that sigmoid(lambda)^c is uniform between 0.9 and 0.999."""
    log_a = decay.uniform_(0.9, 0.999).log() / SHARPNESS
    decay.copy_(log_a - (-log_a.expm1()).log())
