"""Each rule and each decomposition by itself: the graph computes what torch and its autograd do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as f

from tests.engine.machine.tracing import cell_of, check

Function = Callable[..., Any]

OF_ONE: dict[str, Function] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "exp": lambda a: a.clamp(max=1.0).exp(),
    "log": lambda a: (a.abs() + 0.1).log(),
    "log1p": lambda a: a.abs().log1p(),
    "expm1": lambda a: a.tanh().expm1(),
    "sqrt": lambda a: (a.abs() + 0.1).sqrt(),
    "rsqrt": lambda a: (a.abs() + 0.1).rsqrt(),
    "reciprocal": lambda a: (a.abs() + 1).reciprocal(),
    "neg": torch.neg,
    "abs": torch.abs,
    "relu": torch.relu,
    "sign": lambda a: a.sign() * a,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "erf": torch.erf,
    "floor": lambda a: (3 * a).floor() * a,
    "trunc": lambda a: (3 * a).trunc() * a,
    "ceil": lambda a: (3 * a).ceil() * a,
    "square": torch.square,
    "cube": lambda a: a**3,
    "square root as a power": lambda a: a.abs() ** 0.5,
    "a fractional power": lambda a: (a.abs() + 0.1) ** 1.7,
    "a power of a number": lambda a: 2 ** a.tanh(),
    "clamp": lambda a: a.clamp(-0.3, 0.4),
    "clamp_min": lambda a: torch.clamp_min(a, 0.1),
    "silu": f.silu,
    "logsigmoid": f.logsigmoid,
    "gelu": f.gelu,
    "glu": lambda a: f.glu(torch.cat((a, a.tanh()), 1)),
    "softplus": f.softplus,
    "softplus that soon is straight": lambda a: f.softplus(a, beta=2, threshold=0.5),
    "one minus": lambda a: 1 - a,
    "a number over": lambda a: 1 / (2 + a.tanh()),
    "reversed subtraction": lambda a: torch.rsub(a, 2, alpha=3),
}
FROM_THE_TABLE: dict[str, Function] = {
    "gelu by tanh": lambda a: f.gelu(a, approximate="tanh"),
    "elu": f.elu,
    "leaky_relu": f.leaky_relu,
    "hardtanh": f.hardtanh,
    "mish": f.mish,
    "softmax": lambda a: a.softmax(-1),
    "norm": lambda a: a / (0.1 + a.norm(dim=1, keepdim=True)),
    "log of a sum of exponentials": lambda a: a - a.logsumexp(1, keepdim=True),
}
"""Decomposed by torch, which imports sympy for it."""
OF_TWO: dict[str, Function] = {
    "add": lambda a, b: torch.add(a, b, alpha=0.3),
    "sub": lambda a, b: torch.sub(a, b, alpha=2),
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (1 + b.abs()),
    "div, rounded down": lambda a, b: a * torch.div(3 * a, b.abs() + 1, rounding_mode="floor"),
    "div, rounded to zero": lambda a, b: a * torch.div(3 * a, b.abs() + 1, rounding_mode="trunc"),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "gt": lambda a, b: torch.where(a > b, a, b * 0.5),
    "lt": lambda a, b: torch.where(a < b, a, b * 0.5),
    "ge": lambda a, b: (a >= b) * a,
    "le": lambda a, b: (a <= b).to(a.dtype) * b,
    "eq and ne": lambda a, b: (a == a) * a + (a != b) * b,
    "and": lambda a, b: torch.where((a > 0) & (b > 0), a, b),
    "or": lambda a, b: torch.where((a > 0) | (b > 0), a, b * 2),
    "logical": lambda a, b: torch.where(torch.logical_and(a > 0, torch.logical_or(b > 0, a > 1)), a, b),
    "not": lambda a, b: torch.where(~(a > 0), a, torch.where(torch.logical_not(b > 0), 2 * b, a)),
    "lerp": lambda a, b: torch.lerp(a, b, b.sigmoid()),
    "lerp by a number": lambda a, b: torch.lerp(a, b, 0.3),
    "pow": lambda a, b: (a.abs() + 0.5) ** b.tanh(),
    "masked_fill": lambda a, b: a.masked_fill(b > 0, 0.25),
    "addcmul": lambda a, b: torch.addcmul(a, a, b, value=0.5),
    "addcdiv": lambda a, b: torch.addcdiv(a, a, 1 + b.abs(), value=0.5),
}
MOVED: dict[str, Function] = {
    "view": lambda a: a.view(-1, 2, 3).reshape(-1, 6),
    "permute": lambda a: a.view(-1, 2, 3).permute(2, 0, 1).permute(1, 2, 0).flatten(1),
    "transpose": lambda a: a.view(-1, 2, 3).transpose(1, 2).reshape(-1, 6),
    "t": lambda a: (a.t() * 2).t(),
    "chunk": lambda a: torch.cat([part * n for n, part in enumerate(a.chunk(3, 1))], 1),
    "split": lambda a: torch.cat(a.split([1, 4, 1], 1)[::-1], 1),
    "unbind": lambda a: torch.stack(
        [part * n for n, part in enumerate(a.view(-1, 2, 3).unbind(1))], 2
    ).flatten(1),
    "select": lambda a: a * a[:, 2].unsqueeze(1),
    "slice": lambda a: a + a[:, 1:2] * a[:, 5:],
    "slice with a step": lambda a: torch.cat((a[:, ::2], a[:, 1::2]), 1),
    "squeeze": lambda a: a * a[:, :1].squeeze(1).unsqueeze(-1),
    "expand": lambda a: a * a[:, :1].expand(-1, 6),
    "flip": lambda a: a.flip(1),
    "roll": lambda a: a.roll(2, 1),
    "repeat": lambda a: a[:, :3].repeat(1, 2),
    "clone": lambda a: a.clone() + a.detach().tanh(),
    "pad with zeros": lambda a: torch.cat((a[:, :4], torch.zeros_like(a[:, :2])), 1),
    "meshed": lambda a: (a[:, :2].unsqueeze(2) * a[:, 3:].unsqueeze(1)).flatten(1),
}
REDUCED: dict[str, Function] = {
    "sum of a row": lambda a: a * a.sum(1, keepdim=True),
    "sum of all columns": lambda a: a * a.view(-1, 2, 3).sum((1, 2)).unsqueeze(1),
    "sums of groups": lambda a: a.view(-1, 2, 3) .sum(2).repeat(1, 3),
    "sums of many small groups": lambda a: a.view(-1, 3, 2).sum(2).repeat(1, 2),
    "sum in front of the batch": lambda a: a.view(-1, 2, 3).permute(1, 0, 2).sum(0).repeat(1, 2),
    "mean": lambda a: a - a.mean(1, keepdim=True),
    "variance": lambda a: a / (1 + a.var(1, keepdim=True)),
    "variance and mean": lambda a: a * torch.var_mean(a, 1, correction=0, keepdim=True)[0],
    "largest": lambda a: a - a.amax(1, keepdim=True),
    "largest of groups": lambda a: a.view(-1, 2, 3).amax(2).repeat(1, 3),
    "largest across groups": lambda a: a.view(-1, 3, 2).amax(2).repeat(1, 2),
    "smallest": lambda a: a - a.amin(1, keepdim=True),
    "layer norm without weights": lambda a: f.layer_norm(a, (6,)),
    "layer norm of groups": lambda a: f.layer_norm(a.view(-1, 2, 3), (3,)).flatten(1),
}  # fmt: skip
OF_WEIGHTS: dict[str, Function] = {
    "linear": lambda z, h, u: f.linear(h, u),
    "product": lambda z, h, u: h @ u,
    "addmm": lambda z, h, u: torch.addmm(z, h, u, beta=0.5, alpha=2),
    "weight on the left": lambda z, h, u: (u @ h.t()).t(),
    "einsum of blocks": lambda z, h, u: torch.einsum(
        "bgk,gkl->bgl", h.view(-1, 2, 3), u.reshape(2, 3, 6)
    ).sum(1),
    "bmm, weight on the left": lambda z, h, u: (
        torch.bmm(u[:, :3].reshape(2, 3, 3), h.view(-1, 2, 3).permute(1, 2, 0)).permute(2, 0, 1).flatten(1)
    ),
    "baddbmm": lambda z, h, u: (
        torch.baddbmm(
            z.view(-1, 2, 3).transpose(0, 1), h.view(-1, 2, 3).transpose(0, 1), u[:, :3].reshape(2, 3, 3)
        )
        .transpose(0, 1)
        .flatten(1)
    ),
    "vector": lambda z, h, u: h * (h @ u[0]).unsqueeze(1),
    "a matrix of one column": lambda z, h, u: h * (h @ u[:, :1]),
    "a row of one number": lambda z, h, u: h[:, :1] @ u[:1],
    "weights multiplied first": lambda z, h, u: h @ (u[:, :2] @ u[:2]),
    "a weight per unit": lambda z, h, u: h * u[0] + u[:, 1],
    "a number": lambda z, h, u: h * u[2, 3],
    "functions of weights": lambda z, h, u: h @ u.tanh() * u[0].sigmoid() / (1 + u[1].square()),
    "a weight with a limit": lambda z, h, u: h @ u.clamp(-0.2, 0.2) * u[0].relu(),
    "weights side by side": lambda z, h, u: h @ torch.cat((u[:3], torch.zeros_like(u[:1]), -u[3:5])),
    "normalised weight": lambda z, h, u: h @ (u - u.mean(0, keepdim=True)),
    "repeated for each sequence": lambda z, h, u: h * u[0].expand(len(h), -1) + u[:1].expand_as(h),
    "repeated, beside a row": lambda z, h, u: torch.cat((h[:, :3], u[0, :3].expand(len(h), 3)), 1),
    "layer norm": lambda z, h, u: f.layer_norm(h, (6,), u[0], u[1]),
    "layer norm without bias": lambda z, h, u: f.layer_norm(h, (6,), u[0]),
    "not learned": lambda z, h, u: h @ u.detach(),
}
OF_CONSTANTS: dict[str, Function] = {
    "zeros": lambda a: torch.maximum(a, torch.zeros(())) + torch.zeros_like(a),
    "ones": lambda a: a * torch.ones(len(a), 1, dtype=a.dtype),
    "full": lambda a: a * a.new_full((6,), 0.3),
    "arange": lambda a: a * torch.arange(6.0, dtype=a.dtype),
    "list": lambda a: a * torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=a.dtype),
    "number as a tensor": lambda a: a * torch.tensor(0.3, dtype=a.dtype),
    "identity": lambda a: a @ (torch.eye(6, dtype=a.dtype) * 0.5),
    "ones beside zeros": lambda a: (
        a * torch.cat((torch.ones(4, dtype=a.dtype), torch.zeros(2, dtype=a.dtype)))
    ),
    "one buffer, filled twice": lambda a: _filled_twice(a),
    "changed in place": lambda a: (a * 2).mul_(0.5).addcmul_(a, a, value=0.1).tanh_(),
    "constant changed in place": lambda a: a * torch.arange(6.0, dtype=a.dtype).mul_(0.1).add_(1),
    "cleared": lambda a: a + (a * 2).zero_() + (a * 3).fill_(0.5),
    "copied into": lambda a: torch.empty_like(a).copy_(a * a[:, :1]),
    "half of it counted": lambda a: a * (a > 0).sum(1, keepdim=True) / 6,
}


def _filled_twice(a: Any) -> Any:
    buffer = torch.zeros(6, dtype=a.dtype)
    first = a + buffer
    buffer.fill_(3.0)
    return first * buffer


def _labelled(functions: dict[str, Function]) -> Any:
    return pytest.mark.parametrize("function", functions.values(), ids=functions.keys())


def _step(function: Function) -> Function:
    """h' = half of h, and a function of the gates with a product, so that gradients meet."""

    def step(p: Any, z: Any, h: Any) -> Any:
        a = z + h @ p.recurrent_weight.t()
        new = 0.5 * h + 0.4 * function(*a.chunk(len(p.bias) // 6, 1))
        return new, new

    return step


@pytest.mark.parametrize("functions", [OF_ONE, OF_TWO], ids=["one", "two"])
def test_functions_of_numbers_equal_torch(functions):
    """Function k makes columns 2 k and 2 k + 1 of the output, from gates of its own."""
    operands = 1 if functions is OF_ONE else 2

    def step(p, z, h):
        gates = (z + h @ p.recurrent_weight.t()).chunk(len(functions), 1)
        out = [
            function(*gate.chunk(operands, 1))
            for function, gate in zip(functions.values(), gates, strict=True)
        ]
        return torch.cat(out, 1), h + 0.1 * sum(out).tanh()

    check(cell_of(step, gates=operands * len(functions), hidden=2))


@pytest.mark.parametrize("name", ["sub", "div", "maximum", "gt", "not", "lerp", "masked_fill", "addcmul"])
def test_an_operand_of_one_column_is_broadcast(name):
    def step(p, z, h):
        wide, narrow = z + h @ p.recurrent_weight.t(), z[:, :1]
        new = 0.5 * h + 0.2 * OF_TWO[name](wide, narrow) + 0.2 * OF_TWO[name](narrow, wide)
        return new, new

    check(cell_of(step))


@pytest.mark.long
@_labelled(FROM_THE_TABLE)
def test_functions_that_torch_decomposes_equal_torch(function):
    check(cell_of(_step(function)))


@_labelled(MOVED)
def test_moved_columns_equal_torch(function):
    check(cell_of(_step(function)))


@_labelled(REDUCED)
def test_reductions_equal_torch(function):
    check(cell_of(_step(function)))


@_labelled(OF_CONSTANTS)
def test_constants_and_changes_in_place_equal_torch(function):
    check(cell_of(_step(function)))


@_labelled(OF_WEIGHTS)
def test_products_and_functions_of_weights_equal_torch(function):
    def step(p, z, h):
        new = 0.5 * h.tanh() + 0.4 * (z + function(z, h, p.recurrent_weight)).tanh()
        return new, new

    check(cell_of(step))
