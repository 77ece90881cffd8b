"""Process start-up and exit with torch.

Importing torch makes several hundred thousand objects, and its libraries take long to shut down.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rnnclf.errors import OutputError

NARROWEST = 20  # columns of a terminal for which tables are laid out

_exit_code: int | None = None


@contextmanager
def gc_disabled() -> Iterator[None]:
    """Disables the cyclic garbage collector inside the block.

    Objects made during start-up stay alive, so scanning them again and again would be wasted time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def import_torch() -> None:
    """Imports torch with the garbage collector disabled, and excludes its objects from later collections.

    Only on the first import: excluded objects are never collected, and later ones could include a model.
    """
    if "torch" not in sys.modules:
        with gc_disabled():
            import torch  # noqa: F401

            gc.freeze()


def repair_environment() -> None:
    """Removes sizes of the terminal that are no sizes, such as COLUMNS=0: the tables would be empty."""
    for name, least in (("COLUMNS", NARROWEST), ("LINES", 1)):
        size = os.environ.get(name)
        if size is not None and not (size.isascii() and size.isdigit() and int(size) >= least):
            del os.environ[name]


def enter_folder() -> None:
    """Enters the folder in the variable RNNCLF_FOLDER: a worker of a cluster begins in another one, but the
    paths of its jobs are relative to the folder in which their sweep was started."""
    os.chdir(os.environ["RNNCLF_FOLDER"])


def refuse_deleted_folder() -> None:
    """Raises OutputError if the current folder was deleted: libraries would abort the process."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise OutputError("The current folder no longer exists: change to another one.") from None


def end_with(code: int) -> None:
    """Makes this process exit fast if torch was imported. Call it when the process is about to exit.

    Threads and atexit callbacks still finish, but the interpreter is not torn down: that takes half a second
    and more memory than anything before it (docs/decisions/0005-memory.md).
    """
    global _exit_code
    _exit_code = code


def _exit_now() -> None:
    gc.freeze()  # otherwise Python scans all objects several times at exit
    if _exit_code is None or "torch" not in sys.modules:
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # Python reports this itself and chooses the exit code
        return
    os._exit(_exit_code)


# The first callback registered runs last. The worker processes of a launcher import this file, too.
atexit.register(_exit_now)
