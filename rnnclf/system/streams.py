"""Standard streams that never end a run: any encoding, readers that go away, full disks, closed streams."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from typing import Any

ERRORS = "rnnclf"
"""The name of our error handler for encoding text."""

# What stands for a character that the encoding of a stream lacks; "?" for all others. Those of plots and
# progress bars keep their width.
LOOKALIKES = {
    **{"…": "...", "√": "sqrt", "±": "+-", "→": "->", "≥": ">=", "≤": "<="},
    **dict(zip("–—−×·✓✗‘’“”", "---x.+x''\"\"", strict=True)),
    **dict.fromkeys("─━╌┄╍═╸╺╴╶", "-"),
    **dict.fromkeys("│┃║▏▎▍▌", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰┏┓┗┛┡┩╇╈", "+"),
    **dict(zip("▁▂▃▄▅▆▇█▀", '__..::##"', strict=True)),
    **dict(zip("░▒▓", ".:*", strict=True)),
    **dict.fromkeys(map(chr, range(0x2800, 0x2900)), "*"),  # braille, which spinners are made of
}

_GONE = (errno.EPIPE, errno.ECONNRESET)
_NAMES = ("stdin", "stdout", "stderr")


class Descriptor(io.RawIOBase):
    """An open file descriptor whose writes never fail.

    Text that cannot be written is dropped. `error` is the reason, unless the reader went away: `head` wanted
    no more, or the terminal was closed.
    """

    def __init__(self, number: int, name: str) -> None:
        self.number, self.name = number, f"<{name}>"
        self.error: OSError | None = None
        self.reader_is_gone = False
        self._is_terminal = os.isatty(number)

    def fileno(self) -> int:
        return self.number

    def isatty(self) -> bool:
        return os.isatty(self.number)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
        except OSError as error:
            self.reader_is_gone |= error.errno in _GONE
            if error.errno not in _GONE and not self._is_terminal:
                self.error = error
        return size

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self.number, data)
        except BlockingIOError:  # another process made the pipe non-blocking
            select.select([], [self.number], [])
            return 0


def protect() -> None:
    """Makes stdout and stderr of this process safe to print to. Streams redirected inside Python are left
    alone, but for characters that their encoding lacks. Can be called again."""
    codecs.register_error(ERRORS, _lookalikes)
    _reopen_closed()
    for number, name in enumerate(_NAMES):
        stream = getattr(sys, name)
        if number == 0:
            continue
        if _raw(stream) is not None:
            stream.flush()
            setattr(sys, name, _safe(stream, number, name))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors != ERRORS:
            stream.reconfigure(errors=ERRORS)


def unwritten() -> str | None:
    """Why text for stdout or stderr could not be written, as a sentence; None if all was written, or its
    reader went away."""
    for stream in (sys.stdout, sys.stderr):
        raw = getattr(stream, "buffer", None)
        if isinstance(raw, Descriptor):
            stream.flush()
            if raw.error is not None:
                return f"Cannot write to {raw.name.strip('<>')}: {raw.error.strerror}."
    return None


def reader_is_gone() -> bool:
    """Whether nobody reads stdout any more, as `head` does when it has enough."""
    raw = getattr(sys.stdout, "buffer", None)
    return isinstance(raw, Descriptor) and raw.reader_is_gone


def _raw(stream: Any) -> io.FileIO | None:
    """The file below one of the streams that the process was started with; None for any other stream."""
    if stream is None or stream not in (sys.__stdout__, sys.__stderr__) or os.name == "nt":
        return None
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # python -u has no buffer
    return raw if isinstance(raw, io.FileIO) else None


def _safe(stream: Any, number: int, name: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        Descriptor(number, name),
        encoding=stream.encoding,
        errors=ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _reopen_closed() -> None:
    """Opens closed standard streams as the null device. Otherwise the next file that is opened would get
    their number, and what C libraries print would end up in a checkpoint."""
    for number, name in enumerate(_NAMES):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            null = open(descriptor, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, null)


def _lookalikes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(LOOKALIKES.get(character, "?") for character in text), error.end
