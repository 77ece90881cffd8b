"""Keys of the configuration: one with all its facts, or many with their values and meanings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rnnclf.console.screen import screen
from rnnclf.console.tables import facts_grid
from rnnclf.options import OptionFacts
from rnnclf.workflows.keys import Key

WIDEST_WORD = 30  # columns of `key=value`; a longer one takes a line of its own
NARROW = 70  # columns of a terminal in which words get less room


def room_for_words(console: Console) -> int:
    return WIDEST_WORD if console.width >= NARROW else 20


def two_columns(width: int) -> Table:
    """Words of up to `width` columns on the left, what they mean on the right."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", overflow="fold", width=width)
    table.add_column(overflow="fold")
    return table


def print_keys(console: Console, keys: Iterable[tuple[OptionFacts, Any]], limits: bool = False) -> None:
    """Lines of `key=value` and meaning, with the range of the key if `limits` is set.

    A long `key=value` has its meaning in the next line, as in manual pages.
    """
    room = room_for_words(console)
    table = two_columns(room)
    for facts, value in keys:
        word = f"{facts.name}={'' if facts.required and value is None else as_typed(value)}"
        if len(word) > room:
            console.print(Padding(table, (0, 0, 0, 2)))
            console.print(Padding(Text(word, style="cyan", overflow="fold"), (0, 0, 0, 2)))
            table, word = two_columns(room), ""
        meaning = Text("required: " if facts.required else "", style="bold")
        meaning.append(facts.help, style="not bold")
        if limits and (said := _limits(facts)):
            meaning.append(f" ({said})", style="not bold dim")
        table.add_row(word, meaning)
    console.print(Padding(table, (0, 0, 1, 2)))


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
        lines = facts_grid()
        lines.add_row(
            Text("default", style="bold"),
            Text("none: required" if facts.required else as_typed(facts.default)),
        )
        lines.add_row(Text("allowed", style="bold"), Text(_allowed(facts)))
        if variant.components:
            lines.add_row(Text("with", style="bold"), Text(f"{group}= {', '.join(variant.components)}"))
        console.print(lines, "", sep="\n")
    console.print(Text.assemble(("typed as ", "dim"), (_example(key), "cyan")), soft_wrap=True)


def _example(key: Key) -> str:
    first = key.variants[0]
    default = as_typed(first.facts.default)
    of = f" {key.name.partition('.')[0]}={first.components[0]}" if first.components else ""
    return f"rnnclf train{of} {key.name}={'VALUE' if default in ('null', '[]') else default}"


def as_typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, float) and value.is_integer() and 10 <= value < 1e15:  # counts, such as 5000
        return str(int(value))
    return str(value).replace("'", "").replace(" ", "") if isinstance(value, list) else str(value)


def _allowed(facts: OptionFacts) -> str:
    """The allowed values in words: 'a whole number, at least 1'."""
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    types = facts.type.split(" | ")
    if types == ["str"] and facts.range:
        return facts.range
    named = [kinds.get(name, "names such as [a,b]") for name in types if name != "None"]
    if "float" in types:
        named = [name for name in named if name != "a whole number"]
    null = "; or null" if "None" in types and not facts.required else ""
    return f"{' or '.join(named)}{f', {facts.range}' if facts.range else ''}{null}"


def _limits(facts: OptionFacts) -> str:
    """The range, unless the meaning names all the allowed words itself."""
    words = facts.range.replace(" or ", ", ").split(", ")
    return "" if all(word in facts.help for word in words) else facts.range
