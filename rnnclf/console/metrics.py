"""Tables of metrics. The metrics and their formats are defined in rnnclf/metrics.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from rnnclf.console.tables import PlainTable
from rnnclf.workflows.metric_rows import GUESSING as GUESSING
from rnnclf.workflows.metric_rows import calibrated as calibrated
from rnnclf.workflows.metric_rows import explained as explained
from rnnclf.workflows.metric_rows import metric_rows, of_recordings


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
    rows = metric_rows(scores)
    title, accuracies = next(rows)
    styles = map(accuracy_style, scores.values())
    table.add_row(title, *(Text(text, style=style) for text, style in zip(accuracies, styles, strict=True)))
    for title, cells in rows:
        table.add_row(title, *cells)
    return table


def recordings_in_words(score: Mapping[str, Any]) -> str:
    """The scores of the recordings in one line; '' if the sequences are no windows."""
    found = of_recordings(score.get("recordings", {}))
    return "; ".join(f"{title} {text}" for title, text in found.items())
