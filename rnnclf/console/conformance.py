"""The verdicts of `rnnclf test-cell`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.text import Text

from rnnclf.conformance.verdict import Verdict
from rnnclf.console.screen import screen
from rnnclf.console.tables import PlainTable

MARKS = {"kept": ("✓", "green"), "broken": ("✗", "bold red"), "not tested": ("–", "dim")}


@contextmanager
def claims_display() -> Iterator[Callable[[str], None]]:
    """Shows the claim that is being tested on a terminal; elsewhere nothing."""
    console = screen()
    if not console.is_terminal:
        yield lambda claim: None
        return
    with console.status("") as status:
        yield lambda claim: status.update(Text(claim, style="dim"))


def show_verdicts(name: str, verdicts: list[Verdict]) -> None:
    console = screen()
    table = PlainTable(show_header=False)
    table.add_column(width=1)
    table.add_column()
    for verdict in verdicts:
        mark, style = MARKS[verdict.outcome]
        line = Text(verdict.claim, style="" if verdict.outcome != "not tested" else "dim")
        if verdict.reason:
            line.append(f"\n{verdict.outcome}: {verdict.reason}", style=style)
        table.add_row(Text(mark, style=style), line)
    console.print(table)
    broken = sum(verdict.outcome == "broken" for verdict in verdicts)
    kept = sum(verdict.outcome == "kept" for verdict in verdicts)
    if broken:
        console.print(Text(f"{name} breaks {broken} of {kept + broken} claims.", style="bold red"))
    else:
        console.print(Text(f"{name} keeps all {kept} claims.", style="bold green"))
