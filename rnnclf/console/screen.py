"""Output to the terminal, and the format of numbers.

Text for people goes to stdout. With --json, stdout holds JSON for a program, and text for people goes to
stderr. Errors always go to stderr.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from rnnclf.files import write_atomically

PICTURE_WIDTH = 100  # columns of saved tables, as text and as SVG

FILE_WIDTH = 120  # columns assumed for pipes and files, which have no width

LONGEST_ERROR = 2000  # characters; an untrusted file may contain a name of a megabyte

# What a terminal would interpret or cannot show: control characters, changes of the writing direction, lone
# surrogates. Names of classes, files and channels may contain them.
_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_to_stderr = False


def harmless(text: str) -> str:
    """The text with � in place of everything that a terminal would interpret."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


class SafeConsole(Console):
    """Rich's console for text of unknown origin: nothing in it acts as markup or as a terminal command."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else harmless(text), style, control)


def use_stderr(yes: bool) -> None:
    """Sends text for people to stderr, as needed for --json."""
    global _to_stderr
    _to_stderr = yes


def screen() -> Console:
    """The console for text for people. Created for each use, so that it follows a replaced sys.stdout."""
    console = SafeConsole(stderr=_to_stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    return console


def print_plain(line: str) -> None:
    """Prints one line without wrapping it."""
    print(harmless(line), file=sys.stderr if _to_stderr else sys.stdout, flush=True)


def print_note(text: str) -> None:
    """Prints a remark on stderr, apart from the results."""
    SafeConsole(stderr=True).print(Text(text, style="yellow"), soft_wrap=True)


def print_error(text: str) -> None:
    if len(text) > LONGEST_ERROR:
        text = f"{text[: LONGEST_ERROR // 2]} … {text[-LONGEST_ERROR // 2 :]}"
    line = Text("error: ", style="bold red").append(text, style="not bold default")
    SafeConsole(stderr=True).print(line, soft_wrap=True)


def print_json(value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


class _ScreenHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = Text(
            record.getMessage().strip(),
            style="dim" if record.levelno < logging.WARNING else "yellow",
        )
        console = screen() if record.levelno < logging.WARNING else SafeConsole(stderr=True)
        console.print(text, soft_wrap=True)


def log_handler() -> logging.Handler:
    """A handler for logging configurations that prints records as plain lines, dimmed below warnings."""
    return _ScreenHandler()


def save_picture(table: RenderableType, path: Path, title: str) -> None:
    """Writes `table` as text to path.txt and as an image to path.svg."""
    for suffix in (".txt", ".svg"):
        console = SafeConsole(record=True, width=PICTURE_WIDTH, file=io.StringIO())
        console.print(table)
        text = console.export_text() if suffix == ".txt" else _self_contained(console.export_svg(title=title))
        write_atomically(path.with_suffix(suffix), text.encode())


def _self_contained(svg: str) -> str:
    """Removes the font that Rich's SVGs load from the network; viewers then use a font of their own."""
    return re.sub(r"@font-face\s*{[^}]*}\s*", "", svg)


def interval(bounds: tuple[float, float] | list[float]) -> str:
    return f"{100 * bounds[0]:.2f} – {100 * bounds[1]:.2f}"


def seconds_in_words(seconds: float) -> str:
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def short(path: Path) -> str:
    """A path as typed in a shell: quoted, and relative if it is below the current folder."""
    path = path.absolute()
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
