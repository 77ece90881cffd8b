"""The elementwise operations of basic, lstm and gru, forward and backward, between their matrix products.

A step alternates between products and elementwise operations. Forward, U h_{t-1} is added to the
preactivations of step t, from which the cell computes the new state. Backward, the cell replaces the
preactivations by their gradients in place, and products propagate these to the previous step. Speed depends
on the number of passes over memory, so there are few of them, and they are contiguous.

Shapes: T time, B batch, N sequences still running (the first of B), H hidden, G gates × H; S = T + 1 states,
the first of which is the initial one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from rnnclf.cells.parameters import Parameters

tanh_backward = torch.ops.aten.tanh_backward.grad_input
sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
threshold_backward = torch.ops.aten.threshold_backward.grad_input

_MINUS_ONE = torch.tensor(-1.0)


SHARED = ("input_weight", "recurrent_weight", "bias")
"""Names of the parameters of every gated cell."""


class Gradients(NamedTuple):
    """Results of the backward pass of a part of a batch: the gradients of the weights, in the form that
    `summed` expects, and those of the inputs (T, B, I), if they were requested."""

    weights: Any
    x_TBI: Tensor | None


class OverTime:
    """The forward and backward pass of a cell over a part of a batch; stores what the backward pass needs.

    p: the weights as returned by `prepared`. x_TBI: the inputs. state: the initial state, tensors (B, H), the
    output first. running: the number of sequences that run at each step; None for all. started: whether the
    initial state is other than zeros. needs_gradients: whether a backward pass will follow.
    """

    own_parameters: ClassVar[tuple[str, ...]] = ()
    """Names of further parameters, beside those of every gated cell."""

    def __init__(
        self,
        cell: Any,
        p: Parameters,
        x_TBI: Tensor,
        state: tuple[Tensor, ...],
        running: list[int] | None,
        started: bool,
        needs_gradients: bool = True,
    ) -> None:
        self.cell, self.p, self.running, self.started = cell, p, running, started
        self.needs_gradients = needs_gradients
        self.states_SBH: tuple[Tensor, ...] = ()
        """One tensor per part of the state; index t + 1 holds the state after step t. Set by `run`."""

    @classmethod
    def prepared(cls, cell: Any, p: Parameters) -> Parameters:
        """The weights in the form that `run` uses, computed once for all parts of a batch."""
        return p

    @classmethod
    def summed(cls, cell: Any, p: Parameters, parts: Sequence[Any]) -> list[Tensor]:
        """The gradients of SHARED and `own_parameters`, in that order, summed over all parts of a batch."""
        raise NotImplementedError(f"{cls.__name__} must define summed(cell, p, parts).")

    def run(self) -> None:
        """The forward pass: computes all states."""
        raise NotImplementedError(f"{type(self).__name__} must define run().")

    def run_backward(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        """The backward pass.

        dy_TBH: the gradients of all outputs, or None. dstates: the gradients of the final states (B, H); they
        are replaced in place by those of the initial states. inputs: whether to compute the gradients of the
        inputs.
        """
        raise NotImplementedError(f"{type(self).__name__} must define run_backward.")


def with_ones(x_TBI: Tensor) -> Tensor:
    """The inputs with an additional feature that is always 1, whose weight is the bias."""
    return functional.pad(x_TBI, (0, 1), value=1.0)


class RecurrentProduct(NamedTuple):
    """Preactivations (T, B, R) to which a product with the state is added, and its rows of the weight."""

    sums_TBR: Tensor
    rows: slice
    scaled: bool = True
    """Whether tanh gates among these preactivations are multiplied by `tanh_scale`."""


class FusedSteps(OverTime):
    """Steps in torch's operations. A cell derives a class from this one that defines `forward` and
    `backward`, and returns it from its method `fused_steps`.

    z_TBG: W x + b of all steps. It is changed in place: the forward pass turns it into the gates, the
    backward pass into the gradients of the preactivations.
    """

    carries: ClassVar[bool] = False
    """Whether a step's output also depends on the previous output directly, as through a gate."""

    def __init__(
        self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *arguments: Any
    ) -> None:
        super().__init__(cell, p, x_TBI, state, *arguments)
        self.x_TBJ = with_ones(x_TBI)
        self.z_TBG = (self.x_TBJ.flatten(0, 1) @ p.weight_JG).view(*x_TBI.shape[:2], -1)
        self.gates = [gate.unbind(0) for gate in torch.split(self.z_TBG, cell.hidden_size, dim=-1)]
        self.states_SBH = tuple(_states_from(part, len(x_TBI)) for part in state)
        self.states = [states_SBH.unbind(0) for states_SBH in self.states_SBH]
        self.scale, self.tanh = tanh_scale(x_TBI.dtype), tanh_for(x_TBI.dtype)

    @classmethod
    def tanh_gates(cls, cell: Any) -> tuple[int, ...]:
        """The indices of gates with a tanh: their preactivations are multiplied by `tanh_scale`."""
        return ()

    def forward(self, t: int, n: int | None) -> None:
        """Computes the states after step t, at index t + 1, from the preactivations of the step, for the
        first n sequences (None for all)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(t, n).")

    def backward(self, t: int, n: int | None, *gradients: Tensor) -> None:
        """Replaces, in place, the gates of step t by the gradients of their preactivations (for tanh gates,
        before scaling), and the gradients of the states after the step, (N, H) each, by those of the states
        before it. The contributions of the products are added later; without `carries` they overwrite the
        gradient of the output."""
        raise NotImplementedError(f"{type(self).__name__} must define backward(t, n, *gradients).")

    @classmethod
    def prepared(cls, cell: Any, p: Parameters) -> Parameters:
        """Adds the weights for the preactivations: rows of tanh gates are multiplied by `tanh_scale`."""
        scale_G1 = torch.ones_like(p.bias).view(-1, cell.hidden_size)
        for gate in cls.tanh_gates(cell):
            scale_G1[gate] = tanh_scale(p.bias.dtype)
        scale_G1 = scale_G1.view(-1, 1)
        weight_GJ = torch.cat((p.input_weight, p.bias.unsqueeze(-1)), 1) * scale_G1
        scaled = {"weight_JG": weight_GJ.t(), "scaled_recurrent_weight": p.recurrent_weight * scale_G1}
        return type(p)(**vars(p), **scaled)

    @classmethod
    def summed(cls, cell: Any, p: Parameters, parts: Sequence[Any]) -> list[Tensor]:
        return [_total(of_one) for of_one in zip(*parts, strict=True)]

    def products(self) -> list[RecurrentProduct]:
        """The preactivations to which U h_{t-1} is added; after `run_backward`, their gradients."""
        return [RecurrentProduct(self.z_TBG, slice(None))]

    def own_gradients(self) -> list[Tensor]:
        """The gradients of `own_parameters`, after the backward pass."""
        return []

    def run(self) -> None:
        products = [
            (
                sums.unbind(0),
                (self.p.scaled_recurrent_weight if scaled else self.p.recurrent_weight)[rows]
                .t()
                .contiguous(),
            )
            for sums, rows, scaled in self.products()
        ]
        h = self.states[0]
        for t in range(len(self.z_TBG)):
            n = None if self.running is None else self.running[t]
            if t > 0 or self.started:
                for sums, weight_HR in products:
                    first(sums[t], n).addmm_(first(h[t], n), weight_HR)
            self.forward(t, n)
            if n is not None:
                for states in self.states:
                    states[t + 1][n:] = states[t][n:]

    def run_backward(self, dy_TBH: Tensor | None, dstates: Sequence[Tensor], inputs: bool) -> Gradients:
        dh = dstates[0]
        dy_T = None if dy_TBH is None else dy_TBH.unbind(0)
        products = [(sums.unbind(0), self.p.recurrent_weight[rows]) for sums, rows, _ in self.products()]
        for t in reversed(range(len(self.z_TBG))):
            n = None if self.running is None else self.running[t]
            if dy_T is not None:
                dh += dy_T[t]
            self.backward(t, n, *[first(d, n) for d in dstates])
            if n is not None:
                for sums_TBR in (self.z_TBG, *(sums_TBR for sums_TBR, _, _ in self.products())):
                    sums_TBR[t, n:] = 0
            if t > 0 or self.started:
                self._through_products(products, t, first(dh, n), n)
        return self._gradients(inputs)

    def _gradients(self, inputs: bool) -> Gradients:
        """One product over all steps for each weight; transposed, as such products are faster."""
        begin = 0 if self.started else 1  # a state of zeros contributes nothing
        dz_RG = self.z_TBG.flatten(0, 1)
        dweight_JG = self.x_TBJ.flatten(0, 1).t() @ dz_RG
        before_HR = self.states_SBH[0][begin:-1].flatten(0, 1).t()
        blocks = [before_HR @ sums_TBR[begin:].flatten(0, 1) for sums_TBR, _, _ in self.products()]
        weights = [dweight_JG[:-1], torch.cat(blocks, 1), dweight_JG[-1], *self.own_gradients()]
        return Gradients(weights, self.z_TBG @ self.p.input_weight if inputs else None)

    def _through_products(
        self, products: list[tuple[tuple[Tensor, ...], Tensor]], t: int, dh_NH: Tensor, n: int | None
    ) -> None:
        """Adds the contributions of step t's preactivations to the gradient of the output of step t - 1."""
        carries = self.carries
        for sums, weight_RH in products:
            if carries:
                dh_NH.addmm_(first(sums[t], n), weight_RH)
            else:
                torch.mm(first(sums[t], n), weight_RH, out=dh_NH)
            carries = True


