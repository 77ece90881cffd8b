"""Faults below the file layer: the system calls that rnnclf/files.py makes, failing one by one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rnnclf import files

CALLS = ("open", "write", "fsync", "close", "replace", "unlink")
SHORT = "short write"
"""Not a failure: the system writes a part and says so."""

FAULTS: dict[str, Any] = {
    **{
        name: OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
        for name in ("ENOSPC", "EIO", "EROFS")
    },
    "Ctrl-C": KeyboardInterrupt(),
    SHORT: None,
}


class FaultyOs:
    """The module os for files.py. Its call number `at` fails, and with `lasting` all that follow it.

    A write that fails has written a half; a close that fails has closed. `made` lists the calls.
    """

    def __init__(self, at: int | None = None, fault: str = "EIO", lasting: bool = False) -> None:
        self.at, self.fault, self.lasting = at, fault, lasting
        self.made: list[str] = []

    def __getattr__(self, name: str) -> Any:
        really = getattr(os, name)
        if name not in CALLS:
            return really

        def call(*arguments: Any) -> Any:
            number = len(self.made)
            self.made.append(name)
            if self.at is None or not (number == self.at or (self.lasting and number > self.at)):
                return really(*arguments)
            if name == "write":
                descriptor, content = arguments
                written = really(descriptor, content[: max(len(content) // 2, 1)])
            elif name == "close" or self.fault == SHORT:
                written = really(*arguments)
            if self.fault == SHORT:
                return written
            raise FAULTS[self.fault]

        return call


@contextmanager
def faulty(at: int | None = None, fault: str = "EIO", lasting: bool = False) -> Iterator[FaultyOs]:
    """Within it, files.py makes its calls to a FaultyOs."""
    files.os, before = FaultyOs(at, fault, lasting), files.os  # type: ignore[assignment]
    try:
        yield files.os  # type: ignore[misc]
    finally:
        files.os = before
