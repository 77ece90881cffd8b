"""Tables of the available choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from rnnclf.cells.base import FAMILIES
from rnnclf.console.keys import print_keys, room_for_words, show_key, two_columns
from rnnclf.console.screen import screen
from rnnclf.console.tables import PlainTable, facts_grid
from rnnclf.durations import roughly
from rnnclf.expectation import Expectation
from rnnclf.workflows.catalog import EXAMPLE_INPUTS, Choice
from rnnclf.workflows.keys import Key

ROOMY = 100  # columns

TESTED = "expected accuracy on the test split: mean ± standard deviation between seeds"
AT = f"at hidden=150 on {EXAMPLE_INPUTS} features"


def show_choices(choices: Sequence[Choice]) -> None:
    """Prints a table for each group; cells with their size, engines and source."""
    console = screen()
    for group, members in groupby(choices, key=lambda choice: choice.group):
        console.print(Rule(Text(group, style="bold"), align="left", style="dim"))
        if group == "cell":
            console.print(_cells(list(members), roomy=console.width >= ROOMY))
            console.print(Text(f"parameters {AT}, without the head", style="dim"), "", sep="\n")
        elif group == "experiment":
            console.print(_experiments(list(members), roomy=console.width >= ROOMY))
            console.print(Text(f"{TESTED}; time of one run", style="dim"), "", sep="\n")
        else:
            choices_of_group = list(members)
            widest = max(len(choice.word) for choice in choices_of_group)
            table = two_columns(min(widest, room_for_words(console)))
            for choice in choices_of_group:
                table.add_row(choice.word, choice.summary)
            console.print(table, "", sep="\n")


def _cells(choices: list[Choice], roomy: bool) -> Table:
    """Cells grouped by family; in a narrow terminal, their facts stand below what they are."""
    table = PlainTable("word", "what it is", *(("parameters", "engines", "paper") if roomy else ()))
    table.columns[0].style = "cyan"
    if roomy:
        table.columns[2].justify = "right"
    for family in FAMILIES:
        members = [choice for choice in choices if dict(choice.facts)["family"] == family]
        if members:
            table.add_section()
            table.add_row(Text(family, style="bold not cyan"))
        for choice in members:
            facts = dict(choice.facts)
            columns = [f"{facts['parameters']:,}", facts["engine"], facts["source"]]
            if roomy:
                table.add_row(choice.word, choice.summary, *columns)
            else:
                below = f"\n{columns[0]} parameters; engines {columns[1]}; {columns[2]}"
                table.add_row(choice.word, Text(choice.summary).append(below, style="dim"))
    return table


def _experiments(choices: list[Choice], roomy: bool) -> Table:
    """Experiments with what was measured; in a narrow terminal, the figures stand below the words."""
    table = PlainTable("word" if roomy else "word, accuracy, time", "what it is")
    table.columns[0].style = "cyan"
    if roomy:
        table.add_column("accuracy", no_wrap=True)
        table.add_column("time", no_wrap=True, justify="right")
    for choice in choices:
        plain = [found for found in choice.expected if not found.words]
        rows = [(choice.word, choice.summary, plain[0] if plain else None)]
        rows += [(f"  {found.words}", "", found) for found in choice.expected if found.words]
        for word, summary, found in rows:
            figures = (found.share, roughly(found.seconds)) if found else ("–", "")
            if roomy:
                table.add_row(word, summary, *figures)
            else:
                below = Text(", ".join(filter(None, figures)), style="not cyan dim")
                table.add_row(Text("\n").join([Text(word), below]), summary)
    return table


def _expected(found: Sequence[Expectation]) -> Table:
    """What was measured with an experiment."""
    table = PlainTable(*(("with",) if any(entry.words for entry in found) else ()))
    for title in ("accuracy", "seeds", "time"):
        table.add_column(title, no_wrap=True, justify="left" if title == "accuracy" else "right")
    table.add_column("on")
    for entry in found:
        measured = [entry.hardware, f"commit {entry.commit}" if entry.commit else ""]
        row = (entry.share, str(entry.seeds), roughly(entry.seconds), "; ".join(filter(None, measured)))
        table.add_row(*(entry.words, *row)[-len(table.columns) :])
    return table


def show_found(found: Choice | Key | list[Choice]) -> None:
    """Prints what `rnnclf show` was asked for."""
    if isinstance(found, list):
        show_choices(found)
    elif isinstance(found, Key):
        show_key(found)
    else:
        show_choice(found)


def show_choice(choice: Choice) -> None:
    """Prints one choice with its equations, facts and options."""
    console = screen()
    console.print(Text(choice.word, style="bold cyan"), Text(choice.summary), sep="\n")
    if choice.details:
        console.print(Text(f"\n{choice.details}"))
    facts = facts_grid()
    for name, value in choice.facts:
        if name not in ("source", "published") and value != "":
            shown = f"{value:,} {AT}" if name == "parameters" else str(value)
            facts.add_row(Text(name, style="bold"), Text(shown))
    if facts.row_count:
        console.print("", facts)
    if published := dict(choice.facts).get("published"):
        table = PlainTable("published on", "accuracy", "how", "where")
        for figure in published:
            table.add_row(figure["task"], f"{figure['accuracy']} %", figure["note"], figure["source"])
        console.print(table)
    if choice.expected:
        console.print("", Text(TESTED, style="bold"), _expected(choice.expected), sep="\n")
    if choice.options:
        console.print("", Text("options and their defaults", style="bold"), sep="\n")
        keys = [(replace(o, name=f"{choice.group}.{o.name}"), o.default) for o in choice.options]
        print_keys(console, keys, limits=True)
