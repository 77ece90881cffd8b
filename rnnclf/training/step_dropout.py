"""Dropout in whole steps: torch draws the factors, as it does in the general way; the driver multiplies by
them.

Shapes: B batch, T time, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnnclf.engine.machine.driver.part import Piece
from rnnclf.model import SequenceClassifier
from rnnclf.training.eligibility import modules_of_layers


class Dropout:
    """The factors of a batch: 0 where a value is dropped, 1 / (1 - rate) elsewhere.

    of_layers: those of the inputs of each layer, (T, B, D), or (1, B, D) if a sequence drops the same values
    at all its steps; None for the lowest layer and without dropout. of_features: those of the features that
    the head reads, (B, D).
    """

    def __init__(self, model: SequenceClassifier, batch: int, steps: int) -> None:
        self.model, self.rate = model, model.stack.dropout
        times = 1 if model.stack.variational else steps
        sizes = [layer[0].input_size for layer in modules_of_layers(model)]

        def ones(*shape: Any) -> Tensor:
            return torch.ones(shape, dtype=model.head.weight.dtype)

        dropped = [self.rate > 0 and level > 0 for level in range(len(sizes))]
        self.of_layers = [
            ones(times, batch, size) if some else None for size, some in zip(sizes, dropped, strict=True)
        ]
        self.of_features = ones(batch, model.head.in_features) if self.rate > 0 else None

    def draw(self, factors: Tensor | None, order_B: Any, steps: int | None = None) -> None:
        """Before a batch: draws the factors of one layer, for so many steps, or of the head.

        order_B: the order in which the sequences are computed; None for that in which factors are drawn.
        """
        if factors is None:
            return
        some = factors[:steps]
        if self.model.training:
            some.bernoulli_(1 - self.rate).div_(1 - self.rate)
            if order_B is not None:
                some.copy_(some.index_select(-2, torch.from_numpy(order_B)))
        else:
            some.fill_(1.0)

    def pieces(self, first: int) -> list[Piece | None]:
        """Where the part whose first sequence is at this position in the batch finds the factors of each
        layer."""
        found: list[Piece | None] = []
        for factors in self.of_layers:
            if factors is None:
                found.append(None)
                continue
            t, row, _ = (step * factors.itemsize for step in factors.stride())
            width = factors.shape[2]
            address = factors.data_ptr() + first * row
            found.append(Piece(0, width, address, t if len(factors) > 1 else 0, row))
        return found
