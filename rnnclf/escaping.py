"""Names of unknown origin in output: nothing in them acts as a command to a terminal, a log or a spreadsheet.

Classes, columns and files may be named anything: their names are kept as they are in checkpoints, and made
harmless where people read them.
"""

import json
import logging
import math
import re
from typing import Any

# What a terminal would interpret or cannot show: control characters, changes of the writing direction, lone
# surrogates.
_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def harmless(text: str) -> str:
    """The text with � in place of everything but line breaks that a terminal would interpret."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """The text made harmless, with a space in place of each line break, so that it cannot fake a line."""
    return harmless(_LINE_BREAKS.sub(" ", text))


def json_text(value: Any, ascii_only: bool = False) -> str:
    """Indented JSON without NaN and infinity, which JSON does not have: they become null.

    What a terminal would interpret is escaped, which does not change the value.
    """
    text = json.dumps(_finite(value), indent=2, ensure_ascii=ascii_only, allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spreadsheet_cell(value: Any) -> Any:
    """A value of a CSV table. Text that a spreadsheet would run as a formula gets an apostrophe in front;
    numbers, such as the class -1, stay as they are."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return (
        f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) and not _NUMBER.fullmatch(text) else text
    )


class LogFormatter(logging.Formatter):
    """One line per record; the lines of a traceback are indented, so that no text in it looks like a
    record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"  {one_line(line)}" for line in super().formatException(ei).split("\n"))
