"""What torch costs a process at its beginning and at its end, beside the work.

It makes several hundred thousand objects, and its libraries have much to take down.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_exit_code: int | None = None


@contextmanager
def gc_disabled() -> Iterator[None]:
    """Within it Python searches for no cycles of objects that nobody needs: where a command starts, all that
    it makes is there to stay, and would be looked at again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def import_torch() -> None:
    """Imports torch without such searches, and leaves its objects out of those that follow.

    Only the first time: what is left out is never freed, and by then that might be a model.
    """
    if "torch" not in sys.modules:
        with gc_disabled():
            import torch  # noqa: F401

            gc.freeze()


def end_with(code: int) -> None:
    """Has this process, which is about to end, do so at once where torch was imported: after its threads and
    all that was registered with atexit, without taking down what goes with the process anyhow. That takes
    half a second, and more memory than anything before it (docs/decisions/0005-memory.md)."""
    global _exit_code
    _exit_code = code


def _last() -> None:
    gc.freeze()  # else Python searches all objects several times before it ends
    if _exit_code is None or "torch" not in sys.modules:
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # Python itself says so, and ends with a code of its own
        return
    os._exit(_exit_code)


# First registered is called last. The processes of a launcher import this file, too.
atexit.register(_last)
