"""Cells that are linear in their state.  Shapes: T time, B batch, I inputs, H hidden, N state.

    h_t = a_t h_{t-1} + b_t          a_t and b_t depend on the inputs alone

Such a recurrence need not be computed step by step: an engine can compute all states at once by a
parallel scan, or, if a_t is the same at all steps, by a convolution. A cell of this kind defines its
coefficients and its output; its step follows from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from rnnclf.cells.base import Cell
from rnnclf.cells.parameters import Parameters
from rnnclf.engine.choose import machine_code_and

if TYPE_CHECKING:
    from torch import Tensor


class LinearState(NamedTuple):
    """The state of a linear cell that also depends on earlier inputs.

    h: (B, *state_shape). past_BKW: the values that `keep` returned for the last K inputs, oldest first.
    """

    h: Tensor
    past_BKW: Tensor


@dataclass
class LinearCell(Cell):
    """A cell with h_t = a_t h_{t-1} + b_t, elementwise or (`pairs`) with 2 × 2 matrices.

    A subclass must define `parameters`, `recurrence` and `read`. Its methods must work both for one step
    (B, …) and for all steps at once (T, B, …), so they may only refer to the last dimensions.
    """

    zoneout: ClassVar[bool] = False
    complex_state: ClassVar[bool] = False
    pairs: ClassVar[bool] = False
    """Whether the state consists of pairs (…, 2), which are multiplied by 2 × 2 matrices a (…, 2, 2)."""

    @property
    def engines(self) -> tuple[str, ...]:
        return machine_code_and("scan", "loop") if self._is_flat else ("scan", "loop")

    @property
    def missing_engine(self) -> str:
        return super().missing_engine if self._is_flat else ""

    @property
    def _is_flat(self) -> bool:
        """Whether the state is real numbers (B, N), which machine code can keep."""
        several = self.complex_state or self.pairs or self.past[0] > 0 or len(self.state_shape) > 1
        return not several

    @property
    def state_shape(self) -> tuple[int, ...]:
        """The shape of h for one sequence."""
        return (self.hidden_size,)

    @property
    def past(self) -> tuple[int, int]:
        """(K, W): the number of earlier inputs that a step needs, and the width of `keep`'s result."""
        return (0, 0)

    def keep(self, z: Tensor) -> Tensor:
        """The part of `z`, the result of `inputs`, that later steps need: (…, W)."""
        return z

    def signals(self, p: Parameters, z: Tensor, past: tuple[Tensor, ...]) -> Any:
        """Everything that `recurrence` and `read` need from the inputs: a tensor or a NamedTuple of tensors.

        `past` holds the results of `keep` for the K previous inputs, most recent first.
        """
        return z

    def recurrence(self, p: Parameters, s: Any) -> tuple[Tensor, Tensor]:
        """The coefficients (a, b) of h_t = a h_{t-1} + b, from the signals. b has the shape of the state. So
        has a, unless it is the same at all steps: then it has the shape of the state of one sequence."""
        raise NotImplementedError(f"{type(self).__name__} must define recurrence(p, s).")

    def read(self, p: Parameters, s: Any, h: Tensor) -> Tensor:
        """The output (…, H), from the signals and the state after the step."""
        raise NotImplementedError(f"{type(self).__name__} must define read(p, s, h).")

    def initial_state(self, x_BI: Tensor) -> Any:
        kind = x_BI.dtype.to_complex() if self.complex_state else x_BI.dtype
        h = x_BI.new_zeros(x_BI.shape[0], *self.state_shape, dtype=kind)
        steps, width = self.past
        return LinearState(h, x_BI.new_zeros(x_BI.shape[0], steps, width)) if steps else h

    def step(self, p: Parameters, z: Tensor, state: Any) -> tuple[Tensor, Any]:
        if not self.past[0]:
            return self._advance(p, self.signals(p, z, ()), state)
        s = self.signals(p, z, state.past_BKW.flip(1).unbind(1))
        output, h = self._advance(p, s, state.h)
        import torch

        past_BKW = torch.cat((state.past_BKW[:, 1:], self.keep(z).unsqueeze(1)), dim=1)
        return output, LinearState(h, past_BKW)

    def _advance(self, p: Parameters, s: Any, h: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.recurrence(p, s)
        h = ((a * h.unsqueeze(-2)).sum(-1) if self.pairs else a * h) + b
        return self.read(p, s, h), h


@dataclass
class TimeInvariantCell(LinearCell):
    """A linear cell whose a is the same at all steps: h_t = Σ_k a^k b_{t-k}, a convolution.

    `prepare` must add `log_a`, of state_shape, with a = exp(log_a). By default b is convolved to give h; a
    cell that can do with less work (one kernel for many modes) overrides the last four methods.
    """

    @property
    def engines(self) -> tuple[str, ...]:
        return ("fft", "scan", "loop")

    @property
    def missing_engine(self) -> str:
        return ""

    def powers(self, p: Parameters, exponents: Tensor) -> Tensor:
        """a raised to each of the exponents (T,): (T, *state_shape)."""
        powers: Tensor = (exponents.reshape(-1, *[1] * p.log_a.ndim) * p.log_a).exp()
        return powers

    def kernel(self, p: Parameters, t_T: Tensor) -> Tensor:
        """The convolution kernel, the weight of an input t steps later: (T, S)."""
        return self.powers(p, t_T)

    def source(self, p: Parameters, s: Any) -> Tensor:
        """The signals that are convolved with the kernel: (T, B, S)."""
        return self.recurrence(p, s)[1]

    def echo(self, p: Parameters, h: Tensor, t_T: Tensor) -> Tensor:
        """The contribution of the initial state h (B, *state_shape) to the result of each step: (T, B, S)."""
        return self.powers(p, t_T + 1).unsqueeze(1) * h

    def read_convolved(self, p: Parameters, s: Any, v: Tensor) -> Tensor:
        """The output (T, B, H), from the signals and the result of the convolution (T, B, S)."""
        return self.read(p, s, v)
