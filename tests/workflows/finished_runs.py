"""Folders of runs that are done, with their predictions, written without training anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rnnclf.metrics import Evaluation
from rnnclf.workflows.runs import RunFolder

PICTURE = {"picture": "8 × 8 × 1", "sequence": "rows", "patch": None, "permutation": "none"}


def finished_run(
    path: Path,
    right: Sequence[bool],
    *,
    seed: int = 0,
    validation: float = 0.8,
    data: str = "digits",
    fingerprint: str = "f" * 64,
    reading: dict[str, Any] | None = None,
    protocol: str = "standard",
    dataset: dict[str, Any] | None = None,
    classes: tuple[str, ...] = ("a", "b"),
    ids: Sequence[Any] | None = None,
    predictions: bool = True,
    started: float = 0.0,
    baseline: str | None = None,
    **options: Any,
) -> Path:
    """A run that classified its test sequences rightly where `right` says so.

    options: keys of its configuration; cell is the name of one.
    """
    right_N, n = np.array(right, dtype=bool), len(right)
    run = RunFolder(path)
    path.mkdir(parents=True)
    cell = {"name": options.pop("cell", "gru"), "hidden_size": 8}
    dataset = {"name": "digits", "folds": None, "fold": 0, "split_seed": 0, **(dataset or {})}
    plain = {
        "cell": cell,
        "hidden": 8,
        "epochs": 3,
        "seed": seed,
        "threads": 1,
        "dataset": dataset,
        **options,
    }
    _write(
        run.status,
        {"state": "done", "started": started, "overrides": [f"seed={seed}"], "configuration": plain},
    )
    correct = int(right_N.sum())
    score = {"accuracy": correct / n, "correct": correct, "total": n, "interval95": [0.1, 0.9], "loss": 0.5}
    results = {
        **{"cell": cell["name"], "dataset": dataset["name"], "data": data, "hidden": 8, "parameters": 467},
        **{"protocol": protocol, "reading": PICTURE | (reading or {}), "seed": seed, "epochs": 3},
        **{"best_epoch": 1, "total_seconds": 2.0, "train": score, "test": score},
        "validation": {**score, "accuracy": validation},
        **({} if baseline is None else {"baseline": baseline}),
    }
    _write(run.results, results)
    _write(run.provenance, {"data_fingerprint": fingerprint})
    if predictions:
        write_answers(run.predictions, answers(right_N, classes, ids))
    return path


def write_answers(path: Path, found: Evaluation) -> None:
    """The columns of predictions.parquet that are needed here."""
    classes = np.array(found.classes, dtype=object)
    columns = {"split": ["test"] * len(found), "id": found.ids_N.tolist()}
    columns |= {"label": classes[found.y_N].tolist(), "predicted": classes[found.predicted_N].tolist()}
    pl.DataFrame(columns).write_parquet(path)


def answers(
    right_N: Any, classes: tuple[str, ...] = ("a", "b"), ids: Sequence[Any] | None = None
) -> Evaluation:
    """Predictions of sequences whose classes take turns; a wrong one is taken for the next class."""
    n, k = len(right_N), len(classes)
    y_N = np.arange(n) % k
    predicted_N = np.where(right_N, y_N, (y_N + 1) % k)
    ids_N = np.arange(n) if ids is None else np.array(ids)
    ids_N = ids_N.astype(object) if ids_N.dtype.kind == "U" else ids_N
    return Evaluation(classes, y_N, np.eye(k, dtype=np.float32)[predicted_N], ids_N)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def share(part: float, n: int = 100, first: int = 0) -> list[bool]:
    """So large a part of n sequences, those from `first` on."""
    chosen = {(first + number) % n for number in range(round(part * n))}
    return [number in chosen for number in range(n)]


def rewrite(path: Path, **changes: Any) -> None:
    """Changes keys of a JSON file."""
    _write(path, json.loads(path.read_text()) | changes)
