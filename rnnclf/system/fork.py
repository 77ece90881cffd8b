"""Work in a process of its own, whose death costs nothing but that work."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from rnnclf.errors import JobFailed, RnnclfError
from rnnclf.system.signals import TERMINATED, exit_on_sigterm

Work = Callable[[], float | None]


class Died(Exception):  # noqa: N818 - it tells of a death, and is none itself
    """A process ended without saying what came of its work; the message says how."""


def in_subprocess(work: Work, log: Path) -> float | None:
    """Returns or raises what `work` does; raises Died where its process ends without a word.

    The process is a fork: it begins at once, with all that is imported here. It ends, after it has saved,
    when this process is stopped or dies, and where it crashes, `log` says in which line. Where forking is
    not safe, `work` is done in this process: on other systems than Linux, and where somebody else holds
    stdout (a notebook, a test), for then this process may have computed already, and torch's threads do
    not survive a fork.
    """
    if not _can_fork():
        return work()
    fork = multiprocessing.get_context("fork")
    answers, to_answer = fork.Pipe(duplex=False)
    held_by_us, held = fork.Pipe(duplex=False)
    process = fork.Process(target=_carry_out, args=(work, log, to_answer, held_by_us, held))
    with warnings.catch_warnings():  # Python 3.12 warns of threads: numpy's, which sleep
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    to_answer.close()
    held_by_us.close()
    try:
        return _answer(process, answers)
    except (KeyboardInterrupt, SystemExit):
        held.close()
        _see_it_end(process)
        raise


def _can_fork() -> bool:
    try:
        return sys.platform == "linux" and sys.stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False


def _carry_out(
    work: Work, log: Path, answers: Connection, held_by_parent: Connection, held: Connection
) -> None:
    held.close()  # the parent's alone, so that it is closed when the parent dies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which tells us
    with open(log, "a") as crashes, exit_on_sigterm():
        faulthandler.enable(crashes)
        threading.Thread(target=_stop_with_parent, args=(held_by_parent,), daemon=True).start()
        try:
            answer: tuple[bool, float | Exception | None] = True, work()
        except (RnnclfError, JobFailed) as error:
            answer = False, error
        answers.send(answer)
        faulthandler.disable()


def _stop_with_parent(held_by_parent: Connection) -> None:
    try:
        held_by_parent.recv_bytes()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)


def _answer(process: BaseProcess, answers: Connection) -> float | None:
    try:
        fine, answer = answers.recv()
    except EOFError:
        process.join()
        raise Died(_death(process.exitcode)) from None
    process.join()
    if not fine:
        raise answer
    return answer  # type: ignore[no-any-return]


def _see_it_end(process: BaseProcess) -> None:
    """Waits until the process has saved; who is interrupted once more waits no longer."""
    while process.is_alive():
        try:
            process.join()
        except (KeyboardInterrupt, SystemExit):
            process.terminate()


def _death(exit_code: int | None) -> str:
    if exit_code == TERMINATED:
        return "its process was stopped by SIGTERM"
    if exit_code is None or exit_code >= 0:
        return f"its process ended by itself with exit code {exit_code}"
    if -exit_code == signal.SIGKILL:
        return "its process was killed (SIGKILL), perhaps for want of memory"
    known = {int(number): number.name for number in signal.Signals}
    return f"its process crashed ({known.get(-exit_code, f'signal {-exit_code}')})"
