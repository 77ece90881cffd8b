"""Tables of the available choices."""

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
from rnnclf.workflows.keys import Key

ROOMY = 100  # columns

AT = f"at hidden=150 on {EXAMPLE_INPUTS} features"


def show_choices(choices: Sequence[Choice]) -> None:
    """Prints a table for each group; cells with their size, engines and source."""
    console = screen()
    for group, members in groupby(choices, key=lambda choice: choice.group):
        if group == "cell":
            table = _cells(list(members), roomy=console.width >= ROOMY)
        else:
            table = _table("word", "what it is")
            for choice in members:
                table.add_row(choice.word, choice.summary)
        table.title, table.title_style, table.title_justify = group, "bold", "left"
        table.columns[0].style, table.columns[0].no_wrap = "cyan", True
        console.print(table, "")


def _cells(choices: list[Choice], roomy: bool) -> Table:
    """Cells grouped by family, one per line; with descriptions if the terminal is wide enough."""
    table = _table("word", *(["what it is"] if roomy else []), "parameters", "engines", "paper")
    table.columns[2 if roomy else 1].justify = "right"
    for family in FAMILIES:
        members = [choice for choice in choices if dict(choice.facts)["family"] == family]
        if members:
            table.add_section()
            table.add_row(Text(family, style="bold not cyan"))
        for choice in members:
            facts = dict(choice.facts)
            summary = [choice.summary] if roomy else []
            size = f"{facts['parameters']:,}"
            table.add_row(choice.word, *summary, size, facts["engine"], facts["source"])
    table.caption, table.caption_justify = f"parameters {AT}, without the head", "left"
    return table


def show_found(found: Choice | Key | list[Choice]) -> None:
    """Prints what `rnnclf show` was asked for."""
    if isinstance(found, list):
        show_choices(found)
    elif isinstance(found, Key):
        show_key(found)
    else:
        show_choice(found)


def show_key(key: Key) -> None:
    """Prints the meaning, default and range of a key, for each component where they differ."""
    console = screen()
    console.print(Text(key.name, style="bold cyan"))
    group = key.name.partition(".")[0]
    said = ""
    for variant in key.variants:
        facts = variant.facts
        if facts.help != said:
            console.print(Text(f"{facts.help[0].upper()}{facts.help[1:]}."), "", sep="\n")
        said = facts.help
        lines = Table.grid(padding=(0, 2))
        lines.add_row(Text("default", style="bold"), Text(as_typed(facts.default)))
        lines.add_row(Text("allowed", style="bold"), Text(_allowed(facts)))
        if variant.components:
            lines.add_row(Text("with", style="bold"), Text(f"{group}= {', '.join(variant.components)}"))
        console.print(lines, "", sep="\n")
    first = key.variants[0]
    default = as_typed(first.facts.default)
    word = f"{key.name}={'VALUE' if default in ('null', '[]') else default}"
    of = f" {group}={first.components[0]}" if first.components else ""
    console.print(Text.assemble(("typed as ", "dim"), (f"rnnclf train{of} {word}", "cyan")), soft_wrap=True)


def show_choice(choice: Choice) -> None:
    """Prints one choice with its equations, facts and options."""
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
            table.add_row(f"{choice.group}.{o.name}", as_typed(o.default), _range(o), o.help)
        console.print(table)


def _table(*columns: str) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)


def as_typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _allowed(option: OptionFacts) -> str:
    """The allowed values in words: 'a whole number, at least 1'."""
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    types = option.type.split(" | ")
    if "str" in types and option.range and len(types) == 1:
        return option.range
    named = [kinds.get(name, "names such as [a,b]") for name in types if name != "None"]
    if "float" in types:
        named = [name for name in named if name != "a whole number"]
    limits = f", {option.range}" if option.range else ""
    return f"{' or '.join(named)}{limits}{'; or null' if 'None' in types else ''}"


def _range(option: OptionFacts) -> str:
    return "true or false" if option.type == "bool" else option.range
