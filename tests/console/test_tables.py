"""Nothing is lost in a narrow terminal: what does not fit is wrapped."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rnnclf.conformance.verdict import Verdict
from rnnclf.console.bench import benchmark_table
from rnnclf.console.catalog import show_choice, show_choices
from rnnclf.console.conformance import show_verdicts
from rnnclf.console.evaluation import show_evaluation
from rnnclf.console.keys import show_key
from rnnclf.console.screen import SafeConsole
from rnnclf.console.sweep import sweep_table
from rnnclf.console.tables import PlainTable
from rnnclf.hydra_app import load_config
from rnnclf.metrics import Evaluation
from rnnclf.workflows.bench import Benchmark
from rnnclf.workflows.catalog import list_choices
from rnnclf.workflows.evaluate import Evaluated
from rnnclf.workflows.keys import keys_named
from rnnclf.workflows.sweep import ranked
from tests.console.test_bench import MACHINE, ROWS
from tests.console.test_console import row
from tests.workflows.small_bench import SMALL

WIDE = 400  # columns, at which nothing is wrapped


def letters(text: str) -> Counter[str]:
    """How often each visible character occurs, but those of which lines are drawn."""
    return Counter(char for char in text if not char.isspace() and char not in "─│╭╮╰╯━╸")


def evaluated() -> list[Evaluated]:
    names = ("a class with quite a long name", "b", "c")
    true_N = np.arange(3).repeat(5)
    logits_NK = np.eye(3, dtype=np.float32)[(true_N + (np.arange(15) % 4 == 0)) % 3]
    found = Evaluation(names, true_N, logits_NK, np.arange(15))
    config = load_config(["dataset=digits"])
    return [
        Evaluated(
            Path(f"outputs/{name}/best.safetensors"),
            config,
            config.cell.name,
            config.hidden,
            1234,
            3,
            "test",
            found,
            0.5,
            None,
            False,
        )
        for name in ("one", "a-run-with-a-very-long-name-of-its-own")
    ]


VERDICTS = [
    Verdict("a long claim about all cells " * 4, "broken", "for some reason " * 8),
    Verdict("b", "kept", ""),
]


def show_everything(console: Console, results: list[Evaluated], cells: list, keys: list) -> None:
    rows = [row(0, "cell=gru", "epochs=3"), row(1, "cell=lstm", "epochs=3", "optimizer.lr=0.001")]
    console.print(sweep_table(ranked(rows), console.width))
    console.print(benchmark_table(Benchmark(SMALL, MACHINE, ROWS), console.width))
    show_choices(cells)
    for choice in cells:
        show_choice(choice)
    for key in keys:
        show_key(key)
    show_verdicts("mine", VERDICTS)
    show_evaluation(results[:1], Path("outputs"))
    show_evaluation(results, Path("outputs"))


@pytest.fixture(scope="module")
def shown():
    """Everything that commands print, by the width of the terminal."""
    results = evaluated()
    cells = [
        *list_choices("cell"),
        *list_choices("dataset"),
        *list_choices("experiment"),
        *list_choices("metric"),
    ]
    keys = [key for word in ("lr", "dt", "epochs", "missing") for key in keys_named(word)]
    texts = {}
    with pytest.MonkeyPatch.context() as patch:
        for width in (60, 80, WIDE):
            file = io.StringIO()
            for module in ("catalog", "conformance", "evaluation", "keys"):
                patch.setattr(
                    f"rnnclf.console.{module}.screen", lambda w=width, f=file: SafeConsole(width=w, file=f)
                )
            show_everything(SafeConsole(width=width, file=file), results, cells, keys)
            texts[width] = file.getvalue()
    return texts


@pytest.mark.long
@pytest.mark.parametrize("width", [60, 80])
def test_every_table_says_in_a_narrow_terminal_what_it_says_in_a_wide_one(shown, width):
    assert not letters(shown[WIDE]) - letters(shown[width])
    assert shown[width].count("…") == shown[WIDE].count("…")  # in texts such as `t0, t1 …`


@pytest.mark.parametrize("width", [30, 40])
def test_a_column_kept_on_one_line_is_wrapped_where_there_is_no_room_for_it(width):
    table = PlainTable("first", "second")
    table.add_column("third and more", no_wrap=True)
    cells = ("words " * 5, "anunbrokenwordthatislong", "97.90 – 98.46 and a long rest")
    table.add_row(*cells)
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    text = console.file.getvalue()
    assert letters("".join(cells)) <= letters(text)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_columns_that_fit_no_more_are_wrapped_at_every_width():
    def at(width: int) -> Counter[str]:
        table = PlainTable()
        for title in ("one", "two", "three", "four"):
            table.add_column(title, no_wrap=True)
        table.add_row("0123456789", "abcdefghij", "klmnopqrst", "ABCDEFGHIJ")
        console = SafeConsole(width=width, file=io.StringIO())
        console.print(table)
        return letters(console.file.getvalue())

    assert all(at(width) == at(WIDE) for width in range(30, 70))
