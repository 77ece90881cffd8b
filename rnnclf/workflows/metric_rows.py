"""The metrics of a run as text: the rows of its table, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rnnclf.metrics import METRICS, four_digits, interval, percent

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


def metric_rows(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """The title of each metric and its value in each split; `scores` holds the splits as in results.json."""
    columns = list(scores.values())
    yield "accuracy", [percent(score["accuracy"]) for score in columns]
    yield "95 % interval", [interval(score["interval95"]) for score in columns]
    yield "correct", [f"{score['correct']:,} of {score['total']:,}" for score in columns]
    for metric in METRICS:
        yield metric.title, [metric.of(score) for score in columns]
    if all("loss" in score for score in columns):
        yield "log loss", [four_digits(score["loss"]) for score in columns]
    found = [of_recordings(score.get("recordings", {})) for score in columns]
    for title in {title: None for rows in found for title in rows}:
        yield title, [rows.get(title, "–") for rows in found]


def of_recordings(score: Mapping[str, Any]) -> dict[str, str]:
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