def _total(parts: Sequence[Tensor]) -> Tensor:
    """The sum, transposed back to the layout of the weights."""
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total.t().contiguous() if total.ndim == 2 else total


def _states_from(start_BH: Tensor, steps: int) -> Tensor:
    """Allocates the states (S, B, H), of which the first is `start_BH`."""
    states_SBH = start_BH.new_empty(steps + 1, *start_BH.shape)
    states_SBH[0] = start_BH
    return states_SBH


def first(x_BH: Tensor, n: int | None) -> Tensor:
    """The first n rows, or all: without n no view is made, which costs as much as a small step's
    arithmetic."""
    return x_BH if n is None else x_BH[:n]


def tanh_scale(dtype: torch.dtype) -> float:
    """The factor by which arguments of `tanh_for` have to be multiplied."""
    return 2.0 if dtype == torch.float32 else 1.0


def fast_tanh(a: Tensor, out: Tensor) -> Tensor:
    """tanh(a / 2), as 2 sigmoid(a) - 1. In float32 this takes a fifth of the time of torch's tanh, with an
    error of at most 2 · 10⁻⁷. `out` may be `a`."""
    torch.sigmoid(a, out=out)
    return torch.add(_MINUS_ONE, out, alpha=2, out=out)


def tanh_for(dtype: torch.dtype) -> Callable[..., Tensor]:
    """The function that computes tanh from arguments multiplied by `tanh_scale`, called as tanh(a, out=…)."""
    return fast_tanh if dtype == torch.float32 else torch.tanh


