"""Work in a new Python process, which a damaged file may end without harm. Standard library only.

The compiled code of some readers aborts the whole process when a file claims absurd sizes. A forked process
would start sooner, but threads of such libraries do not survive a fork.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from rnnclf import errors
from rnnclf.system.fork import ChildDied, exit_reason
from rnnclf.system.memory import memory_limit

LEAST_SECONDS = 20.0  # of processor time to read a file, which includes importing what reads it
SLOWEST = 1e5  # bytes of a file in a second, far less than any reader takes

START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from rnnclf.system.helper import serve
serve()
"""


class Helper:
    """A Python process that calls functions, one after the other. It starts when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: str, *arguments: Any, seconds: float | None = None) -> Any:
        """Calls "package.module:name" with plain data, and returns or raises what it does.

        seconds: the processor time that it may take. Raises ChildDied if it takes longer, or ends the
        process in another way; the next call starts another one.
        """
        process = self._process = self._process or _started()
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps([seconds, function, *arguments]).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if not line.endswith(b"\n"):
            reason = exit_reason(process.wait())
            self.close()
            raise ChildDied(reason)
        kind, *answer = json.loads(line)
        if kind == "returned":
            return answer[0]
        if kind == "system":
            raise OSError(*answer)
        if kind == "died":
            raise ChildDied(answer[0])
        if kind == "refused":
            raise getattr(errors, answer[0])(answer[1])
        raise RuntimeError(f"{function} failed in its own process:\n{answer[0]}")

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what was not written yet finds no reader
                assert pipe is not None
                pipe.close()


def command() -> list[str]:
    """What starts a helper. It finds the modules that this process finds, and no others."""
    return [sys.executable, "-P", "-c", START, json.dumps([place or os.curdir for place in sys.path])]


def _started() -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        raise ChildDied(f"its process could not be started: {error.strerror}") from error


class _Kept(threading.local):
    helper: Helper | None = None


_kept = _Kept()
"""The helper that `kept` keeps in each thread."""


@contextmanager
def kept() -> Iterator[None]:
    """In here, one process serves all calls of `in_helper`, so that only the first waits for it to start."""
    if _kept.helper is not None:
        yield
        return
    _kept.helper = Helper()
    try:
        yield
    finally:
        _kept.helper.close()
        _kept.helper = None


def in_helper(function: str, *arguments: Any, reads: Path | None = None) -> Any:
    """Calls "package.module:name" with plain data in another process, and returns or raises what it does.

    reads: a file that it reads. Raises ChildDied if that ends the process, or takes far longer than the size
    of the file explains: on some damaged files, libraries run in circles.
    """
    seconds = None if reads is None else LEAST_SECONDS + os.path.getsize(reads) / SLOWEST
    with kept():
        assert _kept.helper is not None
        return _kept.helper.call(function, *arguments, seconds=seconds)


def serve() -> None:
    """Answers calls, a line of JSON each, until there are no more; runs in the helper."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which then ends us
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin.buffer:
        limit_memory(memory_limit())  # the call before may have lowered it
        seconds, function, *arguments = json.loads(line)
        limit_time(seconds)
        answers.write(f"{json.dumps(_answer(function, arguments))}\n")
        answers.flush()


def _answer(function: str, arguments: list[Any]) -> list[Any]:
    module, _, name = function.partition(":")
    try:
        return ["returned", getattr(import_module(module), name)(*arguments)]
    except errors.RnnclfError as error:
        return ["refused", type(error).__name__, str(error)]
    except OSError as error:
        return ["system", error.errno, error.strerror or str(error)]
    except MemoryError:
        return ["died", "it takes more memory than there is"]
    except BaseException:
        return ["failed", traceback.format_exc()]


def limit_time(seconds: float | None) -> None:
    """Has the system end this process after so many seconds of processor time from now on. None: no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = hard if seconds is None else math.ceil(time.process_time() + seconds)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def limit_memory(size: int | None) -> None:
    """Has the system refuse what is more than `size` bytes, before it ends other processes for want of them.

    For the helper alone, which does the work of one file after the other. None: no limit.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if size is None or (hard != resource.RLIM_INFINITY and size > hard):
        size = hard
    resource.setrlimit(resource.RLIMIT_DATA, (size, hard))
