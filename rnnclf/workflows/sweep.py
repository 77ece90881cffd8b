"""The ranking of the jobs of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnclf.metrics import METRICS
from rnnclf.workflows.runs import RunFolder, write_csv
from rnnclf.workflows.sweep_folder import jobs_of, listed_jobs, sweep_table

REASONS = {
    "waiting": "not started",
    "running": "another process is running it",
    "lost": "its process ended without reporting",
    "missing": "its folder is gone",
}


@dataclass(frozen=True)
class SweepRow:
    """One job: its overrides and its outcome."""

    job: int
    overrides: list[str]
    state: str
    results: dict[str, Any]
    """The content of results.json, empty if the job did not finish."""
    error: str
    log: str
    """The path of its log; empty if there is none."""

    @property
    def done(self) -> bool:
        return self.state == "done" and bool(self.results)


def rank_sweep(folder: Path) -> list[SweepRow]:
    """The jobs of a sweep, best validation accuracy first, then those that did not finish.

    Jobs are never ranked by test accuracy: the winner would then be chosen by the data that it is judged on.
    Also writes the table to sweep.csv in the folder.
    """
    words: dict[int | None, list[str]] = {job.number: job.record["overrides"] for job in listed_jobs(folder)}
    rows = [_row(run, words.get(run.number, [])) for run in jobs_of(folder)]
    rows.sort(key=_rank)
    if rows:
        write_csv(sweep_table(folder), [_flat(rank, row) for rank, row in enumerate(rows, start=1)])
    return rows


def _row(run: RunFolder, words: list[str]) -> SweepRow:
    assert run.number is not None
    status, state = run.read_status(), run.state()
    return SweepRow(
        job=run.number,
        overrides=[str(word) for word in status.get("overrides", words)],
        state=state,
        results=run.read_results() if state == "done" else {},
        error=status.get("error", REASONS.get(state, "")) if state != "done" else "",
        log=str(run.log) if run.log.is_file() else "",
    )


def _rank(row: SweepRow) -> tuple[bool, float, float, int]:
    if not row.done:
        return True, 0.0, 0.0, row.job
    validation = row.results["validation"]
    return False, -validation["accuracy"], validation["loss"], row.job


def _flat(rank: int, row: SweepRow) -> dict[str, Any]:
    done = row.results if row.done else {}
    test = done.get("test", {})
    low, high = test.get("interval95", (None, None))
    return {
        "rank": rank if row.done else None,
        "job": row.job,
        "overrides": " ".join(row.overrides),
        "state": row.state,
        "validation_accuracy": done.get("validation", {}).get("accuracy"),
        "test_accuracy": test.get("accuracy"),
        "test_low": low,
        "test_high": high,
        **{f"test_{metric.key}": test.get(metric.key) for metric in METRICS},
        "test_loss": test.get("loss"),
        "parameters": done.get("parameters"),
        "best_epoch": done.get("best_epoch"),
        "seconds": done.get("total_seconds"),
        "error": row.error,
    }
