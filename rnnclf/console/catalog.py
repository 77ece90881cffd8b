"""What can be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from rnnclf.cells.base import FAMILIES
from rnnclf.console.screen import screen
from rnnclf.options import OptionFacts
from rnnclf.workflows.catalog import EXAMPLE_INPUTS, Choice

AT = f"at hidden=150 on {EXAMPLE_INPUTS} features"


def show_choices(choices: Sequence[Choice]) -> None:
    """A table a group; cells with their size, engine and source."""
    console = screen()
    for group, members in groupby(choices, key=lambda choice: choice.group):
        table = _table("word", "what it is")
        table.title, table.title_style, table.title_justify = group, "bold", "left"
        table.columns[0].style, table.columns[0].no_wrap = "cyan", True
        if group == "cell":
            table.add_column("parameters", justify="right")
            table.add_column("engine")
            table.add_column("paper")
            table.caption, table.caption_justify = f"parameters {AT}, without the head", "left"
        if group == "cell":
            _add_cells(table, list(members))
        else:
            for choice in members:
                table.add_row(choice.word, choice.summary)
        console.print(table, "")


def _add_cells(table: Table, choices: list[Choice]) -> None:
    """Cells under the names of their families."""
    for family in FAMILIES:
        members = [choice for choice in choices if dict(choice.facts)["family"] == family]
        if members:
            table.add_section()
            table.add_row(Text(family, style="bold not cyan"))
        for choice in members:
            facts = dict(choice.facts)
            table.add_row(
                choice.word, choice.summary, f"{facts['parameters']:,}", facts["engine"], facts["source"]
            )


def show_choice(choice: Choice) -> None:
    """One choice with its equations, facts and options."""
    console = screen()
    console.print(Text(choice.word, style="bold cyan"), Text(choice.summary), sep="\n")
    if choice.details:
        console.print(Text(f"\n{choice.details}"))
    facts = Table.grid(padding=(0, 2))
    for name, value in choice.facts:
        if name not in ("source", "published") and value != "":
            shown = f"{value:,} {AT}" if name == "parameters" else str(value)
            facts.add_row(Text(name, style="bold"), Text(shown))
    if facts.row_count:
        console.print("", facts)
    if published := dict(choice.facts).get("published"):
        table = _table("published on", "accuracy", "how", "where")
        for figure in published:
            table.add_row(figure["task"], f"{figure['accuracy']} %", figure["note"], figure["source"])
        console.print(table)
    if choice.options:
        table = _table("option", "default", "range", "what it does")
        table.columns[0].style, table.columns[0].no_wrap = "cyan", True
        for o in choice.options:
            table.add_row(f"{choice.group}.{o.name}", _as_typed(o.default), _range(o), o.help)
        console.print(table)


def _table(*columns: str) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)


def _as_typed(value: Any) -> str:
    """A value as one writes it on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _range(option: OptionFacts) -> str:
    return "true or false" if option.type == "bool" else option.range
