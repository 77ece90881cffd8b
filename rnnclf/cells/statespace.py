"""Common parts of the diagonal state space cells.  Shapes: B batch, I inputs, H hidden, M complex modes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rnnclf.cells.initializers import normal
from rnnclf.cells.linear import TimeInvariantCell
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

DISCRETIZATIONS = ("zoh", "bilinear")


class DiagonalSignals(NamedTuple):
    """The contributions of the inputs: b to the state, (…, M), and D x directly to the output, (…, H)."""

    b: Tensor
    skip: Tensor


@dataclass
class DiagonalCell(TimeInvariantCell):
    """Complex modes, each driven by all inputs and read by all outputs.

    h_t = a * h_{t-1} + g * (B x_t)         B = input_weight_re + i input_weight_im
    y_t = c Re(C h_t) + D x_t               C = output_weight_re + i output_weight_im, D = skip_weight

    A subclass must define `modes`, `dynamics` and `output`.
    """

    family: ClassVar[str] = "state space"
    complex_state: ClassVar[bool] = True
    copies: ClassVar[int] = 1
    """c in the equations: 2 if each mode stands for a pair of conjugates."""

    @property
    def modes(self) -> int:
        raise NotImplementedError

    def dynamics(self, p: Parameters) -> tuple[Tensor, Tensor]:
        """(log a, g), both (M)."""
        raise NotImplementedError

    def output(self, p: Parameters, y: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (self.modes,)

    def weights(self, input_size: int, output_variance: float) -> dict[str, ParameterSpec]:
        """The parameters that make up B, C and D."""
        into, out = normal(1 / (2 * input_size)), normal(output_variance)
        return {
            "input_weight_re": ParameterSpec((self.modes, input_size), into),
            "input_weight_im": ParameterSpec((self.modes, input_size), into),
            "output_weight_re": ParameterSpec((self.hidden_size, self.modes), out),
            "output_weight_im": ParameterSpec((self.hidden_size, self.modes), out),
            "skip_weight": ParameterSpec((self.hidden_size, input_size), normal(1 / input_size)),
        }

    def prepare(self, p: Parameters) -> Parameters:
        import torch

        log_a, gain = self.dynamics(p)
        b = gain.unsqueeze(-1) * torch.complex(p.input_weight_re, p.input_weight_im)
        from_input = torch.cat((b.real, b.imag, p.skip_weight))
        a, re, im = log_a.exp(), self.copies * p.output_weight_re, -self.copies * p.output_weight_im
        for_scan = {"a": a, "to_output": torch.stack((re, im), dim=-1).flatten(1)}
        real = {
            "a_re": a.real.contiguous(),
            "a_im": a.imag.contiguous(),
            "from_rows": torch.cat((re, im), dim=1),
        }
        return Parameters(**vars(p), b=b, from_input=from_input, **for_scan, **real)

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        """Contributions to the state (real, then imaginary parts) and D x: (…, 2M + H)."""
        from torch.nn import functional

        return functional.linear(x, p.from_input)

    def signals(self, p: Parameters, z: Tensor, past: tuple[Tensor, ...]) -> DiagonalSignals:
        import torch

        re, im, skip = torch.split(z, [self.modes, self.modes, self.hidden_size], dim=-1)
        return DiagonalSignals(torch.complex(re, im), skip)

    def recurrence(self, p: Parameters, s: DiagonalSignals) -> tuple[Tensor, Tensor]:
        return p.a, s.b

    def source_weight(self, p: Parameters) -> Tensor:
        b: Tensor = p.b
        return b

    def read(self, p: Parameters, s: DiagonalSignals, h: Tensor) -> Tensor:
        from torch.nn import functional

        return self.output(p, functional.linear(re_im(h), p.to_output) + s.skip)

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """In real arithmetic, of which machine code can be made."""
        import torch
        from torch.nn import functional

        b_re, b_im, skip = torch.split(z, [self.modes, self.modes, self.hidden_size], dim=-1)
        re, im = state.chunk(2, dim=1)
        after = (p.a_re * re - p.a_im * im + b_re, p.a_im * re + p.a_re * im + b_im)
        state = torch.cat(after, dim=1)
        return self.output(p, functional.linear(state, p.from_rows) + skip), state


def check_order(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raises ConfigError if the range given by two options is empty."""
    if low > high:
        raise ConfigError(f"cell.{low_name} must be at most cell.{high_name}, got {low} and {high}.")


def discretized(method: str, rate: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """(log a, g) such that h_t = a h_{t-1} + g u_t discretises dh/dt = rate h + u with time step `step`.

    `rate` has a negative real part, so that |a| < 1.
    """
    import torch

    z = rate * step
    if method == "bilinear":
        return 2 * torch.atanh(z / 2), step / (1 - z / 2)
    return torch.complex(z.real, wrapped(z.imag)), torch.expm1(z) / rate


def wrapped(angle: Tensor) -> Tensor:
    """The same angle within ±π: in float32, multiples of large angles would lose their fractional turns."""
    turns = (angle / (2 * math.pi)).round()
    return angle - 2 * math.pi * turns


def legs_frequencies(size: int) -> Tensor:
    """The size/2 positive imaginary parts of the eigenvalues of HiPPO-LegS without its rank-one part.

    The remaining (size, size) matrix, its normal part, is -1/2 on the diagonal plus a skew-symmetric matrix
    with entries ±sqrt((2j + 1) (2k + 1)) / 2, so all real parts are -1/2.
    """
    import torch

    roots = (2 * torch.arange(size, dtype=torch.float64) + 1).sqrt()
    upper = torch.triu(roots.outer(roots) / 2, diagonal=1)
    frequencies: Tensor = torch.linalg.eigvalsh(1j * (upper - upper.t()))[size // 2 :]
    return frequencies


def half(log_parameter: Tensor) -> None:
    """Fills with log 1/2."""
    log_parameter.fill_(-math.log(2))


def re_im(z: Tensor) -> Tensor:
    """Real and imaginary parts as adjacent elements, (…, M) → (…, 2M), so that Re(c z) =
    re_im(conj(c)) · re_im(z): if only the real part is needed, real arithmetic takes half the work."""
    import torch

    return torch.view_as_real(z.resolve_conj()).flatten(-2)


def real_einsum(equation: str, x: Tensor, y: Tensor) -> Tensor:
    """The real part of the sum of products of complex tensors over their last dimension."""
    import torch

    return torch.einsum(equation, re_im(x), re_im(y.conj()))


def glu(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(W_1 g + c_1) * sigmoid(W_2 g + c_2) for g = gelu(y), weight [W_1; W_2] and bias [c_1; c_2]."""
    from torch.nn import functional

    return functional.glu(functional.linear(functional.gelu(y), weight, bias))
