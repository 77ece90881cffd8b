"""Capture of a training step as a CUDA graph: replaying it takes one call by the host instead of hundreds.

A graph repeats the same operations on the same memory. So each batch is copied into the memory of the
captured one, the learning rate is a number on the device, and results are read from a fixed address. See
https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture

Shapes: B batch, T time, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor

from rnnclf.data.dataset import Batch
from rnnclf.errors import ConfigError

WARM_UP = 3  # steps before the captured one, in which libraries and the optimizer allocate memory

Step = Callable[[Batch], Tensor]
"""Updates the weights from a batch, and returns the results of the step."""


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Makes an optimizer keep its learning rate and step count on the device. Call before its first step."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)
        if "capturable" in group:
            group["capturable"] = True
    optimizer._warned_capturable_if_run_uncaptured = (
        True  # the smaller last batch of an epoch is run uncaptured
    )


class CapturedStep:
    """A captured step, for batches of the same shape as the one it was captured with.

    Args:
        batch: sequences of equal length.
        unchanged: a context for the warm-up steps, which restores the state afterwards, in the same memory.

    Raises ConfigError if the step contains an operation that cannot be captured.
    """

    def __init__(self, step: Step, batch: Batch, unchanged: AbstractContextManager[None]) -> None:
        self.batch = Batch(batch.x_BTI.clone(), batch.y_B.clone(), None)
        with unchanged:
            _warm_up(partial(step, self.batch))
        try:
            self.replay, self.row = _capture(partial(step, self.batch))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"This training step cannot be captured as a CUDA graph: use graph=false. ({reason})"
            ) from error

    def fits(self, batch: Batch) -> bool:
        return batch.x_BTI.shape == self.batch.x_BTI.shape

    def __call__(self, batch: Batch) -> Tensor:
        self.batch.x_BTI.copy_(batch.x_BTI)
        self.batch.y_B.copy_(batch.y_B)
        self.replay()
        return self.row


def _warm_up(step: Callable[[], object]) -> None:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)


def _capture(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A function that replays the step, and the tensor that then holds its result."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph.replay, result
