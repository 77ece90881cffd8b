"""Live displays in a window that is made narrower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import ConsoleRenderable, RenderHook
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType


@contextmanager
def redrawn_when_narrowed(live: Live) -> Iterator[None]:
    """Erases all of a running live display when the window gets narrower.

    The terminal then wraps the lines of the display, but rich erases as many lines as it has written. In a
    terminal that cuts lines instead, as many lines above are lost.
    """
    live.console.push_render_hook(_Wrapped(live))
    try:
        yield
    finally:
        live.console.pop_render_hook()


class _Wrapped(RenderHook):
    def __init__(self, live: Live) -> None:
        self.live = live
        self.lengths: list[int] = []  # columns of the lines that were written last

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        console = self.live.console
        more = sum(max(length - 1, 0) // console.width for length in self.lengths)
        lines = console.render_lines(self.live.get_renderable(), pad=False)
        self.lengths = [sum(segment.cell_length for segment in line) for line in lines]
        up = (ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)
        return [Control(*up * more), *renderables] if more else renderables
