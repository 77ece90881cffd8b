"""Ctrl-C and SIGTERM: commands exit at once; training defers them, saves its state, then exits."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

INTERRUPTED, TERMINATED = 130, 143  # exit codes


def _exit(*_: Any) -> NoReturn:
    sys.exit(TERMINATED)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM, such as a batch system's kill, unwind like Ctrl-C: status.json says "interrupted"."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def asked_to_end(error: BaseException | None) -> KeyboardInterrupt | SystemExit | None:
    """The Ctrl-C or SIGTERM behind an error, None if there is none.

    If a signal arrives during machine code, such as Numba's, it becomes the cause of a SystemError.
    """
    while isinstance(error, SystemError):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, KeyboardInterrupt | SystemExit) else None


@dataclass
class DeferredSignals:
    """The signal received while signals were deferred; None if there was none."""

    signal: int | None = None

    def _receive(self, number: int, frame: Any) -> None:
        if self.signal is not None:  # the second signal acts at once
            self._end(number)
        self.signal = number

    def end(self) -> NoReturn:
        """Ends the process as the deferred signal would have."""
        assert self.signal is not None
        self._end(self.signal)

    @staticmethod
    def _end(number: int) -> NoReturn:
        if number == signal.SIGTERM:
            _exit()
        raise KeyboardInterrupt


@contextmanager
def defer_signals() -> Iterator[DeferredSignals]:
    """Defers the first Ctrl-C or SIGTERM to the end of the block; a second one acts at once.

    Signals with another handler or that are ignored (nohup, a launcher, a notebook) are left alone. So are
    all signals in other threads than the main one, where Python allows no handlers.
    """
    deferred = DeferredSignals()
    default_handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: (_exit, signal.SIG_DFL)}
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number, default in default_handlers.items():
            current = signal.getsignal(number)
            if current in (default if isinstance(default, tuple) else (default,)):
                before[number] = signal.signal(number, deferred._receive)
    try:
        yield deferred
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if deferred.signal is not None:  # it arrived after the last check
        deferred.end()
