"""Cells as users may write them, and random ones.  Shapes: B batch, H hidden."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from rnnclf.cells.base import Cell, GatedCell
from rnnclf.cells.parameters import ParameterSpec

COVERED: dict[str, type[Cell]] = {}
"""Cells that become machine code."""
REFUSED: dict[str, tuple[type[Cell], str]] = {}
"""Cells that are left to the loop, and words of the reason."""


def cell(function: Any, gates: int) -> type[Cell]:
    """A cell of so many gates whose step is function(cell, p, z, state)."""

    @dataclass
    class Own(GatedCell):
        name: str = function.__name__

        def step(self, p: Any, z: Any, state: Any) -> Any:
            return function(self, p, z, state)

    Own.gates = tuple("abcd"[:gates])
    return Own


def covered(gates: int) -> Any:
    def add(step: Any) -> Any:
        COVERED[step.__name__] = cell(step, gates)
        return step

    return add


def refused(words: str) -> Any:
    def add(step: Any) -> Any:
        REFUSED[step.__name__] = cell(step, 1), words
        return step

    return add


@covered(4)
def gates_by_view_and_unbind(cell, p, z, h):
    i, f, g, _ = (z + h @ p.recurrent_weight.t()).view(-1, 4, cell.hidden_size).unbind(1)
    h = f.sigmoid() * h + i.sigmoid() * g.tanh()
    return h, h


@covered(4)
def product_by_einsum(cell, p, z, h):
    weight = p.recurrent_weight.view(4, cell.hidden_size, -1)
    a = z.view(-1, 4, cell.hidden_size) + torch.einsum("bh,gkh->bgk", h, weight)
    i, f, g, _ = a.unbind(1)
    h = f.sigmoid() * h + i.sigmoid() * g.tanh()
    return h, h


@covered(4)
def many_activations(cell, p, z, h):
    i, f, g, o = (z + functional.linear(h, p.recurrent_weight)).chunk(4, 1)
    h = functional.hardtanh(f) * h + 0.1 * functional.softplus(i) * functional.silu(g)
    for activation in (functional.gelu, functional.elu, functional.leaky_relu, functional.mish):
        h = h + 0.1 * activation(o)
    return h.tanh(), h


@covered(1)
def projected_output(cell, p, z, h):
    h = (0.5 * z + h).tanh()
    return h * z @ p.recurrent_weight, h


@covered(1)
def rms_norm(cell, p, z, h):
    h = functional.rms_norm(z + h @ p.recurrent_weight.t(), (cell.hidden_size,)).tanh()
    return h, h


@covered(1)
def unit_length(cell, p, z, h):
    h = (z + h @ p.recurrent_weight.t()).tanh()
    h = h / (1e-3 + h.norm(dim=-1, keepdim=True))
    return h, h


@covered(1)
def in_place(cell, p, z, h):
    a = z + h @ p.recurrent_weight.t()
    a.mul_(0.5).tanh_()
    h = h * 0.5 + a
    return h, h


@covered(1)
def weight_on_the_left(cell, p, z, h):
    h = (z.t() + p.recurrent_weight @ h.t()).tanh().t()
    return h, h


class Binary(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 0.3


@covered(1)
def gradient_of_its_own(cell, p, z, h):
    a = z + h @ p.recurrent_weight.t()
    h = 0.5 * h + 0.5 * Binary.apply(a) * a.tanh()
    return h, h


@covered(1)
def output_beside_the_state(cell, p, z, h):
    h = (z + h @ p.recurrent_weight.t()).tanh()
    return h.square() + z, h


@covered(1)
def softmax(cell, p, z, h):
    h = (z + h @ p.recurrent_weight.t()).softmax(-1)
    return h, h


class Counted(NamedTuple):
    h: torch.Tensor
    t: torch.Tensor


@dataclass
class Counting(GatedCell):
    """A step that counts itself in the state."""

    name: str = "counting"
    gates = ("h",)

    def initial_state(self, x):
        return Counted(x.new_zeros(len(x), self.hidden_size), x.new_zeros(len(x), 1))

    def step(self, p, z, state):
        t = state.t + 1
        h = (z + state.h @ p.recurrent_weight.t()).tanh()
        h = state.h + (h - state.h) / t
        return h, Counted(h, t)


@dataclass
class Bare(Cell):
    """A cell without `inputs`, with a weight of one number."""

    name: str = "bare"

    def parameters(self, inputs):
        return {
            "w": ParameterSpec((self.hidden_size, inputs), lambda w: w.normal_(0, 0.3)),
            "u": ParameterSpec((self.hidden_size, self.hidden_size), lambda w: w.normal_(0, 0.1)),
            "s": ParameterSpec((), lambda w: w.fill_(0.5)),
        }

    def step(self, p, x, h):
        h = p.s * h + (x @ p.w.t() + h @ p.u.t() + x.mean(1, keepdim=True)).tanh()
        return h, h


@dataclass
class TwoBiases(GatedCell):
    """A cell with one bias for the inputs and one for the state, as torch's own have."""

    name: str = "two_biases"
    gates = ("h",)

    def parameters(self, inputs):
        return super().parameters(inputs) | {
            "other_bias": ParameterSpec((self.hidden_size,), lambda w: w.zero_())
        }

    def step(self, p, z, h):
        h = (z + h @ p.recurrent_weight.t() + p.other_bias).tanh()
        return h, h


