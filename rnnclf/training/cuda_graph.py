"""A training step recorded as a CUDA graph and replayed: one call of the host instead of hundreds.

A graph is a list of work on certain memory. So a batch is copied to where the recorded one lay, the learning
rate is a number on the device, and what the step has come to is read from where it was written. As torch has
it: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture

Shapes: B batch, T time, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from rnnclf.data.dataset import Batch
from rnnclf.errors import ConfigError

WARM_UP = 3  # steps before the one that is recorded: libraries and the optimizer take the memory they need

Step = Callable[[Batch], Tensor]
"""From a batch to new weights, and what there is to know of the way."""


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Has an optimizer, before its first step, keep its rate and the count of its steps on the device."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)
        if "capturable" in group:
            group["capturable"] = True
    optimizer._warned_capturable_if_run_uncaptured = True  # as an epoch's last, smaller batch is


class CapturedStep:
    """A step on batches that are like the one it was recorded with.

    Args:
        batch: of whole sequences.
        unchanged: within it steps may be made; afterwards all is as it was, and in the same memory.

    Raises ConfigError where there is something in the step that cannot be recorded.
    """

    def __init__(self, step: Step, batch: Batch, unchanged: AbstractContextManager[None]) -> None:
        self.batch = Batch(batch.x_BTI.clone(), batch.y_B.clone(), None)
        with unchanged:
            _warm_up(self._made_by(step))
        try:
            self.replay, self.row = _record(self._made_by(step))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"This step cannot be recorded: use graph=false. ({reason})") from error

    def _made_by(self, step: Step) -> Callable[[], Tensor]:
        return lambda: step(self.batch)

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


def _record(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What makes the step again, and where its result lies."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph.replay, result
