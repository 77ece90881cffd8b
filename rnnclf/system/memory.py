"""The memory of this machine, so that what cannot fit is refused before it is read."""

from __future__ import annotations

import math
import os
from pathlib import Path

GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_limit() -> int | None:
    """The bytes that this process may use: the machine's memory, or less in a container that limits it.

    None if the system does not tell.
    """
    limits = [limit for path in GROUP_LIMITS if (limit := _number_in(Path(path)))]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def excess(size: int) -> str | None:
    """'100 GB of memory; this machine has 25 GB' if so many bytes do not fit, otherwise None."""
    limit = memory_limit()
    if limit is None or size <= limit:
        return None
    return f"{in_bytes(size)} of memory; this machine has {in_bytes(limit)}"


def in_bytes(size: int) -> str:
    """A size in words: 312 bytes, 4.2 kB, 1.0 TB."""
    if size < 1000:
        return f"{size} byte{'' if size == 1 else 's'}"
    power = min(int(math.log10(size)) // 3, 6)
    return f"{size / 1000**power:.1f} {' kMGTPE'[power]}B"


def _number_in(path: Path) -> int | None:
    """The number in a small file; None if it holds none."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return None
