"""Division of a batch among the cores of a CPU: each core computes all steps of its part.
Shapes: T time, B batch, I inputs, H hidden.

Cores then wait for each other twice per batch instead of twice per step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from rnnclf.cells.state import map_states


@dataclass(frozen=True)
class Worth:
    """The least that a part must have to be worth its cost: sequences, and FLOPs in all steps, forward."""

    sequences: int
    flops: int

    def most_parts(self, batch: int, work: int) -> int:
        return min(batch // self.sequences, work // self.flops)


Result = TypeVar("Result")


class _Parts(threading.local):
    """The number of parts into which this thread divides a batch."""

    number = 1


_parts = _Parts()


@contextmanager
def parts_of_batches() -> Iterator[None]:
    """Context in which engines with `by_parts` give each of torch's threads a part of the batch, while
    everything else runs on one thread.

    The parts, and so the rounding of sums over them, depend only on the number of threads and on sizes.
    """
    threads = torch.get_num_threads()
    _parts.number = threads
    torch.set_num_threads(1)  # torch's own threads would busy-wait on the same cores
    try:
        yield
    finally:
        _parts.number = 1
        torch.set_num_threads(threads)


def rows_of_parts(batch: int, work: int, worth: Worth, threads: int | None = None) -> list[slice]:
    """The sequences of each part of a batch. work: FLOPs in all steps, forward. threads: instead of those of
    `parts_of_batches`."""
    number = max(min(threads or _parts.number, worth.most_parts(batch, work)), 1)
    sizes = [batch // number + (part < batch % number) for part in range(number)]
    ends = [sum(sizes[: part + 1]) for part in range(number)]
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


class Share:
    """How a batch is divided into parts, and how many sequences of each part run at each step.

    order_B: the order in which the sequences are processed; None for their original order.
    rows: the slice of each part in that order. running: for each part, the number of running sequences at
    each step; None if all of them run until the end. work: FLOPs per time step, forward.
    """

    def __init__(
        self,
        lengths_B: Tensor | None,
        steps: int,
        batch: int,
        work: int,
        device: torch.device,
        worth: Worth,
    ) -> None:
        on_cpu = device.type == "cpu"
        self.rows = rows_of_parts(batch, work * steps, worth) if on_cpu else [slice(0, batch)]
        number = len(self.rows)
        self.order_B: Tensor | None = None
        self.running: list[list[int] | None] = [None] * number
        if lengths_B is None or bool((lengths_B >= steps).all()):
            return
        longest_first_B = lengths_B.argsort(descending=True, stable=True)
        self.order_B = torch.cat(
            [longest_first_B[part::number] for part in range(number)]
        )  # equal work for all parts
        t_T1 = torch.arange(steps, device=device).unsqueeze(-1)
        self.running = [(lengths_B[self.order_B[rows]] > t_T1).sum(dim=1).tolist() for rows in self.rows]

    def ordered(self, x_TBI: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Inputs and initial states in the order in which the sequences are processed."""
        if self.order_B is None:
            return x_TBI, states
        return x_TBI[:, self.order_B], [part[self.order_B] for part in states]

    def restored(self, output: Tensor, last: Sequence[Tensor], like: Any) -> tuple[Tensor, Any]:
        """Outputs (…, B, H) and the parts of the last state in the order of the batch, the state structured
        like another one."""
        if self.order_B is not None:
            restore_B = self.order_B.argsort()
            output = output[..., restore_B, :]
            last = [part[restore_B] for part in last]
        parts = iter(last)
        return output, map_states(lambda _: next(parts), like)


def run_parts(work: Callable[[int], Result], parts: int) -> list[Result]:
    """Runs `work` on all parts in parallel: the first on this thread, the others on worker threads."""
    others = [_threads(parts - 1).submit(work, part) for part in range(1, parts)] if parts > 1 else []
    own = work(0)
    return [own, *(other.result() for other in others)]


@cache
def _threads(number: int) -> ThreadPoolExecutor:
    def prepare() -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # a setting of each thread

    return ThreadPoolExecutor(number, "rnnclf-fused", initializer=prepare)
