"""Diagonal S4.  Shapes: T time, B batch, I inputs, H hidden, M complex modes per hidden unit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import Paper, Published
from rnnclf.cells.initializers import log_uniform, normal, uniform
from rnnclf.cells.linear import TimeInvariantCell
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.cells.statespace import (
    DISCRETIZATIONS,
    check_order,
    discretized,
    glu,
    half,
    legs_frequencies,
    real_einsum,
)
from rnnclf.errors import ConfigError
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class S4D(TimeInvariantCell):
    """Diagonal S4: each unit filters its own signal, and a GLU mixes the units.

    u_t = input_weight x_t + input_bias                   (h)
    lambda = -exp(log_decay) + i frequency                (h, M), M = state_size / 2
    dt = exp(log_dt)                                      (h)
    h_t = a * h_{t-1} + g * u_t                           (h, M), complex: each unit has M modes
    y_t = 2 Re(sum over modes of C * h_t) + skip * u_t    C = output_weight_re + i output_weight_im
    g_t = gelu(y_t)                                       gelu(y) = y (1 + erf(y / sqrt(2))) / 2
    o_t = (W_1 g_t + c_1) * sigmoid(W_2 g_t + c_2)        [W_1; W_2] = glu_weight, [c_1; c_2] = glu_bias

    zoh:      a = exp(dt lambda)                          g = (a - 1) / lambda
    bilinear: a = (1 + dt lambda/2) / (1 - dt lambda/2)   g = dt / (1 - dt lambda/2)

    The output is o_t. As u_t is real, the conjugates of the M modes need not be stored: 2 Re accounts for
    them. Every lambda starts with real part -1/2. The initial frequencies, with m = 0 … M - 1 and
    N = state_size, are

    lin:      pi m
    inv:      (N / pi) (N / (2m + 1) - 1)
    legs:     the positive imaginary parts of the eigenvalues of the normal part of HiPPO-LegS (N, N),
              ascending: of the skew-symmetric K with K_jk = sqrt((2j + 1) (2k + 1)) / 2 = -K_kj for j < k

    A unit remembers about 1/dt steps; dt is initialised log-uniformly between dt_min and dt_max.

    Differs from the paper: each layer projects its inputs to one signal per unit, instead of one projection
    below all layers; the paper's B is fixed at 1, as only its product with C matters.
    """

    name: str = "s4d"
    state_size: int = option(
        64, "state size of each unit, even: half as many complex modes", low=2, high=65_536
    )
    init: str = option("lin", "initial frequencies of the complex modes", choices=("lin", "inv", "legs"))
    dt_min: float = option(0.001, "smallest of the initial time steps", above=0, high=1000)
    dt_max: float = option(0.1, "largest of the initial time steps", above=0, high=1000)
    discretization: str = option("zoh", "how the continuous equations become steps", choices=DISCRETIZATIONS)

    paper: ClassVar = Paper(
        "On the Parameterization and Initialization of Diagonal State Space Models",
        "Gu et al.",
        2022,
        "https://arxiv.org/abs/2206.11893",
    )
    published: ClassVar = (
        Published(
            "sCIFAR",
            88.0,
            "README of https://github.com/state-spaces/s4/tree/main/models/s4",
            "its example.py, 200k parameters",
        ),
    )
    family: ClassVar = "state space"
    complex_state: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order("dt_min", self.dt_min, "dt_max", self.dt_max)
        if self.state_size % 2:
            raise ConfigError(f"cell.state_size must be even, got {self.state_size}.")

    @property
    def engines(self) -> tuple[str, ...]:
        return ("fft", "scan", "loop")

    @property
    def missing_engine(self) -> str:
        return ""

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (self.hidden_size, self.state_size // 2)

    @property
    def formula(self) -> str:
        return "h*(n + 1) + 2*h*state_size + 2*h + 2*h*(h + 1)"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        hidden, shape = self.hidden_size, self.state_shape
        return {
            "input_weight": ParameterSpec((hidden, input_size), uniform(input_size)),
            "input_bias": ParameterSpec((hidden,), uniform(input_size)),
            "log_decay": ParameterSpec(shape, half),
            "frequency": ParameterSpec(shape, self.fill_frequency),
            "log_dt": ParameterSpec((hidden,), log_uniform(self.dt_min, self.dt_max)),
            "output_weight_re": ParameterSpec(shape, normal(1 / 2)),
            "output_weight_im": ParameterSpec(shape, normal(1 / 2)),
            "skip": ParameterSpec((hidden,), normal(1)),
            "glu_weight": ParameterSpec((2 * hidden, hidden), uniform(hidden)),
            "glu_bias": ParameterSpec((2 * hidden,), uniform(hidden)),
        }

    def fill_frequency(self, frequency: Tensor) -> None:
        import torch

        size = self.state_size
        mode = torch.arange(size // 2, dtype=torch.float64)
        if self.init == "lin":
            frequency.copy_(math.pi * mode)
        elif self.init == "inv":
            frequency.copy_(size / math.pi * (size / (2 * mode + 1) - 1))
        else:
            frequency.copy_(legs_frequencies(size))

    def prepare(self, p: Parameters) -> Parameters:
        import torch

        rate = torch.complex(-p.log_decay.exp(), p.frequency)
        log_a, gain = discretized(self.discretization, rate, p.log_dt.exp().unsqueeze(-1))
        to_output = 2 * torch.complex(p.output_weight_re, p.output_weight_im)
        return Parameters(**vars(p), a=log_a.exp(), gain=gain, to_output=to_output)

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.linear(x, p.input_weight, p.input_bias)

    def recurrence(self, p: Parameters, s: Tensor) -> tuple[Tensor, Tensor]:
        return p.a, s.unsqueeze(-1) * p.gain

    def read(self, p: Parameters, s: Tensor, h: Tensor) -> Tensor:
        return self.read_convolved(p, s, (h * p.to_output).sum(-1).real)

    # u is convolved with one real kernel per unit, instead of each mode separately.

    def kernel(self, p: Parameters, steps: int) -> Tensor:
        """2 Re(sum over modes of C * g * a^t), for t = 0, 1, …, steps - 1: (T, H)."""
        starts_KHM, within_JHM = self.factors(p, steps)
        kernel_HKJ = real_einsum("khm,jhm->hkj", starts_KHM * p.gain * p.to_output, within_JHM)
        return kernel_HKJ.flatten(1)[:, :steps].t()

    def source(self, p: Parameters, s: Tensor) -> Tensor:
        return s

    def source_weight(self, p: Parameters) -> Tensor:
        import torch

        return torch.cat((p.input_weight, p.input_bias.unsqueeze(-1)), dim=1)

    def echo(self, p: Parameters, h: Tensor, steps: int) -> Tensor:
        return real_einsum("thm,bhm->tbh", self.powers(p, steps + 1)[1:], h * p.to_output)

    def read_convolved(self, p: Parameters, s: Tensor, v: Tensor) -> Tensor:
        return glu(v + p.skip * s, p.glu_weight, p.glu_bias)
