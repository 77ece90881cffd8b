"""A word at once, while libraries are imported. Imports only the standard library."""

from __future__ import annotations

import os
import sys

WORD = "starting …"

_shown = False


def show_starting() -> None:
    """Shows the word on a terminal. The cursor stays at its beginning: what comes next takes its place."""
    global _shown
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not in_notebook():
        _write(f"{WORD}\r")
        _shown = True


def clear_starting() -> None:
    """Erases the word, before something else is printed."""
    global _shown
    if _shown:
        _write("\x1b[2K")
        _shown = False


def in_notebook() -> bool:
    """Whether a notebook runs this command (`!rnnclf train`). It has a terminal, but one that cannot move the
    cursor up, and whose lines are kept: a live display would be there many times."""
    return "JPY_PARENT_PID" in os.environ


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # a closed terminal, or one that cannot show "…"
        return
