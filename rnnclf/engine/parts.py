"""Batches divided among the cores of a CPU: each takes its part through all steps.

So cores wait for each other twice a batch instead of twice a step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

LEAST = 16  # sequences of a part; with fewer, the products of a step are no longer fast
WORTH = 500_000  # FLOPs of a step in time, below which waiting for another core costs more than it does


Result = TypeVar("Result")


class _Parts(threading.local):
    """How many parts this thread makes of a batch."""

    number = 1


_parts = _Parts()


@contextmanager
def parts_of_batches() -> Iterator[None]:
    """Within it, the engines that work by parts give each of torch's threads a part of the batch; everything
    else runs on one thread.

    The parts, and so the last digits of sums over them, depend on the number of threads and on sizes alone.
    """
    threads = torch.get_num_threads()
    _parts.number = threads
    torch.set_num_threads(1)  # threads of the library's own would wait busily for work, on the same cores
    try:
        yield
    finally:
        _parts.number = 1
        torch.set_num_threads(threads)


def rows_of_parts(batch: int, work: int) -> list[slice]:
    """Which sequences each part of a batch takes. work: FLOPs of a step in time."""
    number = max(min(_parts.number, batch // LEAST, work // WORTH), 1)
    sizes = [batch // number + (part < batch % number) for part in range(number)]
    ends = [sum(sizes[: part + 1]) for part in range(number)]
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def side_by_side(work: Callable[[int], Result], parts: int) -> list[Result]:
    """The work of all parts, each on a core: the first on this thread, the others on threads of their own."""
    others = [_threads(parts - 1).submit(work, part) for part in range(1, parts)] if parts > 1 else []
    own = work(0)
    return [own, *(other.result() for other in others)]


@cache
def _threads(number: int) -> ThreadPoolExecutor:
    def prepare() -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # of this thread alone

    return ThreadPoolExecutor(number, "rnnclf-fused", initializer=prepare)
