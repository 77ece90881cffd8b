"""The table of `rnnclf bench`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby

from rich.console import Group
from rich.text import Text

from rnnclf.console.screen import screen
from rnnclf.console.tables import PlainTable
from rnnclf.engine.choose import ENGINES
from rnnclf.workflows.bench import Bench, Benchmark, Measured

ROOMY = 100  # columns; narrower terminals get two tables instead of one

FASTEST = "bold green"


@contextmanager
def bench_display() -> Iterator[Callable[[str], None]]:
    """Shows the current measurement on a terminal; elsewhere nothing."""
    console = screen()
    if not console.is_terminal:
        yield lambda what: None
        return
    with console.status("") as status:
        yield lambda what: status.update(Text(what, style="dim"))


def show_benchmark(result: Benchmark) -> None:
    console = screen()
    console.print(benchmark_table(result, console.width))


def benchmark_table(result: Benchmark, width: int) -> Group:
    """A section for each cell, its fastest rates marked, and captions with settings and machine."""
    columns = list(COLUMNS)
    halves = [columns] if width >= ROOMY else [columns[:SPEEDS], columns[SPEEDS:]]
    tables = [_table(result, titles) for titles in halves]
    return Group(*tables, *(Text(line, style="dim") for line in _captions(result)))


def _table(result: Benchmark, titles: list[str]) -> PlainTable:
    table = PlainTable()
    table.add_column("cell", style="cyan")
    table.add_column("engine", no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for _, group in groupby(result.rows, key=lambda row: row.cell):
        rows = list(group)
        table.add_section()
        for number, row in enumerate(rows):
            name = row.cell if number == 0 else ""
            table.add_row(
                name, row.engine + " *" * row.auto, *(COLUMNS[title](row, rows) for title in titles)
            )
    return table


def _rate(what: str) -> Column:
    """Sequences per second; the highest of several engines stands out."""

    def of(row: Measured, rows: list[Measured]) -> Text:
        rate = getattr(row, what)
        best = len(rows) > 1 and rate == max(getattr(other, what) for other in rows)
        return Text(_thousands(rate), style=FASTEST if best else "")

    return of


def _ratio(what: str) -> Column:
    """The rate relative to that of torch's own layer."""

    def of(row: Measured, rows: list[Measured]) -> Text:
        torchs = [getattr(other, what) for other in rows if other.engine == "torch"]
        return Text(f"{getattr(row, what) / torchs[0]:.2f}" if torchs else "–")

    return of


Column = Callable[[Measured, list[Measured]], Text]
"""The figure of a row; the second argument are all rows of its cell."""

COLUMNS: dict[str, Column] = {
    "training\nseq/s": _rate("training"),
    "training\n× torch": _ratio("training"),
    "inference\nseq/s": _rate("inference"),
    "inference\n× torch": _ratio("inference"),
    "memory\nMB": lambda row, rows: Text(f"{row.memory / 1e6:,.1f}"),
    "training\nGFLOP/s": lambda row, rows: Text("–" if row.flops is None else _thousands(row.flops / 1e9)),
    "of product\nrate": lambda row, rows: Text("–" if row.share is None else f"{100 * row.share:.0f} %"),
}
SPEEDS = 4  # number of columns in the first of two tables


def _thousands(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def _captions(result: Benchmark) -> list[str]:
    own = "; torch: torch's own layer" if any(row.engine == "torch" for row in result.rows) else ""
    machine = result.machine
    missing = [(name, engine) for name, engine in ENGINES.items() if not engine.installed]
    return [
        *(f"engine={name} needs {engine.needs}: pip install {engine.needs}" for name, engine in missing),
        f"*: chosen by engine=auto{own}",
        "memory: peak of a training step, without weights and optimizer state",
        f"product rate: {_thousands(machine.product_rate / 1e9)} GFLOP/s, for large float32 products",
        _in_words(result.settings),
        f"{machine.hardware}; {machine.device}; torch {machine.torch}",
    ]


def _in_words(settings: Bench) -> str:
    return (
        f"{settings.batch:,} sequences per training step, {settings.inference_batch:,} in inference,"
        f" {_count(settings.length, 'step')} of {_count(settings.inputs, 'feature')};"
        f" {_count(settings.layers, 'layer')} of {_count(settings.hidden, 'unit')}"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"
