"""The running average of a model's weights, and the model with other weights than its own for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rnnclf.averaging import Average


class WeightAverage:
    """The running average of the trained weights of a model, in memory of its own.

    The steps of training read and write the weights alone, so every engine runs as without an average.

    count: the number of steps averaged so far.
    """

    def __init__(self, average: Average, model: nn.Module) -> None:
        self.average = average
        # detached, in the same memory: so autograd has no part in it, which would cost more than the average
        trained = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
        self.names, self.weights = list(trained), list(trained.values())
        self.averages: list[Tensor] = []
        self.count = 0

    def add(self, step: int, total: int) -> None:
        """Averages the weights after a step, counted from 0, of `total`."""
        share = self.average.share(step, total, self.count)
        if share is None:
            self.count = 0  # also where a longer run has moved the beginning to a later step
            return
        if self.count:
            torch._foreach_lerp_(self.averages, self.weights, share)
        else:
            self.averages = [weight.clone() for weight in self.weights]
        self.count += 1

    def tensors(self) -> dict[str, Tensor]:
        """The averages by the names of their weights, not copied; empty if nothing has been averaged."""
        return dict(zip(self.names, self.averages, strict=True)) if self.count else {}

    def restore(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Restores what `tensors` returned after `count` steps. Raises KeyError or ValueError if these are
        no averages of these weights."""
        averages = []
        for name, weight in zip(self.names, self.weights, strict=True) if count else ():
            tensor = tensors[name]
            if tensor.shape != weight.shape or tensor.dtype != weight.dtype:
                raise ValueError(f"the average does not fit {name}")
            averages.append(tensor.to(weight.device, copy=True))
        self.averages, self.count = averages, count


@contextmanager
def holding(model: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Gives the model another state, and its own back at the end, always in the same memory: CUDA graphs and
    whole steps know its addresses."""
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    try:
        yield
    finally:
        model.load_state_dict(own)
