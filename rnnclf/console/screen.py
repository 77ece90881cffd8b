"""Where text goes, and how numbers look in it.

People read stdout. With --json a program reads it, and what is for people goes to stderr. Errors go
to stderr always.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from rnnclf.files import write_atomically

PICTURE_WIDTH = 100  # columns of saved tables, in text and as a picture

FILE_WIDTH = 120  # columns of a pipe or a file, which have no width of their own

_to_stderr = False


def use_stderr(yes: bool) -> None:
    """Sends what is for people to stderr, for --json."""
    global _to_stderr
    _to_stderr = yes


def screen() -> Console:
    """The console that people read. Made anew each time: it follows sys.stdout where tests replace it."""
    console = Console(stderr=_to_stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    return console


def print_plain(line: str) -> None:
    """One line, unbroken, however long."""
    print(line, file=sys.stderr if _to_stderr else sys.stdout, flush=True)


def print_note(text: str) -> None:
    """A remark beside the results, on stderr."""
    Console(stderr=True, highlight=False).print(Text(text, style="yellow"), soft_wrap=True)


def print_error(text: str) -> None:
    line = Text("error: ", style="bold red").append(text, style="not bold default")
    Console(stderr=True, highlight=False).print(line, soft_wrap=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


class _ScreenHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = Text(
            record.getMessage().strip(),
            style="dim" if record.levelno < logging.WARNING else "yellow",
        )
        console = screen() if record.levelno < logging.WARNING else Console(stderr=True)
        console.print(text, soft_wrap=True)


def log_handler() -> logging.Handler:
    """For logging configurations: records as plain lines, Hydra's own dimmed."""
    return _ScreenHandler()


def save_picture(table: RenderableType, path: Path, title: str) -> None:
    """Writes `table` as text to path.txt and as a picture to path.svg."""
    for suffix in (".txt", ".svg"):
        console = Console(record=True, width=PICTURE_WIDTH, file=io.StringIO(), highlight=False)
        console.print(table)
        text = console.export_text() if suffix == ".txt" else _self_contained(console.export_svg(title=title))
        write_atomically(path.with_suffix(suffix), text.encode())


def _self_contained(svg: str) -> str:
    """Rich's pictures ask the network for a font; without it they are drawn in the reader's own."""
    return re.sub(r"@font-face\s*{[^}]*}\s*", "", svg)


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def interval(bounds: tuple[float, float] | list[float]) -> str:
    return f"{100 * bounds[0]:.2f} – {100 * bounds[1]:.2f}"


def seconds_in_words(seconds: float) -> str:
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def short(path: Path) -> str:
    """A path as one would type it here: relative where it lies below the current folder, quoted."""
    path = path.absolute()
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
