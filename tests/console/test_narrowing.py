"""Live displays in a window that is made narrower."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.live import Live
from rich.text import Text

from rnnclf.console.narrowing import redrawn_when_narrowed

ERASED_ABOVE = "\x1b[2K\x1b[1A"


@pytest.mark.parametrize(("width", "wrapped"), [(80, 0), (73, 0), (72, 1), (37, 1), (36, 2), (20, 3)])
def test_all_lines_into_which_the_terminal_wraps_a_bar_are_erased(width, wrapped):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, height=40)
    live = Live(Text("=" * 73, no_wrap=True), console=console, auto_refresh=False, transient=True)
    with live, redrawn_when_narrowed(live):
        live.refresh()
        console.width = width
        for expected in (wrapped, 0):  # once; it then fits
            file.truncate(file.seek(0))
            console.print("a line")
            assert file.getvalue().startswith(ERASED_ABOVE * expected + "\r\x1b[2K")
