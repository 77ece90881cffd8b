"""Runs work in a forked process, so that a crash there does not affect this process."""

from __future__ import annotations

import faulthandler
import multiprocessing
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from rnnclf.errors import JobFailed, RnnclfError
from rnnclf.system.signals import ask_to_end, ended_by, exit_on_signals, leave_to_launcher

Work = Callable[[], float | None]


class ChildDied(Exception):  # noqa: N818 - reads better than ChildDiedError
    """The child exited without reporting a result; the message says how it ended."""

    def __init__(self, reason: str, exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


def in_subprocess(work: Work, log: Path) -> float | None:
    """Runs `work` in a forked process, and returns or raises what it does.

    A fork starts at once, with everything already imported. If this process is stopped or dies, the child
    saves its state and exits. If the child crashes, faulthandler writes the traceback to `log`, and ChildDied
    is raised.

    If forking is not safe, `work` runs in this process: outside Linux, and if stdout is redirected inside
    Python (a notebook, a test). In that case torch may have started threads already, and they do not survive
    a fork.
    """
    if not _can_fork():
        return work()
    fork = multiprocessing.get_context("fork")
    answers, send_end = fork.Pipe(duplex=False)
    read_end, write_end = fork.Pipe(duplex=False)
    process = fork.Process(target=_child, args=(work, log, send_end, read_end, write_end))
    try:
        with warnings.catch_warnings():  # Python 3.12 warns about threads; these are NumPy's, and idle
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    except OSError as error:
        for end in (answers, send_end, read_end, write_end):
            end.close()
        raise ChildDied(f"its process could not be started: {error.strerror}") from error
    send_end.close()
    read_end.close()
    try:
        return _answer(process, answers)
    except (KeyboardInterrupt, SystemExit):
        write_end.close()
        _wait_for_exit(process)
        raise


def _can_fork() -> bool:
    try:
        return sys.platform == "linux" and sys.stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False


def _child(
    work: Work, log: Path, answers: Connection, parent_alive: Connection, write_end: Connection
) -> None:
    write_end.close()  # only the parent may hold this end, so that it closes when the parent dies
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


def _wait_for_exit(process: BaseProcess) -> None:
    """Waits for the process to save and exit; a second interrupt terminates it."""
    while process.is_alive():
        try:
            process.join()
        except (KeyboardInterrupt, SystemExit):
            process.terminate()


def exit_reason(exit_code: int | None) -> str:
    if name := ended_by(exit_code):
        return f"its process was stopped by {name}"
    if exit_code is None or exit_code >= 0:
        return f"its process exited with code {exit_code} without reporting a result"
    if -exit_code == signal.SIGKILL:
        return "its process was killed (SIGKILL), perhaps because memory ran out"
    known = {int(number): number.name for number in signal.Signals}
    return f"its process crashed ({known.get(-exit_code, f'signal {-exit_code}')})"
