"""Signals that ask a process to end: commands exit at once; training first saves its state.

They are Ctrl-C; SIGTERM, which `kill`, `timeout` and batch systems send; SIGHUP, sent when a terminal or an
ssh connection is closed; SIGUSR1 and SIGUSR2, by which batch systems announce that the time is nearly up.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

INTERRUPTED = 130  # the exit code after Ctrl-C
_NAMES = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
ENDING = {int(getattr(signal, name)): name for name in _NAMES if hasattr(signal, name)}
"""The other signals, by number. The exit code is 128 + the number, as a shell would report it."""

BURST = 1.0
"""Seconds in which several signals count as one: `timeout` sends two, a closed terminal up to three."""

_asked: float | None = None
"""When a signal asked this process to end, in seconds of the monotonic clock; None if none did."""


def _ask() -> bool:
    """Notes that a signal has arrived. Returns whether it is the first, or not part of the first's burst."""
    global _asked
    now = time.monotonic()
    if _asked is not None and now - _asked < BURST:
        return False
    _asked = now
    return True


def _forget() -> None:
    global _asked
    _asked = None


def exit_code(number: int) -> int:
    return 128 + number


def ended_by(code: Any) -> str | None:
    """The name of the signal behind an exit code; None if there is none."""
    return ENDING.get(code - 128) if isinstance(code, int) else None


def _exit(number: int, *_: Any) -> None:
    if _ask():
        sys.exit(exit_code(number))


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Makes these signals unwind like Ctrl-C: status.json says "interrupted".

    A signal that the parent process has set to be ignored stays so: SIGHUP under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    _forget()
    before = {number: signal.getsignal(number) for number in ENDING}
    taken = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in taken:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def leave_to_launcher() -> None:
    """In a forked process, ignores SIGUSR1 and SIGUSR2 if a launcher handles them in the parent.

    A batch system sends them to all processes of a job. submitit's handler, which is inherited here, puts the
    job back into the queue and exits: once is enough. This process saves when its parent has ended.
    """
    for name in ("SIGUSR1", "SIGUSR2"):
        handler = signal.getsignal(getattr(signal, name))
        if callable(handler) and handler is not _exit:
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def ask_to_end() -> None:
    """Sends this process SIGTERM, unless it has been asked to end already: a second signal would act at once,
    and training would not save."""
    if _asked is None:
        os.kill(os.getpid(), signal.SIGTERM)


def asked_to_end(error: BaseException | None) -> KeyboardInterrupt | SystemExit | None:
    """The signal behind an error, None if there is none.

    If a signal arrives during machine code, it may become the cause of a SystemError.
    """
    while isinstance(error, SystemError):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, KeyboardInterrupt | SystemExit) else None


@dataclass
class DeferredSignals:
    """The signal received while signals were deferred; None if there was none."""

    signal: int | None = None

    def _receive(self, number: int, frame: Any) -> None:
        again = _ask()
        if self.signal is None:
            self.signal = number
        elif again or number == signal.SIGINT:  # a second request acts at once
            self._end(number)

    def end(self) -> NoReturn:
        """Ends the process as the deferred signal would have."""
        assert self.signal is not None
        self._end(self.signal)

    @staticmethod
    def _end(number: int) -> NoReturn:
        if number in ENDING:
            sys.exit(exit_code(number))
        raise KeyboardInterrupt


@contextmanager
def defer_signals() -> Iterator[DeferredSignals]:
    """Defers the first signal that asks to end to the end of the block; a second one acts at once.

    Signals with another handler or that are ignored (nohup, a launcher, a notebook) are left alone. So are
    all signals in other threads than the main one, where Python allows no handlers.
    """
    deferred = DeferredSignals()
    default_handlers: dict[int, tuple[Any, ...]] = {
        signal.SIGINT: (signal.default_int_handler,),
        **dict.fromkeys(ENDING, (_exit, signal.SIG_DFL)),
    }
    before = {}
    if threading.current_thread() is threading.main_thread():
        _forget()
        for number, defaults in default_handlers.items():
            if signal.getsignal(number) in defaults:
                before[number] = signal.signal(number, deferred._receive)
    try:
        yield deferred
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if deferred.signal is not None:  # it arrived after the last check
        deferred.end()
