"""What became of the jobs of a sweep, best first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnclf.metrics import METRICS
from rnnclf.workflows.runs import RunFolder, jobs_of, sweep_table, write_csv

REASONS = {
    "waiting": "not begun",
    "running": "another process works on it",
    "lost": "its process ended without a word",
}


@dataclass(frozen=True)
class SweepRow:
    """One job: what it was, what came of it."""

    job: int
    overrides: list[str]
    state: str
    results: dict[str, Any]
    """The content of results.json, empty where the job did not finish."""
    error: str
    log: str
    """The path of its log, where there is one."""

    @property
    def done(self) -> bool:
        return self.state == "done" and bool(self.results)


def rank_sweep(folder: Path) -> list[SweepRow]:
    """The jobs of a sweep, best validation accuracy first, then those that did not finish.

    Validation ranks, never test: the winner would otherwise be chosen by the data that judge it.
    Also writes the table to the folder's sweep.csv.
    """
    rows = [_row(run) for run in jobs_of(folder)]
    rows.sort(key=_rank)
    if rows:
        write_csv(sweep_table(folder), [_flat(rank, row) for rank, row in enumerate(rows, start=1)])
    return rows


def _row(run: RunFolder) -> SweepRow:
    status = run.read_status()
    state = status.get("state", "lost")
    if state == "running" and not run.busy():  # nobody writes its end any more
        state = "lost"
    return SweepRow(
        job=int(run.path.name),
        overrides=[str(word) for word in status.get("overrides", [])],
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
