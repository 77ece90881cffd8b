"""Ctrl-C and SIGTERM: a command ends by them at once; training puts them off, saves, and ends then."""

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
    """A batch system's kill unwinds like Ctrl-C: status.json says "interrupted"."""
    if threading.current_thread() is not threading.main_thread():
        yield  # whoever called us there handles signals
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def asked_to_end(error: BaseException | None) -> KeyboardInterrupt | SystemExit | None:
    """The Ctrl-C or SIGTERM behind an error. In the middle of machine code, Numba's say, it arrives as the
    cause of a SystemError, which looks like a bug."""
    while isinstance(error, SystemError):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, KeyboardInterrupt | SystemExit) else None


@dataclass
class DeferredSignals:
    """The signal that waits for training to come to a place where it can be saved; None: there is none."""

    signal: int | None = None

    def _receive(self, number: int, frame: Any) -> None:
        if self.signal is not None:  # asked for a second time: at once
            self._end(number)
        self.signal = number

    def end(self) -> NoReturn:
        """Ends as the signal would have done when it came."""
        assert self.signal is not None
        self._end(self.signal)

    @staticmethod
    def _end(number: int) -> NoReturn:
        if number == signal.SIGTERM:
            _exit()
        raise KeyboardInterrupt


@contextmanager
def defer_signals() -> Iterator[DeferredSignals]:
    """Within it the first Ctrl-C or SIGTERM is only noted, the second acts at once.

    Signals that somebody else handles or ignores (nohup, a launcher, a notebook) are left alone, and so are
    all of them in a thread that is not the main one, where Python allows no handlers.
    """
    waiting = DeferredSignals()
    handled = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: (_exit, signal.SIG_DFL)}
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number, ours in handled.items():
            present = signal.getsignal(number)
            if present in (ours if isinstance(ours, tuple) else (ours,)):
                before[number] = signal.signal(number, waiting._receive)
    try:
        yield waiting
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if waiting.signal is not None:  # it came when nobody looked any more
        waiting.end()
