"""The ranked table of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rnnclf.console.screen import (
    PICTURE_WIDTH,
    interval,
    print_plain,
    save_picture,
    screen,
    seconds_in_words,
    short,
)
from rnnclf.console.tables import PlainTable
from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.workflows.runs import RunFolder, fits, picture
from rnnclf.workflows.sweep import SweepRow
from rnnclf.workflows.sweep_folder import jobs_of

ROOMY = 100  # columns; narrower terminals get two tables instead of one


def sweep_table(rows: list[SweepRow], width: int) -> Group:
    """The finished jobs by validation accuracy, then the failed ones with their reason and log."""
    done = [row for row in rows if row.done]
    lost = [row for row in rows if not row.done]
    common = _common_words(rows)

    def own(row: SweepRow) -> str:
        return one_line(" ".join(word for word in row.overrides if word not in common))

    parts: list[Table | Text] = [*_ranked(done, own, width)] if done else []
    for row in (row for row in lost if row.state != "waiting"):
        log = f" (log: {short(Path(row.log))})" if row.log else ""
        parts.append(Text(f"#{row.job} {own(row)}: {row.state}: {one_line(row.error)}{log}", style="red"))
    if waiting := " ".join(f"#{row.job}" for row in lost if row.state == "waiting"):
        parts.append(Text(f"not started: {waiting}", style="red"))
    caption = [f"{len(done)} of {len(rows)} jobs done, ranked by validation accuracy{_guessing(done)}"]
    caption += [f"all with {' '.join(common)}"] if common else []
    return Group(*parts, Text("; ".join(caption), style="dim"))


def _ranked(done: list[SweepRow], own: Callable[[SweepRow], str], width: int) -> Iterator[PlainTable]:
    """The finished jobs with all figures: one table, or in a narrow terminal two with half of them each."""
    names = list(FIGURES)
    for shown in [names] if width >= ROOMY else [names[:HALF], names[HALF:]]:
        table = PlainTable()
        table.add_column("", justify="right")
        table.add_column("job", justify="right")
        table.add_column("with")
        for name in shown:
            table.add_column(name, justify="right", no_wrap=True)
        for rank, row in enumerate(done, start=1):
            figures = (FIGURES[name](row.results) for name in shown)
            style = "bold green" if rank == 1 else ""
            table.add_row(str(rank), f"#{row.job}", own(row), *figures, style=style)
        yield table


def _guessing(done: list[SweepRow]) -> str:
    """The test accuracy of always predicting the most frequent class, over all datasets of the sweep."""
    found = [row.results["test"].get("commonest_rate") for row in done]
    rates = [rate for rate in found if fits(rate, float)]  # runs of older versions have none
    if not rates:
        return ""
    return f"; guessing on test: {' to '.join(percent(rate) for rate in sorted({min(rates), max(rates)}))}"


FIGURES: dict[str, Callable[[dict[str, Any]], str]] = {
    "validation": lambda r: percent(r["validation"]["accuracy"]),
    "test": lambda r: percent(r["test"]["accuracy"]),
    "95 % interval": lambda r: interval(r["test"]["interval95"]),
    "parameters": lambda r: f"{r['parameters']:,}",
    "time": lambda r: seconds_in_words(r["total_seconds"]),
}
HALF = 3  # figures in the first of two tables


def _common_words(rows: list[SweepRow]) -> list[str]:
    """The overrides that all jobs share."""
    first = rows[0].overrides if rows else []
    return [word for word in first if all(word in row.overrides for row in rows)] if len(rows) > 1 else []


def save_sweep(rows: list[SweepRow], folder: Path) -> None:
    """Writes accuracy.txt and accuracy.svg into the sweep's folder."""
    save_picture(sweep_table(rows, PICTURE_WIDTH), picture(folder), "rnnclf sweep")


def show_sweep(rows: list[SweepRow], folder: Path) -> None:
    console = screen()
    console.print(sweep_table(rows, console.width))
    console.print(f"sweep folder: {short(folder)}", soft_wrap=True, markup=False)
    if any(row.done for row in rows):
        console.print(f"evaluate it: rnnclf eval {short(folder)}", soft_wrap=True, markup=False)
    if not all(row.done for row in rows):
        console.print(f"resume it: rnnclf resume {short(folder)}", soft_wrap=True, markup=False)


def show_resumption(folder: Path, pending: list[RunFolder], added: list[RunFolder]) -> None:
    """Prints which jobs of a resumed sweep are about to run."""
    if added:
        print_plain(f"{len(added)} added: {_numbers(added)}")
    if pending:
        print_plain(f"resuming {len(pending)} of {len(jobs_of(folder))} jobs: {_numbers(pending)}")
    else:
        print_plain("nothing left to do")


def _numbers(runs: list[RunFolder]) -> str:
    return " ".join(f"#{run.number}" for run in runs)
