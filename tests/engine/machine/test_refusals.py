"""Steps that cannot become machine code, and the words that say why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn import functional as f

from rnnclf.cells import GatedCell
from rnnclf.engine.machine.graph import UncoveredError
from tests.engine.machine.tracing import cell_of, graph_of


class Normalised(torch.autograd.Function):
    """A gradient of the weight that is not linear in the sum over the sequences."""

    @staticmethod
    def forward(ctx: Any, h: Any, u: Any) -> Any:
        ctx.save_for_backward(h, u)
        return h @ u

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (h, u), (g,) = ctx.saved_tensors, gradients
        d_u = h.t() @ g
        return g @ u.t(), d_u * d_u


class Decayed(Normalised):
    """One with a term that every step adds again."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (h, u), (g,) = ctx.saved_tensors, gradients
        return g @ u.t(), h.t() @ g + 0.1 * u


FOREIGN = torch.ones(6, dtype=torch.double)

REFUSED: dict[str, tuple[Any, str]] = {
    "dropout": (lambda p, h: f.dropout(h), "its step draws random numbers (bernoulli_)"),
    "noise": (lambda p, h: h + torch.randn_like(h), "its step draws random numbers (randn_like)"),
    "item": (
        lambda p, h: h * h.max().item(),
        "its step reads single numbers of a tensor, or branches on them",
    ),
    "if": (
        lambda p, h: h if h.sum() > 0 else -h,
        "its step reads single numbers of a tensor, or branches on them",
    ),
    "equal": (lambda p, h: h if torch.equal(h, h) else -h, "its step reads single numbers of a tensor"),
    "batch norm": (lambda p, h: h - h.mean(0), "its step mixes sequences of a batch (sub)"),
    "sum of all": (lambda p, h: h * h.sum(), "its step mixes sequences of a batch (mul)"),
    "sequences shifted": (lambda p, h: h + h.roll(1, 0), "its step mixes sequences of a batch (roll)"),
    "sequences reversed": (lambda p, h: h + h.flip(0), "its step mixes sequences of a batch (flip)"),
    "one sequence": (lambda p, h: h + h[:1], "its step mixes sequences of a batch (slice)"),
    "sequences side by side": (
        lambda p, h: h + torch.cat((h, h))[: len(h)],
        "its step mixes sequences of a batch (cat)",
    ),
    "largest of the batch": (lambda p, h: h - h.amax(0), "its step mixes sequences of a batch (amax)"),
    "heads in the batch": (
        lambda p, h: (h.view(-1, 3) @ p.recurrent_weight[:3, :3]).view(-1, 6),
        "its step merges the sequences of a batch with another dimension (view)",
    ),
    "attention": (
        lambda p, h: (h.view(-1, 2, 3) @ h.view(-1, 3, 2) @ h.view(-1, 2, 3)).flatten(1),
        "its step multiplies two matrices that both depend on the inputs (bmm)",
    ),
    "gram matrix": (lambda p, h: h @ (h.t() @ h), "its step mixes sequences of a batch (mm)"),
    "convolution": (
        lambda p, h: f.conv1d(h.unsqueeze(1), p.bias[:3].view(1, 1, 3), padding=1).squeeze(1),
        "its step uses an operation that machine code does not have (convolution)",
    ),
    "sort": (
        lambda p, h: h.sort(1).values,
        "its step uses an operation that machine code does not have (sort)",
    ),
    "whole numbers": (lambda p, h: h * (3 * h).long(), "its step converts float64 to int64"),
    "half precision": (lambda p, h: h.half().double(), "its step converts float64 to float16"),
    "more digits": (
        lambda p, h: h.float().square().double(),
        "its step converts float64 to float32 (_to_copy)",
    ),
    "foreign tensor": (lambda p, h: h * FOREIGN, "its step uses a tensor that is not one of its parameters"),
    "foreign number": (
        lambda p, h: h * FOREIGN[0],
        "its step uses a tensor that is not one of its parameters",
    ),
    "constant per sequence": (
        lambda p, h: h * torch.arange(len(h)).unsqueeze(1),
        "its step uses a constant with a row for each sequence of a batch",
    ),
    "view changed": (
        lambda p, h: _view_changed(h),
        "its step changes a tensor in place while a view of it exists (mul_)",
    ),
    "detached view changed": (
        lambda p, h: h.detach().mul_(2) + h,
        "its step changes a tensor in place while a view of it exists (mul_)",
    ),
    "product that is squared": (
        lambda p, h: Normalised.apply(h, p.recurrent_weight),
        "the gradient of a weight is not linear in sums over sequences (mul)",
    ),
    "weight decay": (
        lambda p, h: Decayed.apply(h, p.recurrent_weight),
        "the gradient of a weight is not linear in sums over sequences (add)",
    ),
    "error": (lambda p, h: h @ p.bias[:2], "its step raises RuntimeError on a trial batch ("),
    "missing weight": (lambda p, h: h * p.gain, "its step raises AttributeError on a trial batch ("),
    "other shape": (lambda p, h: h[:, :3], "its step returns a state of another shape than it was given"),
    "other type": (lambda p, h: h.float(), "its step returns numbers of another type than it was given"),
    "no tensor": (lambda p, h: None, "its step returns something that is not a tensor"),
}


def _view_changed(h: Any) -> Any:
    a = 2 * h
    a[:, :3].mul_(2)
    return a


@pytest.mark.parametrize(("function", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_step_that_cannot_be_covered_is_refused_with_the_reason(function, words):
    def step(p, z, h):
        h = function(p, (z + h @ p.recurrent_weight.t()).tanh())
        return h, h

    with pytest.raises(UncoveredError, match=re.escape(words)) as refusal:
        graph_of(cell_of(step))
    assert not str(refusal.value).endswith((".", " "))


def test_a_value_in_very_many_pieces_is_refused():
    def step(p, z, h):
        h = torch.stack([h[:, k] * k for k in range(80)], 1)
        return h, h

    with pytest.raises(UncoveredError, match="its step cuts a value into more than 64 pieces"):
        graph_of(cell_of(step, hidden=80))


class Matrix(NamedTuple):
    m: torch.Tensor


@pytest.mark.parametrize("shape", [(6, 6), (), None])
def test_a_state_that_is_not_a_row_of_real_numbers_is_refused(shape):
    @dataclass
    class Odd(GatedCell):
        gates = ("h",)

        def initial_state(self, x_BI):
            if shape is None:
                return Matrix(x_BI.new_zeros(len(x_BI), 6, dtype=torch.cdouble))
            return Matrix(x_BI.new_zeros(len(x_BI), *shape))

    with pytest.raises(UncoveredError, match="its state is not made of real numbers of shape"):
        graph_of(Odd(hidden_size=6))
