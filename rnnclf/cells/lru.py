"""Linear recurrent unit.  Shapes: T time, B batch, I inputs, H hidden, N complex modes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import Paper, Published
from rnnclf.cells.initializers import normal, zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.cells.statespace import DiagonalCell, check_order, glu, wrapped
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LRU(DiagonalCell):
    """Linear recurrent unit: decaying complex modes, read out through a GLU.

    lambda = exp(-exp(log_decay) + i exp(log_phase))      one for each of the N = state_size modes
    h_t = lambda * h_{t-1} + exp(log_gain) * (B x_t)      complex
    y_t = Re(C h_t) + D x_t
    g_t = gelu(y_t)                                       gelu(y) = y (1 + erf(y / sqrt(2))) / 2
    o_t = (W_1 g_t + c_1) * sigmoid(W_2 g_t + c_2)

    B = input_weight_re + i input_weight_im               (N, n)
    C = output_weight_re + i output_weight_im             (h, N)
    D = skip_weight                                       (h, n)
    [W_1; W_2] = glu_weight, [c_1; c_2] = glu_bias        (2h, h), (2h)

    The output is o_t. The lambda are initialised uniformly on the ring r_min <= |lambda| <= r_max of the
    complex plane, at angles up to max_phase; exp(log_gain) starts at sqrt(1 - |lambda|^2), which gives the
    state the variance of its input if that is white noise.

    Differs from the paper: D is a full matrix, since inputs and outputs may differ in width; the ring is the
    paper's choice for long sequences, not the whole unit disc (r_min 0, r_max 1); the residual connection
    and the normalisation around the layer are not part of the cell.
    """

    name: str = "lru"
    state_size: int | None = option(
        None, "number of complex modes; none for hidden_size", low=1, high=1_000_000
    )
    r_min: float = option(0.9, "inner radius of the ring of initial eigenvalues", low=0, below=1)
    r_max: float = option(0.999, "outer radius of the ring of initial eigenvalues", above=0, high=1)
    max_phase: float = option(2 * math.pi, "largest initial angle, in radians", above=0, high=2 * math.pi)

    paper: ClassVar = Paper(
        "Resurrecting Recurrent Neural Networks for Long Sequences",
        "Orvieto et al.",
        2023,
        "https://arxiv.org/abs/2303.06349",
    )
    published: ClassVar = (Published("sCIFAR", 89.0, "Orvieto et al. 2023, as listed by Papers with Code"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order("r_min", self.r_min, "r_max", self.r_max)

    @property
    def modes(self) -> int:
        return self.state_size or self.hidden_size

    @property
    def formula(self) -> str:
        modes = "h" if self.state_size is None else "state_size"
        return f"{modes}*(2*n + 2*h + 3) + h*n + 2*h*(h + 1)"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        hidden = self.hidden_size
        ring = _Ring(self.r_min, self.r_max, self.max_phase)
        return {
            "log_decay": ParameterSpec((self.modes,), ring.fill_log_decay),
            "log_phase": ParameterSpec((self.modes,), ring.fill_log_phase),
            "log_gain": ParameterSpec((self.modes,), ring.fill_log_gain),
            **self.weights(input_size, output_variance=1 / self.modes),
            "glu_weight": ParameterSpec((2 * hidden, hidden), normal(1 / hidden)),
            "glu_bias": ParameterSpec((2 * hidden,), zeros),
        }

    def dynamics(self, p: Parameters) -> tuple[Tensor, Tensor]:
        import torch

        return torch.complex(-p.log_decay.exp(), wrapped(p.log_phase.exp())), p.log_gain.exp()

    def output(self, p: Parameters, y: Tensor) -> Tensor:
        return glu(y, p.glu_weight, p.glu_bias)


class _Ring:
    """Draws eigenvalues on a ring and the matching gains. The gains must be filled last."""

    def __init__(self, r_min: float, r_max: float, max_phase: float) -> None:
        self.r_min, self.r_max, self.max_phase = r_min, r_max, max_phase

    def fill_log_decay(self, log_decay: Tensor) -> None:
        import torch

        # exactly 0 or 1 may be drawn, but has no finite log_decay
        kind = torch.finfo(log_decay.dtype)
        squares = log_decay.uniform_(self.r_min**2, self.r_max**2).clamp_(kind.tiny, 1 - kind.eps)
        squares.log_().div_(-2).log_()
        self.log_decay = log_decay

    def fill_log_phase(self, log_phase: Tensor) -> None:
        import torch

        log_phase.uniform_(torch.finfo(log_phase.dtype).tiny, self.max_phase).log_()

    def fill_log_gain(self, log_gain: Tensor) -> None:
        log_gain.copy_((-2 * self.log_decay.exp()).expm1().neg().log() / 2)
