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

WINDOWS = "windows of one recording are alike, so their interval is too narrow: judge by the recordings"


def explained(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """What words in the table of these scores mean."""
    return f"{GUESSING}\n{WINDOWS}" if any("recordings" in score for score in scores.values()) else GUESSING


def calibrated(found: Mapping[str, Any], final_fit: bool) -> str:
    """How the probabilities come about, from the calibration of a model without its scores."""
    where = f"{found['sequences']:,} validation sequences" + (" before the final fit" if final_fit else "")
    if found["temperature"] == 1:
        return f"probabilities as the model gives them: no temperature helped on {where}"
    before, after = (four_digits(found[f"ece_{when}"]) for when in ("before", "after"))
    fitted = f"fitted on {where} (calibration error {before} → {after})"
    return f"probabilities at temperature {found['temperature']:g}, {fitted}"


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
    found = [_of_recordings(score.get("recordings", {})) for score in columns]
    for title in {title: None for rows in found for title in rows}:
        table.add_row(title, *(rows.get(title, "–") for rows in found))
    return table


def _of_recordings(score: Mapping[str, Any]) -> dict[str, str]:
    """The rows of the table for the recordings that windows were cut from, by title."""
    if "accuracy" in score:
        spread = score["accuracy"]
        return {
            "recordings": f"{score['count']:,}",
            "their mean accuracy": percent(spread["mean"]),
            "lowest to highest": interval((spread["lowest"], spread["highest"])),
        }
    if "by_votes" not in score:
        return {}
    whole, votes = score["by_probability"], score["by_votes"]
    return {
        "recordings, by mean probability": percent(whole["accuracy"]),
        "their 95 % interval": interval(whole["interval95"]),
        "recordings correct": f"{whole['correct']:,} of {whole['total']:,}",
        "recordings, by votes": percent(votes["accuracy"]),
    }


def recordings_in_words(score: Mapping[str, Any]) -> str:
    """The scores of the recordings in one line; '' if the sequences are no windows."""
    found = _of_recordings(score.get("recordings", {}))
    return "; ".join(f"{title} {text}" for title, text in found.items())
