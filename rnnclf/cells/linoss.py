"""Oscillatory state-space model.  Shapes: T time, B batch, I inputs, H hidden, N oscillators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rnnclf.cells.base import Paper
from rnnclf.cells.initializers import normal, uniform
from rnnclf.cells.linear import TimeInvariantCell, applied
from rnnclf.cells.parameters import Parameters, ParameterSpec
from rnnclf.options import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LinOSS(TimeInvariantCell):
    """LinOSS: forced harmonic oscillators, read out through a gated linear unit.

    z_t = z_{t-1} + dt * (B x_t - A * y_s)      velocity; s = t - 1 (imex) or t (implicit)
    y_t = y_{t-1} + dt * z_t                    position
    v_t = gelu(C y_t + D x_t)
    h_t = (V v_t + b) * sigmoid(G v_t + c)      gated linear unit
    A = relu(stiffness)                         one number per oscillator
    dt = sigmoid(timestep)                      one number per oscillator

    The output is h_t; the state is (z, y) of each oscillator. B is input_weight, C is output_weight and
    D is skip_weight. glu_weight holds the rows of V, then those of G; glu_bias holds b, then c. gelu is the
    exact one, v times the normal distribution function at v. Solving the implicit step for z_t gives

    z_t = (z_{t-1} + dt * (B x_t - A * y_{t-1})) / (1 + dt * dt * A)

    With imex, oscillations do not decay, and do not grow as long as dt * dt * A < 4. With implicit they
    decay, faster for larger dt * dt * A, which lets the cell forget.

    Differs from the paper: normalisation, dropout and the residual connection are left to the model around
    the cell. B and C are real, as in the paper's equations; in its code they are complex, which amounts to
    two oscillators for each A and dt. D is a full matrix, since inputs and outputs may differ in width.
    """

    name: str = "linoss"
    discretization: str = option(
        "imex", "how the continuous equations become steps", choices=("imex", "implicit")
    )
    state_size: int | None = option(
        None, "number of oscillators; none for hidden_size", low=1, high=1_000_000
    )

    paper: ClassVar = Paper(
        "Oscillatory State-Space Models", "Rusch & Rus", 2025, "https://arxiv.org/abs/2410.03943"
    )
    family: ClassVar = "state space"
    pairs: ClassVar[bool] = True

    @property
    def oscillators(self) -> int:
        return self.hidden_size if self.state_size is None else self.state_size

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (self.oscillators, 2)

    @property
    def formula(self) -> str:
        oscillators = "h" if self.state_size is None else "state_size"
        return f"{oscillators}*(n + h + 2) + h*n + 2*h*(h + 1)"

    def parameters(self, input_size: int) -> dict[str, ParameterSpec]:
        hidden, oscillators = self.hidden_size, self.oscillators
        return {
            "stiffness": ParameterSpec((oscillators,), lambda a: a.uniform_(0, 1)),
            "timestep": ParameterSpec((oscillators,), lambda dt: dt.uniform_(0, 1)),
            "input_weight": ParameterSpec((oscillators, input_size), uniform(input_size)),
            "output_weight": ParameterSpec((hidden, oscillators), uniform(oscillators)),
            "skip_weight": ParameterSpec((hidden, input_size), normal(1 / input_size)),
            "glu_weight": ParameterSpec((2 * hidden, hidden), uniform(hidden)),
            "glu_bias": ParameterSpec((2 * hidden,), uniform(hidden)),
        }

    def prepare(self, p: Parameters) -> Parameters:
        """Adds what each oscillator keeps of its velocity z and position y, and takes of its force B x_t."""
        import torch

        a, dt = p.stiffness.relu(), p.timestep.sigmoid()
        z_of_z = 1 / (1 + dt * dt * a) if self.discretization == "implicit" else torch.ones_like(a)
        z_of_y, z_of_force = -z_of_z * dt * a, z_of_z * dt
        moved = {"y_of_z": dt * z_of_z, "y_of_y": 1 + dt * z_of_y, "y_of_force": dt * z_of_force}
        weights = {"joint_weight": torch.cat((p.input_weight, p.skip_weight))}
        pushed = {"z_of_z": z_of_z, "z_of_y": z_of_y, "z_of_force": z_of_force}
        return Parameters(**vars(p), **pushed, **moved, **weights)

    def inputs(self, p: Parameters, x: Tensor) -> Tensor:
        import torch

        return torch.nn.functional.linear(x, p.joint_weight)

    def transition(self, p: Parameters) -> Tensor:
        """The matrix by which each oscillator's (z, y) is multiplied in a step: (N, 2, 2)."""
        import torch

        return torch.stack((p.z_of_z, p.z_of_y, p.y_of_z, p.y_of_y), dim=-1).reshape(-1, 2, 2)

    def recurrence(self, p: Parameters, s: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        driven = s[..., : self.oscillators]
        force = torch.stack((p.z_of_force, p.y_of_force), dim=-1)
        return self.transition(p), driven.unsqueeze(-1) * force

    def read(self, p: Parameters, s: Tensor, h: Tensor) -> Tensor:
        return self._output(p, s, h[..., 1])

    # Outputs depend on positions alone, so forces are convolved with one kernel per oscillator.

    def kernel(self, p: Parameters, steps: int) -> Tensor:
        """The position t steps after a unit force, for t = 0, 1, …, steps - 1: (T, N)."""
        import torch

        starts_KN22, within_JN22 = self.factors(p, steps)
        pushed_JN2 = applied(within_JN22, torch.stack((p.z_of_force, p.y_of_force), dim=-1), pairs=True)
        kernel_KJN = torch.einsum("knc,jnc->kjn", starts_KN22[:, :, 1], pushed_JN2)
        return kernel_KJN.flatten(0, 1)[:steps]

    def source(self, p: Parameters, s: Tensor) -> Tensor:
        return s[..., : self.oscillators]

    def source_weight(self, p: Parameters) -> Tensor:
        weight: Tensor = p.input_weight
        return weight

    def echo(self, p: Parameters, h: Tensor, steps: int) -> Tensor:
        import torch

        return torch.einsum("tnc,bnc->tbn", self.powers(p, steps + 1)[1:, :, 1], h)

    def read_convolved(self, p: Parameters, s: Tensor, v: Tensor) -> Tensor:
        return self._output(p, s, v)

    def step(self, p: Parameters, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Velocities and positions apart, of which machine code can be made."""
        import torch

        driven = z[..., : self.oscillators]
        velocity, position = state.chunk(2, dim=1)
        after = (
            p.z_of_z * velocity + p.z_of_y * position + p.z_of_force * driven,
            p.y_of_z * velocity + p.y_of_y * position + p.y_of_force * driven,
        )
        state = torch.cat(after, dim=1)
        return self._output(p, z, state[:, self.oscillators :]), state

    def _output(self, p: Parameters, s: Tensor, position: Tensor) -> Tensor:
        from torch.nn import functional

        skipped = s[..., self.oscillators :]
        v = functional.gelu(functional.linear(position, p.output_weight) + skipped)
        return functional.glu(functional.linear(v, p.glu_weight, p.glu_bias), dim=-1)
