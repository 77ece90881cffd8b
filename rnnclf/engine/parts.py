"""Division of a batch among the cores of a CPU: each core computes all steps of its part.

Cores then wait for each other twice per batch instead of twice per step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

LEAST = 16  # sequences per part; with fewer, the products of a step become inefficient
WORTH = 500_000  # FLOPs per time step and part; with fewer, synchronisation costs more than it saves


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


def rows_of_parts(batch: int, work: int) -> list[slice]:
    """The sequences of each part of a batch. work: FLOPs per time step."""
    number = max(min(_parts.number, batch // LEAST, work // WORTH), 1)
    sizes = [batch // number + (part < batch % number) for part in range(number)]
    ends = [sum(sizes[: part + 1]) for part in range(number)]
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


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