class FusedBasic(FusedSteps):
    """h = f(a)."""

    def __init__(
        self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *arguments: Any
    ) -> None:
        super().__init__(cell, p, x_TBI, state, *arguments)
        self.relu = cell.nonlinearity == "relu"

    @classmethod
    def tanh_gates(cls, cell: Any) -> tuple[int, ...]:
        return (0,) if cell.nonlinearity == "tanh" else ()

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

    def __init__(
        self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *arguments: Any
    ) -> None:
        super().__init__(cell, p, x_TBI, state, *arguments)
        self.tanh_c = state[0].new_empty(len(x_TBI), *state[0].shape).unbind(0)
        self.sums = self.z_TBG.unbind(0)
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
    """n = tanh(W x + r (U h₋ + c)), h = (1 - u) n + u h₋; gates in the order r, u, n, with reset=after.

    The product of the candidate has a buffer of its own, `own`: first c, then U h₋ + c, finally its gradient.
    """

    carries = True
    own_parameters = ("candidate_bias",)

    def __init__(
        self, cell: Any, p: Parameters, x_TBI: Tensor, state: tuple[Tensor, ...], *arguments: Any
    ) -> None:
        super().__init__(cell, p, x_TBI, state, *arguments)
        self.own_TBH = p.candidate_bias.expand(len(x_TBI), *state[0].shape).contiguous()
        self.own = self.own_TBH.unbind(0)
        self.both_gates = self.z_TBG[..., : 2 * cell.hidden_size].unbind(0)
        self.spare = [torch.empty_like(state[0]) for _ in range(2)]

    @classmethod
    def tanh_gates(cls, cell: Any) -> tuple[int, ...]:
        return (2,)

    def products(self) -> list[RecurrentProduct]:
        border = 2 * self.cell.hidden_size
        return [
            RecurrentProduct(self.z_TBG[..., :border], slice(border)),
            RecurrentProduct(self.own_TBH, slice(border, None), scaled=False),
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
