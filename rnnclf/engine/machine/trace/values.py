"""The meaning of a tensor during tracing: where its numbers are, as opposed to what they are.

The tensors of a recorded step fall into four kinds:
  Weight    depends on the weights alone                    known before the sequence starts
  Uniform   has the same number in all elements, such as the result of `torch.zeros`
  Batched   has a row for each sequence                     computed by machine code at each time step
  Total     is a sum over sequences, or made of such sums   known after the last time step

A Batched tensor is a view of `Columns`, the result of one operation: it has the number of a column for each
of its elements behind the batch dimension. An operation that only moves elements (`view`, `chunk`,
`permute`, …) is applied to these numbers during tracing, so that it costs nothing at run time. If `a` has
columns 0 … 5:

    a.chunk(2, 1)[1]     column_of = [3, 4, 5]
    a.view(-1, 2, 3)     column_of = [[0, 1, 2], [3, 4, 5]]
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from rnnclf.engine.machine.graph import Node, Nodes, UncoveredError

MAX_PIECES = 64

MIXED = "its step mixes sequences of a batch"

Span = tuple[int, int]
"""Columns from the first number up to, but without, the second."""


@dataclass(frozen=True)
class Weight:
    """Depends on the weights alone. slot: where the calls before the sequence leave it."""

    slot: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Uniform:
    value: float


@dataclass(frozen=True)
class Total:
    """A sum over sequences, or made of such sums. slot: where the calls after the sequence leave it."""

    slot: int


@dataclass(eq=False)
class Columns:
    """The columns of one computed value, the places where they are cut, and the nodes of the pieces."""

    width: int
    cuts: set[int] = field(default_factory=set)
    pieces: list[Node] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        ends = sorted({0, self.width, *self.cuts})
        return list(pairwise(ends))

    def cut(self, *places: int) -> None:
        self.cuts |= {place for place in places if 0 < place < self.width}

    def cut_around(self, runs: list[Run]) -> None:
        """Cuts so that each run is made of whole pieces."""
        for run in runs:
            self.cut(run.first, run.end)
        self.check_pieces()

    def check_pieces(self) -> None:
        if len(self.cuts) >= MAX_PIECES:
            raise UncoveredError(f"its step cuts a value into more than {MAX_PIECES} pieces")

    def piece(self, lo: int, hi: int) -> Node:
        return self.pieces[self.spans.index((lo, hi))]

    def pieces_of(self, runs: list[Run]) -> list[tuple[int, Node]]:
        """The pieces that runs of these columns are made of, each with the element at which it begins."""
        found = []
        for run in runs:
            inner = [(lo, hi) for lo, hi in self.spans if run.first <= lo and hi <= run.end]
            for _ in range(1 if run.step else run.length):
                found += [(run.start + lo - run.first, self.piece(lo, hi)) for lo, hi in inner]
        return found


@dataclass(frozen=True, eq=False)
class Batched:
    """A tensor with a row for each sequence. column_of: the tensor without its batch dimension, each element
    replaced by the number of its column."""

    columns: Columns
    batch_dim: int
    column_of: Tensor
    rows: int
    """Sequences in the recorded batch."""

    @property
    def shape(self) -> tuple[int, ...]:
        inner = self.column_of.shape
        return (*inner[: self.batch_dim], self.rows, *inner[self.batch_dim :])

    def encoded(self) -> Tensor:
        """A tensor of the same shape, in which each element states its column and its sequence."""
        return self.column_of.unsqueeze(self.batch_dim) * self.rows + self._sequences(self.batch_dim)

    def decoded(self, code: Tensor) -> Batched:
        """The meaning of a tensor that was made from `encoded` by moving elements. Raises UncoveredError if
        none of its dimensions is that of the sequences."""
        for dim, size in enumerate(code.shape):
            if size == self.rows and bool((code % self.rows == self._sequences(dim, code.ndim)).all()):
                return Batched(self.columns, dim, code.select(dim, 0) // self.rows, self.rows)
        raise UncoveredError(MIXED)

    def broadcast_to(self, shape: tuple[int, ...]) -> Batched:
        return self if self.shape == shape else self.decoded(self.encoded().broadcast_to(shape))

    def _sequences(self, dim: int, ndim: int | None = None) -> Tensor:
        ndim = self.column_of.ndim + 1 if ndim is None else ndim
        return torch.arange(self.rows).reshape([-1 if d == dim else 1 for d in range(ndim)])


Value = Weight | Uniform | Total | Batched


class Run(NamedTuple):
    """Consecutive elements of an operand that lie side by side in its source, or are one element repeated.

    Elements are counted behind the batch dimension, in row-major order: elements start, start + 1, … of the
    operand are elements first, first + step, … of the source. step: 1, or 0 for a broadcast.
    """

    start: int
    length: int
    source: Columns | Weight | Uniform
    first: int
    step: int

    @property
    def end(self) -> int:
        """The element of the source behind the last one that is used."""
        return self.first + max(self.length * self.step, 1)


def runs_in(places: Tensor, source: Columns | Weight, start: int = 0) -> list[Run]:
    """As few runs as possible for an operand whose elements are at these places of its source."""
    numbers: list[int] = places.reshape(-1).tolist()
    steps = [b - a for a, b in pairwise(numbers)]
    runs, lo = [], 0
    while lo < len(numbers):
        step = steps[lo] if lo < len(steps) and steps[lo] in (0, 1) else 1
        hi = lo + 1
        while hi < len(numbers) and steps[hi - 1] == step:
            hi += 1
        runs.append(Run(start + lo, hi - lo, source, numbers[lo], step))
        lo = hi
    return runs


def operand_runs(value: Value, like: Batched) -> list[Run]:
    """Where the elements of an operand come from once it is broadcast to the shape of another value."""
    shape, batch_dim = like.shape, like.batch_dim
    if isinstance(value, Uniform):
        return [Run(0, math.prod(like.column_of.shape), value, 0, 0)]
    if isinstance(value, Total):
        raise UncoveredError(MIXED)
    if isinstance(value, Weight):
        if like.rows in value.shape:
            raise UncoveredError("its step uses a constant with a row for each sequence of a batch")
        places = torch.arange(math.prod(value.shape)).reshape(value.shape).broadcast_to(shape)
        return runs_in(places.select(batch_dim, 0), value)
    value = value.broadcast_to(shape)
    if value.batch_dim != batch_dim:
        raise UncoveredError(MIXED)
    return runs_in(value.column_of, value.columns)


def piece_of(nodes: Nodes, runs: list[Run], lo: int, hi: int) -> Node:
    """Elements lo … hi - 1 of an operand, all within one run: of this width, or one column to broadcast."""
    run = next(run for run in runs if run.start <= lo < run.start + run.length)
    if isinstance(run.source, Uniform):
        return nodes.const(run.source.value)
    first = run.first + (lo - run.start) * run.step
    width = hi - lo if run.step else 1
    if isinstance(run.source, Weight):
        return nodes.make("vec", attr=(run.source.slot, first), width=width)
    return run.source.piece(first, first + width)
