"""How the system reads files that are mapped into memory: what it reads ahead, and what it leaves.

By default it reads ahead around each place that is touched, which suits reading in order. Where sequences are
drawn at random, nearly all of that is read in vain: a multiple of the file in each epoch. A no-op on systems
without madvise, such as Windows.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

Range = tuple[int, int]
"""An address and a number of bytes."""


@contextmanager
def at_random(*ranges: Range) -> Iterator[None]:
    """Context in which the system reads no more of these mapped bytes than what is touched, a page at a
    time: `fetch` says beforehand what will be needed."""
    for address, size in ranges:
        _advise("MADV_RANDOM", address, size)
    try:
        yield
    finally:
        for address, size in ranges:
            _advise("MADV_NORMAL", address, size)


def fetch(address: int, size: int) -> None:
    """Begins to read mapped bytes that are not in memory; returns at once."""
    _advise("MADV_WILLNEED", address, size)


def _advise(name: str, address: int, size: int) -> None:
    advise, advice = _madvise(), getattr(mmap, name, None)
    if advise is not None and advice is not None and size:
        first = address - address % mmap.PAGESIZE
        advise(first, address + size - first, advice)  # advice: an error changes nothing but the speed


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
