"""What can be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.table import Table
from rich.text import Text

from rnnclf.console.screen import screen
from rnnclf.workflows.catalog import EXAMPLE_INPUTS, Choice


def show_choices(choices: Sequence[Choice]) -> None:
    """A table a group; cells with their size, engine and source."""
    console = screen()
    for group, members in groupby(choices, key=lambda choice: choice.group):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left")
        table.title, table.title_style = group, "bold"
        table.add_column("on the command line", no_wrap=True, style="cyan")
        table.add_column("what it is")
        if group == "cell":
            table.add_column("parameters", justify="right")
            table.add_column("engine")
            table.add_column("paper")
        for choice in members:
            facts = dict(choice.facts)
            extra = [f"{facts['parameters']:,}", facts["engine"], facts["source"]] if group == "cell" else []
            table.add_row(choice.word, choice.summary, *extra)
        console.print(table)
        if group == "cell":
            console.print(
                Text(
                    f"parameters: hidden=150 on {EXAMPLE_INPUTS} features, without the head\n",
                    style="dim",
                )
            )


def show_choice(choice: Choice) -> None:
    """One choice with its equations, facts and options."""
    console = screen()
    console.print(Text(choice.word, style="bold cyan"))
    console.print(Text(choice.summary))
    if choice.details:
        console.print(Text("\n" + choice.details))
    for name, value in choice.facts:
        if name != "source" and value != "":
            shown = (
                f"{value:,} at hidden=150 on {EXAMPLE_INPUTS} features"
                if name == "parameters"
                else str(value)
            )
            console.print(
                Text(f"\n{name:<12}" if name == "parameters" else f"{name:<12}", style="bold").append(
                    shown, style="not bold"
                )
            )
    if choice.options:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for column in ("option", "default", "range", "what it does"):
            table.add_column(column, no_wrap=column == "option")
        for o in choice.options:
            key = Text(f"{choice.group}.{o.name}", style="cyan")
            default = (
                "null"
                if o.default is None
                else str(o.default).lower()
                if isinstance(o.default, bool)
                else str(o.default)
            )
            table.add_row(key, default, o.range or ("true or false" if o.type == "bool" else ""), o.help)
        console.print(table)
