"""Runs work in a forked process, so that a crash there does not affect this process."""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rnnclf.errors import JobFailed, RnnclfError
from rnnclf.system.signals import ask_to_end, ended_by, exit_on_signals, leave_to_launcher

Work = Callable[[], float | None]

SAVING = 60.0
"""Seconds that a child has to save after it was asked to end. One that hangs, as on a file system that has
gone away, would hold its parent for ever."""


class ChildDied(Exception):  # noqa: N818 - reads better than ChildDiedError
    """The child exited without reporting a result; the message says how it ended."""

    def __init__(self, reason: str, exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


_parents_ends: set[Connection] = set()
"""The ends of pipes whose closing tells the children of this process to end."""


@atexit.register  # before multiprocessing waits for them
def _ask_all_to_end() -> None:
    """For children that nobody waits for yet: a signal may end this process while it starts one."""
    for end in _parents_ends:
        end.close()


class Child:
    """Work that runs in a forked process.

    A fork starts at once, with everything already imported. If this process is stopped or dies, the child
    saves its state and exits. If the child crashes, faulthandler writes the traceback to `log`.
    """

    def __init__(self, work: Work, log: Path) -> None:
        """Starts the process. Raises ChildDied if that is not possible."""
        fork = multiprocessing.get_context("fork")
        self.answers, send_end = fork.Pipe(duplex=False)
        read_end, self._alive = fork.Pipe(duplex=False)
        _parents_ends.add(self._alive)
        self.process = fork.Process(target=_child, args=(work, log, send_end, read_end))
        try:
            with warnings.catch_warnings():  # Python 3.12 warns about threads; these are NumPy's, and idle
                warnings.simplefilter("ignore", DeprecationWarning)
                self.process.start()
        except OSError as error:
            for end in (self.answers, send_end, read_end):
                end.close()
            self.ask_to_end()
            raise ChildDied(f"its process could not be started: {error.strerror}") from error
        send_end.close()
        read_end.close()

    def answer(self) -> float | None:
        """Waits for the end of the work, and returns or raises what it does, or raises ChildDied. If this
        process is asked to end, so is the child, and this waits for it; if the child had to be killed, the
        ChildDied is the cause of what this raises."""
        try:
            return _answer(self.process, self.answers)
        except (KeyboardInterrupt, SystemExit) as end:
            self.ask_to_end()
            try:
                self.wait()
            except ChildDied as death:
                raise end from death
            raise
        finally:
            self.ask_to_end()

    def ask_to_end(self) -> None:
        """Makes the child save its state and exit within SAVING seconds, if it has not ended yet."""
        self._deadline = time.monotonic() + SAVING
        _parents_ends.discard(self._alive)
        self._alive.close()

    def wait(self) -> None:
        """Waits until the process has ended that was asked to; a second interrupt terminates it. Raises
        ChildDied if it did not end in time, and was killed."""
        while self.process.is_alive():
            try:
                self.process.join(max(self._deadline - time.monotonic(), 0))
                if self.process.is_alive():
                    self.process.kill()
                    self.process.join()
                    raise ChildDied(f"its process did not save within {SAVING:g} s and was killed")
            except (KeyboardInterrupt, SystemExit):
                self.process.terminate()


def in_subprocess(work: Work, log: Path) -> float | None:
    """Runs `work` in a forked process, and returns or raises what it does. Raises ChildDied.

    If forking is not safe, `work` runs in this process.
    """
    return Child(work, log).answer() if can_fork() else work()


def ended(children: Iterable[Child], seconds: float | None = None) -> list[Child]:
    """Waits until one of the children has ended, for at most `seconds`, and returns those that have."""
    by_pipe: dict[Any, Child] = {child.answers: child for child in children}
    return [by_pipe[pipe] for pipe in wait(list(by_pipe), seconds)]


def can_fork() -> bool:
    """Whether forking is safe: on Linux, unless stdout is redirected inside Python (a notebook, a test). In
    that case torch may have started threads already, and they do not survive a fork."""
    try:
        return sys.platform == "linux" and sys.stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False


def _child(work: Work, log: Path, answers: Connection, parent_alive: Connection) -> None:
    for end in _parents_ends:  # only the parent may hold them, so that they close when it dies
        end.close()
    _parents_ends.clear()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent, which then stops us
    leave_to_launcher()
    with open(log, "a") as crashes, exit_on_signals():
        faulthandler.enable(crashes)
        try:
            _watch_parent(parent_alive)
            answer: tuple[bool, float | Exception | None] = True, work()
        except (RnnclfError, JobFailed) as error:
            answer = False, error
        answers.send(answer)
        faulthandler.disable()


def _watch_parent(parent_alive: Connection) -> None:
    try:
        threading.Thread(target=_stop_with_parent, args=(parent_alive,), daemon=True).start()
    except RuntimeError as error:
        raise JobFailed("its process could not start a thread: the limit of processes is reached") from error


def _stop_with_parent(parent_alive: Connection) -> None:
    try:
        parent_alive.recv_bytes()
    except (EOFError, OSError):
        ask_to_end()


def _answer(process: BaseProcess, answers: Connection) -> float | None:
    try:
        fine, answer = answers.recv()
    except EOFError:
        process.join()
        raise ChildDied(exit_reason(process.exitcode), process.exitcode) from None
    process.join()
    if not fine:
        raise answer
    return answer  # type: ignore[no-any-return]


def exit_reason(exit_code: int | None) -> str:
    if name := ended_by(exit_code):
        return f"its process was stopped by {name}"
    if exit_code is None or exit_code >= 0:
        return f"its process exited with code {exit_code} without reporting a result"
    if -exit_code == signal.SIGKILL:
        return "its process was killed (SIGKILL), perhaps because memory ran out"
    known = {int(number): number.name for number in signal.Signals}
    return f"its process crashed ({known.get(-exit_code, f'signal {-exit_code}')})"
