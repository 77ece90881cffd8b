"""The selective state space block of Mamba.  Shapes: I inputs, H hidden, E inner, N state, R rank, K conv."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rnnclf.cells.base import Paper
from rnnclf.cells.convolution import convolved
from rnnclf.cells.initializers import ones, uniform
from rnnclf.cells.linear import LinearCell
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor

STEP_MIN, STEP_MAX = 0.001, 0.1
"""Range of the initial step sizes, which are log-uniform."""


class MambaSignals(NamedTuple):
    """u, step size and gate, each (…, E); B (write) and C (read) of the equations, each (…, N)."""

    u: Tensor
    step: Tensor
    gate: Tensor
    write: Tensor
    read: Tensor


@dataclass
class Mamba(LinearCell):
    """Mamba block: a state space with input-dependent step size, B and C.

    v_t, g_t = W_in x_t + b_in                  E = expand · h channels each
    u_t = silu(sum_k w_k * v_{t-k} + b_w)       k = 0 … conv_width - 1; v before the first step is 0
    q_t, B_t, C_t = W_sel u_t                   of size R = ceil(h / 16), N = state_size and N
    d_t = softplus(W_d q_t + b_d)               step size of each channel
    S_t = exp(d_t A) * S_{t-1} + (d_t * u_t) B_t^T          S_t is (E, N), A = -exp(log_rate)
    y_t = S_t C_t + D * u_t
    o_t = W_out (y_t * silu(g_t))               silu(s) = s sigmoid(s)

    The output is o_t. In S_t each element of d_t multiplies one row of A. W_in and b_in are input_weight and
    input_bias (rows v, g), w_k are the rows of conv_weight, b_w is conv_bias, W_sel is select_weight (rows
    q, B, C), W_d and b_d are step_weight and step_bias, log_rate is (E, N), D is skip, W_out is
    output_weight.

    Weights are initialised as in the authors' code: A to -1, -2, … -N in each channel, D to 1, softplus(b_d)
    log-uniformly between 0.001 and 0.1. Differs from the paper: d_t B_t approximates the integral of the
    zero-order hold, as in the authors' code; b_in is added, since without it the gate is closed wherever the
    input is 0, such as in the blank last row of an image; expand is 1 by default instead of 2, which halves
    the time of a step. The normalisation and the residual connection around the block are not part of the
    cell.
    """

    name: str = "mamba"
    state_size: int = option(16, "size of the state of each channel (N)", low=1, high=10_000)
    expand: int = option(1, "inner channels per hidden unit", low=1, high=100)
    conv_width: int = option(4, "width of the causal convolution, in steps", low=1, high=100)

    paper: ClassVar = Paper(
        "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
        "Gu & Dao",
        2023,
        "https://arxiv.org/abs/2312.00752",
    )
    family: ClassVar = "state space"

    @property
    def formula(self) -> str:
        return "expand*h*(2*n + conv_width + 3*state_size + 2*((h + 15)//16) + h + 5)"

    @property
    def inner(self) -> int:
        return self.expand * self.hidden_size

    @property
    def rank(self) -> int:
        """The size of q_t, from which the step sizes of all channels are computed."""
        return math.ceil(self.hidden_size / 16)

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (self.state_size, self.inner)

    @property
    def past(self) -> tuple[int, int]:
        return (self.conv_width - 1, self.inner)

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        inner, rank, states = self.inner, self.rank, self.state_size

        def spec(fan_in: int, *shape: int) -> ParameterSpec:
            return ParameterSpec(shape, uniform(fan_in))

        return {
            "input_weight": spec(input_size, 2 * inner, input_size),
            "input_bias": spec(input_size, 2 * inner),
            "conv_weight": spec(self.conv_width, self.conv_width, inner),
            "conv_bias": spec(self.conv_width, inner),
            "select_weight": spec(inner, rank + 2 * states, inner),
            "step_weight": spec(rank, inner, rank),
            "step_bias": ParameterSpec((inner,), _fill_step_bias),
            "log_rate": ParameterSpec((inner, states), _fill_log_rate),
            "skip": ParameterSpec((inner,), ones),
            "output_weight": spec(inner, self.hidden_size, inner),
        }

    def prepare(self, p: Parameters) -> Parameters:
        return Parameters(**vars(p), rate=-p.log_rate.t().exp())

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.linear(x, p.input_weight, p.input_bias)

    def keep(self, z: Tensor) -> Tensor:
        return z[..., : self.inner]

    def signals(self, p: Parameters, z: Tensor, past: tuple[Tensor, ...]) -> MambaSignals:
        import torch
        from torch.nn import functional

        v, gate = z.chunk(2, dim=-1)
        u = functional.silu(convolved(p.conv_weight, p.conv_bias, v, past))
        sizes = [self.rank, self.state_size, self.state_size]
        q, write, read = torch.split(functional.linear(u, p.select_weight), sizes, dim=-1)
        step = functional.softplus(functional.linear(q, p.step_weight, p.step_bias))
        return MambaSignals(u, step, gate, write, read)

    def recurrence(self, p: Parameters, s: MambaSignals) -> tuple[Tensor, Tensor]:
        a = (s.step.unsqueeze(-2) * p.rate).exp()
        return a, s.write.unsqueeze(-1) * (s.step * s.u).unsqueeze(-2)

    def read(self, p: Parameters, s: MambaSignals, h: Tensor) -> Tensor:
        from torch.nn import functional

        y = (s.read.unsqueeze(-1) * h).sum(-2) + p.skip * s.u
        return functional.linear(y * functional.silu(s.gate), p.output_weight)


def _fill_step_bias(bias: Tensor) -> None:
    """Fills b_d so that softplus(b_d) is log-uniform between STEP_MIN and STEP_MAX."""
    step = bias.uniform_(math.log(STEP_MIN), math.log(STEP_MAX)).exp()
    bias.copy_(step + (-(-step).expm1()).log())


def _fill_log_rate(log_rate: Tensor) -> None:
    """A = -1, -2, … in each channel: S4D-Real."""
    import torch

    log_rate.copy_(torch.arange(1, log_rate.shape[1] + 1).log())
