"""What gated cells do to the numbers of a step, forward and backward, between their products.

The fused engine runs a cell as products and numberwise steps: it adds U h_{t-1} to what is ready of step t,
then asks the cell for the new state; on the way back the cell turns the gradient of the state into that of
the sums, in place, and the engine does the products. Here are the steps of the workhorses. All of it is done
with few passes over contiguous memory, which decides how fast it is.

Shapes: T time, B batch, N sequences still running (the first of B), H hidden, G gates; S = T + 1 states, the
one to start from before the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rnnclf.cells.base import Parameters

tanh_backward = torch.ops.aten.tanh_backward.grad_input
sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
threshold_backward = torch.ops.aten.threshold_backward.grad_input

_MINUS_ONE = torch.tensor(-1.0)


class Product(NamedTuple):
    """A part of U h_{t-1}: the sums (T, B, R) it is added to, and its rows of the recurrent weight."""

    sums_TBR: Tensor
    rows: slice
    scaled: bool = True
    """Whether these sums are multiplied by `tanh_scale` where z is."""


class FusedSteps:
    """One run of a cell over the sequences of a batch; holds what the way back needs.

    A cell derives its own from here, defines `forward` and `backward`, and returns the class from its method
    `fused_steps`.

    p: the weights. z_TBG: the inputs of all steps, W x + b, which are changed in place. state: where to
    start, tensors (B, H), the output first.
    """

    carries: ClassVar[bool] = False
    """Whether the output of a step depends on the one before beside the products, as a gate lets it."""
    own_parameters: ClassVar[tuple[str, ...]] = ()
    """Names of further parameters, whose gradients `own_gradients` gives."""

    def __init__(self, cell: Any, p: Parameters, z_TBG: Tensor, state: tuple[Tensor, ...]) -> None:
        self.cell, self.p, self.z_TBG = cell, p, z_TBG
        self.gates = [gate.unbind(0) for gate in torch.split(z_TBG, cell.hidden_size, dim=-1)]
        self.states_SBH = tuple(map(self._beginning_with, state))
        self.states = [states_SBH.unbind(0) for states_SBH in self.states_SBH]
        self.scale, self.tanh = tanh_scale(z_TBG.dtype), tanh_for(z_TBG.dtype)

    def _beginning_with(self, start_BH: Tensor) -> Tensor:
        states_SBH = start_BH.new_empty(len(self.z_TBG) + 1, *start_BH.shape)
        states_SBH[0] = start_BH
        return states_SBH

    @classmethod
    def tanh_gates(cls, cell: Any) -> tuple[int, ...]:
        """The gates that are squashed by tanh: their sums come multiplied by `tanh_scale`."""
        return ()

    def products(self) -> list[Product]:
        """What U h_{t-1} is added to at each step."""
        return [Product(self.z_TBG, slice(None))]

    def forward(self, t: int, n: int | None) -> None:
        """Computes the states after step t, number t + 1, of the first n sequences (None: of all) from its
        sums."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(t, n).")

    def backward(self, t: int, n: int | None, *gradients: Tensor) -> None:
        """Turns the sums of step t into their gradients (those of tanh gates before the scale), and the
        gradients of the states after it, (N, H) each, into those of the states before it, but for what
        flows through the products: of an output that is not carried nothing is left, whatever it holds."""
        raise NotImplementedError(f"{type(self).__name__} must define backward(t, n, *gradients).")

    def own_gradients(self) -> list[Tensor]:
        """The gradients of `own_parameters`, after the way back."""
        return []


def first(x_BH: Tensor, n: int | None) -> Tensor:
    """The first n rows, or all: a view costs as much as the arithmetic of a small step."""
    return x_BH if n is None else x_BH[:n]


def tanh_scale(dtype: torch.dtype) -> float:
    """By what a number is multiplied before it is given to `tanh_`."""
    return 2.0 if dtype == torch.float32 else 1.0


def fast_tanh(a: Tensor, out: Tensor) -> Tensor:
    """tanh of numbers that come multiplied by 2, as 2 sigmoid(2 a) - 1: in float32 that takes a fifth of the
    time of torch's tanh, and is off by no more than 2 · 10⁻⁷. `out` may be `a`."""
    torch.sigmoid(a, out=out)
    return torch.add(_MINUS_ONE, out, alpha=2, out=out)


def tanh_for(dtype: torch.dtype) -> Callable[..., Tensor]:
    """tanh(a, out=…) of numbers that come multiplied by `tanh_scale`."""
    return fast_tanh if dtype == torch.float32 else torch.tanh


class FusedBasic(FusedSteps):
    """h = f(a)."""

    @classmethod
    def tanh_gates(cls, cell: Any) -> tuple[int, ...]:
        return (0,) if cell.nonlinearity == "tanh" else ()

    def __init__(self, cell: Any, p: Parameters, z_TBG: Tensor, state: tuple[Tensor, ...]) -> None:
        super().__init__(cell, p, z_TBG, state)
        self.relu = cell.nonlinearity == "relu"

    def forward(self, t: int, n: int | None) -> None:
        a, h = first(self.gates[0][t], n), first(self.states[0][t + 1], n)
        torch.clamp(a, min=0, out=h) if self.relu else self.tanh(a, out=h)

    def backward(self, t: int, n: int | None, *gradients: Tensor) -> None:
        da, h = first(self.gates[0][t], n), first(self.states[0][t + 1], n)
        if self.relu:
            threshold_backward(gradients[0], h, 0, grad_input=da)
        else:
            tanh_backward(gradients[0], h, grad_input=da)


