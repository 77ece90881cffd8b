"""Output to the terminal, and the format of numbers.

Text for people goes to stdout. With --json, stdout holds JSON for a program, and text for people goes to
stderr. Errors always go to stderr.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from rnnclf.console.starting import clear_starting, in_notebook
from rnnclf.durations import seconds_in_words as seconds_in_words
from rnnclf.escaping import harmless, json_text, one_line
from rnnclf.files import write_atomically
from rnnclf.metrics import interval as interval
from rnnclf.statistics import mean_and_sd as mean_and_sd
from rnnclf.system.startup import NARROWEST

PICTURE_WIDTH = 100  # columns of saved tables, as text and as SVG

USUAL_WIDTH = 80  # columns assumed for terminals without a sensible width

FILE_WIDTH = 120  # columns assumed for pipes and files, which have no width

LONGEST_ERROR = 2000  # characters; an untrusted file may contain a name of a megabyte

_to_stderr = False

_above: Console | None = None  # the console of a live display, above which everything else is printed


class SafeConsole(Console):
    """Rich's console for text of unknown origin: nothing in it acts as markup or as a terminal command."""

    def __init__(self, **options: Any) -> None:
        if in_notebook():
            options.setdefault("force_terminal", False)
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        if self.width < NARROWEST:  # a terminal that does not know its size, or a tiny one, which then wraps
            self.width = USUAL_WIDTH

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else harmless(text), style, control)


def use_stderr(yes: bool) -> None:
    """Sends text for people to stderr, as needed for --json."""
    global _to_stderr
    _to_stderr = yes


@contextmanager
def printed_above(live: Console) -> Iterator[None]:
    """Prints everything above the live display of this console; on stderr only what does not go to the same
    terminal."""
    global _above
    _above = live
    try:
        yield
    finally:
        _above = None


def _stderr() -> Console:
    clear_starting()
    return _above if _above is not None and sys.stderr.isatty() else SafeConsole(stderr=True)


def screen() -> Console:
    """The console for text for people. Created for each use, so that it follows a replaced sys.stdout."""
    clear_starting()
    if _above is not None:
        return _above
    console = SafeConsole(stderr=_to_stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    return console


def print_plain(line: str) -> None:
    """Prints one line without wrapping it."""
    clear_starting()
    if _above is not None:
        _above.print(Text(one_line(line)), soft_wrap=True)
        return
    print(one_line(line), file=sys.stderr if _to_stderr else sys.stdout, flush=True)


def print_note(text: str) -> None:
    """Prints a remark on stderr, apart from the results."""
    _stderr().print(Text(one_line(text), style="yellow"), soft_wrap=True)


def print_error(text: str) -> None:
    if len(text) > LONGEST_ERROR:
        text = f"{text[: LONGEST_ERROR // 2]} … {text[-LONGEST_ERROR // 2 :]}"
    line = Text("error: ", style="bold red").append(one_line(text), style="not bold default")
    _stderr().print(line, soft_wrap=True)


def print_json(value: Any) -> None:
    """Prints JSON on stdout: in ASCII, unless the stream can hold any text."""
    clear_starting()
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    print(json_text(value, ascii_only=not encoding.startswith("utf")))


def _plainly(message: str) -> str:
    """A launcher's message as one would say it: without its settings, and with one job in the singular."""
    if found := re.search(r"launching (\d+) jobs\b", message, re.IGNORECASE):
        jobs = "1 job" if found[1] == "1" else f"{found[1]} jobs"
        return f"{jobs}, in parallel" if message.startswith("Joblib") and found[1] != "1" else jobs
    return message


class _ScreenHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if _above is not None and record.levelno < logging.WARNING:  # which job starts: the display shows it
            return
        text = Text(
            _plainly(one_line(record.getMessage().strip())),
            style="dim" if record.levelno < logging.WARNING else "yellow",
        )
        console = screen() if record.levelno < logging.WARNING else _stderr()
        console.print(text, soft_wrap=True)


def log_handler() -> logging.Handler:
    """A handler for logging configurations that prints records as plain lines, dimmed below warnings."""
    return _ScreenHandler()


def save_picture(table: RenderableType, path: Path, title: str) -> None:
    """Writes `table` as text to path.txt and as an image to path.svg."""
    for suffix in (".txt", ".svg"):
        console = SafeConsole(record=True, width=PICTURE_WIDTH, file=io.StringIO())
        console.print(table)
        text = console.export_text() if suffix == ".txt" else self_contained(console.export_svg(title=title))
        write_atomically(path.with_suffix(suffix), text.encode())


def self_contained(svg: str) -> str:
    """Removes the font that Rich's SVGs load from the network; viewers then use a font of their own."""
    return re.sub(r"@font-face\s*{[^}]*}\s*", "", svg)


def short(path: Path) -> str:
    """A path as typed in a shell: quoted, and relative if it is below the current folder."""
    path = path.absolute()
    here = Path.cwd()
    typed = str(path.relative_to(here) if path.is_relative_to(here) else path)
    if one_line(typed) == typed:
        return shlex.quote(typed)
    escaped = "".join(char if char.isprintable() and char not in "\\'" else _octal(char) for char in typed)
    return f"$'{escaped}'"


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
