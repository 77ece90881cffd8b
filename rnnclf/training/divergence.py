"""Detection of divergence, and of the sequence or weight that caused it.

Shapes: B batch, T time, I inputs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import median

import torch
from torch import Tensor, nn

from rnnclf.metrics import Score
from rnnclf.readout import valid_steps

# A spike: SPIKE_BATCHES consecutive losses above SPIKE_FACTOR times both the median of the last
# USUAL_BATCHES losses and the chance level. A single batch of hard sequences is not a spike. In the first
# steps there is no usual loss to compare with: there, and where a loss rises slowly, it has diverged when
# USUAL_BATCHES losses above SPIKE_FACTOR times the chance level follow one below it. A loss that starts
# above that level may still be falling.
SPIKE_BATCHES, SPIKE_FACTOR, USUAL_BATCHES = 10, 5.0, 100


class Divergence(Exception):  # noqa: N818 - not an error if training can be rolled back
    """Training has diverged. `in_data`: whether the data contain a value that is not finite."""

    def __init__(self, what: str, in_data: bool = False) -> None:
        super().__init__(what)
        self.in_data = in_data


class Losses:
    """The losses of the last batches, and the number of consecutive high ones."""

    def __init__(self, recent: Iterable[float] = (), high: int = 0) -> None:
        self.recent = deque(recent, USUAL_BATCHES)
        self.high = high

    def diverged(self, loss: float, chance_loss: float) -> bool:
        """Adds the loss of a batch; returns whether it completes a spike or a lasting rise.

        chance_loss: the loss of a model that predicts equal probabilities for all classes.
        """
        level = SPIKE_FACTOR * chance_loss
        # first, as it is rarely true and saves the median
        is_high = loss > level and len(self.recent) == USUAL_BATCHES
        is_unusual = is_high and loss > SPIKE_FACTOR * median(self.recent)
        self.high = self.high + 1 if is_unusual else 0
        before = self.recent[0] if self.recent else loss
        self.recent.append(loss)
        return self.high == SPIKE_BATCHES or (is_high and before <= level < min(self.recent))


def doubt(validation: Score, classes: int, rate: float) -> str:
    """A sentence if the best epoch is far worse than guessing, else ''. This is how runs end that diverge and
    are too short for `Losses`.

    validation: the score of the best epoch. rate: the option optimizer.lr, for the advice.
    """
    chance_loss = math.log(classes)
    if validation.loss <= SPIKE_FACTOR * chance_loss:
        return ""
    return (
        f"The best epoch is worse than guessing: its validation loss is {validation.loss:.3g}, that of"
        f" guessing {chance_loss:.3g}. Try a smaller learning rate (optimizer.lr is {rate:g})."
    )


def not_finite_in(x_BTI: Tensor, lengths_B: Tensor | None, indices_B: Tensor) -> str:
    """Names the first sequence of a batch with a NaN or infinite value, for a message; '' if there is
    none."""
    if lengths_B is not None:
        x_BTI = x_BTI.masked_fill(~valid_steps(x_BTI.transpose(0, 1), lengths_B).transpose(0, 1), 0)
    broken_B = ~x_BTI.isfinite().all(dim=-1).all(dim=-1)
    if not broken_B.any():
        return ""
    index = int(indices_B[int(broken_B.int().argmax())])
    return f": sequence {index} of the training split (counted from 0) contains a value that is not finite"


@torch.no_grad()
def blame(model: nn.Module) -> str:
    """Names the weight that caused a divergence, for a message: the first one that is not finite or has a
    gradient that is not finite, otherwise the one with the largest gradient."""
    norms = {}
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return f": {name} has not been finite since the previous step"
        if weight.grad is not None:
            norms[name] = weight.grad.abs().double().norm().item()
            if not math.isfinite(norms[name]):
                return f": the first gradient that is not finite is that of {name}"
    if not norms:
        return ""
    largest = max(norms, key=lambda name: norms[name])
    return f": the largest gradient was that of {largest}, with norm {norms[largest]:.3g}"
