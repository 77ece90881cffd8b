"""`rnnclf train --help`: the groups of choices, and every key with its value and meaning."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from rnnclf.console.keys import print_keys, room_for_words, two_columns
from rnnclf.console.screen import print_json, screen
from rnnclf.workflows.keys import Section

INTRODUCTION = """\
Trains one recurrent classifier, or with -m one for each combination of values.

  rnnclf train cell=lstm hidden=100 dataset=digits
  rnnclf train -m cell=basic,lstm,gru hidden=50,150
  rnnclf train -m cell=lstm,gru seeds=5
  rnnclf train my.csv folds=5
  rnnclf train experiment=tutorial
"""
END = """\
rnnclf show KEY explains a key and its range, rnnclf show NAME a choice, such as lstm.
seeds=8 trains with eight seeds, folds=5 cross-validates: each is one line of the table at the end.
Flags: -m sweeps over all combinations of comma-separated values, --cfg job prints the configuration,
-cd DIR adds a folder of YAML files, --json prints the results as JSON; all others: --hydra-help."""


def show_train_help(groups: Sequence[tuple[str, list[str]]], sections: Sequence[Section]) -> None:
    console = screen()
    console.print(INTRODUCTION)
    _print_title(console, "choices", "rnnclf list explains them")
    table = two_columns(room_for_words(console))
    for group, names in groups:
        table.add_row(f"{group}=", ", ".join(names))
    console.print(Padding(table, (0, 0, 1, 2)))
    for section in sections:
        _print_title(console, section.title, "" if section.keys else "no keys")
        print_keys(console, section.keys)
    console.print(END)


def _print_title(console: Console, title: str, remark: str) -> None:
    console.print(Text.assemble((title, "bold"), (f"  {remark}" if remark else "", "dim")))


def explain_train(words: list[str], json: bool) -> None:
    """Prints all keys of `rnnclf train`, with the values that these words give to them."""
    from rnnclf.workflows.catalog import groups_and_names
    from rnnclf.workflows.keys import sections

    found = sections([word for word in words if not word.startswith("tracker=")])
    if json:
        print_json([section.to_dict() for section in found])
    else:
        show_train_help(groups_and_names(), found)
