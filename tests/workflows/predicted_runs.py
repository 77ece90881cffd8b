"""Folders of runs that are done, with predictions and a checkpoint, written without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnnclf import checkpoint
from rnnclf.checkpoint import header_of
from rnnclf.metrics import Evaluation
from rnnclf.workflows.predictions import write_predictions
from rnnclf.workflows.runs import RunFolder
from tests.workflows.finished_runs import finished_run, rewrite

CLASSES = ("a", "b", "c")


def predicted_run(
    path: Path,
    logits: dict[str, np.ndarray],
    classes: Sequence[str] = CLASSES,
    ids: dict[str, Sequence[Any]] | None = None,
    recordings: dict[str, Sequence[Any]] | None = None,
    channels: Sequence[str] = ("x",),
    **options: Any,
) -> Path:
    """A run with these logits (N, K) for each split; the classes of the sequences take turns.

    options: as in `finished_run`.
    """
    found = {}
    for split, logits_NK in logits.items():
        n = len(logits_NK)
        ids_N = np.array((ids or {}).get(split, range(n)))
        recordings_N = None if recordings is None else np.array(recordings[split])
        y_N = np.arange(n) % len(classes)
        found[split] = Evaluation(tuple(classes), y_N, logits_NK.astype(np.float32), ids_N, recordings_N)
    accuracy = found["validation"].score.accuracy
    finished_run(path, [True], validation=accuracy, classes=tuple(classes), predictions=False, **options)
    run = RunFolder(path)
    scores = {split: evaluation.to_dict() for split, evaluation in found.items()}
    rewrite(run.results, **scores)
    write_predictions(run.predictions, found)
    save_checkpoint(run.best, classes, channels, str(path))
    return path


def save_checkpoint(file: Path, classes: Sequence[str], channels: Sequence[str], name: str) -> None:
    """A sound checkpoint without weights, which no other name has."""
    header = header_of(
        **{"config": {"name": name}, "classes": classes, "input_size": 1, "steps": 5, "epoch": 1},
        **{"preparation": {"channels": list(channels)}, "reading": {}, "fingerprint": "f" * 64},
        **{"engine": {}, "metrics": {}},
    )
    checkpoint.save(file, header, {})


def drawn(seed: int, n: int = 60, right: float = 1.5, k: int = len(CLASSES)) -> np.ndarray:
    """Logits (N, K) that lean towards the true class."""
    rng = np.random.default_rng(seed)
    logits_NK = rng.normal(size=(n, k))
    logits_NK[np.arange(n), np.arange(n) % k] += right
    return logits_NK


def splits(seed: int, right: float = 1.5) -> dict[str, np.ndarray]:
    return {"validation": drawn(seed, right=right), "test": drawn(seed + 1000, 90, right)}
