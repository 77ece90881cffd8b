"""The table of `rnnclf bench`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from rnnclf.console.screen import screen
from rnnclf.workflows.bench import Bench, Benchmark, Measured

ROOMY = 100  # columns; narrower terminals get no columns of ratios to torch

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
    roomy = width >= ROOMY
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("cell", style="cyan", overflow="fold")
    table.add_column("engine", no_wrap=True)
    ratio = ["× torch"] if roomy else []
    rates = ["training\nseq/s", *ratio, "inference\nseq/s", *ratio]
    for name in (*rates, "memory\nMB", "training\nGFLOP/s", "of product\nrate"):
        table.add_column(name, justify="right", no_wrap=True)
    for _, group in groupby(result.rows, key=lambda row: row.cell):
        rows = list(group)
        table.add_section()
        for number, row in enumerate(rows):
            name = row.cell if number == 0 else ""
            table.add_row(name, row.engine + " *" * row.auto, *_figures(row, rows, roomy))
    return Group(table, *(Text(line, style="dim") for line in _captions(result)))


def _figures(row: Measured, rows: list[Measured], roomy: bool) -> list[Text]:
    """The numbers of a row; `rows` are all rows of its cell."""
    figures = []
    for what in ("training", "inference"):
        rates = {other.engine: getattr(other, what) for other in rows}
        rate = rates[row.engine]
        best = len(rows) > 1 and rate == max(rates.values())
        figures.append(Text(_thousands(rate), style=FASTEST if best else ""))
        if roomy:
            figures.append(Text(f"{rate / rates['torch']:.2f}" if "torch" in rates else "–"))
    figures.append(Text(f"{row.memory / 1e6:,.1f}"))
    figures.append(Text("–" if row.flops is None else _thousands(row.flops / 1e9)))
    figures.append(Text("–" if row.share is None else f"{100 * row.share:.0f} %"))
    return figures


def _thousands(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def _captions(result: Benchmark) -> list[str]:
    own = "; torch: torch's own layer" if any(row.engine == "torch" for row in result.rows) else ""
    machine = result.machine
    return [
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