class FusedLSTM(FusedSteps):
    """c = f c₋ + i g, h = o tanh(c); gates in the order i, f, g, o."""

    def __init__(self, cell: Any, p: Parameters, z_TBG: Tensor, state: tuple[Tensor, ...]) -> None:
        super().__init__(cell, p, z_TBG, state)
        self.tanh_c = z_TBG.new_empty(len(z_TBG), *state[0].shape).unbind(0)
        self.sums = z_TBG.unbind(0)
        self.spare = [torch.empty_like(state[0]) for _ in range(3)]

    @classmethod
    def tanh_gates(cls, cell: Any) -> tuple[int, ...]:
        return (2,)

    def forward(self, t: int, n: int | None) -> None:
        i, f, g, o = (first(gate[t], n) for gate in self.gates)
        (_, h), (c_before, c) = ((first(s[t], n), first(s[t + 1], n)) for s in self.states)
        tanh_c = first(self.tanh_c[t], n)
        if self.scale == 1:
            i.sigmoid_(), f.sigmoid_(), o.sigmoid_(), g.tanh_()
        else:  # all gates in one pass
            first(self.sums[t], n).sigmoid_()
            torch.add(_MINUS_ONE, g, alpha=2, out=g)
        torch.mul(f, c_before, out=c).addcmul_(i, g)
        torch.mul(c, self.scale, out=tanh_c)
        torch.mul(o, self.tanh(tanh_c, out=tanh_c), out=h)

    def backward(self, t: int, n: int | None, *gradients: Tensor) -> None:
        dh, dc = gradients
        i, f, g, o = (first(gate[t], n) for gate in self.gates)
        c_before, tanh_c = first(self.states[1][t], n), first(self.tanh_c[t], n)
        one, two, three = (first(spare, n) for spare in self.spare)
        torch.mul(dh, o, out=one)
        dc.add_(tanh_backward(one, tanh_c, grad_input=two))
        sigmoid_backward(torch.mul(dh, tanh_c, out=one), o, grad_input=o)
        torch.mul(dc, g, out=one)
        torch.mul(dc, i, out=two)
        torch.mul(dc, c_before, out=three)
        dc.mul_(f)
        sigmoid_backward(one, i, grad_input=i)
        tanh_backward(two, g, grad_input=g)
        sigmoid_backward(three, f, grad_input=f)


class FusedGRU(FusedSteps):
    """n = tanh(W x + r (U h₋ + c)), h = (1 - u) n + u h₋; gates in the order r, u, n, reset after.

    The product of the candidate has sums of its own, `own`, which become U h₋ + c, then their gradient.
    """

    carries = True
    own_parameters = ("candidate_bias",)

    def __init__(self, cell: Any, p: Parameters, z_TBG: Tensor, state: tuple[Tensor, ...]) -> None:
        super().__init__(cell, p, z_TBG, state)
        self.own_TBH = p.candidate_bias.expand(len(z_TBG), *state[0].shape).contiguous()
        self.own = self.own_TBH.unbind(0)
        self.both_gates = z_TBG[..., : 2 * cell.hidden_size].unbind(0)
        self.spare = [torch.empty_like(state[0]) for _ in range(2)]

    @classmethod
    def tanh_gates(cls, cell: Any) -> tuple[int, ...]:
        return (2,)

    def products(self) -> list[Product]:
        border = 2 * self.cell.hidden_size
        return [
            Product(self.z_TBG[..., :border], slice(border)),
            Product(self.own_TBH, slice(border, None), scaled=False),
        ]

    def forward(self, t: int, n: int | None) -> None:
        r, u, candidate = (first(gate[t], n) for gate in self.gates)
        h_before, h = (first(self.states[0][k], n) for k in (t, t + 1))
        first(self.both_gates[t], n).sigmoid_()
        candidate.addcmul_(r, first(self.own[t], n), value=self.scale)
        torch.lerp(self.tanh(candidate, out=candidate), h_before, u, out=h)

    def backward(self, t: int, n: int | None, *gradients: Tensor) -> None:
        (dh,) = gradients
        r, u, candidate = (first(gate[t], n) for gate in self.gates)
        own, h_before = first(self.own[t], n), first(self.states[0][t], n)
        one, two = (first(spare, n) for spare in self.spare)
        torch.sub(h_before, candidate, out=one).mul_(dh)
        torch.mul(dh, u, out=two)
        dh.sub_(two)
        tanh_backward(dh, candidate, grad_input=candidate)
        dh.copy_(two)
        sigmoid_backward(one, u, grad_input=u)
        torch.mul(candidate, own, out=one)
        torch.mul(candidate, r, out=own)
        sigmoid_backward(one, r, grad_input=r)

    def own_gradients(self) -> list[Tensor]:
        return [self.own_TBH.sum((0, 1))]
