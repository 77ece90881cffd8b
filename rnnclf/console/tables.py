"""The tables of all commands: what does not fit is wrapped, never cut."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

LEAST = 8  # columns that a wrapped column needs beside those that are kept on one line


class PlainTable(Table):
    """A table with a line below its header.

    Words that are too long for their column go on in the next line. Columns with `no_wrap` stay on one line
    if the terminal leaves them enough room, and are wrapped like the others if it does not.
    """

    def __init__(self, *titles: str, **options: Any) -> None:
        super().__init__(*titles, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, **options)

    def add_column(self, *content: Any, **options: Any) -> None:
        super().add_column(*content, **{"overflow": "fold", **options})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = sum(_width(column, console, options) + 3 for column in self.columns) - 1  # with the spaces
        if needed > options.max_width:
            for column in self.columns:
                column.no_wrap = False
        return super().__rich_console__(console, options)


def facts_grid() -> Table:
    """Two columns without lines: names, and what is said of them."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    return grid


def _width(column: Column, console: Console, options: ConsoleOptions) -> int:
    if not column.no_wrap:
        return LEAST
    wide = options.update(max_width=10_000)
    parts = [column.header, *column.cells, column.footer]
    return max(Measurement.get(console, wide, part).maximum for part in parts)
