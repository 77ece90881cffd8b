"""Cells that are linear in their state.  Shapes: T time, B batch, I inputs, H hidden, N state.

    h_t = a_t h_{t-1} + b_t          a_t and b_t depend on the inputs alone

Such a recurrence need not be computed step by step: an engine can compute all states at once by a
parallel scan, or, if a_t is the same at all steps, by a convolution. A cell of this kind defines its
coefficients and its output; its step follows from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from rnnclf.cells.base import Cell
from rnnclf.cells.parameters import Parameters
from rnnclf.engine.choose import machine_code_and

if TYPE_CHECKING:
    from torch import Tensor


class LinearState(NamedTuple):
    """The state of a linear cell that also depends on earlier inputs.

    h: see `LinearCell.to_rows`. past: the values that `keep` returned for the last K inputs side by side, the
    oldest first: (B, K·W).
    """

    h: Tensor
    past: Tensor


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
        return machine_code_and("scan", "loop")

    @property
    def state_shape(self) -> tuple[int, ...]:
        """The shape of h for one sequence, as the methods below have it."""
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

    def to_rows(self, h: Tensor) -> Tensor:
        """h (B, *state_shape) as it is kept between steps: a row of real numbers for each sequence, which is
        what machine code and exported files can keep. First come all real parts, or the first elements of
        all pairs, then the others."""
        import torch

        if self.complex_state:
            return torch.cat((h.real.flatten(1), h.imag.flatten(1)), dim=1)
        return torch.cat(h.unbind(-1), dim=1) if self.pairs else h.flatten(1)

    def from_rows(self, rows: Tensor) -> Tensor:
        """The inverse of `to_rows`."""
        import torch

        if self.complex_state:
            re, im = (part.reshape(-1, *self.state_shape) for part in rows.chunk(2, dim=1))
            return torch.complex(re, im)
        if self.pairs:
            return torch.stack(rows.chunk(2, dim=1), dim=-1)
        return rows.reshape(-1, *self.state_shape)

    def initial_state(self, x_BI: Tensor) -> Any:
        h = x_BI.new_zeros(len(x_BI), math.prod(self.state_shape) * (2 if self.complex_state else 1))
        steps, width = self.past
        return LinearState(h, x_BI.new_zeros(len(x_BI), steps * width)) if steps else h

    def step(self, p: Parameters, z: Tensor, state: Any) -> tuple[Tensor, Any]:
        steps, width = self.past
        if not steps:
            return self._advance(p, self.signals(p, z, ()), state)
        s = self.signals(p, z, state.past.chunk(steps, dim=1)[::-1])
        output, h = self._advance(p, s, state.h)
        import torch

        return output, LinearState(h, torch.cat((state.past[:, width:], self.keep(z)), dim=1))

    def _advance(self, p: Parameters, s: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.recurrence(p, s)
        rows = self.to_rows(applied(a, self.from_rows(rows), self.pairs) + b)
        # read from the rows, so that the gradient of the state includes that of the output
        return self.read(p, s, self.from_rows(rows)), rows


def applied(a: Tensor, h: Tensor, pairs: bool) -> Tensor:
    """a applied to states h: elementwise, or as 2 × 2 matrices."""
    product: Tensor = (a * h.unsqueeze(-2)).sum(-1) if pairs else a * h
    return product


def multiplied(a: Tensor, b: Tensor, pairs: bool) -> Tensor:
    """The product of two coefficients: elementwise, or that of 2 × 2 matrices."""
    return a @ b if pairs else a * b


def first_powers(a: Tensor, count: int, pairs: bool) -> Tensor:
    """a^0, a^1, …, a^(count - 1) along a new first dimension, in O(count) products.

    They are as exact as the steps of a loop. exp(t log a) takes less time for some hundred numbers, more for
    thousands. It is more exact for an a that turns little, less for one that turns far, whose angle loses
    digits when it is multiplied by t.
    """
    import torch

    one = torch.eye(2, dtype=a.dtype, device=a.device).expand_as(a) if pairs else torch.ones_like(a)
    # begins with both, so that a has a gradient whatever the count is
    powers, square = torch.stack((one, a)), a
    while len(powers) < count:
        square = multiplied(square, square, pairs)
        powers = torch.cat((powers, multiplied(square, powers, pairs)))
    return powers[:count]


@dataclass
class TimeInvariantCell(LinearCell):
    """A linear cell whose a is the same at all steps: h_t = Σ_k a^k b_{t-k}, a convolution.

    By default b is convolved to give h; a cell that can do with less work (one kernel for many modes, or for
    one number of each pair) overrides the last methods, and one with `pairs` must.
    """

    @property
    def engines(self) -> tuple[str, ...]:
        return machine_code_and("scan", "fft", "loop")  # fft transforms as many signals as scan has states

    def transition(self, p: Parameters) -> Tensor:
        """a, as `recurrence` returns it; by default the `a` that `prepare` adds."""
        a: Tensor = p.a
        return a

    def factors(self, p: Parameters, steps: int) -> tuple[Tensor, Tensor]:
        """Powers of a whose products are those with the exponents 0, 1, …, steps - 1: since a^(k j + i) =
        a^(k j) a^i, about the square root of `steps` of them each."""
        length = math.isqrt(steps - 1) + 1
        a = self.transition(p)
        within_J = first_powers(a, length, self.pairs)
        apart = multiplied(within_J[-1], a, self.pairs)
        return first_powers(apart, math.ceil(steps / length), self.pairs), within_J

    def powers(self, p: Parameters, steps: int) -> Tensor:
        """a^0, a^1, …, a^(steps - 1): (T, *state_shape), or (T, N, 2, 2) for pairs."""
        starts_K, within_J = self.factors(p, steps)
        powers: Tensor = multiplied(starts_K.unsqueeze(1), within_J, self.pairs).flatten(0, 1)[:steps]
        return powers

    def kernel(self, p: Parameters, steps: int) -> Tensor:
        """The convolution kernel, the weight of an input t steps later for t = 0, 1, …, steps - 1: (T, S)."""
        return self.powers(p, steps)

    def source(self, p: Parameters, s: Any) -> Tensor:
        """The signals that are convolved with the kernel: (T, B, S)."""
        return self.recurrence(p, s)[1]

    def source_weight(self, p: Parameters) -> Tensor | None:
        """The matrix W with source_t = W x_t, (S, I); with one more column if there is a constant, which that
        holds. None if the source is not of this form."""
        return None

    def echo(self, p: Parameters, h: Tensor, steps: int) -> Tensor:
        """The contribution of the initial state h (B, *state_shape) to the result of each step: (T, B, S)."""
        return self.powers(p, steps + 1)[1:].unsqueeze(1) * h

    def read_convolved(self, p: Parameters, s: Any, v: Tensor) -> Tensor:
        """The output (T, B, H), from the signals and the result of the convolution (T, B, S)."""
        return self.read(p, s, v)
