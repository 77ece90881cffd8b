"""Tables of metrics. The metrics and their formats are defined in rnnclf/metrics.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from rnnclf.console.screen import interval
from rnnclf.console.tables import PlainTable
from rnnclf.metrics import METRICS, four_digits, percent

GUESSING = "guessing: the accuracy of always predicting the most frequent class"


def accuracy_style(score: Mapping[str, Any]) -> str:
    """Green only for an accuracy that is clearly better than guessing."""
    guessing = score.get("commonest_rate")  # older runs have none
    better = guessing is None or score["interval95"][0] > guessing
    return "bold green" if better else "bold yellow"


def metrics_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """A column for each split, a row for each metric; `scores` holds the splits as in results.json."""
    table = PlainTable()
    table.add_column("")
    for name in scores:
        table.add_column(name, justify="right", no_wrap=True)
    columns = list(scores.values())
    accuracies = [Text(percent(score["accuracy"]), style=accuracy_style(score)) for score in columns]
    table.add_row("accuracy", *accuracies)
    table.add_row("95 % interval", *(interval(score["interval95"]) for score in columns))
    table.add_row("correct", *(f"{score['correct']:,} of {score['total']:,}" for score in columns))
    for metric in METRICS:
        table.add_row(metric.title, *(metric.of(score) for score in columns))
    table.add_row("log loss", *(four_digits(score["loss"]) for score in columns))
    return table
