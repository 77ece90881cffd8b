"""Simplified state space layer (S5).  Shapes: T time, B batch, I inputs, H hidden, M complex modes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import Paper, Published
from rnnclf.cells.initializers import log_uniform, normal, zeros
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.cells.statespace import (
    DISCRETIZATIONS,
    DiagonalCell,
    check_order,
    discretized,
    half,
    legs_frequencies,
)
from rnnclf.errors import ConfigError
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class S5(DiagonalCell):
    """S5: one state space with many inputs and outputs, and a gated output.

    lambda = -exp(log_decay) + i frequency                (M), M = state_size / 2
    dt = exp(log_dt)                                      (M)
    h_t = a * h_{t-1} + g * (B x_t)                       (M), complex
    y_t = 2 Re(C h_t) + D x_t
    v_t = gelu(y_t)                                       gelu(y) = y (1 + erf(y / sqrt(2))) / 2
    o_t = v_t * sigmoid(gate_weight v_t + gate_bias)

    zoh:      a = exp(dt lambda)                          g = (a - 1) / lambda
    bilinear: a = (1 + dt lambda/2) / (1 - dt lambda/2)   g = dt / (1 - dt lambda/2)

    B = input_weight_re + i input_weight_im               (M, n)
    C = output_weight_re + i output_weight_im             (h, M)
    D = skip_weight                                       (h, n)

    The output is o_t. As the outputs are real, only one of each pair of conjugate modes is stored: 2 Re
    accounts for the other. The lambda start as eigenvalues of the normal part of HiPPO-LegS: with real part
    -1/2, and with these frequencies, repeated init_blocks times:

    the positive imaginary parts of the eigenvalues of K (R, R), ascending, where K is skew-symmetric
    with K_jk = sqrt((2j + 1) (2k + 1)) / 2 = -K_kj for j < k, and R = state_size / init_blocks

    A mode remembers about 1/dt steps; dt is initialised log-uniformly between dt_min and dt_max.

    Differs from the paper: the real part of lambda cannot become positive, so that no state grows without
    bound; D is a full matrix and B is scaled by n, since inputs and outputs may differ in width; the
    residual connection and the normalisation around the layer are not part of the cell.
    """

    name: str = "s5"
    state_size: int | None = option(
        None,
        "state size, a multiple of 2*init_blocks: half as many complex modes;"
        " none for hidden, rounded up to such a multiple",
        low=2,
        high=1_000_000,
    )
    init_blocks: int = option(1, "number of HiPPO blocks that initialise the state", low=1, high=500_000)
    dt_min: float = option(0.001, "smallest of the initial time steps", above=0, high=1000)
    dt_max: float = option(0.1, "largest of the initial time steps", above=0, high=1000)
    discretization: str = option("zoh", "how the continuous equations become steps", choices=DISCRETIZATIONS)

    paper: ClassVar = Paper(
        "Simplified State Space Layers for Sequence Modeling",
        "Smith et al.",
        2023,
        "https://arxiv.org/abs/2208.04933",
    )
    published: ClassVar = (
        Published("sMNIST", 99.65, "Smith et al. 2023, as listed by wizwand"),
        Published("sCIFAR", 90.1, "Smith et al. 2023, as listed by wizwand"),
    )
    copies: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order("dt_min", self.dt_min, "dt_max", self.dt_max)
        if self.state_size is not None and self.state_size % (2 * self.init_blocks):
            raise ConfigError(
                f"cell.state_size must be a multiple of 2 * cell.init_blocks = {2 * self.init_blocks},"
                f" got {self.state_size}."
            )

    @property
    def modes(self) -> int:
        size = self.hidden_size if self.state_size is None else self.state_size
        return self.init_blocks * math.ceil(size / (2 * self.init_blocks))

    @property
    def formula(self) -> str:
        modes = "init_blocks*-(-h // (2*init_blocks))" if self.state_size is None else "state_size//2"
        return f"{modes}*(2*n + 2*h + 3) + h*n + h*(h + 1)"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        shape, hidden = (self.modes,), self.hidden_size
        # The paper draws a real B and a complex C and multiplies both by the unitary matrix of eigenvectors.
        # That leaves the distribution of normal numbers unchanged, so the products are drawn directly.
        weights = self.weights(input_size, output_variance=1 / (2 * self.modes))
        return {
            "log_decay": ParameterSpec(shape, half),
            "frequency": ParameterSpec(shape, self.fill_frequency),
            "log_dt": ParameterSpec(shape, log_uniform(self.dt_min, self.dt_max)),
            **weights,
            "gate_weight": ParameterSpec((hidden, hidden), normal(1 / hidden)),
            "gate_bias": ParameterSpec((hidden,), zeros),
        }

    def fill_frequency(self, frequency: Tensor) -> None:
        blocks = frequency.view(self.init_blocks, -1)
        blocks.copy_(legs_frequencies(2 * blocks.shape[1]))

    def dynamics(self, p: Parameters) -> tuple[Tensor, Tensor]:
        import torch

        rate = torch.complex(-p.log_decay.exp(), p.frequency)
        return discretized(self.discretization, rate, p.log_dt.exp())

    def output(self, p: Parameters, y: Tensor) -> Tensor:
        from torch.nn import functional

        v = functional.gelu(y)
        return v * functional.linear(v, p.gate_weight, p.gate_bias).sigmoid()
