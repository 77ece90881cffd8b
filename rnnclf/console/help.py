"""`rnnclf train --help`: the groups of choices, and every key with its value and meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rnnclf.console.catalog import as_typed
from rnnclf.console.screen import screen
from rnnclf.options import OptionFacts
from rnnclf.workflows.keys import Section

INTRODUCTION = """\
Trains one recurrent classifier, or with -m one for each combination of values.

  rnnclf train cell=lstm hidden=100 dataset=digits
  rnnclf train -m cell=basic,lstm,gru hidden=50,150
  rnnclf train experiment=tutorial
"""
END = """\
rnnclf show KEY explains a key and its range, rnnclf show NAME a choice, such as lstm.
Flags: -m sweeps over all combinations of comma-separated values, --cfg job prints the configuration,
-cd DIR adds a folder of YAML files, --json prints the results as JSON; all others: --hydra-help."""
WIDEST_WORD = 30  # columns of `key=value`; a longer one takes a line of its own


def show_train_help(groups: Sequence[tuple[str, list[str]]], sections: Sequence[Section]) -> None:
    console = screen()
    console.print(INTRODUCTION)
    _print_title(console, "choices", "rnnclf list explains them")
    table = _two_columns()
    for group, names in groups:
        table.add_row(f"{group}=", ", ".join(names))
    console.print(Padding(table, (0, 0, 1, 2)))
    for section in sections:
        _print_title(console, section.title, "" if section.keys else "no keys")
        _print_keys(console, section.keys)
    console.print(END)


def _print_title(console: Console, title: str, remark: str) -> None:
    console.print(Text.assemble((title, "bold"), (f"  {remark}" if remark else "", "dim")))


def _print_keys(console: Console, keys: Sequence[tuple[OptionFacts, Any]]) -> None:
    """Lines of `key=value` and meaning. A long one has its meaning below it, as manual pages do."""
    table = _two_columns()
    for facts, value in keys:
        word = f"{facts.name}={as_typed(value)}"
        if len(word) > WIDEST_WORD:
            console.print(Padding(table, (0, 0, 0, 2)))
            console.print(Padding(Text(word, style="cyan", overflow="fold"), (0, 0, 0, 2)))
            table, word = _two_columns(), ""
        table.add_row(word, Text(facts.help))
    console.print(Padding(table, (0, 0, 1, 2)))


def _two_columns() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True, min_width=WIDEST_WORD)
    table.add_column(overflow="fold")
    return table
