"""Folders of sweeps whose jobs are done, written without training anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnclf.files import write_json
from rnnclf.metrics import Evaluation
from rnnclf.workflows.predictions import write_predictions
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.sweep_folder import ListedJob, list_jobs


class Done(NamedTuple):
    """A job, and how it ended."""

    words: Sequence[str]
    validation: float
    test: float
    warnings: Sequence[str] = ()
    error: str = ""
    ids: Mapping[str, Sequence[int]] = {}
    """The ids of the sequences of each split whose predictions are saved; the even ones are right."""


def finished_sweep(folder: Path, *jobs: Done) -> Path:
    """A sweep of these jobs."""
    folder.mkdir()
    listed = [_job(folder, number, job) for number, job in enumerate(jobs)]
    list_jobs(folder, listed)
    return folder


def _job(sweep: Path, number: int, job: Done) -> ListedJob:
    given = dict(word.split("=", 1) for word in job.words)
    folds = given.get("dataset.folds")
    dataset = {"folds": folds and int(folds), "fold": int(given.get("dataset.fold", 0))}
    plain = {"seed": int(given.get("seed", 0)), "dataset": dataset, "cell": {"name": given.get("cell")}}
    record = {"overrides": list(job.words), "config": str(number), "configuration": plain}
    run = RunFolder(sweep / str(number), number)
    run.path.mkdir()
    write_json(run.status, {"state": "failed" if job.error else "done", "error": job.error, **record})
    if not job.error:
        write_json(run.results, _results(given, job))
    if job.ids:
        write_predictions(run.predictions, {split: _evaluation(ids) for split, ids in job.ids.items()})
    return ListedJob(number, str(number), record)


def _results(given: Mapping[str, str], job: Done) -> dict[str, Any]:
    def score(accuracy: float) -> dict[str, Any]:
        return {
            **{"accuracy": accuracy, "correct": round(100 * accuracy), "total": 100, "loss": 1 - accuracy},
            "interval95": [accuracy - 0.1, accuracy + 0.1],
        }

    return {
        **{"cell": "gru", "dataset": "x", "data": given.get("dataset", "x"), "hidden": 8, "parameters": 467},
        **{"protocol": "standard", "seed": 0, "epochs": 1, "best_epoch": 1, "total_seconds": 2.0},
        **{"train": score(0.9), "validation": score(job.validation), "test": score(job.test)},
        "warnings": list(job.warnings),
    }


def _evaluation(ids: Sequence[int]) -> Evaluation:
    predicted_N = np.array(ids) % 2
    return Evaluation(
        ("a", "b"), np.zeros(len(ids), np.int64), np.eye(2, dtype=np.float32)[predicted_N], np.array(ids)
    )