COVERED |= {"counting": Counting, "bare": Bare, "two_biases": TwoBiases}


@refused("random numbers")
def dropout(cell, p, z, h):
    h = functional.dropout((z + h @ p.recurrent_weight.t()).tanh(), 0.5)
    return h, h


@refused("sequences")
def batch_norm(cell, p, z, h):
    a = z + h @ p.recurrent_weight.t()
    h = ((a - a.mean(0)) / a.std(0)).tanh()
    return h, h


@refused("conv")
def convolution(cell, p, z, h):
    kernel = p.recurrent_weight[:1, :3].unsqueeze(1)
    h = (z + functional.conv1d(h.unsqueeze(1), kernel, padding=1).squeeze(1)).tanh()
    return h, h


@refused("reads single numbers")
def branch_on_a_number(cell, p, z, h):
    a = z + h @ p.recurrent_weight.t()
    h = a.tanh() if a.abs().max().item() < 10 else a.clamp(-1, 1)
    return h, h


@refused("depend on")
def attention(cell, p, z, h):
    q = (z + h @ p.recurrent_weight.t()).view(-1, 2, cell.hidden_size // 2)
    h = (torch.bmm(q, q.transpose(1, 2)) @ q).flatten(1).tanh()
    return h, h


@refused("pieces")
def cumulative_sum(cell, p, z, h):
    h = (z + h @ p.recurrent_weight.t()).sigmoid().cumsum(-1) / cell.hidden_size
    return h, h


@dataclass
class FastWeights(GatedCell):
    """A cell whose state is a matrix."""

    name: str = "fast_weights"
    gates = ("h",)

    def initial_state(self, x):
        return x.new_zeros(len(x), self.hidden_size, self.hidden_size)

    def step(self, p, z, state):
        state = 0.9 * state + z.unsqueeze(2) * z.unsqueeze(1)
        return state.sum(1).tanh(), state


REFUSED["fast_weights"] = FastWeights, "state"

OPERATIONS = (
    "add", "sub", "mul", "tanh", "sigmoid", "max", "where", "lerp", "square", "matmul", "norm", "cut", "div",
)  # fmt: skip


def random_cell(seed: int) -> type[Cell]:
    """A cell whose step is a random expression of four gates, the old state and products with weights. The
    output of every third one is a product."""
    draw = random.Random(seed)
    plan = [
        (draw.choice(OPERATIONS), draw.random(), draw.random(), draw.randrange(4))
        for _ in range(draw.randrange(3, 12))
    ]

    def step(cell: Any, p: Any, z: Any, h: Any) -> Any:
        half, weights = cell.hidden_size // 2, p.recurrent_weight.chunk(4)
        known = [*(z + h @ p.recurrent_weight.t()).chunk(4, 1), h]
        for operation, one, other, number in plan:
            a, b = known[int(one * len(known))], known[int(other * len(known))]
            known.append(_applied(operation, a, b, weights[number], half))
        new = 0.5 * known[-1].tanh() + 0.4 * known[len(known) // 2].tanh() + 0.1 * known[0].tanh()
        return new @ weights[0] if seed % 3 == 1 else new, new

    return cell(step, 4)


def _applied(operation: str, a: Any, b: Any, weight: Any, half: int) -> Any:
    return {
        "add": lambda: a + b,
        "sub": lambda: a - 0.5 * b,
        "mul": lambda: a.tanh() * b,
        "tanh": lambda: a.tanh(),
        "sigmoid": lambda: a.sigmoid() * b,
        "max": lambda: torch.maximum(a, b),
        "where": lambda: torch.where(a > b, a.tanh(), 0.1 * b),
        "lerp": lambda: torch.lerp(a, b, b.sigmoid()),
        "square": lambda: a.tanh().square(),
        "matmul": lambda: a.tanh() @ weight,
        "norm": lambda: a * (1e-2 + a.square().mean(1, keepdim=True)).rsqrt(),
        "cut": lambda: torch.cat((b[:, half:], a[:, :half]), 1),
        "div": lambda: a / (1 + b.abs()),
    }[operation]()
