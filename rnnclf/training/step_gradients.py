"""The head and the gradients of whole training steps: the memory that a batch's results are added up in.

Shapes: B batch, Q parts of it, M sums of one part, W numbers in all weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnnclf.engine.machine.code import NUMBERS, aligned_zeros
from rnnclf.engine.machine.driver import tables
from rnnclf.engine.machine.driver.driver import Driver
from rnnclf.engine.machine.driver.layer import LayerWeights
from rnnclf.engine.machine.driver.tables import address_of, stored
from rnnclf.engine.machine.driver.threads import COUNTERS
from rnnclf.engine.machine.emit.instructions import HOST


class SharedArrays:
    """Small arrays that Python and the driver share."""

    def __init__(self, batch: int, parts: int) -> None:
        self.counters = np.zeros(COUNTERS, np.int64)
        self.chosen_B = np.zeros(batch, np.int64)
        self.totals_Q2 = np.zeros((parts, 2))
        self.max_norm, self.norm = np.zeros(1), np.zeros(1)


class Head:
    """The linear head: its weights, packed for products with features and with the gradients of logits."""

    def __init__(self, head: nn.Linear) -> None:
        self.head, self.dtype = head, NUMBERS[head.weight.dtype]
        self.classes, self.features = head.weight.shape
        lanes = HOST.vector // self.dtype.itemsize
        self.columns, self.wide = (-(-n // lanes) * lanes for n in (self.classes, self.features))
        self.forward = aligned_zeros([self.features * self.columns], self.dtype)
        self.backward = aligned_zeros([self.classes * self.wide], self.dtype)

    def packs(self) -> list[list[int]]:
        weight, size = self.head.weight, self.dtype.itemsize
        row = self.features * size
        return [
            [weight.data_ptr(), size, row, self.features, self.classes, address_of(self.forward),
            self.features,
             self.columns, 0, 0],
            [weight.data_ptr(), row, size, self.classes, self.features, address_of(self.backward),
            self.classes,
             self.wide, 0, 0],
        ]  # fmt: skip


class Gradients:
    """The gradients of all weights, and the sums that they are made of.

    sums_QM: of each part the sums of each run of a layer, then of the head's weight and bias.
    gradients_W: the gradients of all weights, one after the other.
    """

    def __init__(self, layers: Sequence[Sequence[LayerWeights]], head: Head, parts: int) -> None:
        self.runs, self.head = [run for layer in layers for run in layer], head
        plans = [run.layer.code.plan for run in self.runs]
        lengths = [plan.sums + plan.lanes for plan in plans]
        ends = np.cumsum([*lengths, head.features * head.columns, head.columns]).tolist()
        self.slices = [slice(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
        self.sums_QM = aligned_zeros([parts, ends[-1]], head.dtype)
        self.weights: list[list[Tensor]] = [run.trained for run in self.runs]
        self.weights.append([head.head.weight, head.head.bias])
        flat = [weight for some in self.weights for weight in some]
        self.gradients_W = torch.zeros(sum(weight.numel() for weight in flat), dtype=flat[0].dtype)
        parts_W = iter(torch.split(self.gradients_W, [weight.numel() for weight in flat]))
        self.gradients = [[next(parts_W).view_as(weight) for weight in some] for some in self.weights]
        self.is_complete = not any(run.needs_torch for run in self.runs)
        self.is_set = False

    def of_part(self, part: int) -> list[Any]:
        """The sums of a part: of each run, of the head's weight, of its bias."""
        return [self.sums_QM[part, some] for some in self.slices]

    def reduction(self, arrays: SharedArrays, learns: bool) -> Any:
        """The table that says what becomes of the results of all parts."""
        sums = self.of_part(0)
        moves: list[tables.Move] = []
        for run, own, gradients in zip(self.runs, sums, self.gradients, strict=False):
            moves += run.moves(own, gradients)
        moves += self._moves_of_head(*sums[-2:])
        self.moves = stored(moves)
        return stored([
            tables.Reduction(
                totals=address_of(arrays.totals_Q2),
                parts=len(self.sums_QM),
                learns=learns,
                sums=address_of(self.sums_QM),
                sums_part=self.sums_QM.strides[0],
                moves=address_of(self.moves),
                move_count=len(moves),
                gradients=self.gradients_W.data_ptr(),
                gradients_length=self.gradients_W.nbytes,
                is_complete=self.is_complete,
                max_norm=address_of(arrays.max_norm),
                norm=address_of(arrays.norm),
            )
        ])  # fmt: skip

    def _moves_of_head(self, weight_sums: Any, bias_sums: Any) -> list[tables.Move]:
        head, (weight, bias), size = self.head, self.gradients[-1], self.head.dtype.itemsize
        row = head.features * size
        return [
            tables.Move(address_of(weight_sums), size, head.columns * size, head.classes, head.features,
                        weight.data_ptr(), row, size),
            tables.Move(address_of(bias_sums), 0, size, 1, head.classes, bias.data_ptr(), 0, size),
        ]  # fmt: skip

    def finish(self, prepared: Sequence[Sequence[Any]], compiled: Driver, arrays: SharedArrays) -> None:
        """After a batch: has torch compute its share of the gradients, and stores all in `grad` of the
        weights."""
        there = [[True] * len(some) for some in self.weights]
        if not self.is_complete:
            flat = [own for layer in prepared for own in layer]
            for n, (run, own) in enumerate(zip(self.runs, flat, strict=True)):
                if run.needs_torch:
                    there[n] = run.differentiate(self.of_part(0)[n], own, self.gradients[n])
            compiled.clip(
                self.gradients_W.data_ptr(), self.gradients_W.nbytes, address_of(arrays.max_norm),
                address_of(arrays.norm),
            )  # fmt: skip
        if not self.is_set:
            for some, gradients, known in zip(self.weights, self.gradients, there, strict=True):
                for weight, gradient, is_there in zip(some, gradients, known, strict=True):
                    weight.grad = gradient if is_there else None
            self.is_set = True
