"""The diagnosis of a run as a small plot, a table and two sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rnnclf.console.screen import screen
from rnnclf.console.tables import PlainTable
from rnnclf.workflows.diagnosis import Diagnosis, first_to_last, place_in_words, worst_of

WIDTH, LABEL, HEIGHT = 80, 8, 7
EIGHTHS = " ▁▂▃▄▅▆▇█"
LEAST_DECADES = 3  # with fewer, the noise of a healthy network would look like large differences
MOST_DECADES = 12  # smaller gradients do not affect learning


def show_diagnosis(diagnosis: Diagnosis) -> None:
    console = screen()
    width = min(WIDTH, console.width)
    console.print(_picture(diagnosis, width), width=width)


def _picture(diagnosis: Diagnosis, width: int) -> RenderableType:
    gradients = diagnosis.gradients()
    worst = worst_of(gradients)
    where = f" in {place_in_words(worst, gradients)}" if len(gradients) > 1 else ""
    title = Text(f"gradient by time step{where}, epoch {diagnosis.epoch}", style="bold")
    plot = Text("\n".join(plot_lines(gradients[worst], width)))
    return Group("", title, plot, _table(diagnosis), Text(" ".join(diagnosis.words)))


def plot_lines(values: list[float], width: int) -> Iterator[str]:
    """A bar chart on a logarithmic scale with two axes. Values that are 0 or not finite are left empty."""
    columns = _columns([math.log10(v) if 0 < v < math.inf else None for v in values], width - LABEL - 2)
    heights = [column for column in columns if column is not None]
    top = math.ceil(max(heights, default=0.0))
    lowest = math.floor(min(heights, default=0.0))
    bottom = max(min(lowest, top - LEAST_DECADES), top - MOST_DECADES)
    for row in reversed(range(HEIGHT)):
        label = f"1e{top:+d}" if row == HEIGHT - 1 else f"1e{bottom:+d}" if row == 0 else ""
        cells = (_cell(column, row, bottom, top) for column in columns)
        yield f"{label:>{LABEL}} │{''.join(cells)}".rstrip()
    steps = f"{len(values)}"
    yield f"{'step':>{LABEL}}  1{steps:>{len(columns) - 1}}" if len(values) > 1 else f"{'step':>{LABEL}}  1"


def _cell(column: float | None, row: int, bottom: int, top: int) -> str:
    if column is None:
        return EIGHTHS[0]
    eighths = 8 * HEIGHT * (column - bottom) / (top - bottom) - 8 * row
    return EIGHTHS[max(int(row == 0), min(8, round(eighths)))]  # the smallest value is shown as a thin line


def _columns(heights: list[float | None], width: int) -> list[float | None]:
    """Fits the heights to `width` columns: averages neighbours if there are more, repeats them if there are
    fewer."""
    steps = len(heights)
    if steps <= width:
        return [height for height in heights for _ in range(min(4, width // steps))]
    cuts = [column * steps // width for column in range(width + 1)]
    return [_mean(heights[first:last]) for first, last in pairwise(cuts)]


def _mean(heights: list[float | None]) -> float | None:
    there = [height for height in heights if height is not None]
    return sum(there) / len(there) if there else None


def _table(diagnosis: Diagnosis) -> Table:
    """A row for each direction of each layer; — for quantities that its cell does not have."""
    gradients = diagnosis.gradients()
    table = PlainTable()
    table.add_column("")
    table.add_column("first / last", justify="right")
    table.add_column("spectral radius")
    table.add_column("saturated")
    for place, gradient in gradients.items():
        radius = (f"{part} {value:.2f}" for part, value in diagnosis.of(place, "radius").items())
        flat = (f"{part} {100 * value:.1f} %" for part, value in diagnosis.of(place, "saturation").items())
        table.add_row(
            place_in_words(place, gradients),
            f"{first_to_last(gradient):.2g}",
            " ".join(radius) or "—",
            ", ".join(flat) or "—",
        )
    return table
