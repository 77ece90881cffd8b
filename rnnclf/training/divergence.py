"""What tells that training is lost, and which weight is behind it.

Shapes: B batch, T time, I inputs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import median

import torch
from torch import Tensor, nn

from rnnclf.readout import valid_steps

# A spike: this many batches in a row with a loss of this many times what is usual, which is the median of so
# many batches before, and of the loss of who knows nothing. A batch of hard sequences is none.
SPIKE_BATCHES, SPIKE_FACTOR, USUAL_BATCHES = 10, 5.0, 100


class Divergence(Exception):  # noqa: N818 - a state of things; who catches it decides whether it is an error
    """Training cannot go on from here."""

    def __init__(self, what: str, in_data: bool = False) -> None:
        super().__init__(what)
        self.in_data = in_data


class Losses:
    """The losses of the last batches, and how many of them in a row stand out."""

    def __init__(self, recent: Iterable[float] = (), high: int = 0) -> None:
        self.recent = deque(recent, USUAL_BATCHES)
        self.high = high

    def spiked(self, loss: float, ignorance: float) -> bool:
        """Takes in the loss of a batch; whether it was the last of a spike.

        ignorance: the loss of a model that takes all classes for equally probable.
        """
        out = loss > SPIKE_FACTOR * ignorance  # first, since it is hardly ever so
        out = out and len(self.recent) == USUAL_BATCHES and loss > SPIKE_FACTOR * median(self.recent)
        self.high = self.high + 1 if out else 0
        self.recent.append(loss)
        return self.high == SPIKE_BATCHES


def not_finite_in(x_BTI: Tensor, lengths_B: Tensor | None, indices_B: Tensor) -> str:
    """Which of the sequences of a batch holds a value that is NaN or infinite; '' where none does."""
    if lengths_B is not None:
        x_BTI = x_BTI.masked_fill(~valid_steps(x_BTI.transpose(0, 1), lengths_B).transpose(0, 1), 0)
    broken_B = ~x_BTI.isfinite().all(dim=-1).all(dim=-1)
    if not broken_B.any():
        return ""
    place = int(indices_B[int(broken_B.int().argmax())])
    return f": sequence {place} of the training split (counted from 0) holds a value that is not finite"


@torch.no_grad()
def blame(model: nn.Module) -> str:
    """The weight that is to blame: broken itself, or else the one with the largest gradient."""
    norms = {}
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return f": {name} is not finite since the step before"
        if weight.grad is not None:
            norms[name] = weight.grad.abs().double().norm().item()
            if not math.isfinite(norms[name]):
                return f": first the gradient of {name}"
    if not norms:
        return ""
    largest = max(norms, key=lambda name: norms[name])
    return f": the largest gradient was that of {largest}, of norm {norms[largest]:.3g}"
